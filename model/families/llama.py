"""Llama 2 and 3, SmolLM and SmolLM2, TinyLlama: global layers alone. Source: transformers' LlamaConfig."""

from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, read_llama, require, windowed, write_llama


def read(row: Row) -> DecoderConfig:
    require(row, attention_bias=False)
    fields = read_llama(row)
    return DecoderConfig(family="llama", **windowed(fields, None), **fields)


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_llama(config) | {"attention_bias": False}


FAMILY = Family(model_type="llama", architecture="LlamaForCausalLM", read=read, write=write)
