"""What an optimizer needs to know of shards."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale the gradients of sharded or whole parameters to a global L2 norm of at most ``limit``.

    Returns:
        The norm before, the same scalar on every rank.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
