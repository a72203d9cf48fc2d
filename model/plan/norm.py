"""RMSNorm, planned and not computed: what CUDA's fused kernels allocate and keep, its input and a number a token."""

import torch
from torch import Tensor

from ..decoder import RMSNorm


@torch.library.custom_op("verigym::planned_norm", mutates_args=())
def planned_norm(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out [T, D], 1 / rms [T] float32)."""
    raise NotImplementedError("planned norms run under fake tensors only")


@planned_norm.register_fake
def _(x, weight):
    return torch.empty_like(x), x.new_empty(x.shape[0], dtype=torch.float32)


@torch.library.custom_op("verigym::planned_norm_backward", mutates_args=())
def planned_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight."""
    raise NotImplementedError("planned norms run under fake tensors only")


@planned_norm_backward.register_fake
def _(grad, x, weight, inverse):
    return torch.empty_like(x), torch.empty_like(weight)


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx, *grads):
    return planned_norm_backward(grads[0], *ctx.saved_tensors)


planned_norm.register_autograd(_backward, setup_context=_save)


def plan_norm(norm: RMSNorm, x_TD: Tensor) -> Tensor:
    """In the place of the norm's forward."""
    return planned_norm(x_TD, norm.own_weight())[0]
