"""The sequences of a batch, a row each: tokens, log-probabilities, settings. Free of torch.

The arrays are numpy's; torch sees the same memory.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..chat.sampling import CompletionPart, FinishReason, Sampling, StopReason, TopLogprobs
from .job import Job, Progress, Sampled


class Rows:
    """Up to R sequences.

    Attributes:
        history: [R, N] tokens of the prompt and the completion; known: [R] how many there are.
        length: [R] how many of them were fed: their keys and values are kept.
        uniform: [R, N] the noise of each draw, in [0, 1); count: [R] draws so far.
        active: [R] whether there is a sequence; order: [R] when it first came in.
        temperature, top_k, top_p, min_p: [R] as ``Sampling``.
        num_top: [R] as ``Sampling.num_top_logprobs``, -1 where not even raw log-probabilities were asked for.
    """

    def __init__(self, num_rows: int, width: int) -> None:
        self.jobs: list[Job | None] = [None] * num_rows
        self._tops: list[list[TopLogprobs]] = [[] for _ in range(num_rows)]
        self._next_order = 0
        self.history = np.zeros((num_rows, width), np.int64)
        self._logprobs = np.zeros((num_rows, width), np.float32)
        self._raw = np.zeros((num_rows, width), np.float32)
        self._versions = np.zeros((num_rows, width), np.int64)
        self.uniform = np.zeros((num_rows, width), np.float64)
        self.length, self.known, self.count, self.order, self._sent, self._budget, self._prompt_length = (
            np.zeros(num_rows, np.int64) for _ in range(7)
        )
        self.active, self._watched = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
        self.temperature, self.min_p = np.zeros(num_rows, np.float32), np.zeros(num_rows, np.float32)
        self.top_k, self.top_p = np.zeros(num_rows, np.int64), np.ones(num_rows, np.float32)
        self.num_top = np.full(num_rows, -1, np.int64)
        self._stop = np.full((num_rows, 4), -1, np.int64)

    @property
    def num_active(self) -> int:
        return int(self.active.sum())

    @property
    def num_rows(self) -> int:
        return len(self.active)

    def soon_shared(self, known: np.ndarray) -> int:
        """Tokens that a prompt will share with one that is being fed."""
        filling = np.flatnonzero(self.active & (self.known - self.length > 1))
        if not len(filling):
            return 0
        same = self.history[filling, : len(known)] == known
        common = np.where(same.all(axis=1), len(known), same.argmin(axis=1))
        return int(np.minimum(common, self.known[filling]).clip(max=len(known) - 1).max())

    def place(self, row: int, job: Job, known: np.ndarray, length: int) -> None:
        """Fill an idle row: ``known`` tokens, of which the first ``length`` need not be fed."""
        sampling, prompt_length = job.sampling, len(job.prompt_ids)
        self.history[row, : len(known)] = known
        self.known[row], self.length[row] = len(known), length
        self._prompt_length[row] = prompt_length
        self._budget[row] = min(sampling.max_tokens, self.history.shape[1] - prompt_length)
        self._restore(row, job.sampled, prompt_length)
        self.temperature[row], self.min_p[row] = sampling.temperature, sampling.min_p
        self.top_k[row], self.top_p[row] = sampling.top_k, sampling.top_p
        self._watched[row] = job.streamed or job.stop_text is not None
        self.num_top[row] = sampling.num_top_logprobs if sampling.num_top_logprobs or sampling.raw_logprobs else -1
        budget = int(self._budget[row])
        self.uniform[row, :budget] = noise_of(job.seed, budget)
        self._set_stop(row, job.stop_token_ids)
        self.jobs[row] = job
        self.active[row] = True

    def _restore(self, row: int, sampled: Sampled | None, start: int) -> None:
        if sampled is None:
            self.order[row], self._next_order = self._next_order, self._next_order + 1
            self.count[row] = self._sent[row] = 0
            self._tops[row] = []
            return
        self.order[row], self._sent[row] = sampled.order, sampled.num_sent
        self.count[row] = count = len(sampled.token_ids)
        self._tops[row] = list(sampled.tops)
        own = slice(start, start + count)
        self._logprobs[row, own], self._raw[row, own] = sampled.logprobs, sampled.raw_logprobs
        self._versions[row, own] = sampled.versions

    def take_out(self, row: int) -> Job:
        """Free a row before its end; the job can be placed again."""
        job, sampled = self.jobs[row], self._sampled(row)
        assert job is not None
        values = {name: getattr(sampled, name).copy() for name in ("token_ids", "logprobs", "raw_logprobs", "versions")}
        self.free(row)
        return replace(job, sampled=replace(sampled, **values))

    def _sampled(self, row: int) -> Sampled:
        """What there is of a row's completion, in the memory of the row."""
        own = slice(int(self._prompt_length[row]), int(self.known[row]))
        return Sampled(
            token_ids=self.history[row, own],
            logprobs=self._logprobs[row, own],
            raw_logprobs=self._raw[row, own],
            versions=self._versions[row, own],
            tops=self._tops[row],
            num_sent=int(self._sent[row]),
            order=int(self.order[row]),
        )

    def free(self, row: int) -> None:
        self.active[row] = False
        self.jobs[row] = None
        self.known[row] = self.length[row] = 0

    def move(self, source: int, target: int) -> None:
        """Move a row to an idle one."""
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array[target] = array[source]
        self.jobs[target], self._tops[target] = self.jobs[source], self._tops[source]
        self.free(source)

    def describe(self, row: int, top: TopLogprobs) -> None:
        """Keep the likeliest tokens in the place of the next one."""
        self._tops[row].append(top)

    def append(
        self, rows: np.ndarray, token_ids: np.ndarray, logprobs: np.ndarray, raw: np.ndarray | None, version: int
    ) -> list[tuple[int, Progress]]:
        """Add a drawn token to each of some rows.

        Returns:
            (row, what its caller is to hear) where there is something; a finish reason says that the row has ended.
        """
        places = self.known[rows]
        self.history[rows, places] = token_ids
        self._logprobs[rows, places] = logprobs
        self._versions[rows, places] = version
        if raw is not None:
            self._raw[rows, places] = raw
        self.known[rows] += 1
        self.count[rows] += 1
        stopped = (self._stop[rows] == token_ids[:, None]).any(axis=1)
        ended = stopped | (self.count[rows] >= self._budget[rows]) | ~np.isfinite(logprobs)
        told = []
        for i in np.flatnonzero(ended | self._watched[rows]):
            row = int(rows[i])
            progress = self._tell(row, int(token_ids[i]), bool(stopped[i]), bool(ended[i]))
            if progress is not None:
                told.append((row, progress))
        return told

    def _tell(self, row: int, token_id: int, stopped: bool, ended: bool) -> Progress | None:
        job = self.jobs[row]
        assert job is not None
        reason: StopReason | None = token_id if stopped else None
        if job.stop_text is not None and (found := job.stop_text.push(token_id)) is not None and not stopped:
            reason, ended = found, True
        if not (ended or job.streamed):
            return None
        return self.part(row, ("length" if reason is None else "stop") if ended else None, reason)

    def part(self, row: int, finish: FinishReason | None, reason: StopReason | None = None) -> Progress:
        """What the row's caller has not heard yet."""
        job = self.jobs[row]
        assert job is not None
        part = part_of(job.sampling, self._sampled(row), finish, reason)
        self._sent[row] = self.count[row]
        return job.tag, part

    def _set_stop(self, row: int, stop_token_ids: Sequence[int]) -> None:
        missing = len(stop_token_ids) - self._stop.shape[1]
        if missing > 0:
            self._stop = np.pad(self._stop, ((0, 0), (0, missing)), constant_values=-1)
        self._stop[row] = -1
        self._stop[row, : len(stop_token_ids)] = stop_token_ids


def noise_of(seed: int, count: int) -> np.ndarray:
    """[count] float64 in [0, 1): what a request of this seed draws its tokens with, and nothing else does."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def part_of(
    sampling: Sampling, sampled: Sampled, finish: FinishReason | None, reason: StopReason | None = None
) -> CompletionPart:
    """What its caller has not heard yet."""
    new = slice(sampled.num_sent, None)
    return CompletionPart(
        token_ids=tuple(sampled.token_ids[new].tolist()),
        logprobs=tuple(sampled.logprobs[new].tolist()),
        policy_version=tuple(sampled.versions[new].tolist()),
        raw_logprobs=tuple(sampled.raw_logprobs[new].tolist()) if sampling.raw_logprobs else None,
        top_logprobs=tuple(sampled.tops[new]) if sampling.num_top_logprobs else None,
        finish_reason=finish,
        stop_reason=reason,
    )


def aborted(job: Job) -> Progress:
    """The end of a job that was taken out of the batch."""
    assert job.sampled is not None
    return job.tag, part_of(job.sampling, job.sampled, "abort")
