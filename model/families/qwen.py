"""Qwen 2, 2.5 and 3: the first two have biases of queries, keys and values, the last norms of queries and keys.

Source: transformers' Qwen2Config and Qwen3Config.
"""

from collections.abc import Callable
from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, layers_of, read_rope, read_sizes, require, write_rope, write_sizes


def _read(row: Row, *, family: str, head_dim: int | None, **own: Any) -> DecoderConfig:
    require(row, hidden_act="silu", mlp_bias=False)
    fields, rope = read_sizes(row, head_dim=head_dim), read_rope(row)
    count = fields["num_layers"]
    window = row.get("sliding_window") if row.get("use_sliding_window") else None
    first = int(row.get("max_window_layers", 28))
    types = row.get("layer_types") or [
        "sliding_attention" if layer >= first else "full_attention" for layer in range(count)
    ]
    return DecoderConfig(
        family=family,
        tied_embeddings=bool(row.get("tie_word_embeddings", False)),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        layer_types=layers_of(types if window is not None else ["full_attention"] * count),
        sliding_window=window or fields["max_position_embeddings"],
        **own,
        **fields,
    )


def read_qwen2(row: Row) -> DecoderConfig:
    # Qwen 2 knows no size of heads but the width's share, whatever its file says.
    return _read({**row, "head_dim": None}, family="qwen2", head_dim=None, qkv_bias=True)


def read_qwen3(row: Row) -> DecoderConfig:
    require(row, attention_bias=False)
    return _read(row, family="qwen3", head_dim=128, qk_norm=True)


def _writer(*, states_heads: bool) -> Callable[[DecoderConfig], dict[str, Any]]:
    def write(config: DecoderConfig) -> dict[str, Any]:
        sliding = "sliding_attention" in config.layer_types
        row = write_sizes(config) | {
            "hidden_act": "silu",
            "rope_parameters": write_rope(config.rope_of(0)),  # pyright: ignore[reportArgumentType]
            "use_sliding_window": sliding,
            "sliding_window": config.sliding_window if sliding else None,
            "layer_types": list(config.layer_types),
        }
        if states_heads:
            return row | {"attention_bias": False}
        del row["head_dim"]
        return row

    return write


QWEN2 = Family(model_type="qwen2", architecture="Qwen2ForCausalLM", read=read_qwen2, write=_writer(states_heads=False))
QWEN3 = Family(model_type="qwen3", architecture="Qwen3ForCausalLM", read=read_qwen3, write=_writer(states_heads=True))
