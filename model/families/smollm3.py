"""SmolLM3: Llama, with every fourth layer without rotary positions. Source: transformers' SmolLM3Config."""

from typing import Any

from ..config import DecoderConfig, Rope
from .common import Family, Row, layers_of, read_rope, read_sizes, require, write_rope, write_sizes


def read(row: Row) -> DecoderConfig:
    require(row, hidden_act="silu", attention_bias=False, mlp_bias=False)
    fields, rope = read_sizes(row), read_rope(row, theta=2_000_000.0)
    count = fields["num_layers"]
    every = int(row.get("no_rope_layer_interval") or 4)
    turned = row.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(count)]  # 1: it is turned
    window = row.get("sliding_window") if row.get("use_sliding_window") else None
    types = row.get("layer_types") or [
        "sliding_attention" if window is not None and not turned[layer] else "full_attention" for layer in range(count)
    ]
    return DecoderConfig(
        family="smollm3",
        tied_embeddings=bool(row.get("tie_word_embeddings", True)),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        rope_layers=tuple(bool(one) for one in turned[:count]),
        # Without a window of its own a layer that is called sliding sees all.
        layer_types=layers_of(types if window is not None else ["full_attention"] * count),
        sliding_window=window or fields["max_position_embeddings"],
        **fields,
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    sliding = "sliding_attention" in config.layer_types
    turned = config.rope_layers or (True,) * config.num_layers
    return write_sizes(config) | {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_parameters": write_rope(Rope(theta=config.rope_theta, scaling=config.rope_scaling)),
        "no_rope_layers": [int(one) for one in turned],
        "use_sliding_window": sliding,
        "sliding_window": config.sliding_window if sliding else None,
        "layer_types": list(config.layer_types),
    }


FAMILY = Family(model_type="smollm3", architecture="SmolLM3ForCausalLM", read=read, write=write)
