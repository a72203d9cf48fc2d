"""Warm program servers: a sandbox and, in it, the process that forks programs, kept for the next program.

One server runs one program at a time. It goes back to the pool only where the program left the sandbox as it was;
else the sandbox is closed, and the next program gets a new one. Idle servers are closed after a few seconds and when
their event loop ends.
"""

import asyncio
import json
import marshal
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import GradingError
from ..sandbox.boot import boot_line, modules, sized
from ..sandbox.launch import base_python, base_python_binds
from ..sandbox.per_loop import PerLoop
from ..sandbox.types import Bind, Limits, Process, Sandbox, SandboxBackend, SandboxSpec

IDLE_S = 3.0
START_S = 60.0
GUEST_FILES = (
    "plain",
    "guest_clock",
    "guest_child",
    "guest_names",
    "guest_calls",
    "guest_tests",
    "guest_arguments",
    "guest_server",
)
"""In the order of their imports; the last one's ``main`` is called."""
PACKAGES = "/opt/verigym/packages"
"""Where a sandbox shows the packages that programs may import beside the standard library."""

SHOWN = ("numpy", "numpy.libs")

ENVIRONMENT = {
    # Sets of text have one order: the same program gives the same verdict.
    "PYTHONHASHSEED": "0",
    # One thread: what has threads cannot be forked safely.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class ProgramServer:
    """A sandbox with a running server. Made by ``start``; ``aclose`` ends it."""

    def __init__(self, sandbox: Sandbox, process: Process) -> None:
        self._sandbox, self._process = sandbox, process
        self._received = bytearray()
        self.used_at = time.monotonic()

    @classmethod
    async def start(cls, backend: SandboxBackend, memory_mib: int, prelude: str) -> "ProgramServer":
        """
        Args:
            prelude: source that the server executes once; every program that asks for it is forked from there.
        Raises:
            SandboxError: there is no sandbox. GradingError: it has no working Python.
        """
        sandbox = await backend.create(_spec(backend, memory_mib))
        try:
            argv = [
                base_python()[0],
                "-s",
                "-S",
                "-P",
                "-B",
                "-c",
                boot_line("verigym_programs", path=[_packages_inside(backend)]),
            ]
            process = await sandbox.astart(argv, env=ENVIRONMENT)
            process.write(_code() + sized(marshal.dumps(prelude, 4)))
            server = cls(sandbox, process)
            try:
                async with asyncio.timeout(START_S):
                    ready = await server.answer()
            except TimeoutError:
                raise GradingError(
                    f"Python did not start in the {backend.name} sandbox within {START_S:g} s; is the machine too busy?"
                ) from None
            if ready != {"ready": True}:
                ended = await process.wait()
                raise GradingError(
                    f"Python did not start in the {backend.name} sandbox (exit code {ended.exit_code}, "
                    f"{ended.killed or 'not killed'}): {ended.stderr[-500:].decode('utf-8', 'replace')}"
                )
        except BaseException:
            await sandbox.aclose()
            raise
        return server

    def send(self, *frames: Any) -> None:
        """Send a job: plain data, one frame or two."""
        self._process.write(b"".join(sized(marshal.dumps(frame, 4)) for frame in frames))

    async def answer(self) -> dict[str, Any] | None:
        """The next line of the server; None where it has ended, or says what it never would."""
        seen = 0
        while (end := self._received.find(b"\n", seen)) < 0:
            seen = len(self._received)
            piece = await self._process.read()
            if not piece:
                return None
            self._received += piece
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return row if isinstance(row, dict) else None

    async def aclose(self) -> None:
        await self._sandbox.aclose()


class _Pool:
    """The idle servers of one event loop."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        self._idle: dict[Any, list[ProgramServer]] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def take(self, backend: SandboxBackend, memory_mib: int, prelude: str) -> ProgramServer:
        idle = self._idle.get((id(backend), memory_mib, prelude))
        if idle:
            return idle.pop()
        return await ProgramServer.start(backend, memory_mib, prelude)

    def give_back(self, backend: SandboxBackend, memory_mib: int, prelude: str, server: ProgramServer) -> None:
        server.used_at = time.monotonic()
        self._idle.setdefault((id(backend), memory_mib, prelude), []).append(server)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name="verigym-program-servers")

    async def _keep(self) -> None:
        """Close what is idle for long; everything, when the loop ends and cancels its tasks."""
        try:
            while any(self._idle.values()):
                await asyncio.sleep(IDLE_S / 2)
                await self._close(older_than=time.monotonic() - IDLE_S)
        except asyncio.CancelledError:
            await self._close(older_than=float("inf"))
            raise

    async def _close(self, older_than: float) -> None:
        old = [one for idle in self._idle.values() for one in idle if one.used_at <= older_than]
        for idle in self._idle.values():
            idle[:] = [one for one in idle if one not in old]
        for server in old:
            await server.aclose()


_pools = PerLoop(_Pool)


@asynccontextmanager
async def program_server(backend: SandboxBackend, memory_mib: int, prelude: str = "") -> AsyncIterator["Lease"]:
    """A server for one program; waits where twice as many as there are cores are in use.

    Raises:
        SandboxError, GradingError: as ``ProgramServer.start``.
    """
    pool = _pools.get()
    async with pool.room:
        lease = Lease(await pool.take(backend, memory_mib, prelude))
        try:
            yield lease
        finally:
            if lease.clean:
                pool.give_back(backend, memory_mib, prelude, lease.server)
            else:
                await lease.server.aclose()


class Lease:
    """A server in use. Set ``clean`` once it said that the sandbox is as before; else it is thrown away."""

    def __init__(self, server: ProgramServer) -> None:
        self.server, self.clean = server, False


def _spec(backend: SandboxBackend, memory_mib: int) -> SandboxSpec:
    bounds = Limits(memory_mib=memory_mib + 512, num_processes=128, file_mib=64, disk_mib=256)
    return SandboxSpec(binds=(*base_python_binds(), *_packages(backend)), limits=bounds)


@lru_cache(maxsize=1)
def _installed() -> tuple[Path, ...]:
    """Folders of the packages that programs may import, where they are installed here."""
    import importlib.util

    found = importlib.util.find_spec("numpy")
    if found is None or not found.submodule_search_locations:
        return ()
    folder = Path(found.submodule_search_locations[0]).parent
    return tuple(folder / name for name in SHOWN if (folder / name).is_dir())


def _packages(backend: SandboxBackend) -> tuple[Bind, ...]:
    if backend.name == "unsafe":
        return ()  # it shows everything where it lies
    return tuple(Bind(source=path, target=f"{PACKAGES}/{path.name}") for path in _installed())


def _packages_inside(backend: SandboxBackend) -> str:
    if backend.name == "unsafe" and _installed():
        return str(_installed()[0].parent)
    return PACKAGES


@lru_cache(maxsize=1)
def _code() -> bytes:
    """The guest's modules, compiled here: the Python inside is the one that runs us."""
    folder = Path(__file__).parent
    texts = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in GUEST_FILES}
    return modules([(name, compile(text, f"{name}.py", "exec")) for name, text in texts.items()])
