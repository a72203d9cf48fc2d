"""From documents to packs: documents laid end to end under a token budget, without padding, and dealt to ranks."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from .documents import Document, Hint
from .rooms import Rooms
from .sharing import Share, plan_shared


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch:
    """Documents end to end, for one forward pass. Every tensor is [T].

    Attributes:
        token_ids: int64 inputs.
        lengths: tokens of each document; they sum to T.
        targets: int64, the token that follows each input in its own document.
        loss_mask: bool, whether the target is trained.
        weights: float32, of each target in the loss; 0 where it is not trained.
        old_logprobs: float32, nats of the target as sampled; NaN where nothing was sampled.
        advantages: float32, of the target.
        columns: name -> float32, what else is known of the targets (``Document.columns``).
        temperature: at which targets were sampled; log-probabilities are compared at this temperature.
        filler: whether it is no part of the step (``filler_pack``).
        share: whether what documents have in common is computed once (``sharing.shared_pack``).
        taught, hints: of each document, as ``Document`` has them.
    """

    token_ids: Tensor
    lengths: tuple[int, ...]
    targets: Tensor
    loss_mask: Tensor
    weights: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0
    filler: bool = False
    share: Share = "off"
    taught: tuple[str, ...] = ()
    hints: tuple[Hint | None, ...] = ()

    @property
    def num_tokens(self) -> int:
        return int(self.token_ids.numel())

    @property
    def scored(self) -> Tensor:
        """[T] bool, the targets that meet the vocabulary: trained ones, and observations with a weight in "echo"."""
        return self.loss_mask | (self.columns["echo"] > 0) if "echo" in self.columns else self.loss_mask

    @property
    def temperatures(self) -> float | Tensor:
        """One for all targets, or [T] where the column "temperature" says them."""
        return self.columns.get("temperature", self.temperature)

    def to(self, device: torch.device) -> "PackedBatch":
        if self.token_ids.device == device:
            return self
        names = ("token_ids", "targets", "loss_mask", "weights", "old_logprobs", "advantages")
        columns = {name: column.to(device, non_blocking=True) for name, column in self.columns.items()}
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return replace(self, **moved, columns=columns)


def pack(
    documents: Sequence[Document],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    ways: int = 1,
    share: Share = "off",
) -> list[PackedBatch]:
    """Documents as packs of at most ``max_tokens``; see ``planned``."""
    plan, share = planned(documents, max_tokens=max_tokens, ways=ways, share=share)
    return [
        replace(join([documents[index] for index in members], temperature=temperature), share=share) for members in plan
    ]


def planned(
    documents: Sequence[Document], *, max_tokens: int, ways: int = 1, share: Share = "off"
) -> tuple[list[list[int]], Share]:
    """(which documents share a pack, what their packs say of sharing): by ``sharing.plan_shared`` where what they have
    in common is computed once, and then it counts once; else by ``plan_packs``.

    Raises:
        ValueError: one document is longer than ``max_tokens``.
    """
    if share != "off":
        check_lengths(lengths_of(documents), max_tokens)
        sequences = [document.token_ids for document in documents]
        plan = plan_shared(sequences, share, max_tokens=max_tokens, ways=ways)
        if plan is not None:
            return plan, "on"
    return plan_packs(documents, max_tokens=max_tokens, ways=ways), "off"


def plan_packs(documents: Sequence[Document], *, max_tokens: int, ways: int = 1) -> list[list[int]]:
    """Which documents share a pack: first fit by falling length, no pack above ``max_tokens``. Deterministic.

    Args:
        ways: ranks that work on the packs at the same time, one each. There are then as many packs as fill whole
            rounds of them, of about the same number of tokens, where documents can be dealt out like that.
    Returns:
        indices of the documents of each pack.
    Raises:
        ValueError: one document is longer than ``max_tokens``.
    """
    lengths = lengths_of(documents)
    check_lengths(lengths, max_tokens)
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    bins: list[list[int]] = []
    rooms = Rooms()
    for size, alike in groupby(order, key=lengths.__getitem__):
        those, at = list(alike), 0
        while at < len(those):  # a room takes all of one length that it holds before the next one is asked
            place = rooms.first(size)
            if place is None:
                place = rooms.add(max_tokens)
                bins.append([])
            count = min(len(those) - at, rooms.left(place) // size) if size else len(those)
            bins[place] += those[at : at + count]
            rooms.take(place, count * size)
            at += count
    return bins if ways == 1 else _evened(lengths, order, bins, max_tokens, ways)


def lengths_of(documents: Sequence[Document]) -> list[int]:
    """Tokens of each; of documents on disk without reading them."""
    told = getattr(documents, "lengths", None)
    return [len(document) for document in documents] if told is None else told().tolist()


def check_lengths(lengths: Iterable[int], max_tokens: int) -> None:
    """Raises ValueError where a document is longer than a microbatch."""
    longest = max(lengths, default=0)
    if longest > max_tokens:
        raise ValueError(
            f"a document has {longest} tokens, and a microbatch holds {max_tokens}; raise microbatch_tokens, or bound "
            "episodes with a smaller token budget"
        )


def _evened(
    lengths: Sequence[int], order: Sequence[int], bins: list[list[int]], max_tokens: int, ways: int
) -> list[list[int]]:
    """The documents dealt to whole rounds of packs, the longest to the emptiest; ``bins`` where one would not fit."""
    count = min(-(-len(bins) // ways) * ways, len(lengths))
    evened: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, place) for place in range(count)]  # a heap
    for index in order:
        size, place = emptiest[0]
        evened[place].append(index)
        heapq.heapreplace(emptiest, (size + lengths[index], place))
    return evened if max(emptiest, default=(0, 0))[0] <= max_tokens else bins


def filler_pack() -> PackedBatch:
    """A pack that trains nothing, for a rank that has no more while others do."""
    nothing = Document(
        token_ids=np.zeros(1, np.int64),
        targets=np.zeros(1, np.int64),
        loss_mask=np.zeros(1, bool),
        old_logprobs=np.full(1, np.nan, np.float32),
    )
    return replace(join([nothing]), filler=True)


def deal(packs: Sequence[PackedBatch], ways: int) -> list[list[tuple[int | None, PackedBatch]]]:
    """For each of ``ways`` ranks the same number of packs, about the same tokens in all, and alike in each round.

    Returns:
        (its number, the pack) each; (None, ``filler_pack()``) where a rank has nothing in the last round.
    """
    order = sorted(range(len(packs)), key=lambda number: (-packs[number].num_tokens, number))
    shares: list[list[tuple[int | None, PackedBatch]]] = [[] for _ in range(ways)]
    sizes = [0] * ways
    for start in range(0, len(order), ways):
        round_ = order[start : start + ways]
        # Those that have the least so far get the longest of the round.
        ranks = sorted(range(ways), key=lambda rank: (sizes[rank], rank))
        for rank, number in zip(ranks, round_):
            shares[rank].append((number, packs[number]))
            sizes[rank] += packs[number].num_tokens
        for rank in ranks[len(round_) :]:
            shares[rank].append((None, filler_pack()))
    return shares


def join(documents: Sequence[Document], *, temperature: float = 1.0) -> PackedBatch:
    """Documents as one pack, in the order given."""
    lengths = tuple(len(document) for document in documents)
    mask = np.concatenate([document.loss_mask for document in documents])
    advantages = [np.broadcast_to(np.float32(one.advantage), len(one)) for one in documents]
    names = documents[0].columns.keys()
    return PackedBatch(
        token_ids=torch.from_numpy(np.concatenate([document.token_ids for document in documents])),
        lengths=lengths,
        targets=torch.from_numpy(np.concatenate([document.targets for document in documents])),
        loss_mask=torch.from_numpy(mask),
        weights=torch.from_numpy(np.concatenate([document.weights for document in documents])),
        old_logprobs=torch.from_numpy(np.concatenate([document.old_logprobs for document in documents])),
        advantages=torch.from_numpy(np.concatenate(advantages)),
        columns={name: torch.from_numpy(np.concatenate([one.columns[name] for one in documents])) for name in names},
        temperature=temperature,
        taught=tuple(one.taught for one in documents),
        hints=tuple(one.hint for one in documents),
    )
