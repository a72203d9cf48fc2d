"""Tokens that are kept to look at: what an update found at each, from the pack it was in to the episode it is of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ...agent.trajectory import Trajectory
from ..batching.documents import Document, document_of
from ..batching.packs import PackedBatch
from ..objective.losses import TokenLoss
from ..recipe.algorithms import RLConfig
from .scores import Scores

COLUMN = "kept"
"""Column of a document: its number, from 1, at each token where it is kept; 0 where it is not."""
FOUND = ("trainer_logprobs", "entropy", "ratio", "clipped", "correction")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTokens:
    """What a step knows of the tokens of one segment. Every column is [T] of the segment's tokens, NaN where there is
    none: where nothing was sampled, and in all of them but the advantage's where the segment was not trained.

    Attributes:
        episode, segment: places of the episode among the step's, and of the segment in it.
        columns: "advantage"; "trainer_logprobs" (nats) and "entropy" (nats) at the first update that used the token;
            "ratio" (of the new policy over the old, of what the loss clips), "clipped" (1 or 0) and "correction" (the
            weight of the sampler's draw) at the last.
    """

    episode: int
    segment: int
    columns: Mapping[str, np.ndarray]


def found_at(pack: PackedBatch, scores: Scores, loss: TokenLoss) -> dict[str, Tensor]:
    """What an update found at the kept tokens of a pack, in their order.

    Args:
        scores: of the trained tokens.
        loss: at them.
    Returns:
        name -> [N] on the CPU: "document" and those of ``FOUND`` that the loss has.
    """
    documents = pack.columns[COLUMN][scores.index]
    chosen = documents > 0
    columns = {"document": documents, "trainer_logprobs": scores.logprobs, "entropy": scores.entropy}
    named = {"ratio": "ratio", "clipfrac": "clipped", "correction": "correction"}
    columns |= {named[name]: value for name, value in loss.metrics.items() if name in named}
    return {name: value.detach()[chosen].float().cpu() for name, value in columns.items()}


def marked(
    documents: Sequence[Sequence[Document]], chosen: Iterable[int]
) -> tuple[list[tuple[Document, ...]], dict[int, tuple[int, int]]]:
    """Documents with the column that says which are kept.

    Args:
        documents: of each episode.
        chosen: places of episodes.
    Returns:
        (the documents; number of a kept document -> (its episode, its place among the episode's)). Where none of the
        chosen has a document, nothing is marked.
    """
    wanted, owners, result = set(chosen), {}, []
    if not any(documents[index] for index in wanted):
        return [tuple(mine) for mine in documents], {}
    for index, mine in enumerate(documents):
        found = []
        for place, one in enumerate(mine):
            number = 0
            if index in wanted:
                number = len(owners) + 1
                owners[number] = (index, place)
            column = np.full(len(one), number, np.float32)
            found.append(replace(one, columns={**one.columns, COLUMN: column}))
        result.append(tuple(found))
    return result, owners


def kept_tokens(
    trajectories: Sequence[Trajectory],
    documents: Sequence[Sequence[Document]],
    owners: Mapping[int, tuple[int, int]],
    updates: Sequence[Mapping[str, Tensor]],
    chosen: Iterable[int],
    config_of_episode: Sequence[RLConfig],
) -> tuple[KeptTokens, ...]:
    """What the updates of a step found, at the tokens of the chosen episodes.

    Args:
        owners: as ``marked`` returns them.
        updates: as ``found_at`` returns them, of every pack, in the order of the updates.
    """
    numbers = {owner: number for number, owner in owners.items()}
    found: list[KeptTokens] = []
    for index in sorted(chosen):
        places = iter(range(len(documents[index])))
        for segment_number, segment in enumerate(trajectories[index].segments):
            columns = {name: np.full(len(segment.token_ids), np.nan, np.float32) for name in ("advantage", *FOUND)}
            is_document = document_of(segment, sampled=True, observed=config_of_episode[index].echo) is not None
            place = next(places, None) if is_document else None
            if place is not None:
                document = documents[index][place]
                at = np.flatnonzero(document.loss_mask) + 1  # a document's position t is of the token after it
                columns["advantage"][at] = np.broadcast_to(document.advantage, len(document))[document.loss_mask]
                for name, values in _values(updates, numbers.get((index, place), 0)).items():
                    if len(values) == len(at):
                        columns[name][at] = values
            found.append(KeptTokens(episode=index, segment=segment_number, columns=columns))
    return tuple(found)


def _values(updates: Sequence[Mapping[str, Tensor]], number: int) -> dict[str, np.ndarray]:
    """Columns of one document: of the first update that had it, and what changes with the weights of the last."""
    values: dict[str, np.ndarray] = {}
    for update in updates:
        mine = update["document"].numpy() == number
        if not number or not mine.any():
            continue
        for name in FOUND:
            if name in update and (name not in values or name not in ("trainer_logprobs", "entropy")):
                values[name] = update[name].numpy()[mine]
    return values
