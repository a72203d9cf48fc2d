"""Mistral, in which all layers have one window or none does, and Ministral, in which each says. Source: transformers'
MistralConfig and MinistralConfig."""

from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, read_llama, require, windowed, write_llama, write_windowed


def _read(row: Row, family: str, listed: list[str] | None) -> DecoderConfig:
    require(row, attention_bias=False)
    fields = read_llama(row)
    kinds: list[str] = listed or ["sliding_attention"] * fields["num_layers"]
    return DecoderConfig(family=family, **windowed(fields, row.get("sliding_window", 4096), kinds), **fields)


def read_mistral(row: Row) -> DecoderConfig:
    return _read(row, "mistral", None)  # as transformers: layer_types in a file of Mistral's say nothing


def read_ministral(row: Row) -> DecoderConfig:
    return _read(row, "ministral", row.get("layer_types"))


def write_mistral(config: DecoderConfig) -> dict[str, Any]:
    row = write_ministral(config)
    del row["layer_types"]
    return row


def write_ministral(config: DecoderConfig) -> dict[str, Any]:
    row = write_llama(config) | write_windowed(config)
    del row["use_sliding_window"], row["mlp_bias"]  # settings that these two do not have
    return row


MISTRAL = Family(model_type="mistral", architecture="MistralForCausalLM", read=read_mistral, write=write_mistral)
MINISTRAL = Family(
    model_type="ministral", architecture="MinistralForCausalLM", read=read_ministral, write=write_ministral
)
