"""Episode workers as the controller sees them: whom to ask, who is lost, and what is asked again."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .ledger import Answer, Assignment, EpisodeLedger
from .remote import Address

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks at every worker."""
SILENT_LOOKS = 3
"""Looks in a row without an answer after which a worker is given up: a link that is cut is a death."""
MOST_ASKED = 5
"""How often an episode is asked for; after that its infrastructure has failed."""


class WorkerLost(Exception):
    """Whoever was asked is gone."""


class Asking(Protocol):
    """What a worker is asked for.

    Attributes:
        assignment: of the ledger.
        seconds: that it may take by its own clock.
    """

    @property
    def assignment(self) -> Assignment: ...

    @property
    def seconds(self) -> float: ...


class Remote(Protocol):
    """A worker, wherever it is. Every call raises WorkerLost where it is gone."""

    async def ready(self) -> None:
        """Returns when it can be asked."""
        ...

    async def engines(self, addresses: Sequence[Address]) -> None:
        """Tell it where the engines are; its answer says that it lives."""
        ...

    async def run(self, request: Asking) -> Answer:
        """Have it run an episode. Raises what the episode raises."""
        ...

    def cancel(self, assignment: Assignment) -> None:
        """Tell it that an episode is not wanted any more."""
        ...

    def end(self) -> None:
        """End it now."""
        ...


@dataclass(slots=True)
class _Worker:
    place: int
    incarnation: int = -1
    remote: Remote | None = None
    num_inside: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class Workers:
    """All episode workers of a run. It lives on one event loop, from ``open`` to ``aclose``.

    A worker that dies, or is silent, is replaced by another incarnation, as often as that happens; its episodes are
    asked of others, with the same seeds. Only an episode that killed whoever ran it several times is given up.
    """

    def __init__(
        self,
        start: Callable[[int, int], Remote],
        count: int,
        *,
        most_inside: int = 64,
        look_seconds: float = LOOK_SECONDS,
        most_asked: int = MOST_ASKED,
    ) -> None:
        """
        Args:
            start: (place, incarnation) -> a worker that is being started.
            count: of workers.
            most_inside: episodes of one at once.
            look_seconds: between two looks at every worker.
            most_asked: how often an episode is asked for.
        """
        self._start, self._most_inside, self._look_seconds = start, most_inside, look_seconds
        self.most_asked = most_asked
        self._workers = [_Worker(place) for place in range(count)]
        self.ledger = EpisodeLedger()
        self._addresses: Sequence[Address] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Condition()
        self._ending = False
        self.num_lost = 0

    @property
    def is_open(self) -> bool:
        return bool(self._tasks) and not self._ending

    async def open(self, addresses: Sequence[Address]) -> None:
        """Start them, and return when one can be asked."""
        self._addresses = list(addresses)
        for worker in self._workers:
            self._spawn(self._live(worker))
        async with self._freed:
            await self._freed.wait_for(lambda: any(worker.remote is not None for worker in self._workers))

    def change(self, addresses: Sequence[Address]) -> None:
        """Engines are elsewhere now."""
        self._addresses = list(addresses)
        for worker in self._workers:
            if worker.remote is not None:
                self._spawn(self._tell(worker, worker.remote))

    async def aclose(self) -> None:
        """End all. May be called twice."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            if worker.remote is not None:
                worker.remote.end()
                worker.remote = None

    async def run(self, request_of: Callable[[Assignment], Asking]) -> Answer | None:
        """What an episode came to, by one of them; None where whoever ran it was lost too often.

        Raises:
            TaskError, ConfigError, ChatFormatError: as ``agent.loop.rollout``.
        """
        ticket = self.ledger.open()
        try:
            for _ in range(self.most_asked):
                worker, remote = await self._able()
                assignment = self.ledger.assign(ticket, worker.place, worker.incarnation)
                try:
                    answer = await self._asked(worker, remote, request_of(assignment))
                except WorkerLost as error:
                    self._lose(worker, remote, error)
                    continue
                if self.ledger.take(answer.assignment):
                    return answer
            return None
        finally:
            self.ledger.drop(ticket)

    async def _asked(self, worker: _Worker, remote: Remote, request: Asking) -> Answer:
        """Its answer, or WorkerLost as soon as it is given up, even where it never says so."""
        gone = asyncio.ensure_future(worker.gone.wait())
        asking = asyncio.ensure_future(remote.run(request))
        worker.num_inside += 1
        try:
            await asyncio.wait((gone, asking), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise WorkerLost("it was given up")
            return asking.result()
        except asyncio.CancelledError:
            remote.cancel(request.assignment)
            raise
        finally:
            worker.num_inside -= 1
            for task in (gone, asking):
                task.cancel()
            await asyncio.gather(gone, asking, return_exceptions=True)
            async with self._freed:
                self._freed.notify_all()

    async def _able(self) -> tuple[_Worker, Remote]:
        """The worker with the least to do; waits while none can be asked."""

        def found() -> _Worker | None:
            able = [one for one in self._workers if one.remote is not None and one.num_inside < self._most_inside]
            return min(able, key=lambda one: one.num_inside, default=None)

        async with self._freed:
            await self._freed.wait_for(lambda: found() is not None)
            worker = found()
            assert worker is not None
            assert worker.remote is not None
            return worker, worker.remote

    async def _live(self, worker: _Worker) -> None:
        """Keep a place filled: start a worker, look at it until it is lost, start the next."""
        while True:
            worker.incarnation += 1
            worker.gone = asyncio.Event()
            remote = self._start(worker.place, worker.incarnation)
            try:
                await remote.ready()
                await remote.engines(self._addresses)
            except WorkerLost as error:
                logger.warning("episode worker %d could not be started: %s", worker.place, error)
                remote.end()
                await asyncio.sleep(self._look_seconds)
                continue
            except asyncio.CancelledError:
                remote.end()
                raise
            worker.remote = remote
            async with self._freed:
                self._freed.notify_all()
            await self._look(worker, remote)

    async def _look(self, worker: _Worker, remote: Remote) -> None:
        while not worker.gone.is_set():
            try:
                async with asyncio.timeout(self._look_seconds):  # wait_for of Python 3.11 can lose a cancellation
                    await worker.gone.wait()
            except TimeoutError:
                await self._tell(worker, remote)

    async def _tell(self, worker: _Worker, remote: Remote) -> None:
        """Say where the engines are. An answer says that it lives; too long a silence, that it does not."""
        patience = self._look_seconds * SILENT_LOOKS
        try:
            async with asyncio.timeout(patience):
                await remote.engines(self._addresses)
        except WorkerLost as error:
            self._lose(worker, remote, error)
        except TimeoutError:
            self._lose(worker, remote, WorkerLost(f"it has been silent for {patience:g} s"))

    def _lose(self, worker: _Worker, remote: Remote, error: BaseException) -> None:
        if worker.remote is not remote:
            return  # it is known
        logger.warning("episode worker %d is lost (%s); its episodes are asked of others", worker.place, error)
        self.num_lost += 1
        worker.remote = None
        worker.gone.set()
        self.ledger.lose(worker.place, worker.incarnation)
        remote.end()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
