"""Meta's Code World Model: global and sliding layers in turn. Source: transformers' CwmConfig."""

from typing import Any

from ...errors import ConfigError
from ..config import CWM_EOS_TOKEN_IDS, DecoderConfig, RopeScaling, hf_cwm_layer_types
from .common import Family, Row, read_llama, require, windowed, write_llama


def read(row: Row) -> DecoderConfig:
    require(row, tie_word_embeddings=False)
    for key in ("num_key_value_heads", "head_dim", "sliding_window"):
        if key not in row:
            raise ConfigError(f"config.json has no {key!r}; take the file that came with the checkpoint")
    fields = read_llama(row, theta=1_000_000.0)
    if not isinstance(fields["rope_scaling"], RopeScaling | None):
        raise ConfigError("config.json has a rope_type that CWM does not; only 'llama3' and 'default' can be loaded")
    fields |= {
        "rms_norm_eps": float(row.get("rms_norm_eps", 1e-5)),
        "bos_token_id": int(row.get("bos_token_id", 128000)),
        "eos_token_ids": fields["eos_token_ids"] or CWM_EOS_TOKEN_IDS,
    }
    kinds = row.get("layer_types") or hf_cwm_layer_types(fields["num_layers"])
    return DecoderConfig(family="cwm", **windowed(fields, int(row["sliding_window"]), kinds), **fields)


def write(config: DecoderConfig) -> dict[str, Any]:
    own = {"sliding_window": config.sliding_window, "layer_types": list(config.layer_types)}
    return write_llama(config) | own


FAMILY = Family(model_type="cwm", architecture="CwmForCausalLM", read=read, write=write)
