"""The embedded engine: many callers on asyncio loops, one thread that steps the batch while there is work."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from ...errors import ConfigError, PolicyError, QueueFull, RequestRefused
from ..chat.incremental import Decode, StopText
from ..chat.sampling import MOST_TOP_LOGPROBS, Completion, CompletionPart, PromptScore, Sampling
from ..decoder import Decoder
from .batch import Batch, Job, Progress
from .request import Request
from .stats import EngineStats

logger = logging.getLogger(__name__)
T = TypeVar("T")

# The thread ends after this long without work; the next request starts another.
_IDLE_SECONDS = 5.0
_BROKEN = "the model's logits are not finite; its weights are broken, load an earlier checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """One prompt to score."""

    prompt_ids: Sequence[int]
    num_top: int
    tag: Request[PromptScore]


class Generator:
    """Continuous batching over a decoder that may be shared with a trainer; see ``model.chat.protocols.Engine``.

    A context manager, synchronous or asynchronous; ``close`` ends the thread.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_batch: int = 64,
        max_context: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        num_threads: int | None = None,
        max_waiting: int | None = None,
        decode: Decode | None = None,
    ) -> None:
        """
        Args:
            decoder: on ``device``; its weights may change only between requests, see ``update_weights``.
            max_batch: sequences in work at once; more wait.
            max_context: tokens a prompt and its completion may have together.
            seed: of the stream that requests without a seed of their own draw from.
            num_threads: torch's threads for the engine's own thread; None for torch's setting. On the CPU 1 is
                fastest where other work, such as sandboxes, keeps the other cores busy.
            max_waiting: requests beyond ``max_batch`` that may wait; more are refused with QueueFull. None: any number.
            decode: text of ids, invalid UTF-8 replaced; needed for stop texts.
        """
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}; it must be at least 1")
        limit = decoder.config.max_position_embeddings
        if not 2 <= max_context <= limit:
            raise ConfigError(f"max_context is {max_context}; this model takes 2 to {limit} tokens")
        if decoder.head.weight.device.type != torch.device(device).type:
            raise ConfigError(f"the decoder is on {decoder.head.weight.device}, the engine on {device}; move one")
        self._max_context = max_context
        self._num_threads = num_threads
        self._vocab_size = decoder.config.vocab_size
        self._max_batch, self._max_waiting, self._decode = max_batch, max_waiting, decode
        self._batch = Batch(decoder, max_batch=max_batch, max_context=max_context)
        self._seeds = np.random.default_rng(seed)
        self._changed = threading.Condition()
        # Guarded by _changed: requests not yet answered, those of them not yet in the batch, and the thread.
        self._requests: set[Request] = set()
        self._waiting: list[Job | ScoreJob] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def policy_version(self) -> int:
        return self._batch.version

    @property
    def max_context(self) -> int:
        return self._max_context

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """Sample one completion; it ends with a stop token, at ``max_tokens`` or at the end of the context.

        Raises:
            PolicyError: a prompt that is empty, too long or holds an unknown id; a closed engine; broken weights.
        """
        request: Request[CompletionPart] = Request(asyncio.get_running_loop())
        self._submit(request, self._job(request, prompt_ids, sampling, stop_token_ids, streamed=False))
        try:
            part = await request.next()
        finally:
            request.abandoned = True  # only matters where the caller was cancelled
        assert part.finish_reason is not None
        return Completion(
            token_ids=part.token_ids,
            logprobs=part.logprobs,
            policy_version=part.policy_version,
            finish_reason=part.finish_reason,
            stop_reason=part.stop_reason,
            raw_logprobs=part.raw_logprobs,
            top_logprobs=part.top_logprobs,
        )

    async def stream(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> AsyncIterator[CompletionPart]:
        """The parts of one completion as they are sampled; the last one alone has a finish reason.

        The request is made when the first part is asked for. Closing the iterator (``aclose``, or cancelling the
        task that waits on it) takes the request out of the batch.

        Raises:
            PolicyError: as ``generate``.
        """
        request: Request[CompletionPart] = Request(asyncio.get_running_loop())
        self._submit(request, self._job(request, prompt_ids, sampling, stop_token_ids, streamed=True))
        try:
            while True:
                part = await request.next()
                yield part
                if part.finish_reason is not None:
                    return
        finally:
            request.abandoned = True

    async def score(self, prompt_ids: Sequence[int], num_top: int = 0) -> PromptScore:
        """Log-probabilities of a prompt's own tokens, at temperature 1; nothing is sampled.

        Args:
            prompt_ids: up to ``max_context`` tokens.
            num_top: report so many of the likeliest tokens at each position.
        Raises:
            PolicyError: as ``generate``.
        """
        self._check(prompt_ids, room=0)
        if not 0 <= num_top <= MOST_TOP_LOGPROBS:
            raise RequestRefused(f"num_top is {num_top}; it must be 0 to {MOST_TOP_LOGPROBS}")
        request: Request[PromptScore] = Request(asyncio.get_running_loop())
        self._submit(request, ScoreJob(prompt_ids=prompt_ids, num_top=num_top, tag=request))
        try:
            return await request.next()
        finally:
            request.abandoned = True

    def stats(self) -> EngineStats:
        """Counts of now, and totals since the engine was made."""
        batch = self._batch
        with self._changed:
            running = batch.num_active
            return EngineStats(
                num_running=running,
                num_waiting=max(0, len(self._requests) - running),
                pages_used=running,
                pages_free=batch.num_free,
                pages_cached=batch.num_kept,
                prompt_tokens_computed=batch.num_computed,
                prompt_tokens_reused=batch.num_reused,
                generated_tokens=batch.num_generated,
                num_preemptions=0,
            )

    def _job(
        self,
        request: Request[CompletionPart],
        prompt_ids: Sequence[int],
        sampling: Sampling,
        stop_token_ids: Sequence[int],
        *,
        streamed: bool,
    ) -> Job:
        self._check(prompt_ids, room=1)
        stop_text = None
        if sampling.stop:
            if self._decode is None:
                raise RequestRefused(
                    f"the request has stop texts {sampling.stop!r} and this engine knows no text; "
                    "make it with decode=tokenizer.decode, or use stop tokens"
                )
            stop_text = StopText(self._decode, sampling.stop)
        seed = sampling.seed
        if seed is None:
            with self._changed:
                seed = int(self._seeds.integers(2**63))
        return Job(
            prompt_ids=prompt_ids,
            sampling=sampling,
            stop_token_ids=stop_token_ids,
            stop_text=stop_text,
            streamed=streamed,
            seed=abs(seed),
            tag=request,
        )

    def _submit(self, request: Request, job: "Job | ScoreJob") -> None:
        """Hand a request to the thread, which is started where none runs."""
        with self._changed:
            if self._closed:
                raise PolicyError("the engine is closed; make a new one")
            if self._max_waiting is not None and len(self._requests) >= self._max_batch + self._max_waiting:
                raise QueueFull(
                    f"{len(self._requests)} requests are in flight, of which {self._max_batch} run at once; "
                    "try again later, or raise max_waiting"
                )
            self._requests.add(request)
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="verigym-engine", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def update_weights(self, version: int) -> None:
        """Say that the decoder's weights are now those of ``version``; every kept key and value is dropped.

        Raises:
            PolicyError: requests are in flight; their tokens would come from two policies.
        """
        with self._changed:
            live = [request for request in self._requests if not request.abandoned]
            if live:
                raise PolicyError(
                    f"{len(live)} requests are in flight; await them before the weights change to version {version}"
                )
            self._changed.wait_for(lambda: not self._requests)  # cancelled ones leave within a step
            self._batch.forget()
            self._batch.version = version

    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join()

    async def aclose(self) -> None:
        """``close``, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> "Generator":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> "Generator":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _check(self, prompt_ids: Sequence[int], *, room: int) -> None:
        if not prompt_ids:
            raise RequestRefused("the prompt is empty; begin it with the begin-of-text token")
        if len(prompt_ids) + room > self._max_context:
            raise RequestRefused(
                f"the prompt has {len(prompt_ids)} tokens and the context {self._max_context}: nothing can be sampled; "
                "shorten it or raise max_context"
            )
        low, high = min(prompt_ids), max(prompt_ids)
        if low < 0 or high >= self._vocab_size:
            wrong = low if low < 0 else high
            raise RequestRefused(f"the prompt holds id {wrong}; the model knows 0 to {self._vocab_size - 1}")

    def _run(self) -> None:
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)
        try:
            while self._work():
                pass
        finally:
            # Reached with requests in hand when the engine was closed or a step failed.
            with self._changed:
                failed, self._requests, self._waiting = self._requests, set(), []
                if self._thread is threading.current_thread():
                    self._thread = None
                for request in failed:
                    self._batch.cancel(request)
                self._changed.notify_all()
            for request in failed:
                request.answer(PolicyError("the engine ended before this request did; see the log for the reason"))

    def _work(self) -> bool:
        """Admit what waits and step once. False: there is nothing more to do, and the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._requests, timeout=_IDLE_SECONDS)
            if self._closed or not self._requests:
                self._thread = None
                return False
            gone = [request for request in self._requests if request.abandoned]
            for request in gone:
                self._batch.cancel(request)
                self._requests.discard(request)
            waiting, self._waiting = [job for job in self._waiting if not job.tag.abandoned], []
            if gone:
                self._changed.notify_all()
        jobs = []
        for job in waiting:
            if isinstance(job, ScoreJob):
                self._answer_score(job)
            else:
                jobs.append(job)
        while jobs and self._batch.num_free:
            progress, left = self._batch.admit(jobs)
            self._answer(progress)
            stuck = len(left) == len(jobs)
            jobs = left
            if stuck:
                break
        if jobs:
            with self._changed:
                self._waiting[:0] = jobs
        if self._batch.num_active:
            self._answer(self._batch.step())
        return True

    def _answer(self, progress: Sequence[Progress]) -> None:
        ended = [tag for tag, part in progress if part.finish_reason is not None]
        if ended:
            with self._changed:
                self._requests.difference_update(ended)
                self._changed.notify_all()
        for request, part in progress:
            broken = not np.isfinite(part.logprobs).all()
            request.answer(PolicyError(_BROKEN) if broken else part)

    def _answer_score(self, job: ScoreJob) -> None:
        found = self._batch.score(job.prompt_ids, job.num_top)
        with self._changed:
            self._requests.discard(job.tag)
            self._changed.notify_all()
        broken = not np.isfinite(found.logprobs[1:]).all()  # pyright: ignore[reportCallIssue, reportArgumentType]
        job.tag.answer(PolicyError(_BROKEN) if broken else found)
