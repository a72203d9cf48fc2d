"""RMSNorm: our kernel on CUDA, torch's elsewhere."""

import torch.nn.functional as F
from torch import Tensor

from .kernels.launch import fused
from .kernels.norm import rms_norm as fused_rms_norm


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight, [T, D].

    Source: arXiv:1910.07467.
    """
    if fused(x_TD, weight_D):
        return fused_rms_norm(x_TD, None, weight_D, eps)[0]
    return F.rms_norm(x_TD, weight_D.shape, weight_D, eps)


def offset_rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """x / rms(x) * (1 + weight), [T, D], rounded once, as Gemma has it."""
    if fused(x_TD, weight_D):
        return fused_rms_norm(x_TD, None, 1.0 + weight_D.float(), eps)[0]
    return F.rms_norm(x_TD.float(), weight_D.shape, 1.0 + weight_D.float(), eps).to(x_TD.dtype)


def add_rms_norm(x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(residual + x, which is the stream from here on, and its norm), both [T, D], in one pass over memory.

    Only for tensors that ``launch.fused`` says yes to.
    """
    normed, total, _ = fused_rms_norm(x_TD, residual_TD, weight_D, eps)
    return total, normed
