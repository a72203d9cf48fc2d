"""Continuous batching: which sequences run, what is fed in each step, who gives way when pages run out. Free of threads
and of asyncio."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ...errors import ConfigError
from ..attention import Documents
from ..chat.sampling import PromptScore, TopLogprobs
from ..decoder import Decoder
from ..kernels.launch import fused
from .cache import KeyValuePages, layer_groups
from .graphs import Capture, DecodeGraphs, Step, run_step
from .job import Job, Progress
from .lanes import LaneDecode, LanePrefill, Lanes
from .paged import PagedPrefill
from .rows import Rows, aborted
from .sampler import logits_of, raw_logprobs, sample
from .tables import PageTables

OnWeightUpdate = Literal["recompute", "keep", "abort"]
# A prompt waits one prefill where another that is being fed will share at least this many more tokens with it.
_WORTH_WAITING = 16
# Rows of logits over the whole vocabulary that scoring a prompt makes at once.
_SCORED_ROWS = 512


class Batch:
    """Up to ``max_batch`` sequences at once.

    Attributes:
        version: of the weights.
        num_computed, num_reused, num_generated, num_preemptions: see ``EngineStats``.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_batch: int,
        max_context: int,
        page_size: int = 16,
        cache_tokens: int | None = None,
        step_tokens: int = 8192,
        capture: Capture | None = None,
    ) -> None:
        """
        Args:
            page_size: tokens of a page.
            cache_tokens: of all sequences and kept prefixes together, in each group of layers; None: as many as
                ``max_batch`` sequences of ``max_context`` tokens have.
            step_tokens: most tokens that are fed in one step, but for at least one a sequence; longer prompts are fed
                in chunks.
            capture: records decoding steps where the kernels run; None: every step is launched anew.
        """
        blocks = -(-max_context // page_size)
        pages = max_batch * blocks if cache_tokens is None else cache_tokens // page_size
        if pages < blocks:
            raise ConfigError(
                f"cache_tokens is {cache_tokens}: not even one sequence of {max_context} tokens fits into its "
                f"{pages} pages; give at least {blocks * page_size}, or lower max_context"
            )
        if step_tokens < 1:
            raise ConfigError(f"step_tokens is {step_tokens}; it must be at least 1")
        self._decoder, self._step_tokens = decoder, step_tokens
        weight = decoder.head.weight
        self._device = weight.device
        groups = layer_groups(decoder.config)
        num_pages = [pages + 1] * len(groups)  # and the scratch page
        self._pages = KeyValuePages(decoder.config, num_pages, page_size, dtype=weight.dtype, device=weight.device)
        self._tables = PageTables(
            [group.window for group in groups],
            num_pages,
            page_size=page_size,
            num_rows=max_batch,
            capacity=max_context,
            copy_page=self._pages.copy,
        )
        self._lanes = None if fused(weight) else Lanes(self._pages, max_batch, max_context)
        self._graphs = None if capture is None else DecodeGraphs(decoder, self._pages, capture)
        self._rows = Rows(max_batch, max_context)
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
        pools = [group.pool for group in self._tables.groups]
        free = sum(pool.num_free for pool in pools)
        return sum(pool.num_pages for pool in pools) - free, free, sum(pool.num_idle for pool in pools)

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
        if self._graphs is not None:
            self._graphs.forget()
        if self._broken:
            self._pages.clear()
            if self._lanes is not None:
                self._lanes.clear()
            self._broken = False
        self.version = version
        left.sort(key=lambda job: float("inf") if job.sampled is None else job.sampled.order)
        return progress, left

    def forget_prefixes(self) -> None:
        """Nothing that was computed up to now is found by later prompts."""
        self._tables.forget(offered=True)

    @torch.inference_mode()
    def score(self, prompt_ids: Sequence[int], num_top: int) -> PromptScore:
        """The prompt's own log-probabilities, from one forward beside the pages."""
        ids = torch.tensor(list(prompt_ids), device=self._device)
        hidden = self._decoder(ids, Documents.from_lengths([len(ids)], device=self._device))[:-1]
        self.num_computed += len(ids)
        logprobs: list[float | None] = [None]
        tops: list[TopLogprobs | None] = [None]
        for rows, targets in zip(hidden.split(_SCORED_ROWS), ids[1:].split(_SCORED_ROWS), strict=True):
            own, top_ids, top = raw_logprobs(logits_of(self._decoder, rows), targets, num_top)
            logprobs += own.tolist()
            tops += [tuple(zip(*row)) for row in zip(top_ids.tolist(), top.tolist())]
        return PromptScore(
            logprobs=tuple(logprobs), top_logprobs=tuple(tops) if num_top else None, policy_version=self.version
        )

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
            if self._soon(known) >= prefix.length + _WORTH_WAITING:
                left.append(job)
                continue
            if not tables.has_room(prefix, len(known), most=self._step_tokens, promised=self._promised()):
                if rows.num_active:
                    return [*left, *jobs[index:]]
                prefix = tables.nothing  # to keep a prefix and copy its end can take one page more than there is
            row = int(idle[0])
            tables.begin(row, prefix)
            if self._lanes is not None and prefix.length:
                self._lanes.load(row, tables, prefix.length)
            rows.place(row, job, known, prefix.length)
            self.num_reused += prefix.length
        return left

    def _soon(self, known: np.ndarray) -> int:
        """Tokens that a prompt will share with one that is being fed."""
        rows = self._rows
        filling = np.flatnonzero(rows.active & (rows.known - rows.length > 1))
        if not len(filling):
            return 0
        same = rows.history[filling, : len(known)] == known
        common = np.where(same.all(axis=1), len(known), same.argmin(axis=1))
        return int(np.minimum(common, rows.known[filling]).clip(max=len(known) - 1).max())

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
        fed = np.concatenate([rows.history[row, start : start + count] for row, start, count in pieces])
        at = np.concatenate([np.arange(start, start + count) for _, start, count in pieces])
        of = np.concatenate([np.full(count, row) for row, _, count in pieces])
        places = self._pages.places(self._tables, of, at)
        if self._lanes is None:
            view = PagedPrefill(self._pages, self._tables, pieces, places)
        else:
            view = LanePrefill(self._lanes, pieces, places)
        documents = Documents([count for _, _, count in pieces], torch.from_numpy(at).to(self._device))
        hidden = self._decoder(torch.from_numpy(fed).to(self._device), documents, view)
        self.num_computed += len(fed)
        for row, start, count in pieces:
            self._tables.fed(row, start, rows.history[row, start : start + count])
            rows.length[row] += count
        ends = np.cumsum([count for _, _, count in pieces]) - 1
        drawn = np.array([row for row, _, _ in pieces])
        whole = rows.length[drawn] == rows.known[drawn]
        if not whole.any():
            return []
        return self._draw(hidden[torch.from_numpy(ends[whole]).to(self._device)], drawn[whole])

    def _decode(self) -> list[Progress]:
        """Feed the last token of each row that has only that to be fed."""
        rows, tables = self._rows, self._tables
        ready = rows.active & (rows.known - rows.length == 1)
        full = np.flatnonzero(ready & (tables.blocks * tables.page_size <= rows.length))
        for row in full[rows.order[full].argsort()]:
            if rows.active[row]:
                self._make_room(int(row), int(rows.length[row]) + 1)
        if self._lanes is not None:
            self._compact()
        fed_rows = np.flatnonzero(rows.active & (rows.known - rows.length == 1))
        if not len(fed_rows):
            return []
        hidden = self._decode_lanes(fed_rows) if self._lanes is not None else self._decode_pages(fed_rows)
        places = rows.length[fed_rows]
        tables.fed_one(fed_rows, places, rows.history[fed_rows, places])
        rows.length[fed_rows] += 1
        self.num_computed += int((rows.count[fed_rows] == 0).sum())
        return self._draw(hidden, fed_rows)

    def _decode_lanes(self, fed_rows: np.ndarray) -> torch.Tensor:
        """[rows, D]. Lanes are a block of memory, so that all rows up to the last are fed. What those that do not count
        write is not read: it lies behind their end, or in the scratch page."""
        assert self._lanes is not None
        num_rows = int(fed_rows[-1]) + 1
        all_rows = np.arange(num_rows)
        positions = self._rows.length[:num_rows].copy()
        view = LaneDecode(
            self._lanes,
            positions,
            int(positions[fed_rows].max()) + 1,
            self._pages.places(self._tables, all_rows, positions),
        )
        fed = torch.from_numpy(self._rows.history[all_rows, positions]).to(self._device)
        documents = Documents([1] * num_rows, torch.from_numpy(positions).to(self._device))
        hidden = self._decoder(fed, documents, view)
        return hidden if len(fed_rows) == num_rows else hidden[torch.from_numpy(fed_rows).to(self._device)]

    def _decode_pages(self, fed_rows: np.ndarray) -> torch.Tensor:
        """[rows, D]."""
        positions = self._rows.length[fed_rows]
        longest = int(positions.max()) + 1
        num_blocks = self._tables.num_blocks(longest)
        tables = [
            torch.from_numpy(group.table[fed_rows, :num_blocks].astype(np.int32)).to(self._device)
            for group in self._tables.groups
        ]
        step = Step(
            fed=torch.from_numpy(self._rows.history[fed_rows, positions]).to(self._device),
            positions=torch.from_numpy(positions).to(self._device),
            lengths=torch.from_numpy((positions + 1).astype(np.int32)).to(self._device),
            tables=tables,
            places=self._pages.places(self._tables, fed_rows, positions),
        )
        if self._graphs is not None:
            return self._graphs.run(step, longest)
        return run_step(self._decoder, self._pages, step, longest)

    def _draw(self, hidden: torch.Tensor, drawn_rows: np.ndarray) -> list[Progress]:
        """Sample for some rows from the hidden states of their last tokens; release those that end."""
        rows = self._rows
        logits = logits_of(self._decoder, hidden)
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
        assert self._lanes is not None
        active = self._rows.active
        while (high := int(np.flatnonzero(active)[-1]) if active.any() else -1) >= 0:
            if self._rows.num_active > 0.75 * (high + 1):
                return
            low = int(np.flatnonzero(~active)[0])
            self._lanes.move(high, low, int(self._rows.length[high]))
            self._tables.move(high, low)
            self._rows.move(high, low)
