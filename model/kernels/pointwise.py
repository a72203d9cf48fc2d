"""SwiGLU and the rotary turn, as torch operators."""

import torch
from torch import Tensor

from .launch import launch, padded

# (unused, warps, stages) and columns of one program of the SwiGLU; (heads, warps, stages) of the rotary turn.
SWIGLU_BLOCKS, SWIGLU_COLUMNS = (1, 4, 1), 1024
ROPE_BLOCKS = (16, 4, 1)


@torch.library.custom_op("verigym::swiglu", mutates_args=())
def fused_swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up. gate_up: [T, 2 F], gate first. Returns [T, F], computed in float32."""
    from .pointwise_triton import swiglu_forward

    gate_up = gate_up.contiguous()
    num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(num_rows, width, dtype=gate_up.dtype, device=gate_up.device)
    if num_rows:
        grid = (num_rows, -(-width // SWIGLU_COLUMNS))
        launch(
            *(swiglu_forward, grid, gate_up, out, 2 * width, width, width),
            blocks=SWIGLU_BLOCKS,
            COLUMNS=SWIGLU_COLUMNS,
        )
    return out


@fused_swiglu.register_fake
def _(gate_up):
    return torch.empty((gate_up.shape[0], gate_up.shape[1] // 2), dtype=gate_up.dtype, device=gate_up.device)


@torch.library.custom_op("verigym::swiglu_backward", mutates_args=())
def fused_swiglu_backward(grad: Tensor, gate_up: Tensor) -> Tensor:
    """The gradient of gate_up [T, 2 F]."""
    from .pointwise_triton import swiglu_backward

    grad, gate_up = grad.contiguous(), gate_up.contiguous()
    num_rows, width = grad.shape
    out = torch.empty(gate_up.shape, dtype=gate_up.dtype, device=gate_up.device)
    if num_rows:
        grid = (num_rows, -(-width // SWIGLU_COLUMNS))
        launch(
            *(swiglu_backward, grid, grad, gate_up, out, width, 2 * width, 2 * width, width),
            blocks=SWIGLU_BLOCKS,
            COLUMNS=SWIGLU_COLUMNS,
        )
    return out


@fused_swiglu_backward.register_fake
def _(grad, gate_up):
    return torch.empty(gate_up.shape, dtype=gate_up.dtype, device=gate_up.device)


def _save_gate_up(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0])


def _swiglu_backward(ctx, grad):
    return fused_swiglu_backward(grad, ctx.saved_tensors[0])


fused_swiglu.register_autograd(_swiglu_backward, setup_context=_save_gate_up)


@torch.library.custom_op("verigym::rope", mutates_args=())
def fused_rope(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    """Turn channel i of each head with channel i + K / 2.

    Args:
        x: [T, H, K], channels contiguous. cos, sin: [T, 1, K / 2] contiguous; they get no gradient.
        sign: 1 turns by the angle, -1 back.
    Returns:
        [T, H, K] contiguous.
    """
    from .pointwise_triton import rope_rotate

    x = x if x.stride(-1) == 1 else x.contiguous()
    num_tokens, num_heads, head_dim = x.shape
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if num_tokens:
        launch(
            rope_rotate,
            (num_tokens, -(-num_heads // ROPE_BLOCKS[0])),
            *(x, cos, sin, out, *x.stride()[:2], cos.stride(0), *out.stride()[:2], num_heads, sign),
            blocks=ROPE_BLOCKS,
            HALF=head_dim // 2,
            COLUMNS=padded(head_dim // 2),
        )
    return out


@fused_rope.register_fake
def _(x, cos, sin, sign):
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _save_table(ctx, inputs, output) -> None:
    _, cos, sin, ctx.sign = inputs
    ctx.save_for_backward(cos, sin)


def _rope_backward(ctx, grad):
    cos, sin = ctx.saved_tensors
    return fused_rope(grad, cos, sin, -ctx.sign), None, None, None


fused_rope.register_autograd(_rope_backward, setup_context=_save_table)
