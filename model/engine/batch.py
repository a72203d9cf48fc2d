"""The sequences an engine works on: slots, prefix reuse, prefill and decode. Free of threads and of asyncio.

The arrays of a slot are numpy's; torch sees the same memory. ``length`` counts the tokens whose keys and values are
kept; the token at that index was sampled (or given) but not yet fed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..attention import Documents
from ..chat.incremental import StopText
from ..chat.sampling import CompletionPart, FinishReason, PromptScore, Sampling, StopReason, TopLogprobs
from ..decoder import Decoder
from .cache import DecodeView, KeyValueSlots, PrefillView
from .sampler import raw_logprobs, sample

# A prompt waits one prefill where another that is about to run shares at least this many more tokens with it.
_WORTH_WAITING = 16
# Tokens of one prefill, to bound its memory.
_PREFILL_TOKENS = 8192


# Rows of logits over the whole vocabulary that scoring a prompt makes at once.
_SCORED_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt to complete.

    Attributes:
        stop_text: watches for stop texts; None where there are none.
        streamed: every token is handed out as it is drawn.
        tag: the caller's.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling
    stop_token_ids: Sequence[int]
    stop_text: StopText | None = None
    streamed: bool = False
    seed: int
    tag: Any


Progress = tuple[Any, CompletionPart]
"""(a job's tag, what is new of its completion). The log-probabilities of broken weights are NaN."""


class Batch:
    """Up to ``max_batch`` sequences at once, each in a slot of ``max_context`` tokens."""

    def __init__(self, decoder: Decoder, *, max_batch: int, max_context: int) -> None:
        self._decoder = decoder
        weight = decoder.head.weight
        self._device = weight.device
        # One more than the context: an idle slot between active ones writes one key it will never read.
        self._slots = KeyValueSlots(
            decoder.config, max_batch, max_context + 1, dtype=weight.dtype, device=weight.device
        )
        self._jobs: list[Job | None] = [None] * max_batch
        self._tops: list[list[TopLogprobs]] = [[] for _ in range(max_batch)]
        self._clock = 0
        self.version = 0
        self.num_computed = self.num_reused = self.num_generated = 0
        width = max_context + 1
        self._history = np.zeros((max_batch, width), np.int64)
        self._logprobs = np.zeros((max_batch, width), np.float32)
        self._raw = np.zeros((max_batch, width), np.float32)
        self._versions = np.zeros((max_batch, width), np.int64)
        self._uniform = np.zeros((max_batch, width), np.float64)
        self._length = np.zeros(max_batch, np.int64)
        self._active = np.zeros(max_batch, bool)
        self._last_used = np.zeros(max_batch, np.int64)
        self._prompt_length = np.zeros(max_batch, np.int64)
        self._count = np.zeros(max_batch, np.int64)
        self._sent = np.zeros(max_batch, np.int64)
        self._watched = np.zeros(max_batch, bool)
        self._budget = np.zeros(max_batch, np.int64)
        self._temperature = np.zeros(max_batch, np.float32)
        self._top_k = np.zeros(max_batch, np.int64)
        self._top_p = np.ones(max_batch, np.float32)
        self._min_p = np.zeros(max_batch, np.float32)
        self._num_top = np.full(max_batch, -1, np.int64)  # -1: not even the raw log-probabilities
        self._stop = np.full((max_batch, 4), -1, np.int64)

    @property
    def num_active(self) -> int:
        return int(self._active.sum())

    @property
    def num_kept(self) -> int:
        """Free slots that still hold a prefix."""
        return int((~self._active & (self._length > 0)).sum())

    @property
    def num_free(self) -> int:
        return len(self._jobs) - self.num_active

    def forget(self) -> None:
        """Drop all keys and values: the weights have changed."""
        assert not self._active.any(), "slots are in use"
        self._length[:] = 0

    def cancel(self, tag: Any) -> None:
        """Take a job out of the batch; what its slot holds is kept for other prompts."""
        for slot in np.flatnonzero(self._active):
            job = self._jobs[slot]
            if job is not None and job.tag is tag:
                self._release(int(slot))

    @torch.inference_mode()
    def admit(self, jobs: Sequence[Job]) -> tuple[list[Progress], list[Job]]:
        """Prefill new jobs and draw their first token.

        Jobs that share a prefix with one admitted here are left over, to be admitted in the next call, when they can
        copy it.

        Returns:
            (what came of those admitted, jobs left over).
        """
        planned = np.where(self._active, self._length, 0)
        pieces: list[tuple[int, int, int]] = []
        left: list[Job] = []
        num_new = 0
        for job in jobs:
            prompt = np.asarray(job.prompt_ids, np.int64)
            shared = self._shared(prompt, self._length)
            held = int(shared.max(initial=0))
            soon = int(self._shared(prompt, planned).max(initial=0))
            too_much = pieces and num_new + len(prompt) - held > _PREFILL_TOKENS
            if not self.num_free or too_much or soon >= held + _WORTH_WAITING:
                left.append(job)
                continue
            slot = self._place(job, prompt, shared)
            planned[slot] = len(prompt)
            count = len(prompt) - int(self._length[slot])
            pieces.append((slot, int(self._length[slot]), count))
            num_new += count
            self.num_computed += count
            self.num_reused += len(prompt) - count
        return (self._prefill(pieces) if pieces else []), left

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Draw one more token for every active sequence."""
        self._compact()
        rows = np.flatnonzero(self._active)
        num_rows = int(rows[-1]) + 1
        positions = torch.from_numpy(self._length[:num_rows]).to(self._device)
        fed = torch.from_numpy(self._history[np.arange(num_rows), self._length[:num_rows]]).to(self._device)
        view = DecodeView(self._slots, positions, int(self._length[rows].max()) + 1)
        hidden = self._decoder(fed, Documents([1] * num_rows, positions), view)
        if len(rows) < num_rows:
            hidden = hidden[torch.from_numpy(rows).to(self._device)]
        self._length[rows] += 1
        return self._draw(hidden, rows)

    @torch.inference_mode()
    def score(self, prompt_ids: Sequence[int], num_top: int) -> PromptScore:
        """The prompt's own log-probabilities, from one forward beside the slots."""
        ids = torch.tensor(list(prompt_ids), device=self._device)
        hidden = self._decoder(ids, Documents.from_lengths([len(ids)], device=self._device))[:-1]
        self.num_computed += len(ids)
        logprobs: list[float | None] = [None]
        tops: list[TopLogprobs | None] = [None]
        for rows, targets in zip(hidden.split(_SCORED_ROWS), ids[1:].split(_SCORED_ROWS), strict=True):
            own, top_ids, top = raw_logprobs(self._decoder.logits(rows), targets, num_top)
            logprobs += own.tolist()
            tops += [tuple(zip(*row)) for row in zip(top_ids.tolist(), top.tolist())]
        return PromptScore(
            logprobs=tuple(logprobs), top_logprobs=tuple(tops) if num_top else None, policy_version=self.version
        )

    def _prefill(self, pieces: list[tuple[int, int, int]]) -> list[Progress]:
        slots, starts, counts = (list(column) for column in zip(*pieces, strict=True))
        token_ids = np.concatenate([self._history[slot, start : start + count] for slot, start, count in pieces])
        documents = Documents.from_lengths(counts, starts=starts, device=self._device)
        view = PrefillView(self._slots, pieces)
        hidden = self._decoder(torch.from_numpy(token_ids).to(self._device), documents, view)
        rows = np.asarray(slots)
        self._length[rows] += np.asarray(counts)
        return self._draw(hidden[torch.from_numpy(np.cumsum(counts) - 1).to(self._device)], rows)

    def _draw(self, hidden: torch.Tensor, rows: np.ndarray) -> list[Progress]:
        """Sample for ``rows`` from the hidden states of their last tokens; release those that end."""
        logits = self._decoder.logits(hidden)
        settings = (self._temperature, self._top_k, self._top_p)
        temperature, top_k, top_p, uniform, min_p = (
            torch.from_numpy(setting).to(self._device)
            for setting in (
                *(setting[rows] for setting in settings),
                self._uniform[rows, self._count[rows]],
                self._min_p[rows],
            )
        )
        drawn, drawn_logprobs = sample(logits, temperature, top_k, top_p, uniform, min_p)
        if (self._num_top[rows] >= 0).any():
            self._describe(logits, drawn, rows)
        token_ids, logprobs = drawn.cpu().numpy(), drawn_logprobs.cpu().numpy()
        places = self._length[rows]
        self._history[rows, places] = token_ids
        self._logprobs[rows, places] = logprobs
        self._versions[rows, places] = self.version
        self._count[rows] += 1
        self.num_generated += len(rows)
        stopped = (self._stop[rows] == token_ids[:, None]).any(axis=1)
        ended = stopped | (self._count[rows] >= self._budget[rows]) | ~np.isfinite(logprobs)
        self._clock += 1
        told = (
            self._tell(int(rows[i]), int(token_ids[i]), bool(stopped[i]), bool(ended[i]))
            for i in np.flatnonzero(ended | self._watched[rows])
        )
        return [progress for progress in told if progress is not None]

    def _tell(self, slot: int, token_id: int, stopped: bool, ended: bool) -> Progress | None:
        """What a row's caller is to hear after this token; None where nothing. A row that ends is released."""
        job = self._jobs[slot]
        assert job is not None
        reason: StopReason | None = token_id if stopped else None
        if job.stop_text is not None and (found := job.stop_text.push(token_id)) is not None and not stopped:
            reason, ended = found, True
        if not (ended or job.streamed):
            return None
        finish: FinishReason | None = None
        if ended:
            finish = "length" if reason is None else "stop"
        part = self._part(slot, job.sampling, finish, reason)
        if ended:
            self._release(slot)
        return job.tag, part

    def _part(
        self, slot: int, sampling: Sampling, finish: FinishReason | None, reason: StopReason | None
    ) -> CompletionPart:
        sent, count = int(self._sent[slot]), int(self._count[slot])
        new = slice(int(self._prompt_length[slot]) + sent, int(self._prompt_length[slot]) + count)
        self._sent[slot] = count
        return CompletionPart(
            token_ids=tuple(self._history[slot, new].tolist()),
            logprobs=tuple(self._logprobs[slot, new].tolist()),
            policy_version=tuple(self._versions[slot, new].tolist()),
            raw_logprobs=tuple(self._raw[slot, new].tolist()) if sampling.raw_logprobs else None,
            top_logprobs=tuple(self._tops[slot][sent:count]) if sampling.num_top_logprobs else None,
            finish_reason=finish,
            stop_reason=reason,
        )

    def _describe(self, logits: torch.Tensor, drawn: torch.Tensor, rows: np.ndarray) -> None:
        """Keep the raw log-probabilities of the drawn tokens, and of the likeliest where they were asked for."""
        asked = self._num_top[rows]
        raw, top_ids, top = (x.cpu() for x in raw_logprobs(logits, drawn, int(asked.max())))
        self._raw[rows, self._length[rows]] = raw.numpy()
        for i in np.flatnonzero(asked > 0):
            count = int(asked[i])
            self._tops[rows[i]].append(tuple(zip(top_ids[i, :count].tolist(), top[i, :count].tolist())))

    def _release(self, slot: int) -> None:
        self._active[slot] = False
        self._jobs[slot] = None
        self._last_used[slot] = self._clock

    def _shared(self, prompt: np.ndarray, held: np.ndarray) -> np.ndarray:
        """[S] tokens at the start of each slot, of the ``held`` ones, that are also the prompt's; at most all but the
        last of the prompt, whose hidden state is needed."""
        same = self._history[:, : len(prompt)] == prompt
        first_other = np.where(same.all(axis=1), len(prompt), same.argmin(axis=1))
        return np.minimum(np.minimum(first_other, held), len(prompt) - 1)

    def _place(self, job: Job, prompt: np.ndarray, shared: np.ndarray) -> int:
        """Give a job a slot that holds as much of its prompt as any, and fill in its settings."""
        source = int(shared.argmax())
        extended = np.flatnonzero(~self._active & (shared == shared[source]) & (shared == self._length) & (shared > 0))
        if len(extended):
            slot = int(extended[0])
        else:
            # Empty slots first, the lowest of them; then the one unused for longest.
            age = np.where(self._length == 0, -1, self._last_used)
            slot = int(np.where(self._active, np.iinfo(np.int64).max, age).argmin())
        held = int(shared[source])
        if slot != source and held > shared[slot]:
            self._slots.copy(source, slot, held)
        self._length[slot] = held
        self._history[slot, : len(prompt)] = prompt
        self._prompt_length[slot] = len(prompt)
        self._count[slot] = 0
        sampling = job.sampling
        self._budget[slot] = min(sampling.max_tokens, self._history.shape[1] - 1 - len(prompt))
        self._sent[slot] = 0
        self._tops[slot] = []
        self._watched[slot] = job.streamed or job.stop_text is not None
        self._num_top[slot] = sampling.num_top_logprobs if sampling.num_top_logprobs or sampling.raw_logprobs else -1
        self._temperature[slot], self._min_p[slot] = sampling.temperature, sampling.min_p
        self._top_k[slot], self._top_p[slot] = sampling.top_k, sampling.top_p
        noise = np.random.Generator(np.random.Philox(job.seed))
        self._uniform[slot, : self._budget[slot]] = noise.random(int(self._budget[slot]))
        self._set_stop(slot, job.stop_token_ids)
        self._jobs[slot] = job
        self._active[slot] = True
        return slot

    def _set_stop(self, slot: int, stop_token_ids: Sequence[int]) -> None:
        missing = len(stop_token_ids) - self._stop.shape[1]
        if missing > 0:
            self._stop = np.pad(self._stop, ((0, 0), (0, missing)), constant_values=-1)
        self._stop[slot] = -1
        self._stop[slot, : len(stop_token_ids)] = stop_token_ids

    def _compact(self) -> None:
        """Move active slots down where a quarter of the rows up to the highest would be idle."""
        while True:
            active = np.flatnonzero(self._active)
            high = int(active[-1])
            if len(active) > 0.75 * (high + 1):
                return
            low = int(np.flatnonzero(~self._active)[0])
            self._slots.swap(low, high, int(max(self._length[low], self._length[high])))
            self._jobs[low], self._jobs[high] = self._jobs[high], self._jobs[low]
            self._tops[low], self._tops[high] = self._tops[high], self._tops[low]
            for array in (
                *(self._history, self._logprobs, self._raw, self._versions, self._uniform),
                *(self._length, self._active, self._last_used),
                *(self._prompt_length, self._count, self._sent, self._watched, self._budget),
                *(self._temperature, self._top_k, self._top_p, self._min_p, self._num_top, self._stop),
            ):
                array[[low, high]] = array[[high, low]]
