"""The thread that works on requests: begun by the first, ended when idle, standing still while weights change."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

from ...errors import PolicyError, QueueFull
from .job import AnyJob, Job, ScoreJob
from .request import Request

logger = logging.getLogger(__name__)
T = TypeVar("T")

# The thread ends after this long without work; the next request starts another.
_IDLE_SECONDS = 5.0


class RequestThread(ABC, Generic[T]):
    """Requests in, answers out; any thread may call it. What one step does, ``T``, is a subclass's.

    Attributes:
        changed: guards all that follows.
        requests: not yet answered.
        waiting, scores: jobs that no step has taken.
    """

    def __init__(self, *, name: str, num_threads: int | None, most_requests: int | None) -> None:
        """
        Args:
            name: of the thread.
            num_threads: torch's threads for this thread alone.
            most_requests: in flight; more are refused.
        """
        self._name, self._num_threads, self._most_requests = name, num_threads, most_requests
        self.changed = threading.Condition()
        self.requests: set[Request] = set()
        self.waiting: list[Job] = []
        self.scores: list[ScoreJob] = []
        self._thread: threading.Thread | None = None
        self._stepping = False
        self._num_pauses = 0
        self._closed = False

    @abstractmethod
    def _take(self) -> T:
        """What the next step works on, taken from ``waiting`` and ``scores``; called with ``changed`` held."""

    @abstractmethod
    def _step(self, work: T) -> None:
        """Do it, and answer; ``changed`` is free meanwhile."""

    def _has_work(self) -> bool:
        """Whether a step would do anything; called with ``changed`` held."""
        return bool(self.requests)

    def _ended(self) -> None:
        """Let go of what is in work: the thread ends; called with ``changed`` held and no step running."""

    def _forget(self, requests: Sequence[Request]) -> None:
        """Let go of what is held of these; called with ``changed`` held and no step running."""

    @property
    def closed(self) -> bool:
        return self._closed

    def submit(self, job: AnyJob) -> None:
        """Take a job on; its tag will be answered.

        Raises:
            PolicyError: this is closed.
            QueueFull: too many are in flight.
        """
        with self.changed:
            if self._closed:
                raise PolicyError("the engine is closed; make a new one")
            if self._most_requests is not None and len(self.requests) >= self._most_requests:
                raise QueueFull(
                    f"{len(self.requests)} requests are in flight, as many as may; "
                    "try again later, or raise max_waiting"
                )
            self.requests.add(job.tag)
            if isinstance(job, Job):
                self.waiting.append(job)
            else:
                self.scores.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self.changed.notify_all()

    def pause(self) -> None:
        """Returns when no step runs; none will until ``resume``. Requests wait, new ones too."""
        with self.changed:
            self._num_pauses += 1
            self.changed.wait_for(lambda: not self._stepping)

    def resume(self) -> None:
        """Undo one ``pause``."""
        with self.changed:
            assert self._num_pauses > 0, "resume() without pause()"
            self._num_pauses -= 1
            self.changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""
        with self.changed:
            self._closed = True
            thread = self._thread
            self.changed.notify_all()
        if thread is not None:
            thread.join()

    def drop_abandoned(self) -> None:
        """Forget requests whose callers have gone. Call with ``changed`` held and no step running."""
        gone = [request for request in self.requests if request.abandoned]
        if gone:
            self.requests.difference_update(gone)
            self.waiting = [job for job in self.waiting if not job.tag.abandoned]
            self.scores = [job for job in self.scores if not job.tag.abandoned]
            self._forget(gone)

    def _run(self) -> None:
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)
        try:
            while self._work():
                pass
        except Exception:
            logger.exception("a step of %s failed", self._name)
        finally:
            with self.changed:
                failed: set[Request] = set()
                # A thread that ran out of work has left its place: what came since then is another's.
                if self._closed or self._thread is threading.current_thread():
                    failed, self.requests, self.waiting, self.scores = self.requests, set(), [], []
                    self._thread = None
                    self._ended()
                self._forget(list(failed))
                self.changed.notify_all()
            for request in failed:
                request.answer(PolicyError("the engine ended before this request did; see the log for the reason"))

    def _work(self) -> bool:
        """One step. False: there is nothing more to do, and the thread is to end."""
        with self.changed:
            self.changed.wait_for(
                lambda: self._closed or (self._has_work() and not self._num_pauses), timeout=_IDLE_SECONDS
            )
            if self._num_pauses and not self._closed:
                return True
            self.drop_abandoned()
            if self._closed or not self.requests:
                self._thread = None
                return False
            if not self._has_work():
                return True
            work = self._take()
            self._stepping = True
        try:
            self._step(work)
        finally:
            with self.changed:
                self._stepping = False
                self.changed.notify_all()
        return True
