"""The gated activations of the MLP. SwiGLU: our kernel on CUDA, torch's operators elsewhere; GeGLU: torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels.launch import fused
from .kernels.pointwise import fused_swiglu


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up.

    Args:
        gate_up: [T, 2 F], gate first.
    Returns:
        [T, F].
    Source: arXiv:2002.05202.
    """
    if fused(gate_up):
        return fused_swiglu(gate_up)
    if not torch.is_grad_enabled():  # to apply a Function takes longer than to decode a token
        return _Swiglu.forward(gate_up)
    return _Swiglu.apply(gate_up)  # pyright: ignore[reportReturnType]


def geglu(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up, with the tanh form of the gelu.

    Args:
        gate_up: [T, 2 F], gate first.
    Returns:
        [T, F].
    Source: arXiv:2002.05202.
    """
    gate, up = gate_up.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


class _Swiglu(torch.autograd.Function):
    """One Function: autograd would keep silu(gate) and join the two halves of the gradient in one more copy."""

    @staticmethod
    def forward(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, *grads):
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad = torch.empty_like(gate_up)
        grad_gate, grad_up = grad.chunk(2, dim=-1)
        torch.mul(F.silu(gate), grads[0], out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=grad_gate)
        return grad
