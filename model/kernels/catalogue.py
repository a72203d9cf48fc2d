"""Every kernel as production launches it: CWM's shapes in bfloat16. For checks and tables of resources."""

from collections.abc import Mapping
from typing import Any

import torch

from . import (
    attention_backward_triton,
    attention_forward_triton,
    decode_triton,
    loss_head_triton,
    pointwise_triton,
    tree_triton,
)
from .attention import Blocks, blocks_of
from .decode import BLOCKS, SPLIT
from .launch import padded
from .loss_head import SPLITS, TOGETHER, head_blocks
from .norm import norm_blocks
from .pointwise import ROPE_BLOCKS, SWIGLU_BLOCKS, SWIGLU_COLUMNS
from .resources import Launch

_HEAD_DIM = 128
_GROUP = 6
_WIDTH = 6144


def production_launches() -> list[Launch]:
    """Needs Triton, and its interpreter off."""
    return [*_attention(), *_decode(), *_loss_head(), *_pointwise()]


def _attention() -> list[Launch]:
    blocks = blocks_of(_HEAD_DIM, torch.bfloat16)
    return [launch for windowed in (False, True) for launch in _attention_passes(blocks, windowed)]


def _attention_passes(blocks: Blocks, windowed: bool) -> list[Launch]:
    passes = {
        "attention forward": (attention_forward_triton.attention_forward, blocks.forward),
        "attention dQ": (attention_backward_triton.attention_grad_queries, blocks.grad_queries),
        "attention dK dV": (attention_backward_triton.attention_grad_keys, blocks.grad_keys),
        "tree forward": (tree_triton.tree_forward, blocks.forward),
        "tree dQ": (tree_triton.tree_grad_queries, blocks.grad_queries),
        "tree dK dV": (tree_triton.tree_grad_keys, blocks.grad_keys),
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


def _decode() -> list[Launch]:
    shape = {"HEAD_DIM": _HEAD_DIM, "COLUMNS": _HEAD_DIM, "SPLIT": SPLIT, "WINDOWED": True}
    group = {"GROUP": _GROUP, "ROWS": padded(_GROUP)}
    known = {
        "page_table": "*i32",
        "lengths": "*i32",
        "partials": "*fp32",
        "logsumexp": "*fp32",
        "out_logsumexp": "*fp32",
    }
    return [
        _launch("decode", decode_triton.decode_split, BLOCKS, shape | group, known),
        _launch("decode join", decode_triton.decode_join, BLOCKS, shape, known),
    ]


def _loss_head() -> list[Launch]:
    tile, vocab, blocks = head_blocks(torch.bfloat16)
    shape = {"TOGETHER": TOGETHER, "TILE": tile, "VOCAB": vocab, "EVEN": True}
    names = ("temperatures", "logsumexp", "means", "chosen", "grad_logprobs", "grad_entropies")
    known = {"targets": "*i64", "width": "i32", "vocab_size": "i32", "split_size": "i32", "first_entry": "i32"}
    known |= dict.fromkeys(names, "*fp32")
    statistics = shape | {"SPLITS": SPLITS}
    return [
        # It spills some bytes where a tile is reduced, once in width / INNER steps, and not in the product's loop.
        _launch("loss head", loss_head_triton.head_statistics, blocks, statistics, known, spill_free=False),
        _launch("loss head d logits", loss_head_triton.head_grad_logits, blocks, shape, known),
    ]


def _pointwise() -> list[Launch]:
    row = {"COLUMNS": padded(_WIDTH), "RESIDUAL": True}
    known = {
        "scales": "*fp32",
        "grad_weights": "*fp32",
        "width": "i32",
        "rows_each": "i32",
        "eps": "fp32",
        "sign": "fp32",
    }
    columns = {"COLUMNS": SWIGLU_COLUMNS}
    turn = {"HALF": _HEAD_DIM // 2, "COLUMNS": padded(_HEAD_DIM // 2)}
    return [
        _launch("RMSNorm", pointwise_triton.rms_norm_forward, norm_blocks(_WIDTH), row, known),
        _launch("RMSNorm backward", pointwise_triton.rms_norm_backward, norm_blocks(_WIDTH), row, known),
        _launch("SwiGLU", pointwise_triton.swiglu_forward, SWIGLU_BLOCKS, columns, known),
        _launch("SwiGLU backward", pointwise_triton.swiglu_backward, SWIGLU_BLOCKS, columns, known),
        _launch("RoPE", pointwise_triton.rope_rotate, ROPE_BLOCKS, turn, known),
    ]


def _launch(
    name: str,
    kernel: Any,
    blocks: tuple[int, int, int],
    constants: Mapping[str, int],
    known: Mapping[str, str],
    *,
    spill_free: bool = True,
) -> Launch:
    inner, num_warps, num_stages = blocks
    return Launch(
        name=name,
        kernel=kernel,
        types=_types(kernel, **known),
        constants={**constants, "INNER": inner, "UPCAST": False},
        num_warps=num_warps,
        num_stages=num_stages,
        spill_free=spill_free,
    )


def _types(kernel: Any, **known: str) -> dict[str, str]:
    """Types of a kernel's run-time arguments by their names: tables of integers, strides and counts, scales, and
    bfloat16 matrices for the rest."""
    return {name: known.get(name) or _type(name) for name in kernel.arg_names if not name.isupper()}


def _type(name: str) -> str:
    if name in ("cu_queries", "cu_keys", "tiles", "ends", "depths", "blocks"):
        return "*i32"
    if name.endswith("stride") or name == "window" or name.startswith("num_") or name == "page_size":
        return "i32"
    if name.endswith("scale"):
        return "fp32"
    return "*bf16"
