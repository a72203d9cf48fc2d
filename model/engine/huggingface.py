"""Any causal language model of transformers behind the engine's interface: a simpler and slower path than the paged
engine of the CWM decoder.

Requests are answered in rounds. A round is one call of ``generate`` on a left-padded batch; our sampler sits in it as
its logits processor, so seeds, log-probabilities, streams and cancelled requests are what they are elsewhere. What
comes while a round runs waits for the next. transformers' own continuous batching has neither a seed nor a greedy draw
for each request, which is why it is not used.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, PolicyError, QueueFull, RequestRefused
from ..chat.incremental import Decode, StopText
from ..chat.sampling import MOST_TOP_LOGPROBS, Completion, CompletionPart, PromptScore, Sampling
from .request import Request
from .rounds import Row, run_round
from .sampler import raw_logprobs
from .stats import EngineStats

logger = logging.getLogger(__name__)

# The thread ends after this long without work; the next request starts another.
_IDLE_SECONDS = 5.0
_SCORED_ROWS = 512  # rows of log-probabilities over the whole vocabulary that scoring a prompt makes at once


class HuggingFaceEngine:
    """See ``model.chat.protocols.ServingEngine``. A context manager; ``close`` ends the thread."""

    def __init__(
        self,
        model: Any,
        *,
        max_batch: int = 8,
        max_context: int | None = None,
        seed: int = 0,
        num_threads: int | None = None,
        max_waiting: int | None = None,
        decode: Decode | None = None,
    ) -> None:
        """
        Args:
            model: of AutoModelForCausalLM. Its generation settings are replaced by neutral ones.
            max_batch: sequences of one round.
            max_context: tokens of a prompt and its completion; None for what the model's configuration says.
            seed, num_threads, max_waiting, decode: as ``Generator``.
        """
        from transformers import GenerationConfig

        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        context = limit if max_context is None else max_context
        if max_batch < 1:
            raise ConfigError(f"max_batch is {max_batch}; it must be at least 1")
        if context is None:
            raise ConfigError(f"{type(model).__name__} does not say how long its context is; give max_context")
        if context < 2 or (limit is not None and context > limit):
            raise ConfigError(f"max_context is {context}; this model takes 2 to {limit} tokens")
        model.eval()
        model.generation_config = GenerationConfig(pad_token_id=0)  # a padded id is masked: any will do
        self._model, self._max_batch, self._max_context = model, max_batch, context
        self._vocab_size = model.get_output_embeddings().weight.shape[0]
        self._num_threads, self._max_waiting, self._decode = num_threads, max_waiting, decode
        self._seeds = np.random.default_rng(seed)
        self._version = 0
        self._changed = threading.Condition()
        # Guarded by _changed: all requests not yet answered, those that no round has taken, and the thread.
        self._requests: set[Request] = set()
        self._waiting: list[Row] = []
        self._scores: list[tuple[Request[PromptScore], Sequence[int], int]] = []
        self._num_running = self._num_computed = self._num_generated = self._num_loads = 0
        self._in_round = False
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def policy_version(self) -> int:
        return self._version

    @property
    def max_context(self) -> int:
        return self._max_context

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """Sample one completion. Raises PolicyError, as ``Generator.generate``."""
        request: Request[CompletionPart] = Request(asyncio.get_running_loop())
        self._submit(request, self._row(request, prompt_ids, sampling, stop_token_ids, streamed=False))
        try:
            part = await request.next()
        finally:
            request.abandoned = True
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
        """The parts of one completion; closing it ends its row. Raises PolicyError, as ``generate``."""
        request: Request[CompletionPart] = Request(asyncio.get_running_loop())
        self._submit(request, self._row(request, prompt_ids, sampling, stop_token_ids, streamed=True))
        try:
            while True:
                part = await request.next()
                yield part
                if part.finish_reason is not None:
                    return
        finally:
            request.abandoned = True

    async def score(self, prompt_ids: Sequence[int], num_top: int = 0) -> PromptScore:
        """Log-probabilities of a prompt's own tokens. Raises PolicyError, as ``Generator.score``."""
        self._check(prompt_ids, room=0)
        if not 0 <= num_top <= MOST_TOP_LOGPROBS:
            raise RequestRefused(f"num_top is {num_top}; it must be 0 to {MOST_TOP_LOGPROBS}")
        request: Request[PromptScore] = Request(asyncio.get_running_loop())
        self._submit(request, (request, prompt_ids, num_top))
        try:
            return await request.next()
        finally:
            request.abandoned = True

    def stats(self) -> EngineStats:
        """Counts of now, and totals; a page is a row of a round."""
        with self._changed:
            return EngineStats(
                num_running=self._num_running,
                num_waiting=max(0, len(self._requests) - self._num_running),
                pages_used=self._num_running,
                pages_free=self._max_batch - self._num_running,
                pages_cached=0,
                prompt_tokens_computed=self._num_computed,
                prompt_tokens_reused=0,
                generated_tokens=self._num_generated,
                num_preemptions=0,
            )

    def update_weights(
        self,
        version: int,
        load: Callable[[Any], None] | None = None,
        *,
        on_weight_update: Literal["recompute", "keep", "abort"] | None = None,
    ) -> None:
        """Change the weights, or say that they have changed.

        Args:
            version: of the weights from now on.
            load: puts them into the model, between two rounds: what is in the running one ends under the old weights,
                what waits begins under the new. None: they are in it already.
            on_weight_update: as ``Generator.update_weights``; nothing is left in flight for it to decide on.
        Raises:
            PolicyError: requests are in flight, and there is no ``load``.
        """
        if load is not None:
            self._load(version, load)
            return
        with self._changed:
            live = [request for request in self._requests if not request.abandoned]
            if live:
                raise PolicyError(
                    f"{len(live)} requests are in flight; await them before the weights change to version {version}"
                )
            self._changed.wait_for(lambda: not self._requests)
            self._version = version

    def _load(self, version: int, load: Callable[[Any], None]) -> None:
        with self._changed:
            self._num_loads += 1  # keeps the next round from beginning
            self._changed.wait_for(lambda: not self._in_round)
        try:
            load(self._model)
            self._version = version
        finally:
            with self._changed:
                self._num_loads -= 1
                self._changed.notify_all()

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

    def __enter__(self) -> "HuggingFaceEngine":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> "HuggingFaceEngine":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _row(self, request, prompt_ids, sampling: Sampling, stop_token_ids, *, streamed: bool) -> Row:
        self._check(prompt_ids, room=1)
        stop_text = None
        if sampling.stop:
            if self._decode is None:
                raise RequestRefused(f"this engine knows no text, and the request has stop texts {sampling.stop!r}")
            stop_text = StopText(self._decode, sampling.stop)
        seed = int(self._seeds.integers(2**63)) if sampling.seed is None else abs(sampling.seed)
        budget = min(sampling.max_tokens, self._max_context - len(prompt_ids))
        return Row(request, prompt_ids, sampling, frozenset(stop_token_ids), stop_text, budget, seed, streamed)

    def _check(self, prompt_ids: Sequence[int], *, room: int) -> None:
        if not prompt_ids:
            raise RequestRefused("the prompt is empty; give at least one token")
        if len(prompt_ids) + room > self._max_context:
            raise RequestRefused(
                f"the prompt has {len(prompt_ids)} tokens and the context {self._max_context}; shorten it"
            )
        wrong = next((one for one in prompt_ids if not 0 <= one < self._vocab_size), None)
        if wrong is not None:
            raise RequestRefused(f"the prompt holds id {wrong}; the model knows 0 to {self._vocab_size - 1}")

    def _submit(self, request: Request, job: "Row | tuple[Request[PromptScore], Sequence[int], int]") -> None:
        with self._changed:
            if self._closed:
                raise PolicyError("the engine is closed; make a new one")
            if self._max_waiting is not None and len(self._requests) >= self._max_batch + self._max_waiting:
                raise QueueFull(f"{len(self._requests)} requests are in flight; try again later, or raise max_waiting")
            self._requests.add(request)
            if isinstance(job, Row):
                self._waiting.append(job)
            else:
                self._scores.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="verigym-hf-engine", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        if self._num_threads is not None:
            torch.set_num_threads(self._num_threads)
        try:
            while self._work():
                pass
        except Exception:
            logger.exception("a round failed")
        finally:
            with self._changed:
                failed, self._requests, self._waiting, self._scores = self._requests, set(), [], []
                self._num_running, self._in_round = 0, False
                if self._thread is threading.current_thread():
                    self._thread = None
                self._changed.notify_all()
            for request in failed:
                request.answer(PolicyError("the engine ended before this request did; see the log for the reason"))

    def _work(self) -> bool:
        """One round. False: there is nothing more to do, and the thread is to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._requests and not self._num_loads), timeout=_IDLE_SECONDS
            )
            if self._num_loads and not self._closed:
                return True
            if self._closed or not self._requests:
                self._thread = None
                return False
            scores, self._scores = self._scores, []
            alive = [row for row in self._waiting if not row.request.abandoned]
            rows, self._waiting = alive[: self._max_batch], alive[self._max_batch :]
            self._num_running, self._in_round = len(rows), True
        for request, prompt_ids, num_top in scores:
            if not request.abandoned:
                request.answer(self._score(prompt_ids, num_top))
        if rows:
            self._num_computed += sum(len(row.prompt_ids) for row in rows)
            self._num_generated += run_round(self._model, rows, self._version, lambda: self._closed)
        with self._changed:
            self._num_running, self._in_round = 0, False
            done = {request for request, _, _ in scores} | {row.request for row in rows}
            gone = {request for request in self._requests if request.abandoned}
            self._requests -= done | gone
            self._waiting = [row for row in self._waiting if row.request not in gone]
            self._changed.notify_all()
        return True

    @torch.inference_mode()
    def _score(self, prompt_ids: Sequence[int], num_top: int) -> PromptScore:
        ids = torch.tensor(list(prompt_ids), device=self._model.device)
        logits: Tensor = self._model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        self._num_computed += len(ids)
        logprobs: list[float | None] = [None]
        tops: list[tuple[tuple[int, float], ...] | None] = [None]
        for rows, targets in zip(logits.split(_SCORED_ROWS), ids[1:].split(_SCORED_ROWS), strict=True):
            own, top_ids, top = raw_logprobs(rows, targets, num_top)
            logprobs += own.tolist()
            tops += [tuple(zip(*row)) for row in zip(top_ids.tolist(), top.tolist())]
        return PromptScore(
            logprobs=tuple(logprobs), top_logprobs=tuple(tops) if num_top else None, policy_version=self._version
        )
