"""Rotary positions with Llama 3's frequency scaling."""

import math

import torch
from torch import Tensor

from .config import DecoderConfig
from .kernels.launch import fused
from .kernels.pointwise import fused_rope


def rope_frequencies(config: DecoderConfig) -> Tensor:
    """Radians per token of each pair of channels.

    Returns:
        [head_dim / 2] float32.
    Source: RoFormer, arXiv:2104.09864; scaling as in Llama 3.1, arXiv:2407.21783.
    """
    # Always on the CPU: a decoder laid out on the meta device still knows its frequencies.
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0.0, 1.0)
    return keep * frequencies + (1.0 - keep) * frequencies / scaling.factor


def rope_table(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cos, sin) of every position, computed in float32.

    Args:
        positions: [T] integers, tokens from the start of the document.
        frequencies: [K / 2] float32.
    Returns:
        Two [T, 1, K / 2] of ``dtype``.
    """
    angles = positions[:, None, None].float() * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


class _Rotate(torch.autograd.Function):
    """x -> rotation of x by its position. One Function, because its gradient is the opposite rotation: autograd
    would keep four intermediate tensors."""

    @staticmethod
    def forward(x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return _rotated(x_THK, cos, sin)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, cos, sin = inputs
        ctx.save_for_backward(cos, sin)

    @staticmethod
    def backward(ctx, *grads):
        cos, sin = ctx.saved_tensors
        return _rotated(grads[0], cos, -sin), None, None


def _rotated(x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_THK.chunk(2, dim=-1)
    out = torch.empty(x_THK.shape, dtype=x_THK.dtype, device=x_THK.device)
    low, high = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=low).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=high).addcmul_(first, sin)
    return out


def rotate(x_THK: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate channel i with channel i + K / 2, as Hugging Face's layout of the weights has it.

    Args:
        x_THK: [T, H, K] queries or keys.
        table: of ``rope_table``.
    Returns:
        [T, H, K] contiguous.
    """
    if fused(x_THK):
        return fused_rope(x_THK, *table, 1.0)
    if not torch.is_grad_enabled():  # to apply a Function takes longer than to decode a token
        return _rotated(x_THK, *table)
    return _Rotate.apply(x_THK, *table)  # pyright: ignore[reportReturnType]
