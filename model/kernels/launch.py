"""Where Triton kernels can run, and how a call is answered where they cannot."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

# The dtypes that kernels take; float64 is the references' own.
KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


_planned: ContextVar[bool] = ContextVar("planned", default=False)


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Choose kernels as on a CUDA device: for tracing under fake tensors, which may be the CPU's."""
    token = _planned.set(True)
    try:
        yield
    finally:
        _planned.reset(token)


def on_cuda(device: torch.device) -> bool:
    """Whether kernels are chosen for tensors of this device as for a CUDA device's."""
    return device.type == "cuda" or _planned.get()


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU. It is read when Triton is first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton kernels cannot run on tensors of this kind, with the remedy; None where they can."""
    if dtype not in KERNEL_DTYPES:
        return (
            f"the tensors are {dtype}; Triton kernels take bfloat16, float16 and float32: cast them, or use 'reference'"
        )
    if _planned.get():
        return None
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; on Linux: pip install triton"
    if device.type != "cuda" and not interpreted():
        return f"the tensors are on {device.type!r}; move them to a CUDA device, or use 'sdpa'"
    return None


def fused(*tensors: Tensor) -> bool:
    """Whether the fused kernels take these tensors: by default on CUDA, wherever they can. A DTensor keeps to torch's
    own operators, which know how to move its shards."""
    x = tensors[0]
    if not on_cuda(x.device) or any(hasattr(tensor, "device_mesh") for tensor in tensors):
        return False
    return why_not(x.device, x.dtype) is None


def padded(size: int) -> int:
    """Columns of a block that holds ``size`` channels: a power of 2, at least the 16 a matrix product takes."""
    return max(16, 1 << (size - 1).bit_length())


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, blocks: tuple[int, int, int], **constants: int | bool
) -> None:
    """Run a kernel.

    Args:
        grid: programs on each axis.
        blocks: (INNER, warps, pipeline stages).
    """
    inner, num_warps, num_stages = blocks
    constants |= {"INNER": inner, "UPCAST": interpreted()}
    kernel[grid](*arguments, **constants, num_warps=num_warps, num_stages=num_stages)
