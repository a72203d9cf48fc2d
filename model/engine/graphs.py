"""Decoding steps of fixed shapes, so that CUDA can record one and play it again: a step of a large model is a thousand
launches, and launching them from Python takes longer than they do.

A shape is a bucket of rows and a bucket of context; rows beyond the real ones have length 0 and write to the scratch
page, so they cost little and change nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import Documents
from ..decoder import Decoder
from .cache import KeyValuePages
from .paged import PagedDecode
from .pages import SCRATCH

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Records a computation over memory that stays where it is; what it returns plays it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one decoding step reads.

    Attributes:
        fed, positions: [R] int64, tokens and where they stand.
        lengths: [R] int32, positions + 1.
        tables: of each group [R, blocks] int32.
        places: of each group [R x G] int64, where the new keys go.
    """

    fed: Tensor
    positions: Tensor
    lengths: Tensor
    tables: Sequence[Tensor]
    places: Sequence[Tensor]

    def tensors(self) -> list[Tensor]:
        return [self.fed, self.positions, self.lengths, *self.tables, *self.places]


def run_step(decoder: Decoder, pages: KeyValuePages, step: Step, longest: int) -> Tensor:
    """[R, D], normed; at once, without a recording."""
    view = PagedDecode(pages, step.tables, step.lengths, longest, step.places)
    return decoder(step.fed, Documents([1] * len(step.fed), step.positions), view)


def cuda_capture(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record with ``torch.cuda.graph``, after two runs on a stream beside, as torch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = compute()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class DecodeGraphs:
    """Recorded steps, one for each bucket met so far."""

    def __init__(self, decoder: Decoder, pages: KeyValuePages, capture: Capture = cuda_capture) -> None:
        self._decoder, self._pages, self._capture = decoder, pages, capture
        # A recording may not copy from the host, as each forward would from frequencies that lie there.
        decoder.ropes.to(pages.kv[0].device)
        self._recorded: dict[tuple[int, int], tuple[Step, Callable[[], Tensor]]] = {}

    @property
    def buckets(self) -> list[tuple[int, int]]:
        """(rows, tokens of context) of what is recorded."""
        return sorted(self._recorded)

    def run(self, step: Step, longest: int) -> Tensor:
        """As ``run_step``. The result is overwritten by the next call."""
        num_rows = len(step.fed)
        # Powers of 2: at most half of the rows are idle. Contexts from one split of the kernel upwards.
        key = (_at_least(num_rows, 1), _at_least(longest, 512))
        if key not in self._recorded:
            self._recorded[key] = self._record(*key)
        kept, replay = self._recorded[key]
        for into, given in zip(kept.tensors(), step.tensors(), strict=True):
            if into.dim() == 1:
                into[: len(given)].copy_(given)
            else:
                into[: given.shape[0], : given.shape[1]].copy_(given)
        # What earlier steps left in the rows beyond.
        kept.lengths[num_rows:] = 0
        for places in kept.places:
            places[num_rows * self._pages.num_heads :] = SCRATCH
        return replay()[:num_rows]

    def forget(self) -> None:
        """Drop all recordings: the weights may lie elsewhere now."""
        self._recorded.clear()

    def _record(self, num_rows: int, longest: int) -> tuple[Step, Callable[[], Tensor]]:
        device = self._pages.kv[0].device
        groups = len(self._pages.kv)
        blocks = -(-longest // self._pages.page_size)
        kept = Step(
            fed=torch.zeros(num_rows, dtype=torch.int64, device=device),
            positions=torch.zeros(num_rows, dtype=torch.int64, device=device),
            lengths=torch.zeros(num_rows, dtype=torch.int32, device=device),
            tables=[torch.zeros(num_rows, blocks, dtype=torch.int32, device=device) for _ in range(groups)],
            places=[
                torch.zeros(num_rows * self._pages.num_heads, dtype=torch.int64, device=device) for _ in range(groups)
            ],
        )
        return kept, self._capture(lambda: run_step(self._decoder, self._pages, kept, longest))


def _at_least(count: int, least: int) -> int:
    """The power of 2 at or above both."""
    return 1 << (max(count, least) - 1).bit_length()
