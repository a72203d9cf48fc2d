"""A server as a process of its own, started and watched by whoever needs it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import PolicyError

# What a launcher of ranks has told this process is not for a server.
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
_SECONDS_TO_END = 30.0


class StartFailed(PolicyError):
    """A server that could not start, and said so, or took too long: another try would end likewise."""


class WatchedProcess(ABC):
    """A server's command in a session of its own, so that Ctrl-C is for whoever started it, who says when it ends.
    Where the server listens it says itself, in a line that a subclass knows."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        """
        Args:
            log: file of what it prints; what is there is replaced.
            environment: variables it gets besides this process's.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env={**inherited, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @abstractmethod
    def _address(self, line: str) -> str | None:
        """The server's root, where this line of what it printed names it; else None."""

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def url(self, timeout_s: float) -> str:
        """Wait until it answers; its root, such as "http://127.0.0.1:40123".

        Raises:
            StartFailed: it ended by itself, or did not answer in time; it is gone then.
            PolicyError: it was killed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            for line in self._told().splitlines():
                address = self._address(line)
                if address is not None:
                    return address
            if not self.is_alive:
                killed = (self._process.poll() or 0) < 0
                told = f"the server {'was killed' if killed else 'could not start'}: {self.last_words()}"
                raise PolicyError(told) if killed else StartFailed(told)
            if time.monotonic() > deadline:
                await self.aclose()
                raise StartFailed(f"the server has not answered in {timeout_s:g} s; {self._log} has what it said")
            await asyncio.sleep(0.05)

    def last_words(self) -> str:
        """The last line it printed, and where the others are."""
        lines = [line for line in self._told().splitlines() if line.strip()]
        said = self._reason(lines).strip() if lines else "it said nothing"
        return f"{said} ({self._log}, status {self._process.poll()})"

    def _reason(self, lines: Sequence[str]) -> str:
        """The line that says why it ended."""
        return lines[-1]

    async def aclose(self) -> None:
        """End it, with what is in work. May be called twice."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self.is_alive:
            self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):  # its own processes too: the session is its
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _told(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class ServerProcess(WatchedProcess):
    """``verigym serve`` on a free port of this machine. It ends when this process does, however that ends."""

    def __init__(
        self, checkpoint: Path, *, log: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            options: more of the command line.
            log, environment: of ``WatchedProcess``.
        """
        command = [sys.executable, "-m", "verigym", "serve", str(checkpoint), "--port", "0"]
        command += ["--end-with", str(os.getpid()), *options]
        super().__init__(command, log=log, environment=environment)

    def _address(self, line: str) -> str | None:
        if line.startswith("serving ") and line.endswith("/v1"):
            return line.rpartition(" at ")[2].removesuffix("/v1")
        return None
