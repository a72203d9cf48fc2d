"""Attention that is planned, not computed: what it allocates and keeps is what our kernels do (O(T), the log-sum-exp
beside the output), and it carries the number of query-key pairs it would work on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention import Documents


@torch.library.custom_op("verigym::planned_attention", mutates_args=())
def planned_attention(q: Tensor, k: Tensor, v: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """(out [T, H, K], log-sum-exp [H, T] float32) of ``pairs`` query-key pairs a head."""
    raise NotImplementedError("planned attention runs under fake tensors only")


@planned_attention.register_fake
def _(q, k, v, pairs):
    return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("verigym::planned_attention_backward", mutates_args=())
def planned_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, pairs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    raise NotImplementedError("planned attention runs under fake tensors only")


@planned_attention_backward.register_fake
def _(grad, q, k, v, out, lse, pairs):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output) -> None:
    q, k, v, ctx.pairs = inputs
    ctx.save_for_backward(q, k, v, *output)


def _backward(ctx, *grads):
    return *planned_attention_backward(grads[0], *ctx.saved_tensors, ctx.pairs), None


planned_attention.register_autograd(_backward, setup_context=_save)


def plan_attention(
    q_THK: Tensor, k_SGK: Tensor, v_SGK: Tensor, documents: Documents, window: int | None, *, keys: Documents
) -> Tensor:
    """In the place of ``attention.attend``."""
    pairs = num_pairs(documents.lengths, keys.lengths, window)
    return planned_attention(q_THK.contiguous(), k_SGK.contiguous(), v_SGK, pairs)[0]


class PlannedAttention:
    """In the place of a cache: attention within one rank."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        return plan_attention(q_THK, k_TGK, v_TGK, self._documents, window, keys=self._documents)


def num_pairs(queries: Sequence[int], keys: Sequence[int], window: int | None) -> int:
    """Query-key pairs that causality and the window leave; each document's last query stands at its last key."""
    total = 0
    for count, seen in zip(queries, keys, strict=True):
        first, last = seen - count + 1, seen  # keys before and including the first and the last query
        wide = seen if window is None else min(window, seen)
        growing = max(0, min(last, wide) - first + 1)  # queries that see all before them
        total += growing * (2 * first + growing - 1) // 2 + (count - growing) * wide
    return total
