"""A server as a process of its own, started and watched by whoever needs it."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import PolicyError

# What a launcher of ranks has told this process is not for a server.
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
_SECONDS_TO_END = 30.0


class StartFailed(PolicyError):
    """A server that could not start, and said so, or took too long: another try would end likewise."""


class ServerProcess:
    """``verigym serve`` on a free port of this machine. It ends when this process does, however that ends."""

    def __init__(
        self, checkpoint: Path, *, log: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            log: file of what it prints; what is there is replaced.
            options: more of the command line.
            environment: variables it gets besides this process's.
        """
        command = [sys.executable, "-m", "verigym", "serve", str(checkpoint), "--port", "0"]
        command += ["--end-with", str(os.getpid()), *options]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C is for whoever started it, who says when it ends.
            self._process = subprocess.Popen(
                command,
                env={**inherited, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

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
                if line.startswith("serving ") and line.endswith("/v1"):
                    return line.rpartition(" at ")[2].removesuffix("/v1")
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
        return f"{lines[-1].strip() if lines else 'it said nothing'} ({self._log}, status {self._process.poll()})"

    async def aclose(self) -> None:
        """End it, with what is in work. May be called twice."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self.is_alive:
            self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _told(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")
