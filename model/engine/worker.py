"""The paged engine's thread: it steps a batch while there is work."""

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import PolicyError
from .batch import Batch, OnWeightUpdate
from .job import Job, Progress, ScoreJob
from .request import Request
from .scoring import Scoring
from .stats import EngineStats
from .thread import RequestThread

_BROKEN = "the model's logits are not finite; its weights are broken, load an earlier checkpoint"


class Worker(RequestThread[list[Job]]):
    """A batch behind a thread; a prompt is scored in chunks between the batch's steps."""

    def __init__(self, batch: Batch, *, num_threads: int | None, most_requests: int | None) -> None:
        """
        Args:
            num_threads, most_requests: as ``RequestThread``.
        """
        super().__init__(name="verigym-engine", num_threads=num_threads, most_requests=most_requests)
        self._batch = batch
        # The prompt that is being scored, between steps: only the thread, and who holds a pause, may touch it.
        self._scoring: tuple[ScoreJob, Scoring] | None = None

    def update_weights(self, version: int, load: Callable[[], None] | None, mode: OnWeightUpdate | None) -> None:
        """Change the weights between two steps; see ``Generator.update_weights``."""
        with self.paused():
            with self.changed:
                self.drop_abandoned()
                if mode is None and self.requests:
                    raise PolicyError(
                        f"{len(self.requests)} requests are in flight; await them before the weights change to "
                        f"version {version}, or set on_weight_update to 'recompute', 'keep' or 'abort'"
                    )
            if load is not None:
                load()
            with self.changed:
                self.drop_abandoned()
                if self._scoring is not None:  # from its start, under the new weights
                    self.scores.insert(0, self._scoring[0])
                    self._scoring = None
                progress, self.waiting = self._batch.renew(version, mode or "recompute", self.waiting)
            self._answer(progress)

    def stats(self) -> EngineStats:
        batch = self._batch
        with self.changed:
            num_running = batch.num_active
            used, free, cached = batch.num_pages
            return EngineStats(
                num_running=num_running,
                num_waiting=max(0, len(self.requests) - num_running),
                pages_used=used,
                pages_free=free,
                pages_cached=cached,
                prompt_tokens_computed=batch.num_computed,
                prompt_tokens_reused=batch.num_reused,
                generated_tokens=batch.num_generated,
                num_preemptions=batch.num_preemptions,
            )

    def _take(self) -> list[Job]:
        waiting, self.waiting = self.waiting, []
        if self._scoring is None and self.scores:
            job = self.scores.pop(0)
            self._scoring = job, self._batch.scoring(job.prompt_ids, job.num_top)
        return waiting

    def _step(self, work: list[Job]) -> None:
        if self._scoring is not None:
            self._score(*self._scoring)
        progress, left = self._batch.advance(work)
        with self.changed:
            self.waiting[:0] = left
        self._answer(progress)

    def _forget(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._batch.cancel(request)
        if self._scoring is not None and self._scoring[0].tag in requests:
            self._scoring[1].drop()
            self._scoring = None

    def _answer(self, progress: Sequence[Progress]) -> None:
        ended = [tag for tag, part in progress if part.finish_reason is not None]
        if ended:
            with self.changed:
                self.requests.difference_update(ended)
        for request, part in progress:
            broken = not np.isfinite(part.logprobs).all()
            request.answer(PolicyError(_BROKEN) if broken else part)

    def _score(self, job: ScoreJob, scoring: Scoring) -> None:
        """One chunk of a prompt, so that those who sample wait no longer than for a chunk."""
        found = self._batch.score(scoring)
        if found is None:
            return
        self._scoring = None
        with self.changed:
            self.requests.discard(job.tag)
        broken = not np.isfinite(np.array(found.logprobs[1:], np.float64)).all()
        job.tag.answer(PolicyError(_BROKEN) if broken else found)
