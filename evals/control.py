"""Steering an evaluation while it runs: pause, go on, retry what failed, another number of episodes at once.

Whoever wants something puts a file into ``DIR/control``; the run looks there a few times a second, does it, and takes
the file away, which is the answer. What it does at the moment stands in ``DIR/progress.json``. Both are files, so that
they work wherever the folder does, from any machine that sees it, and end with the run.
"""

import asyncio
import json
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from ..envs.runs.files import write_json
from ..envs.runs.lock import holder_of
from ..errors import ConfigError

Action = Literal["pause", "resume", "retry", "concurrency"]
ACTIONS: tuple[Action, ...] = ("pause", "resume", "retry", "concurrency")
FOLDER, PROGRESS = "control", "progress.json"
LOOK_SECONDS = 0.3
TELL_SECONDS = 1.0
MOST_AT_ONCE = 4096

J = TypeVar("J")


def request(folder: Path, action: Action, *, value: int | None = None, wait_s: float = 10.0) -> dict[str, Any]:
    """Ask the run in a folder for something, and wait until it has done it.

    Returns:
        its ``progress.json`` after that; {"state": "ended"} where the run has ended meanwhile.
    Raises:
        ConfigError: nothing runs there, or it does not answer.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of a run; give the --out DIR of a running verigym eval")
    holder = holder_of(folder)
    if holder is None or holder["alive"] is False:
        raise ConfigError(f"nothing runs in {folder}; the command that began it goes on with it, failed samples first")
    if not (folder / PROGRESS).exists():
        raise ConfigError(f"what runs in {folder} is no evaluation (`{holder.get('command')}`), and takes no requests")
    path = folder / FOLDER / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"
    write_json(path, {"action": action, "value": value}, indent=None)
    deadline = time.monotonic() + wait_s
    while path.exists():
        if time.monotonic() > deadline:
            path.unlink(missing_ok=True)
            raise ConfigError(f"the run in {folder} did not answer within {wait_s:g} s; it may be ending, or stopped")
        time.sleep(0.05)
    return read_progress(folder) or {"state": "ended"}


def read_progress(folder: Path) -> dict[str, Any]:
    """What a running evaluation says of itself; {} where it says nothing."""
    try:
        found = json.loads((folder / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Pool(Generic[J]):
    """Jobs done a number at a time, which may be changed, as they may be halted and added to, while it works.

    Attributes:
        concurrency: jobs at once.
        paused: no further job begins.
    """

    def __init__(
        self,
        jobs: Iterable[J],
        concurrency: int,
        *,
        folder: Path | None = None,
        failed: Callable[[], Collection[J]] = tuple,
        total: int = 0,
        done: Callable[[], int] = int,
    ) -> None:
        """
        Args:
            folder: of the run, where requests are looked for; None takes none.
            failed: jobs that are done and may be done again.
            total, done: samples in all, and those on record, to tell.
        """
        self._jobs, self.concurrency, self.paused = deque(jobs), concurrency, False
        self._folder, self._failed, self._total, self._done = folder, failed, total, done
        self._changed = asyncio.Event()
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._running: dict[int, J] = {}  # by identity
        self._workers: set[asyncio.Task[None]] = set()
        self._told = 0.0

    async def run(self, worker: Callable[["Pool[J]"], Awaitable[None]]) -> None:
        """Have workers do all jobs; the first error ends the others, and is raised.

        Args:
            worker: takes jobs by ``take`` until that gives None.
        """
        self._clean()  # what was asked of an earlier sitting, which did not end by itself
        looking = asyncio.create_task(self._look())
        try:
            while True:
                while len(self._workers) < min(self.concurrency, len(self._jobs) + len(self._running)):
                    self._workers.add(asyncio.create_task(self._started(worker)))
                if not self._workers and not self._jobs:
                    return
                self._changed.clear()
                waiting = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait({*self._workers, waiting, looking}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
                for one in [one for one in self._workers if one.done()]:
                    self._workers.discard(one)
                    one.result()
                if looking.done():
                    looking.result()
        finally:
            looking.cancel()
            for one in self._workers:
                # One that was cancelled with us is closing its sandbox: a second cancellation would stop it at that.
                if not one.cancelling():
                    one.cancel()
            await asyncio.gather(looking, *self._workers, return_exceptions=True)
            self._clean()

    async def _started(self, worker: Callable[["Pool[J]"], Awaitable[None]]) -> None:
        await worker(self)

    async def take(self) -> J | None:
        """The next job, once one may begin; None: this worker is to end."""
        await self._resumed.wait()
        if len(self._running) >= self.concurrency or not self._jobs:
            return None
        job = self._jobs.popleft()
        self._running[id(job)] = job
        return job

    def finished(self, job: J) -> None:
        """A job that was taken is done, and on record."""
        del self._running[id(job)]
        self._changed.set()
        self.tell()

    def ask(self, action: str, value: Any = None) -> None:
        """Do what was asked for; what makes no sense is left alone."""
        if action == "pause":
            self.paused = True
            self._resumed.clear()
        elif action == "resume":
            self.paused = False
            self._resumed.set()
        elif action == "concurrency" and isinstance(value, int) and 1 <= value <= MOST_AT_ONCE:
            self.concurrency = value
        elif action == "retry":
            waiting = {id(job) for job in (*self._jobs, *self._running.values())}
            self._jobs.extend(job for job in self._failed() if id(job) not in waiting)
        self._changed.set()
        self.tell(now=True)

    def tell(self, *, now: bool = False) -> None:
        """Write ``progress.json``, at most once a second."""
        if self._folder is None or (not now and time.monotonic() - self._told < TELL_SECONDS):
            return
        self._told = time.monotonic()
        told = {
            "state": "paused" if self.paused else "running",
            "concurrency": self.concurrency,
            "running": len(self._running),
            "waiting": len(self._jobs),
            "done": self._done(),
            "total": self._total,
        }
        with suppress(OSError):  # a full disk is told by what is written for good
            write_json(self._folder / PROGRESS, told, indent=None)

    async def _look(self) -> None:
        if self._folder is None:
            await asyncio.Event().wait()
            return
        self.tell(now=True)
        while True:
            for path in _requests(self._folder / FOLDER):
                with suppress(OSError, ValueError, AttributeError):
                    asked = json.loads(path.read_bytes())
                    self.ask(str(asked.get("action")), asked.get("value"))
                path.unlink(missing_ok=True)
            await asyncio.sleep(LOOK_SECONDS)

    def _clean(self) -> None:
        if self._folder is not None:
            (self._folder / PROGRESS).unlink(missing_ok=True)
            shutil.rmtree(self._folder / FOLDER, ignore_errors=True)


def _requests(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(".json"))
    except OSError:
        return []
