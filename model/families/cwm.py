"""Meta's Code World Model: global and sliding layers in turn. Source: transformers' CwmConfig."""

from typing import Any

from ...errors import ConfigError
from ..config import CWM_EOS_TOKEN_IDS, DecoderConfig, RopeScaling, hf_cwm_layer_types
from .common import Family, Row, layers_of, read_rope, read_sizes, require, write_rope, write_sizes


def read(row: Row) -> DecoderConfig:
    require(row, hidden_act="silu", tie_word_embeddings=False, mlp_bias=False)
    for key in ("num_key_value_heads", "head_dim", "sliding_window"):
        if key not in row:
            raise ConfigError(f"config.json has no {key!r}; take the file that came with the checkpoint")
    fields = read_sizes(row)
    rope = read_rope(row, theta=1_000_000.0)
    if not isinstance(rope.scaling, RopeScaling | None):
        raise ConfigError("config.json has a rope_type that CWM does not; only 'llama3' and 'default' can be loaded")
    fields |= {
        "rms_norm_eps": float(row.get("rms_norm_eps", 1e-5)),
        "bos_token_id": int(row.get("bos_token_id", 128000)),
        "eos_token_ids": fields["eos_token_ids"] or CWM_EOS_TOKEN_IDS,
    }
    return DecoderConfig(
        family="cwm",
        layer_types=layers_of(row.get("layer_types") or hf_cwm_layer_types(fields["num_layers"])),
        sliding_window=int(row["sliding_window"]),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        **fields,
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    return write_sizes(config) | {
        "hidden_act": "silu",
        "mlp_bias": False,
        "rope_parameters": write_rope(config.rope_of(0)),  # pyright: ignore[reportArgumentType]
        "sliding_window": config.sliding_window,
        "layer_types": list(config.layer_types),
    }


FAMILY = Family(model_type="cwm", architecture="CwmForCausalLM", read=read, write=write)
