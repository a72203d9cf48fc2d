"""A pack as a teacher reads it: its own documents alone, each with what the student was not shown."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .documents import Hint
from .packs import PackedBatch, filler_pack


def as_read_by(teacher: str, pack: PackedBatch) -> PackedBatch:
    """The documents of a pack that a teacher scores, with their hints. Trained tokens are those of the pack's documents
    in the same order, with the same targets; hints are never trained. Of no document: ``filler_pack``.

    Only the columns "temperature" come along.
    """
    chosen = [index for index, name in enumerate(pack.taught) if name == teacher]
    if len(chosen) == len(pack.taught) and not any(pack.hints):
        return pack
    if not chosen:
        return filler_pack()
    starts = [0]
    for length in pack.lengths:
        starts.append(starts[-1] + length)
    spans = [(starts[index], starts[index + 1], pack.hints[index]) for index in chosen]

    def each(make: Callable[[int, int, Hint | None], Sequence[Tensor]]) -> Tensor:
        return torch.cat([piece for span in spans for piece in make(*span)])

    def blank(column: Tensor, fill: float) -> Tensor:
        """A column of the targets, ``fill`` at what is inserted."""

        def cut(start: int, end: int, hint: Hint | None) -> Sequence[Tensor]:
            if hint is None:
                return (column[start:end],)
            # Position t predicts token t + 1; the last of a hint predicts the token it stands before.
            at = start + hint.before - 1
            return column[start:at], column.new_full((len(hint.token_ids),), fill), column[at:end]

        return each(cut)

    def read(start: int, end: int, hint: Hint | None) -> Sequence[Tensor]:
        if hint is None:
            return (pack.token_ids[start:end],)
        at = start + hint.before
        shown = torch.from_numpy(hint.token_ids).to(pack.token_ids.device)
        return pack.token_ids[start:at], shown, pack.token_ids[at:end]

    columns = {name: blank(pack.columns[name], 1.0) for name in ("temperature",) if name in pack.columns}
    return replace(
        pack,
        token_ids=each(read),
        lengths=tuple(end - start + (0 if hint is None else len(hint.token_ids)) for start, end, hint in spans),
        targets=blank(pack.targets, 0),
        loss_mask=blank(pack.loss_mask, False),
        weights=blank(pack.weights, 0.0),
        old_logprobs=blank(pack.old_logprobs, float("nan")),
        advantages=blank(pack.advantages, 0.0),
        columns=columns,
        share="off" if pack.share == "off" else "auto",  # hints may leave little that is shared
        taught=(teacher,) * len(chosen),
        hints=(None,) * len(chosen),
    )


def rows_of(teacher: str, pack: PackedBatch, index: Tensor) -> Tensor:
    """[n] int64, which of the positions ``index``, [N], are trained and of documents that a teacher scores."""
    taught = torch.tensor([name == teacher for name in pack.taught], device=index.device)
    lengths = torch.tensor(pack.lengths, device=index.device)
    return (taught.repeat_interleave(lengths) & pack.loss_mask)[index].nonzero().squeeze(1)
