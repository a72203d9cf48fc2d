"""The engine's thread: it steps a batch while there is work, and stands still while weights change."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ...errors import PolicyError, QueueFull
from ..chat.sampling import PromptScore
from .batch import Batch, OnWeightUpdate
from .job import Job, Progress
from .request import Request
from .scoring import Scoring
from .stats import EngineStats

logger = logging.getLogger(__name__)

# The thread ends after this long without work; the next request starts another.
_IDLE_SECONDS = 5.0
_BROKEN = "the model's logits are not finite; its weights are broken, load an earlier checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """One prompt to score."""

    prompt_ids: Sequence[int]
    num_top: int
    tag: Request[PromptScore]


AnyJob = Job | ScoreJob


class Worker:
    """Requests in, answers out; any thread may call it."""

    def __init__(self, batch: Batch, *, num_threads: int | None, most_requests: int | None) -> None:
        """
        Args:
            num_threads: torch's threads for this thread alone.
            most_requests: in flight; more are refused.
        """
        self._batch, self._num_threads, self._most_requests = batch, num_threads, most_requests
        self._changed = threading.Condition()
        # Guarded by _changed: requests not yet answered, those of them not in the batch, and the thread's state.
        self._requests: set[Request] = set()
        self._waiting: list[Job] = []
        self._scores: list[ScoreJob] = []
        # The prompt that is being scored, between steps: only the thread, and who holds a pause, may touch it.
        self._scoring: tuple[ScoreJob, Scoring] | None = None
        self._thread: threading.Thread | None = None
        self._stepping = False
        self._num_pauses = 0
        self._closed = False

    def submit(self, job: AnyJob) -> None:
        """Take a job on; its tag will be answered.

        Raises:
            PolicyError: the worker is closed.
            QueueFull: too many are in flight.
        """
        with self._changed:
            if self._closed:
                raise PolicyError("the engine is closed; make a new one")
            if self._most_requests is not None and len(self._requests) >= self._most_requests:
                raise QueueFull(
                    f"{len(self._requests)} requests are in flight, as many as may; "
                    "try again later, or raise max_waiting"
                )
            self._requests.add(job.tag)
            if isinstance(job, Job):
                self._waiting.append(job)
            else:
                self._scores.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="verigym-engine", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def pause(self) -> None:
        """Returns when no step runs; none will until ``resume``. Requests wait, new ones too."""
        with self._changed:
            self._num_pauses += 1
            self._changed.wait_for(lambda: not self._stepping)

    def resume(self) -> None:
        """Undo one ``pause``."""
        with self._changed:
            assert self._num_pauses > 0, "resume() without pause()"
            self._num_pauses -= 1
            self._changed.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def update_weights(self, version: int, load: Callable[[], None] | None, mode: OnWeightUpdate | None) -> None:
        """Change the weights between two steps; see ``Generator.update_weights``."""
        with self.paused():
            with self._changed:
                self._drop_abandoned()
                if mode is None and self._requests:
                    raise PolicyError(
                        f"{len(self._requests)} requests are in flight; await them before the weights change to "
                        f"version {version}, or set on_weight_update to 'recompute', 'keep' or 'abort'"
                    )
            if load is not None:
                load()
            with self._changed:
                self._drop_abandoned()
                if self._scoring is not None:  # from its start, under the new weights
                    self._scores.insert(0, self._scoring[0])
                    self._scoring = None
                progress, self._waiting = self._batch.renew(version, mode or "recompute", self._waiting)
            self._answer(progress)

    def stats(self) -> EngineStats:
        batch = self._batch
        with self._changed:
            num_running = batch.num_active
            used, free, cached = batch.num_pages
            return EngineStats(
                num_running=num_running,
                num_waiting=max(0, len(self._requests) - num_running),
                pages_used=used,
                pages_free=free,
                pages_cached=cached,
                prompt_tokens_computed=batch.num_computed,
                prompt_tokens_reused=batch.num_reused,
                generated_tokens=batch.num_generated,
                num_preemptions=batch.num_preemptions,
            )

    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)
        try:
            while self._work():
                pass
        finally:
            with self._changed:
                failed: set[Request] = set()
                # A thread that ran out of work has left its place: what came since then is another's.
                if self._closed or self._thread is threading.current_thread():
                    failed, self._requests, self._waiting, self._thread = self._requests, set(), [], None
                    self._scores, self._scoring = [], None
                for request in failed:
                    self._batch.cancel(request)
                self._changed.notify_all()
            for request in failed:
                request.answer(PolicyError("the engine ended before this request did; see the log for the reason"))

    def _work(self) -> bool:
        """One step. False: there is nothing more to do, and the thread is to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._requests and not self._num_pauses), timeout=_IDLE_SECONDS
            )
            if self._num_pauses and not self._closed:
                return True
            self._drop_abandoned()
            if self._closed or not self._requests:
                self._thread = None
                return False
            waiting, self._waiting = self._waiting, []
            if self._scoring is None and self._scores:
                job = self._scores.pop(0)
                self._scoring = job, self._batch.scoring(job.prompt_ids, job.num_top)
            self._stepping = True
        try:
            if self._scoring is not None:
                self._score(*self._scoring)
            progress, left = self._batch.advance(waiting)
            with self._changed:
                self._waiting[:0] = left
            self._answer(progress)
        finally:
            with self._changed:
                self._stepping = False
                self._changed.notify_all()
        return True

    def _drop_abandoned(self) -> None:
        """Forget requests whose callers have gone. No step may run."""
        gone = [request for request in self._requests if request.abandoned]
        for request in gone:
            self._batch.cancel(request)
            self._requests.discard(request)
        if gone:
            self._waiting = [job for job in self._waiting if not job.tag.abandoned]
            self._scores = [job for job in self._scores if not job.tag.abandoned]
            if self._scoring is not None and self._scoring[0].tag.abandoned:
                self._scoring[1].drop()
                self._scoring = None

    def _answer(self, progress: Sequence[Progress]) -> None:
        ended = [tag for tag, part in progress if part.finish_reason is not None]
        if ended:
            with self._changed:
                self._requests.difference_update(ended)
        for request, part in progress:
            broken = not np.isfinite(part.logprobs).all()
            request.answer(PolicyError(_BROKEN) if broken else part)

    def _score(self, job: ScoreJob, scoring: Scoring) -> None:
        """One chunk of a prompt, so that those who sample wait no longer than for a chunk."""
        found = self._batch.score(scoring)
        if found is None:
            return
        self._scoring = None
        with self._changed:
            self._requests.discard(job.tag)
        broken = not np.isfinite(np.array(found.logprobs[1:], np.float64)).all()
        job.tag.answer(PolicyError(_BROKEN) if broken else found)
