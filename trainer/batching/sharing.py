"""What the documents of a pack share from their beginnings on, so that it is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

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
    order = sorted(range(len(sequences)), key=lambda number: sequences[number].astype(">i8").tobytes())
    paths: list[np.ndarray] = []
    news: list[np.ndarray] = []
    before, count = np.zeros(0, np.int64), 0
    for number in order:
        own = sequences[number]
        known = _common(before, own)
        path = np.arange(count, count + len(own) - known)
        paths.append(np.concatenate([paths[-1][:known], path]) if known else path)
        news.append(own[known:])
        before, count = own, count + len(own) - known
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


def _common(left: np.ndarray, right: np.ndarray) -> int:
    """How many ids two sequences begin with alike."""
    count = min(len(left), len(right))
    other = np.flatnonzero(left[:count] != right[:count])
    return int(other[0]) if len(other) else count
