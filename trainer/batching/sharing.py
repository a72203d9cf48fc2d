"""What the documents of a pack share from their beginnings on, so that it is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...model.attention import Documents
from ...model.attention_documents import SharedDocuments

Share = Literal["off", "auto", "on"]
LEAST_SAVED = 0.2
"""Share of a pack's tokens that must be saved before "auto" computes what is shared once: keys are gathered for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPack:
    """A pack in which each shared token stands once.

    Attributes:
        token_ids: [U] int64.
        documents: where they lie, and what each sees.
        places: [T] int64, for each token of the flat pack where it stands here.
    """

    token_ids: Tensor
    documents: SharedDocuments
    places: Tensor


def plan_shared(
    sequences: Sequence[np.ndarray], share: Share, *, max_tokens: int, ways: int = 1
) -> list[list[int]] | None:
    """Which documents share a pack, where what they have in common counts once; None where they are to stay flat.

    In the order of their ids, so that those with a common beginning are in one pack where it holds them. Deterministic.

    Args:
        sequences: ids of each document, none of them longer than ``max_tokens``.
        share: "auto" does it where a fifth of all tokens is saved.
        ways: ranks that work on the packs at the same time, one each: there are then as many packs as fill whole rounds
            of them, and the largest is as small as that allows.
    Returns:
        indices of the documents of each pack.
    """
    if share == "off" or not sequences:
        return None
    order, common = _in_order(sequences)
    lengths = [len(sequences[number]) for number in order]

    def cut(most: int) -> tuple[list[list[int]], int]:
        """(packs of at most ``most`` tokens, tokens of them all)."""
        packs: list[list[int]] = []
        size = total = 0
        for number, length, known in zip(order, lengths, common, strict=True):
            if not packs or size + length - known > most:
                packs.append([])
                size, known = 0, 0
            packs[-1].append(number)
            size, total = size + length - known, total + length - known
        return packs, total

    packs, total = cut(max_tokens)
    if share == "auto" and total > (1 - LEAST_SAVED) * sum(lengths):
        return None
    wanted = -(-len(packs) // ways) * ways
    low, high = max(max(lengths), -(-total // wanted)), max_tokens
    while ways > 1 and low < high:
        middle = (low + high) // 2
        tried, _ = cut(middle)
        if len(tried) > wanted:
            low = middle + 1
        else:
            packs, high = tried, middle
    return packs


def laid(token_ids: Tensor, lengths: Sequence[int], index: Tensor, share: Share) -> tuple[Tensor, Documents, Tensor]:
    """(token ids, where they lie, where the tokens at ``index`` of the flat pack stand): each shared token once, where
    ``shared_pack`` has it so."""
    shared = shared_pack(token_ids, lengths, share)
    if shared is None:
        return token_ids, Documents.from_lengths(lengths, device=token_ids.device), index
    return shared.token_ids, shared.documents, shared.places.index_select(0, index)


def shared_pack(token_ids: Tensor, lengths: Sequence[int], share: Share) -> SharedPack | None:
    """The pack with what its documents share put together; None where it is to stay flat.

    Documents are put in the order of their ids, so that each shares most with the one before it: what it has beyond
    that is new.

    Args:
        token_ids: [T] int64 of documents end to end.
        lengths: of the documents.
        share: "auto" does it where a fifth of the tokens is saved.
    """
    if share == "off" or len(lengths) < 2:
        return None
    ends = np.cumsum(lengths)
    sequences = np.split(token_ids.cpu().numpy(), ends[:-1])
    order, common = _in_order(sequences)
    paths: list[np.ndarray] = []
    news: list[np.ndarray] = []
    count = 0
    for number, known in zip(order, common, strict=True):
        own = sequences[number]
        path = np.arange(count, count + len(own) - known)
        paths.append(np.concatenate([paths[-1][:known], path]) if known else path)
        news.append(own[known:])
        count += len(own) - known
    if not count or (share == "auto" and count > (1 - LEAST_SAVED) * token_ids.numel()):
        return None
    places: list[np.ndarray] = [np.zeros(0, np.int64)] * len(order)
    for number, path in zip(order, paths, strict=True):
        places[number] = path
    device = token_ids.device
    lie = [torch.from_numpy(path).to(device) for path in paths]
    return SharedPack(
        token_ids=torch.from_numpy(np.concatenate(news)).to(device),
        documents=SharedDocuments.from_paths(lie, [len(new) for new in news]),
        places=torch.from_numpy(np.concatenate(places)).to(device),
    )


def _in_order(sequences: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """(sequences in the order of their ids, how many ids each has in common with the one before it)."""
    order = sorted(range(len(sequences)), key=lambda number: sequences[number].astype(">i8").tobytes())
    before = [np.zeros(0, np.int64), *(sequences[number] for number in order[:-1])]
    return order, [_common(one, sequences[number]) for one, number in zip(before, order, strict=True)]


def _common(left: np.ndarray, right: np.ndarray) -> int:
    """How many ids two sequences begin with alike."""
    count = min(len(left), len(right))
    other = np.flatnonzero(left[:count] != right[:count])
    return int(other[0]) if len(other) else count
