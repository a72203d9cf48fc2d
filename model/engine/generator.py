"""The embedded engine: token in, token out, for many callers on asyncio loops."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ...errors import ConfigError, RequestRefused
from ..chat.incremental import Decode, StopText
from ..chat.sampling import MOST_TOP_LOGPROBS, Completion, CompletionPart, PromptScore, Sampling
from ..decoder import Decoder
from .batch import Batch, OnWeightUpdate
from .forward import Followers, Forward
from .graphs import cuda_capture
from .job import Job
from .request import Request
from .stats import EngineStats
from .weights import LoadWeights
from .worker import ScoreJob, Worker


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
        on_weight_update: OnWeightUpdate | None = None,
        page_size: int = 16,
        cache_tokens: int | None = None,
        step_tokens: int | None = None,
        cuda_graphs: bool = False,
        followers: Followers | None = None,
    ) -> None:
        """
        Args:
            decoder: on ``device``; its weights may change only between steps, see ``update_weights``.
            max_batch: sequences in work at once; more wait.
            max_context: tokens a prompt and its completion may have together.
            seed: of the stream that requests without a seed of their own draw from.
            num_threads: torch's threads for the engine's own thread; None for torch's setting. On the CPU 1 is
                fastest where other work, such as sandboxes, keeps the other cores busy.
            max_waiting: requests beyond ``max_batch`` that may wait; more are refused with QueueFull. None: any number.
            decode: text of ids, invalid UTF-8 replaced; needed for stop texts.
            on_weight_update: what becomes of the requests in flight when the weights change, see ``update_weights``;
                None: weights cannot change while there are any.
            page_size: tokens of a page, the unit in which keys and values are kept and shared.
            cache_tokens: tokens whose keys and values are kept, of running sequences and of prefixes for later ones,
                in each group of layers; None: as many as ``max_batch`` sequences of ``max_context`` have. Where there
                are too few for all, sequences that came last give way and are computed again.
            step_tokens: most tokens fed in one step; longer prompts are fed in chunks, between the others' tokens.
                None: what suits the device.
            cuda_graphs: record decoding steps on CUDA and play them again. Off: that has not run on a GPU yet.
            followers: the other ranks of a tensor-parallel group, of which ``decoder`` is the first one's share; see
                ``tensor_parallel``. ``close`` ends them.
        """
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}; it must be at least 1")
        limit = decoder.config.max_position_embeddings
        if not 2 <= max_context <= limit:
            raise ConfigError(f"max_context is {max_context}; this model takes 2 to {limit} tokens")
        if decoder.head.weight.device.type != torch.device(device).type:
            raise ConfigError(f"the decoder is on {decoder.head.weight.device}, the engine on {device}; move one")
        if cuda_graphs and torch.device(device).type != "cuda":
            raise ConfigError(f"cuda_graphs is set and the engine runs on {device}; leave it out")
        if cuda_graphs and followers is not None:
            raise ConfigError("cuda_graphs is set and the engine is tensor parallel; leave one of them out")
        if page_size < 1:
            raise ConfigError(f"page_size is {page_size}; it must be at least 1")
        self._max_context = max_context
        self._vocab_size = decoder.config.vocab_size
        self._decode, self._followers = decode, followers
        self._on_weight_update: OnWeightUpdate | None = on_weight_update
        self._forward = Forward(
            decoder,
            max_batch=max_batch,
            max_context=max_context,
            page_size=page_size,
            cache_tokens=cache_tokens,
            capture=cuda_capture if cuda_graphs else None,
            followers=followers,
        )
        self._batch = Batch(self._forward, step_tokens=step_tokens)
        most = None if max_waiting is None else max_batch + max_waiting
        self._worker = Worker(self._batch, num_threads=num_threads, most_requests=most)
        self._seeds, self._drawing = np.random.default_rng(seed), threading.Lock()

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
        self._worker.submit(self._job(request, prompt_ids, sampling, stop_token_ids, streamed=False))
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
        self._worker.submit(self._job(request, prompt_ids, sampling, stop_token_ids, streamed=True))
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
        self._worker.submit(ScoreJob(prompt_ids=prompt_ids, num_top=num_top, tag=request))
        try:
            return await request.next()
        finally:
            request.abandoned = True

    def stats(self) -> EngineStats:
        """Counts of now, and totals since the engine was made."""
        return self._worker.stats()

    def update_weights(
        self, version: int, load: LoadWeights | None = None, *, on_weight_update: OnWeightUpdate | None = None
    ) -> None:
        """Change the weights, or say that they have changed; prefixes kept from before are never used again.

        The engine stands still meanwhile. Requests that have no token yet begin under the new weights; for the others
        ``on_weight_update`` decides:

        - "recompute": what is there of them is computed again, so that their next tokens are those of an engine that
          had these weights from the start.
        - "keep": they go on over the keys and values of the old weights, until they give way to others for want of
          pages and are computed again.
        - "abort": they are answered as they are, with the finish reason "abort".

        Every token carries the version of the weights that sampled it.

        Args:
            version: of the weights from now on.
            load: puts them into the decoder (``weights`` has several); None: they are in it already, which without a
                pause is safe only while no request is in flight.
            on_weight_update: instead of the engine's own setting.
        Raises:
            PolicyError: requests are in flight, and neither says what becomes of them.
        """
        mode = on_weight_update or self._on_weight_update
        self._worker.update_weights(version, None if load is None else lambda: self._forward.load(load), mode)

    def forget_prefixes(self) -> None:
        """Drop what is kept for later prompts; running requests go on."""
        with self._worker.paused():
            self._batch.forget_prefixes()

    def pause(self) -> None:
        """Returns when no step runs; none will until ``resume``. Requests are taken on, and wait."""
        self._worker.pause()

    def resume(self) -> None:
        """Undo one ``pause``."""
        self._worker.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No step runs inside; weights that are shared with a trainer may change there."""
        with self._worker.paused():
            yield

    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""
        self._worker.close()
        followers, self._followers = self._followers, None
        if followers is not None:
            followers.close()

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
