"""Mistral, in which all layers have one window or none does, and Ministral, in which each says. Source: transformers'
MistralConfig and MinistralConfig."""

from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, layers_of, read_rope, read_sizes, require, write_rope, write_sizes


def _read(row: Row, family: str, types: list[str] | None) -> DecoderConfig:
    require(row, hidden_act="silu", attention_bias=False, mlp_bias=False)
    fields, rope = read_sizes(row), read_rope(row)
    count = fields["num_layers"]
    window = row.get("sliding_window", 4096)
    if window is None:
        types = ["full_attention"] * count
    return DecoderConfig(
        family=family,
        tied_embeddings=bool(row.get("tie_word_embeddings", False)),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        layer_types=layers_of(types or ["sliding_attention"] * count),
        sliding_window=window or fields["max_position_embeddings"],
        **fields,
    )


def read_mistral(row: Row) -> DecoderConfig:
    return _read(row, "mistral", None)  # as transformers: layer_types in a file of Mistral's say nothing


def read_ministral(row: Row) -> DecoderConfig:
    return _read(row, "ministral", row.get("layer_types"))


def write_mistral(config: DecoderConfig) -> dict[str, Any]:
    sliding = "sliding_attention" in config.layer_types
    return write_sizes(config) | {
        "hidden_act": "silu",
        "rope_parameters": write_rope(config.rope_of(0)),  # pyright: ignore[reportArgumentType]
        "sliding_window": config.sliding_window if sliding else None,
    }


def write_ministral(config: DecoderConfig) -> dict[str, Any]:
    return write_mistral(config) | {"layer_types": list(config.layer_types)}


MISTRAL = Family(model_type="mistral", architecture="MistralForCausalLM", read=read_mistral, write=write_mistral)
MINISTRAL = Family(
    model_type="ministral", architecture="MinistralForCausalLM", read=read_ministral, write=write_ministral
)
