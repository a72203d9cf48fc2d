"""RMSNorm, with the residual's addition before it where there is one, as a torch operator."""

import torch
from torch import Tensor

from .launch import launch, padded

# Programs of the backward pass: each has a row of the weight's gradient, and their sum is the same on every GPU.
_PROGRAMS = 512


@torch.library.custom_op("verigym::rms_norm", mutates_args=())
def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """s / rms(s) * weight, with s = x + residual, or x.

    Args:
        x, residual: [T, D]; weight: [D]. Computed in float32.
    Returns:
        (normed [T, D]; s [T, D] in the dtype of x, empty where residual is None; 1 / rms [T] float32, for the backward
        pass).
    """
    from .pointwise_triton import rms_norm_forward

    x = x.contiguous()
    residual = None if residual is None else residual.contiguous()
    normed, total, scales = _empty(x, residual)
    if x.shape[0]:
        width = x.shape[1]
        launch(
            rms_norm_forward,
            (x.shape[0],),
            *(x, x if residual is None else residual, weight, normed, total, scales),
            *(width, width, width, width, eps),
            blocks=norm_blocks(width),
            COLUMNS=padded(width),
            RESIDUAL=residual is not None,
        )
    return normed, total, scales


@rms_norm.register_fake
def _(x, residual, weight, eps):
    return _empty(x, residual)


def _empty(x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        torch.empty(x.shape if residual is not None else (0,), dtype=x.dtype, device=x.device),
        torch.empty(x.shape[0], dtype=torch.float32, device=x.device),
    )


def norm_blocks(width: int) -> tuple[int, int, int]:
    """(unused, warps, stages): a row is held in registers, about 32 numbers a thread."""
    return 1, min(max(padded(width) // 1024, 1), 16), 1


@torch.library.custom_op("verigym::rms_norm_backward", mutates_args=())
def rms_norm_backward(
    grad: Tensor, grad_total: Tensor | None, normed_input: Tensor, weight: Tensor, scales: Tensor
) -> tuple[Tensor, Tensor]:
    """(gradient of s [T, D], of weight [D]); grad_total is what reached s otherwise."""
    from .pointwise_triton import rms_norm_backward as kernel

    num_rows, width = normed_input.shape
    grad = grad.contiguous()
    grad_input = torch.empty(normed_input.shape, dtype=normed_input.dtype, device=grad.device)
    if not num_rows:
        return grad_input, torch.zeros_like(weight)
    rows_each = -(-num_rows // _PROGRAMS)
    programs = -(-num_rows // rows_each)
    partials = torch.empty(programs, width, dtype=torch.float32, device=grad.device)
    launch(
        kernel,
        (programs,),
        *(grad, grad if grad_total is None else grad_total.contiguous(), normed_input, weight, scales),
        *(grad_input, partials, width, width, num_rows, width, rows_each),
        blocks=norm_blocks(width),
        COLUMNS=padded(width),
        RESIDUAL=grad_total is not None,
    )
    return grad_input, partials.sum(dim=0).to(weight.dtype)


@rms_norm_backward.register_fake
def _(grad, grad_total, normed_input, weight, scales):
    return (
        torch.empty(normed_input.shape, dtype=normed_input.dtype, device=grad.device),
        torch.empty(weight.shape, dtype=weight.dtype, device=grad.device),
    )


def _save(ctx, inputs, output) -> None:
    x, residual, weight, _ = inputs
    _, total, scales = output
    ctx.has_residual = residual is not None
    ctx.save_for_backward(total if ctx.has_residual else x.contiguous(), weight, scales)
    ctx.mark_non_differentiable(scales, *(() if ctx.has_residual else (total,)))


def _backward(ctx, grad, grad_total, _):
    normed_input, weight, scales = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(normed_input)
    grad_input, grad_weight = rms_norm_backward(
        grad, grad_total if ctx.has_residual else None, normed_input, weight, scales
    )
    return grad_input, grad_input if ctx.has_residual else None, grad_weight, None


rms_norm.register_autograd(_backward, setup_context=_save)
