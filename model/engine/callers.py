"""The callers' side of an engine: a request's life from the call to its last part, whatever works on it."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from typing import Self

import numpy as np

from ...errors import RequestRefused
from ..chat.incremental import Decode, StopText
from ..chat.sampling import MOST_TOP_LOGPROBS, Completion, CompletionPart, PromptScore, Sampling
from .job import AnyJob, Job, ScoreJob
from .request import Request


class Callers(ABC):
    """What ``Generator`` and ``HuggingFaceEngine`` share: requests are checked, made jobs, awaited, streamed and
    abandoned here. A context manager, synchronous or asynchronous; ``close`` ends what works on them."""

    def __init__(self, *, max_context: int, vocab_size: int, decode: Decode | None, seed: int) -> None:
        """
        Args:
            max_context: tokens a prompt and its completion may have together.
            vocab_size: ids the model knows.
            decode: text of ids, invalid UTF-8 replaced; needed for stop texts.
            seed: of the stream that requests without a seed of their own draw from.
        """
        self._max_context, self._vocab_size, self._decode = max_context, vocab_size, decode
        self._seeds, self._drawing = np.random.default_rng(seed), threading.Lock()

    @abstractmethod
    def _submit(self, job: AnyJob) -> None:
        """Take a job on; its tag will be answered. Raises PolicyError where it is not."""

    @abstractmethod
    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""

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
        self._submit(self._job(request, prompt_ids, sampling, stop_token_ids, streamed=False))
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
    ) -> AsyncGenerator[CompletionPart, None]:
        """The parts of one completion as they are sampled; the last one alone has a finish reason.

        The request is made when the first part is asked for. Closing the iterator (``aclose``, or cancelling the
        task that waits on it) takes the request out of the batch.

        Raises:
            PolicyError: as ``generate``.
        """
        request: Request[CompletionPart] = Request(asyncio.get_running_loop())
        self._submit(self._job(request, prompt_ids, sampling, stop_token_ids, streamed=True))
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
        self._submit(ScoreJob(prompt_ids=prompt_ids, num_top=num_top, tag=request))
        try:
            return await request.next()
        finally:
            request.abandoned = True

    async def aclose(self) -> None:
        """``close``, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

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
            with self._drawing:
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
