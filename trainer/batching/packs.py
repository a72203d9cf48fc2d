"""From trajectories to packs: documents laid end to end under a token budget, without padding."""

import heapq
import random
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ...agent.trajectory import Segment, Trajectory
from .rooms import Rooms

OBSERVED = ("system", "user", "tool", "template")
"""Roles of tokens that the assistant did not write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One segment, shifted: position t holds the input token t and everything about token t + 1, its target.

    Attributes:
        token_ids: [L] int64 inputs.
        targets: [L] int64, the token that follows each input.
        loss_mask: [L] bool, whether the target is trained.
        old_logprobs: [L] float32 nats of the target as sampled; NaN where nothing was sampled.
        advantage: of the episode, or [L] of each target; 0 in supervised training.
        weight: of each trained token in the loss's weighted mean.
        observation_weight: the share of ``weight`` that trained tokens have which the assistant did not write.
        written: [L] bool, whether the assistant wrote the target; None: it wrote every trained one.
        columns: name -> [L] float32 of each target, under the name of an attribute of ``losses.TrainedTokens``; or
            "temperature", at which it is scored, and "echo", the weight of an observation in ``losses.echo_loss``.
    """

    token_ids: np.ndarray
    targets: np.ndarray
    loss_mask: np.ndarray
    old_logprobs: np.ndarray
    advantage: float | np.ndarray = 0.0
    weight: float = 1.0
    observation_weight: float = 0.0
    written: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def weights(self) -> np.ndarray:
        """[L] float32, of each target in the loss; 0 where it is not trained."""
        share = 1.0 if self.written is None else np.where(self.written, 1.0, self.observation_weight)
        return (self.loss_mask * share * self.weight).astype(np.float32)


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


def document_of(
    segment: Segment,
    *,
    sampled: bool,
    advantage: float = 0.0,
    weight: float = 1.0,
    observed: Container[str] = (),
) -> Document | None:
    """Shift a segment. What follows the last token that is learned is cut: attention is causal, so it changes no loss.

    Args:
        observed: roles whose tokens are learned, too (by weights that are written elsewhere): nothing up to the last of
            these is cut.
        sampled: every trained token needs the log-probability it was sampled with (reinforcement learning); False
            ignores log-probabilities (demonstrations).
    Returns:
        None where the segment has nothing to learn.
    Raises:
        ValueError: a trained token has no finite log-probability, or has no token before it.
    """
    mask = np.asarray(segment.loss_mask, dtype=bool)
    learned = np.flatnonzero(mask | np.array([role in observed for role in segment.roles], dtype=bool))
    if not len(learned) or (not mask.any() and sampled) or learned[-1] == 0:
        return None
    if mask[0]:
        raise ValueError(
            "the first token of a segment is marked as trained, but nothing predicts it; begin with a prompt"
        )
    end = int(learned[-1])
    ids = np.asarray(segment.token_ids[: end + 1], dtype=np.int64)
    logprobs = np.full(end, np.nan, dtype=np.float32)
    if sampled:
        logprobs = np.asarray(segment.logprobs[1 : end + 1], dtype=np.float32)
        bad = np.flatnonzero(mask[1 : end + 1] & ~np.isfinite(logprobs))
        if len(bad):
            raise ValueError(
                f"token {int(bad[0]) + 1} is trained but its sampled log-probability is {logprobs[bad[0]]} "
                f"({len(bad)} such tokens); sample with an engine that returns them, or train it as a demonstration"
            )
    return Document(
        token_ids=ids[:-1],
        targets=ids[1:],
        loss_mask=mask[1 : end + 1],
        old_logprobs=logprobs,
        advantage=advantage,
        weight=weight,
    )


def demonstrations_of(trajectories: Iterable[Trajectory], *, observation_weight: float = 0.0) -> list[Document]:
    """Documents of episodes to imitate: every assistant token counts the same, whoever wrote it.

    Args:
        observation_weight: of a token that the assistant did not write (prompts, answers of tools), beside 1 for one
            that it did; 0 trains on the assistant's alone.
    """
    segments = (segment for trajectory in trajectories for segment in trajectory.segments)
    observed = OBSERVED if observation_weight else ()
    made = (document_of(segment, sampled=False, observed=observed) for segment in segments)
    documents = [found for found in made if found is not None]
    if not observation_weight:
        return documents
    return [
        replace(
            document,
            written=document.loss_mask,
            loss_mask=np.ones_like(document.loss_mask),
            observation_weight=observation_weight,
        )
        for document in documents
    ]


def pack(
    documents: Sequence[Document], *, max_tokens: int, temperature: float = 1.0, ways: int = 1
) -> list[PackedBatch]:
    """Documents as packs of at most ``max_tokens``; see ``plan_packs``."""
    plan = plan_packs(documents, max_tokens=max_tokens, ways=ways)
    return [join([documents[index] for index in members], temperature=temperature) for members in plan]


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
    lengths = [len(document) for document in documents]
    check_lengths(lengths, max_tokens)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    bins: list[list[int]] = []
    rooms = Rooms()
    for index in order:
        place = rooms.first(lengths[index])
        if place is None:
            place = rooms.add(max_tokens)
            bins.append([])
        bins[place].append(index)
        rooms.take(place, lengths[index])
    return bins if ways == 1 else _evened(lengths, order, bins, max_tokens, ways)


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
    )


class DocumentStream:
    """Documents in a new order each epoch, cut into batches of about ``batch_tokens``. Its state is a cursor.

    Batches do not cross the end of an epoch, and every document is in exactly one batch of it.
    """

    def __init__(self, documents: Sequence[Document], *, batch_tokens: int, seed: int = 0) -> None:
        if not documents:
            raise ValueError("there is no demonstration to train on; give at least one with an assistant token")
        self._documents, self._batch_tokens, self._seed = documents, batch_tokens, seed
        self.epoch = 0
        self._position = 0
        self._order = self._shuffle()

    @property
    def epochs_done(self) -> float:
        return self.epoch + self._position / len(self._documents)

    def next_batch(self) -> list[Document]:
        """At least one document; as many more as fit."""
        batch: list[Document] = []
        total = 0
        while self._position < len(self._order):
            document = self._documents[self._order[self._position]]
            if batch and total + len(document) > self._batch_tokens:
                break
            batch.append(document)
            total += len(document)
            self._position += 1
        if self._position == len(self._order):
            self.epoch, self._position = self.epoch + 1, 0
            self._order = self._shuffle()
        return batch

    def _shuffle(self) -> list[int]:
        order = list(range(len(self._documents)))
        random.Random(f"{self._seed}/{self.epoch}").shuffle(order)
        return order

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self._position, "num_documents": len(self._documents)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError where the demonstrations are not those of the state."""
        if state["num_documents"] != len(self._documents):
            raise ValueError(
                f"the saved cursor is of {state['num_documents']} demonstrations, here are {len(self._documents)}; "
                "resume with the same data"
            )
        self.epoch, self._position = state["epoch"], state["position"]
        self._order = self._shuffle()
