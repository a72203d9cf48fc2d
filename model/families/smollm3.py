"""SmolLM3: Llama, with every fourth layer without rotary positions. Source: transformers' SmolLM3Config."""

from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, read_llama, require, window_in_use, windowed, write_llama, write_windowed


def read(row: Row) -> DecoderConfig:
    require(row, attention_bias=False)
    fields = read_llama(row, theta=2_000_000.0, tied=True)
    layers = range(fields["num_layers"])
    every = int(row.get("no_rope_layer_interval") or 4)
    turned = row.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in layers]  # 1: it is turned
    kinds = row.get("layer_types") or ["full_attention" if turned[layer] else "sliding_attention" for layer in layers]
    return DecoderConfig(
        family="smollm3",
        rope_layers=tuple(bool(one) for one in turned[: len(layers)]),
        **windowed(fields, window_in_use(row), kinds),
        **fields,
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    turned = config.rope_layers or (True,) * config.num_layers
    own = {"attention_bias": False, "no_rope_layers": [int(one) for one in turned]}
    return write_llama(config) | write_windowed(config) | own


FAMILY = Family(model_type="smollm3", architecture="SmolLM3ForCausalLM", read=read, write=write)
