"""Continuous batching: which sequences run, what is fed in each step, who gives way when pages run out. Free of threads
and of asyncio."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ...errors import ConfigError
from ..chat.sampling import PromptScore
from .forward import Forward
from .job import Job, Progress
from .plans import DecodePlan, PrefillPlan
from .rows import Rows, aborted
from .sampler import raw_logprobs, sample
from .scoring import Scoring
from .tables import PageTables

OnWeightUpdate = Literal["recompute", "keep", "abort"]
# A prompt waits one prefill where another that is being fed will share at least this many more tokens with it.
_WORTH_WAITING = 16
# Tokens fed in one step: enough to keep a GPU busy, and as many as a processor's cache holds the activations of.
_STEP_TOKENS, _CACHED_STEP_TOKENS = 8192, 2048


class Batch:
    """As many sequences at once as a ``Forward`` has rows.

    Attributes:
        version: of the weights.
        num_computed, num_reused, num_generated, num_preemptions: see ``EngineStats``.
    """

    def __init__(self, forward: Forward, *, step_tokens: int | None = None) -> None:
        """
        Args:
            step_tokens: most tokens that are fed in one step, but for at least one a sequence; longer prompts are fed
                in chunks. None: what suits the device.
        """
        if step_tokens is None:
            step_tokens = _CACHED_STEP_TOKENS if forward.has_lanes else _STEP_TOKENS
        if step_tokens < 1:
            raise ConfigError(f"step_tokens is {step_tokens}; it must be at least 1")
        self._forward, self._step_tokens = forward, step_tokens
        self._tables = PageTables(
            forward.windows,
            forward.num_pages,
            page_size=forward.page_size,
            num_rows=forward.num_rows,
            capacity=forward.capacity,
            copy_page=forward.copy,
        )
        self._device = forward.decoder.head.weight.device
        self._rows = Rows(forward.num_rows, forward.capacity)
        self._suspended: list[Job] = []
        self._broken = False
        self.version = 0
        self.num_computed = self.num_reused = self.num_generated = self.num_preemptions = 0

    @property
    def num_active(self) -> int:
        return self._rows.num_active

    @property
    def num_pages(self) -> tuple[int, int, int]:
        """(used, free, and of the free those that hold a prefix), of all groups."""
        return self._tables.counts()

    def check(self) -> None:
        """Assert the invariants of the pages."""
        self._tables.check()

    @torch.inference_mode()
    def advance(self, jobs: Sequence[Job]) -> tuple[list[Progress], list[Job]]:
        """Admit what there is room for, feed what is to be fed, and draw a token for each sequence that is fed.

        Returns:
            (what callers are to hear, jobs left over: those not admitted and those that had to give way).
        """
        left = self._admit(jobs)
        progress = self._prefill()
        progress += self._decode()
        left, self._suspended = self._suspended + left, []
        # Who came first goes on first.
        left.sort(key=lambda job: float("inf") if job.sampled is None else job.sampled.order)
        return progress, left

    def cancel(self, tag: Any) -> None:
        """Take a job out of the batch; its pages are kept for other prompts."""
        for row in np.flatnonzero(self._rows.active):
            job = self._rows.jobs[row]
            if job is not None and job.tag is tag:
                self._release(int(row))

    @torch.inference_mode()
    def renew(self, version: int, mode: OnWeightUpdate, jobs: Sequence[Job]) -> tuple[list[Progress], list[Job]]:
        """The weights have become those of ``version``: nothing that was computed is found any more.

        Args:
            mode: of the sequences that have tokens by now. "recompute": their keys and values are computed again.
                "keep": they go on with those of the old weights. "abort": they end here.
            jobs: those that wait.
        Returns:
            as ``advance``.
        """
        progress, left = [], []
        if mode != "keep":
            for row in np.flatnonzero(self._rows.active):
                self._tables.release(int(row))
                left.append(self._rows.take_out(int(row)))
        left += jobs
        if mode == "abort":
            begun = [job.sampled is not None and len(job.sampled.token_ids) > 0 for job in left]
            progress = [aborted(job) for job, has_tokens in zip(left, begun) if has_tokens]
            left = [job for job, has_tokens in zip(left, begun) if not has_tokens]
        self._tables.forget(offered=False)
        self._forward.weights_changed()
        if self._broken:
            self._forward.clear()
            self._broken = False
        self.version = version
        left.sort(key=lambda job: float("inf") if job.sampled is None else job.sampled.order)
        return progress, left

    def forget_prefixes(self) -> None:
        """Nothing that was computed up to now is found by later prompts."""
        self._tables.forget(offered=True)

    def scoring(self, prompt_ids: Sequence[int], num_top: int) -> Scoring:
        """The scoring of a prompt, to be advanced between two steps."""
        return Scoring(self._forward, prompt_ids, num_top, self._step_tokens, self.version)

    def score(self, scoring: Scoring) -> PromptScore | None:
        """Feed up to ``step_tokens`` more of a prompt. None: there are more."""
        count, score = scoring.advance()
        self.num_computed += count
        return score

    def _admit(self, jobs: Sequence[Job]) -> list[Job]:
        """Give rows and pages to jobs, first come, first served. Returns those left over."""
        rows, tables = self._rows, self._tables
        left: list[Job] = []
        for index, job in enumerate(jobs):
            idle = np.flatnonzero(~rows.active)
            if len(idle) <= len(left):  # those left over here will have the rows in the next step
                return [*left, *jobs[index:]]
            known = job.known()
            prefix = tables.find(known)
            if rows.soon_shared(known) >= prefix.length + _WORTH_WAITING:
                left.append(job)
                continue
            if not tables.has_room(prefix, len(known), most=self._step_tokens, promised=self._promised()):
                if rows.num_active:
                    return [*left, *jobs[index:]]
                prefix = tables.nothing  # to keep a prefix and copy its end can take one page more than there is
            row = int(idle[0])
            tables.begin(row, prefix)
            if self._forward.has_lanes and prefix.length:
                held = [group.table[row, : tables.num_blocks(prefix.length)] for group in tables.groups]
                self._forward.fill(row, held, prefix.length)
            rows.place(row, job, known, prefix.length)
            self.num_reused += prefix.length
        return left

    def _promised(self) -> int:
        """Pages of a group that the rows still need for the tokens they have."""
        rows = self._rows
        needed = -(-(rows.known + 1) // self._tables.page_size) - self._tables.blocks
        return int(np.maximum(needed, 0)[rows.active].sum())

    def _make_room(self, row: int, length: int) -> bool:
        """Get pages for ``length`` tokens of a row; where there are too few, who came last gives way. False: this row
        did."""
        while not self._tables.extend(row, length):
            active = np.flatnonzero(self._rows.active)
            last = int(active[self._rows.order[active].argmax()])
            self.num_preemptions += 1
            self._tables.release(last)
            self._suspended.append(self._rows.take_out(last))
            if last == row:
                return False
        return True

    def _prefill(self) -> list[Progress]:
        """Feed rows of which more than the last token is to be fed, the oldest first, up to the budget."""
        rows = self._rows
        pending = np.where(rows.active, rows.known - rows.length, 0)
        filling = np.flatnonzero(pending > 1)
        budget = max(1, self._step_tokens - int((pending == 1).sum()))
        pieces: list[tuple[int, int, int]] = []
        for row in filling[rows.order[filling].argsort()]:
            count = min(int(pending[row]), budget)
            if not count:
                break
            start = int(rows.length[row])
            if rows.active[row] and self._make_room(int(row), start + count):
                pieces.append((int(row), start, count))
                budget -= count
        if not pieces:
            return []
        at = np.concatenate([np.arange(start, start + count) for _, start, count in pieces])
        of = np.concatenate([np.full(count, row) for row, _, count in pieces])
        fed_rows = np.array([row for row, _, _ in pieces])
        lengths = np.array([start + count for _, start, count in pieces])
        whole = lengths == rows.known[fed_rows]
        num_blocks = self._tables.num_blocks(int(lengths.max()))
        logits = self._forward.prefill(
            PrefillPlan(
                pieces=pieces,
                fed=rows.history[of, at],
                positions=at,
                slots=self._tables.slots(of, at),
                tables=[group.table[fed_rows, :num_blocks] for group in self._tables.groups],
                drawn=(np.cumsum([count for _, _, count in pieces]) - 1)[whole],
            )
        )
        self.num_computed += len(at)
        for row, start, count in pieces:
            self._tables.fed(row, start, rows.history[row, start : start + count])
            rows.length[row] += count
        return [] if logits is None else self._draw(logits, fed_rows[whole])

    def _decode(self) -> list[Progress]:
        """Feed the last token of each row that has only that to be fed."""
        rows, tables = self._rows, self._tables
        ready = rows.active & (rows.known - rows.length == 1)
        full = np.flatnonzero(ready & (tables.blocks * tables.page_size <= rows.length))
        for row in full[rows.order[full].argsort()]:
            if rows.active[row]:
                self._make_room(int(row), int(rows.length[row]) + 1)
        if self._forward.has_lanes:
            self._compact()
        drawn = np.flatnonzero(rows.active & (rows.known - rows.length == 1))
        if not len(drawn):
            return []
        places = rows.length[drawn]
        logits = self._forward.decode(self._decode_plan(drawn, int(places.max()) + 1))
        tables.fed_one(drawn, places, rows.history[drawn, places])
        rows.length[drawn] += 1
        self.num_computed += int((rows.count[drawn] == 0).sum())
        return self._draw(logits, drawn)

    def _decode_plan(self, drawn: np.ndarray, longest: int) -> DecodePlan:
        """Lanes are a block of memory, so that all rows up to the last are fed. What those that do not count write is
        not read: it lies behind their end, or in the scratch page."""
        rows, tables = self._rows, self._tables
        lanes = self._forward.has_lanes
        fed_rows = np.arange(int(drawn[-1]) + 1) if lanes else drawn
        positions = rows.length[fed_rows]
        held = [] if lanes else [group.table[fed_rows, : tables.num_blocks(longest)] for group in tables.groups]
        return DecodePlan(
            fed=rows.history[fed_rows, positions],
            positions=positions,
            slots=tables.slots(fed_rows, positions),
            tables=held,
            drawn=drawn if lanes else np.arange(len(drawn)),
        )

    def _draw(self, logits: torch.Tensor, drawn_rows: np.ndarray) -> list[Progress]:
        """Sample for some rows from their logits; release those that end."""
        rows = self._rows
        settings = (
            *(values[drawn_rows] for values in (rows.temperature, rows.top_k, rows.top_p)),
            rows.uniform[drawn_rows, rows.count[drawn_rows]],
            rows.min_p[drawn_rows],
        )
        drawn, logprobs = sample(logits, *(torch.from_numpy(values).to(self._device) for values in settings))
        raw = None
        asked = rows.num_top[drawn_rows]
        if (asked >= 0).any():
            of_drawn, top_ids, top = (x.cpu() for x in raw_logprobs(logits, drawn, int(asked.max())))
            raw = of_drawn.numpy()
            for i in np.flatnonzero(asked > 0):
                count = int(asked[i])
                rows.describe(int(drawn_rows[i]), tuple(zip(top_ids[i, :count].tolist(), top[i, :count].tolist())))
        self.num_generated += len(drawn_rows)
        told = rows.append(drawn_rows, drawn.cpu().numpy(), logprobs.cpu().numpy(), raw, self.version)
        for row, (_, part) in told:
            if part.finish_reason is not None:
                self._broken |= not np.isfinite(part.logprobs).all()
                self._release(row)
        return [progress for _, progress in told]

    def _release(self, row: int) -> None:
        self._tables.release(row)
        self._rows.free(row)

    def _compact(self) -> None:
        """Move rows down where a quarter of those up to the highest would be idle."""
        active = self._rows.active
        while (high := int(np.flatnonzero(active)[-1]) if active.any() else -1) >= 0:
            if self._rows.num_active > 0.75 * (high + 1):
                return
            low = int(np.flatnonzero(~active)[0])
            self._forward.move(high, low, int(self._rows.length[high]))
            self._tables.move(high, low)
            self._rows.move(high, low)
