"""Gemma 3's text models: norms before and after both halves of a layer, a GeGLU, scaled embeddings, and rotary bases of
their own in global and in sliding layers. Source: transformers' Gemma3TextConfig."""

from typing import Any

from ..config import DecoderConfig, Rope
from .common import Family, Row, layers_of, read_rope, read_sizes, require, write_rope, write_sizes

_PATTERN = 6  # every so many layers one is global


def read(row: Row) -> DecoderConfig:
    require(
        row,
        hidden_activation="gelu_pytorch_tanh",
        attention_bias=False,
        use_bidirectional_attention=False,
        final_logit_softcapping=None,
        attn_logit_softcapping=None,
    )
    fields = read_sizes(row, head_dim=256)
    count = fields["num_layers"]
    by_kind = row.get("rope_parameters") or {}
    whole = read_rope({**row, "rope_parameters": by_kind.get("full_attention")}, theta=1_000_000.0)
    sliding = by_kind.get("sliding_attention") or {}
    require(sliding, rope_type="default")
    pattern = int(row.get("sliding_window_pattern") or _PATTERN)
    types = row.get("layer_types") or [
        "sliding_attention" if (layer + 1) % pattern else "full_attention" for layer in range(count)
    ]
    return DecoderConfig(
        family="gemma3_text",
        tied_embeddings=bool(row.get("tie_word_embeddings", True)),
        embed_scale=fields["hidden_size"] ** 0.5,
        qk_norm=True,
        query_scale=(fields["head_dim"] / float(row.get("query_pre_attn_scalar", 256))) ** 0.5,
        activation="gelu_tanh",
        post_norms=True,
        norm_offset=True,
        rope_theta=whole.theta,
        rope_scaling=whole.scaling,
        sliding_rope_theta=float(sliding.get("rope_theta") or row.get("rope_local_base_freq") or 10_000.0),
        layer_types=layers_of(types),
        sliding_window=int(row.get("sliding_window") or 4096),
        **fields,
    )


def write(config: DecoderConfig) -> dict[str, Any]:
    scalar = config.head_dim / config.query_scale**2
    return write_sizes(config) | {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
        "rope_parameters": {
            "full_attention": write_rope(Rope(theta=config.rope_theta, scaling=config.rope_scaling)),
            "sliding_attention": write_rope(Rope(theta=config.sliding_rope_theta or config.rope_theta)),
        },
        "sliding_window": config.sliding_window,
        "layer_types": list(config.layer_types),
    }


FAMILY = Family(model_type="gemma3_text", architecture="Gemma3ForCausalLM", read=read, write=write)
