"""Llama 2 and 3, SmolLM and SmolLM2, TinyLlama: global layers alone. Source: transformers' LlamaConfig."""

from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, full_layers, read_rope, read_sizes, require, write_rope, write_sizes


def read(row: Row) -> DecoderConfig:
    require(row, hidden_act="silu", attention_bias=False, mlp_bias=False)
    fields, rope = read_sizes(row), read_rope(row)
    return DecoderConfig(
        family="llama",
        tied_embeddings=bool(row.get("tie_word_embeddings", False)),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        **full_layers(fields["num_layers"], fields["max_position_embeddings"]),
        **fields,
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_sizes(config) | {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": write_rope(config.rope_of(0)),  # pyright: ignore[reportArgumentType]
    }


FAMILY = Family(model_type="llama", architecture="LlamaForCausalLM", read=read, write=write)
