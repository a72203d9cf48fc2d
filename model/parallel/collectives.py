"""Collectives with gradients, on the tokens (dimension 0) of a tensor."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def gather_tokens(x: Tensor, group: ProcessGroup) -> Tensor:
    """[T / n, ...] on each of n ranks to [T, ...] on all; gradients are summed and cut again."""
    return _Gather.apply(x, group)  # pyright: ignore[reportReturnType]


def scatter_tokens(x: Tensor, group: ProcessGroup) -> Tensor:
    """Sum [T, ...] over n ranks and leave each its [T / n, ...]; gradients are gathered."""
    return _Scatter.apply(x, group)  # pyright: ignore[reportReturnType]


def halo(x: Tensor, count: int, group: ProcessGroup) -> Tensor:
    """The last ``count`` tokens of the rank before, zeros on the first rank; gradients go back to where they came from.

    Args:
        x: [T, ...], T at least ``count``.
    Returns:
        [count, ...].
    """
    return _Halo.apply(x, count, group)  # pyright: ignore[reportReturnType]


# torch 2.13 renamed these.
_gather_into = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_into = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


def _all_gather(x: Tensor, group: ProcessGroup) -> Tensor:
    out = x.new_empty((x.shape[0] * group.size(), *x.shape[1:]))
    _gather_into(out, x.contiguous(), group=group)
    return out


def _reduce_scatter(x: Tensor, group: ProcessGroup) -> Tensor:
    out = x.new_empty((x.shape[0] // group.size(), *x.shape[1:]))
    _reduce_into(out, x.contiguous(), group=group)
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return _all_gather(x, group)

    @staticmethod
    def backward(ctx, *grads):
        return _reduce_scatter(grads[0], ctx.group), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return _reduce_scatter(x, group)

    @staticmethod
    def backward(ctx, *grads):
        return _all_gather(grads[0], ctx.group), None


class _Halo(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, count, group):
        ctx.count, ctx.group, ctx.shape = count, group, x.shape
        received = _pass_on(x[x.shape[0] - count :], group, step=1)
        return received if received is not None else x.new_zeros((count, *x.shape[1:]))

    @staticmethod
    def backward(ctx, *grads):
        grad = grads[0].new_zeros(ctx.shape)
        received = _pass_on(grads[0], ctx.group, step=-1)
        if received is not None:
            grad[ctx.shape[0] - ctx.count :] = received
        return grad, None, None


def _pass_on(x: Tensor, group: ProcessGroup, *, step: int) -> Tensor | None:
    """Send to the rank ``step`` further and receive from the one ``step`` before; None at the end of the row."""
    rank, size = group.rank(), group.size()
    sends = [int(other == rank + step) * x.shape[0] for other in range(size)]
    receives = [int(other == rank - step) * x.shape[0] for other in range(size)]
    x = x.contiguous() if any(sends) else x[:0].contiguous()
    out = x.new_empty((sum(receives), *x.shape[1:]))
    dist.all_to_all_single(out, x, output_split_sizes=receives, input_split_sizes=sends, group=group)
    return out if any(receives) else None
