"""Any causal language model of transformers behind the engine's interface: a simpler and slower path than the paged
engine of our own decoder.

A request enters the batch when there is a slot for it (``slots.py``), and its row leaves with its last token; our
sampler draws, so seeds, log-probabilities, streams and cancelled requests are what they are elsewhere. Models that keep
other state than keys and values are asked in rounds of ``generate`` (``rounds.py``): what comes while one runs waits
for the next. transformers' own continuous batching has neither a seed nor a greedy draw for each request, which is why
it is not used.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ConfigError, PolicyError
from ..chat.incremental import Decode
from ..chat.sampling import PromptScore
from .callers import Callers
from .drawing import Row
from .job import AnyJob, Job, ScoreJob
from .request import Request
from .sampler import raw_logprobs
from .stats import EngineStats
from .thread import RequestThread

logger = logging.getLogger(__name__)

_SCORED_ROWS = 512  # rows of log-probabilities over the whole vocabulary that scoring a prompt makes at once


class HuggingFaceEngine(Callers):
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
        num_ids: int | None = None,
    ) -> None:
        """
        Args:
            model: of AutoModelForCausalLM. Its generation settings are replaced by neutral ones.
            max_batch: sequences at once.
            max_context: tokens of a prompt and its completion; None for what the model's configuration says.
            seed, num_threads, max_waiting, decode: as ``Generator``.
            num_ids: that the tokenizer knows, where the head has more rows: none of those is drawn. None: all.
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
        rows = model.get_output_embeddings().weight.shape[0]
        self._num_ids = rows if num_ids is None else min(num_ids, rows)
        super().__init__(max_context=context, vocab_size=self._num_ids, decode=decode, seed=seed)
        most = None if max_waiting is None else max_batch + max_waiting
        self._batch = _Batch(
            model, context, self._num_ids, max_batch=max_batch, num_threads=num_threads, most_requests=most
        )

    @property
    def policy_version(self) -> int:
        return self._batch.version

    def stats(self) -> EngineStats:
        """Counts of now, and totals; a page is a slot."""
        return self._batch.stats()

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
            load: puts them into the model: what has a slot ends under the old weights first, and what waits begins
                under the new. None: they are in it already.
            on_weight_update: as ``Generator.update_weights``; nothing is left in flight for it to decide on.
        Raises:
            PolicyError: requests are in flight, and there is no ``load``.
        """
        self._batch.update_weights(version, load)

    def close(self) -> None:
        """End the thread. Requests in flight get a PolicyError."""
        self._batch.close()

    def _submit(self, job: AnyJob) -> None:
        self._batch.submit(job)


class _Batch(RequestThread[tuple[ScoreJob | None, list[Row]]]):
    """The thread: at each step one prompt to score, and one token of every row."""

    def __init__(
        self,
        model: Any,
        max_context: int,
        num_ids: int,
        *,
        max_batch: int,
        num_threads: int | None,
        most_requests: int | None,
    ) -> None:
        from .slots import Slots, why_rounds  # transformers: seconds

        super().__init__(name="verigym-hf-engine", num_threads=num_threads, most_requests=most_requests)
        self._model, self._max_context, self._num_ids, self._max_batch = model, max_context, num_ids, max_batch
        reason = why_rounds(model)
        self._slots = Slots(model, num_ids, max_batch) if reason is None else None
        if reason is not None:
            logger.warning(
                "%s is sampled from in rounds (%s): a request waits for the end of those before it",
                type(model).__name__,
                reason,
            )
        self.version = 0
        self._num_loads = self._num_running = self._num_computed = self._num_generated = 0

    def update_weights(self, version: int, load: Callable[[Any], None] | None) -> None:
        if load is None:
            with self.changed:
                live = [request for request in self.requests if not request.abandoned]
                if live:
                    raise PolicyError(
                        f"{len(live)} requests are in flight; await them before the weights change to version {version}"
                    )
        with self._emptied():
            if load is not None:
                load(self._model)
            self.version = version

    @contextmanager
    def _emptied(self) -> Iterator[None]:
        """Inside, no row is in work and none begins."""
        with self.changed:
            self._num_loads += 1
            self.changed.wait_for(lambda: not self._num_running)
        try:
            with self.paused():
                yield
        finally:
            with self.changed:
                self._num_loads -= 1
                self.changed.notify_all()

    def stats(self) -> EngineStats:
        with self.changed:
            return EngineStats(
                num_running=self._num_running,
                num_waiting=max(0, len(self.requests) - self._num_running),
                pages_used=self._num_running,
                pages_free=self._max_batch - self._num_running,
                pages_cached=0,
                prompt_tokens_computed=self._num_computed,
                prompt_tokens_reused=0,
                generated_tokens=self._num_generated,
                num_preemptions=0,
            )

    def _has_work(self) -> bool:
        return bool(self._num_running or self.scores or (self.waiting and not self._num_loads))

    def _take(self) -> tuple[ScoreJob | None, list[Row]]:
        score = self.scores.pop(0) if self.scores else None
        room = 0 if self._num_loads else self._max_batch - self._num_running
        jobs, self.waiting = self.waiting[:room], self.waiting[room:]
        self._num_running += len(jobs)
        return score, [self._row(job) for job in jobs]

    def _step(self, work: tuple[ScoreJob | None, list[Row]]) -> None:
        score, rows = work
        if score is not None and not score.tag.abandoned:
            score.tag.answer(self._score(score.prompt_ids, score.num_top))
        if self._slots is not None:
            drawn, ended = self._slots.advance(rows, self.version)
        elif rows:
            from .rounds import run_round

            drawn, ended = run_round(self._model, rows, self._num_ids, self.version, lambda: self.closed), rows
        else:
            drawn, ended = 0, []
        with self.changed:
            self._num_computed += sum(len(row.prompt_ids) for row in rows)
            self._num_generated += drawn
            self._num_running -= len(ended)
            self.requests -= {row.request for row in ended}
            if score is not None:
                self.requests.discard(score.tag)

    def _forget(self, requests: Sequence[Request]) -> None:
        if self._slots is not None:
            self._num_running -= self._slots.drop(requests)

    def _ended(self) -> None:
        self._num_running = 0
        if self._slots is not None:
            self._slots.clear()

    def _row(self, job: Job) -> Row:
        budget = min(job.sampling.max_tokens, self._max_context - len(job.prompt_ids))
        stops = frozenset(job.stop_token_ids)
        return Row(job.tag, job.prompt_ids, job.sampling, stops, job.stop_text, budget, job.seed, job.streamed)

    @torch.inference_mode()
    def _score(self, prompt_ids: Sequence[int], num_top: int) -> PromptScore:
        ids = torch.tensor(list(prompt_ids), device=self._model.device)
        logits: Tensor = self._model(input_ids=ids[None], use_cache=False).logits[0, :-1, : self._num_ids]
        self._num_computed += len(ids)
        logprobs: list[float | None] = [None]
        tops: list[tuple[tuple[int, float], ...] | None] = [None]
        for rows, targets in zip(logits.split(_SCORED_ROWS), ids[1:].split(_SCORED_ROWS), strict=True):
            own, top_ids, top = raw_logprobs(rows, targets, num_top)
            logprobs += own.tolist()
            tops += [tuple(zip(*row)) for row in zip(top_ids.tolist(), top.tolist())]
        return PromptScore(
            logprobs=tuple(logprobs), top_logprobs=tuple(tops) if num_top else None, policy_version=self.version
        )
