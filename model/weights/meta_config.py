"""Meta's params.json, in which their release states the shape of the model.

Source: TransformerArgs, FeedForward and WindowAttentionArgs in cwm/model/transformer.py of facebookresearch/cwm.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError
from ..config import CWM_EOS_TOKEN_IDS, DecoderConfig, LayerType, RopeScaling

_REFUSED = {"weight_tying": False, "qkv_biases": False, "qk_norm": False, "kv_lora_rank": 0, "q_lora_rank": 0}
_PATTERN = 4


def config_from_meta(row: Mapping[str, Any]) -> DecoderConfig:
    """Read params.json.

    Raises:
        ConfigError: a setting this decoder does not have, or one that is missing; it names the first.
    """
    args = row.get("model", {})
    for key, value in _REFUSED.items():
        if args.get(key, value) != value:
            raise ConfigError(f"params.json has {key} {args[key]!r}; only {value!r} can be loaded as a CWM decoder")
    try:
        width, heads, layers = int(args["dim"]), int(args["n_heads"]), int(args["n_layers"])
        length = int(args["max_seq_len"])
        window = args.get("window_attn") or {}
        return DecoderConfig(
            vocab_size=int(args["vocab_size"]),
            hidden_size=width,
            intermediate_size=_inner(args, width),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=int(args.get("n_kv_heads") or heads),
            head_dim=int(args.get("head_dim") or width // heads),
            layer_types=_layer_types(layers, window),
            sliding_window=int(window.get("local_window") or length),
            max_position_embeddings=length,
            rms_norm_eps=float(args.get("norm_eps", 1e-5)),
            rope_theta=float(args.get("rope_theta", 10_000.0)),
            rope_scaling=_scaling(args),
            bos_token_id=128_000,
            eos_token_ids=CWM_EOS_TOKEN_IDS,
        )
    except KeyError as error:
        raise ConfigError(f"params.json has no model.{error.args[0]}; take the file of the checkpoint") from error


def config_to_meta(config: DecoderConfig) -> dict[str, Any] | None:
    """The params.json that ``config_from_meta`` and Meta's code read; None where theirs cannot say the layer types."""
    window = {"window_pattern": _PATTERN, "local_window": config.sliding_window, "global_last_layer": True}
    scaling = config.rope_scaling
    if _layer_types(config.num_layers, window) != config.layer_types or not isinstance(scaling, RopeScaling | None):
        return None
    args: dict[str, Any] = {
        "dim": config.hidden_size,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_seq_len": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
        "ffn_exp": 4,
        # Theirs is cut down to a whole number; half a row above it stays clear of rounding.
        "ffn_dim_multiplier": (config.intermediate_size + 0.5) / int(8 * config.hidden_size / 3),
        "multiple_of": 1,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "pos_embed_impl": "rope",
        "window_attn": window,
    }
    if scaling is not None:
        args["pos_embed_impl"] = "scaled_rope"
        args["scaled_rope"] = {
            "scale_factor": scaling.factor,
            "old_context_len": scaling.original_max_position_embeddings,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
        }
    return {"model": args, "tokenizer": {"name": "cwm_instruct"}}


def _inner(args: Mapping[str, Any], width: int) -> int:
    inner = int(2 * int(args.get("ffn_exp", 4)) * width / 3)
    if args.get("ffn_dim_multiplier") is not None:
        inner = int(args["ffn_dim_multiplier"] * inner)
    multiple = int(args.get("multiple_of", 256))
    return multiple * -(-inner // multiple)


def _layer_types(num_layers: int, window: Mapping[str, Any]) -> tuple[LayerType, ...]:
    if not window:
        return ("full_attention",) * num_layers
    if window.get("global_window") is not None:
        raise ConfigError(f"params.json has global_window {window['global_window']}; only None can be loaded")
    pattern, last = int(window.get("window_pattern", 6)), bool(window.get("global_last_layer", True))
    return tuple(
        "full_attention" if layer % pattern == 0 or (last and layer == num_layers - 1) else "sliding_attention"
        for layer in range(num_layers)
    )


def _scaling(args: Mapping[str, Any]) -> RopeScaling | None:
    if args.get("pos_embed_impl", "rope") == "rope":
        return None
    row = args.get("scaled_rope") or {}
    return RopeScaling(
        factor=float(row.get("scale_factor", 8)),
        low_freq_factor=float(row.get("low_freq_factor", 1)),
        high_freq_factor=float(row.get("high_freq_factor", 4)),
        original_max_position_embeddings=int(row.get("old_context_len", 8192)),
    )
