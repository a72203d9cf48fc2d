"""Rotary positions, and how their frequencies are stretched."""

import math

import torch
from torch import Tensor

from .config import DecoderConfig, LinearScaling, Rope, YarnScaling
from .kernels.launch import fused
from .kernels.pointwise import fused_rope


def rope_frequencies(rope: Rope, head_dim: int) -> tuple[Tensor, float]:
    """Radians per token of each pair of channels, and what cosines and sines are multiplied by.

    Returns:
        ([head_dim / 2] float32, 1.0 but for YaRN).
    Source: RoFormer, arXiv:2104.09864; scaling as in Llama 3.1, arXiv:2407.21783; YaRN, arXiv:2309.00071.
    """
    # Always on the CPU: a decoder laid out on the meta device still knows its frequencies.
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    frequencies = 1.0 / rope.theta**exponents
    scaling = rope.scaling
    if scaling is None:
        return frequencies, 1.0
    if isinstance(scaling, LinearScaling):
        return frequencies / scaling.factor, 1.0
    if isinstance(scaling, YarnScaling):
        keep = 1.0 - _ramp(*_yarn_ends(scaling, rope.theta, head_dim), head_dim // 2)
        return keep * frequencies + (1.0 - keep) * frequencies / scaling.factor, scaling.attention_factor
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0.0, 1.0)
    return keep * frequencies + (1.0 - keep) * frequencies / scaling.factor, 1.0


def _yarn_ends(scaling: YarnScaling, theta: float, head_dim: int) -> tuple[float, float]:
    """The pairs of channels between which frequencies go over from kept to divided."""

    def pair(turns: float) -> float:
        whole = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return head_dim * math.log(whole) / (2 * math.log(theta))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    return max(low, 0), min(high, head_dim - 1)


def _ramp(low: float, high: float, count: int) -> Tensor:
    """[count] float32: 0 up to ``low``, 1 from ``high``."""
    high = high + 0.001 if low == high else high
    return ((torch.arange(count, dtype=torch.float32, device="cpu") - low) / (high - low)).clamp(0.0, 1.0)


def rope_table(
    positions: Tensor, frequencies: Tensor, dtype: torch.dtype, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(cos, sin) of every position, computed in float32.

    Args:
        positions: [T] integers, tokens from the start of the document.
        frequencies: [K / 2] float32.
        factor: that both are multiplied by.
    Returns:
        Two [T, 1, K / 2] of ``dtype``.
    """
    angles = positions[:, None, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    if factor != 1.0:
        cos, sin = cos * factor, sin * factor
    return cos.to(dtype), sin.to(dtype)


class Ropes:
    """The rotary positions of all layers of a decoder: one table for each kind, whatever the number of layers.

    No module: frequencies stay float32 and out of the state dict whatever the dtype of the weights.
    """

    def __init__(self, config: DecoderConfig) -> None:
        of_layer = [config.rope_of(layer) for layer in range(config.num_layers)]
        kinds = [rope for rope in dict.fromkeys(of_layer) if rope is not None]
        self._of_layer = [None if rope is None else kinds.index(rope) for rope in of_layer]
        self._kinds = [rope_frequencies(rope, config.head_dim) for rope in kinds]

    def to(self, device: torch.device) -> None:
        """Keep the frequencies on the device that computes with them."""
        self._kinds = [(frequencies.to(device), factor) for frequencies, factor in self._kinds]

    def tables(self, positions: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, Tensor] | None]:
        """Of each layer, (cos, sin) of every position; None where it has no rotary positions."""
        made = [rope_table(positions, kept.to(positions.device), dtype, factor) for kept, factor in self._kinds]
        return [None if kind is None else made[kind] for kind in self._of_layer]


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
