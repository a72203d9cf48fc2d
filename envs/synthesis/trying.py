"""Bugs tried and their tasks confirmed side by side; what came of them is told in the order of the bugs."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..sandbox.types import SandboxBackend
from .baseline import Baseline
from .examine import Seen
from .mutate import Candidate
from .probing import Probe, open_probe
from .sources import Source

CHUNK_S = 2.0
MAX_CHUNK = 8

Finish = Callable[[Seen, asyncio.Semaphore], Awaitable[dict[str, Any] | str]]
"""Makes a bug's row, or says why it has none; each sandbox at work takes the semaphore."""


@dataclass(slots=True)
class Trial:
    """A bug, and what came of it so far.

    Attributes:
        found: None until it was tried; then what failed, or why it is not to be used.
        made: None until that is known; then its row, or why it has none.
        is_begun: whether its row is being made, or was.
    """

    candidate: Candidate
    found: Seen | str | None = None
    made: dict[str, Any] | str | None = None
    is_begun: bool = False

    @property
    def is_hopeful(self) -> bool:
        return isinstance(self.found, Seen) and not isinstance(self.made, str)


class Trials:
    """Tries bugs, ``workers`` sandboxes at work at once.

    No further bug is tried, and no further row is made, as long as those that tests see are enough: few of them are
    refused.
    """

    def __init__(
        self,
        chunks: Sequence[Sequence[Candidate]],
        find: Callable[[Sequence[Candidate]], Awaitable[list[Seen | str]]],
        finish: Finish,
        *,
        workers: int,
    ) -> None:
        self._waiting = iter(chunks)
        self._find, self._finish = find, finish
        self._slots = asyncio.Semaphore(workers)
        self._trials = deque[Trial]()
        self._running = set[asyncio.Task[None]]()

    async def outcomes(self, wanted: Callable[[], int], until: Callable[[], float]) -> AsyncGenerator[Trial]:
        """The bugs with their outcomes, in their order.

        Args:
            wanted: how many more rows there are to be, for now; the caller leaves at 0.
            until: by the monotonic clock when the trials end, for now. What is at work then is cancelled.
        """
        try:
            while True:
                while self._trials and self._trials[0].made is not None:
                    yield self._trials.popleft()
                await self._begin(wanted())
                if not self._running:
                    return
                left_s = until() - time.monotonic()
                if left_s <= 0:
                    return
                done, self._running = await asyncio.wait(
                    self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _begin(self, wanted: int) -> None:
        """Begin what there is to do."""
        hopeful = [trial for trial in self._trials if trial.is_hopeful]
        for trial in hopeful[:wanted]:
            if not trial.is_begun:
                trial.is_begun = True
                self._running.add(asyncio.create_task(self._make(trial)))
                await asyncio.sleep(0)  # it waits for its sandbox before the next bug does
        while len(hopeful) < wanted and not self._slots.locked() and (chunk := next(self._waiting, None)) is not None:
            trials = [Trial(candidate) for candidate in chunk]
            self._trials += trials
            await self._slots.acquire()
            self._running.add(asyncio.create_task(self._try(trials)))

    async def _try(self, trials: Sequence[Trial]) -> None:
        try:
            found = await self._find([trial.candidate for trial in trials])
        finally:
            self._slots.release()
        for trial, one in zip(trials, found, strict=True):
            trial.found = one
            trial.made = one if isinstance(one, str) else None

    async def _make(self, trial: Trial) -> None:
        assert isinstance(trial.found, Seen)
        trial.made = await self._finish(trial.found, self._slots)


def chunks_of(order: Sequence[Candidate], baseline: Baseline, *, most: int) -> list[Sequence[Candidate]]:
    """Candidates in portions of some seconds, so that little is tried in vain once there are enough tasks."""
    typical_s = sum(baseline.expected_s(candidate.tests) for candidate in order[:50]) / max(1, len(order[:50]))
    size = max(1, min(MAX_CHUNK, most, round(CHUNK_S / max(typical_s, 1e-3))))
    return [order[start : start + size] for start in range(0, len(order), size)]


class Probes:
    """Sandboxes to try bugs in, opened when first wanted; ``warmed`` are files of tests that each imports first."""

    def __init__(self, source: Source, backend: SandboxBackend, boxes: AsyncExitStack) -> None:
        self._source, self._backend, self._boxes = source, backend, boxes
        self._free: list[Probe] = []
        self.warmed: tuple[str, ...] = ()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Probe]:
        """One that is free; after an error it is not used again."""
        if self._free:
            probe = self._free.pop()
        else:
            probe = await self._boxes.enter_async_context(open_probe(self._source, self._backend))
            if self.warmed:
                await probe.warm(self.warmed)
        yield probe
        self._free.append(probe)
