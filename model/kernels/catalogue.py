"""Every kernel as production launches it: CWM's shapes in bfloat16. For checks and tables of resources."""

from typing import Any

import torch

from . import attention_backward_triton, attention_forward_triton
from .attention import Blocks, blocks_of
from .resources import Launch

_HEAD_DIM = 128
_GROUP = 6


def production_launches() -> list[Launch]:
    """Needs Triton, and its interpreter off."""
    return _attention()


def _attention() -> list[Launch]:
    blocks = blocks_of(_HEAD_DIM, torch.bfloat16)
    return [launch for windowed in (False, True) for launch in _attention_passes(blocks, windowed)]


def _attention_passes(blocks: Blocks, windowed: bool) -> list[Launch]:
    passes = {
        "attention forward": (attention_forward_triton.attention_forward, blocks.forward),
        "attention dQ": (attention_backward_triton.attention_grad_queries, blocks.grad_queries),
        "attention dK dV": (attention_backward_triton.attention_grad_keys, blocks.grad_keys),
    }
    return [
        Launch(
            name=name + (", window" if windowed else ""),
            kernel=kernel,
            types=_types(kernel, logsumexp="*fp32", deltas="*fp32"),
            constants={
                **{"GROUP": _GROUP, "HEAD_DIM": _HEAD_DIM, "COLUMNS": _HEAD_DIM, "TILE": blocks.tile, "INNER": inner},
                **{"WINDOWED": windowed, "UPCAST": False},
            },
            num_warps=num_warps,
            num_stages=num_stages,
        )
        for name, (kernel, (inner, num_warps, num_stages)) in passes.items()
    ]


def _types(kernel: Any, **known: str) -> dict[str, str]:
    """Types of a kernel's run-time arguments by their names: tables of integers, strides and counts, scales, and
    bfloat16 matrices for the rest."""
    return {name: known.get(name) or _type(name) for name in kernel.arg_names if not name.isupper()}


def _type(name: str) -> str:
    if name in ("cu_queries", "cu_keys", "tiles"):
        return "*i32"
    if name.endswith("stride") or name == "window" or name.startswith("num_"):
        return "i32"
    if name.endswith("scale"):
        return "fp32"
    return "*bf16"
