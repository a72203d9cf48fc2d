"""What the families' configurations have in common, in the form of transformers 4 or 5."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from ...errors import ConfigError
from ..config import DecoderConfig, LayerType, LinearScaling, Rope, RopeScaling, YarnScaling

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of models.

    Attributes:
        model_type, architecture: transformers' names.
        read: its config.json. Raises ConfigError that names the first setting our decoder does not have.
        write: the config.json that ``read`` and transformers read, without ``model_type`` and ``architectures``.
    """

    model_type: str
    architecture: str
    read: Callable[[Row], DecoderConfig]
    write: Callable[[DecoderConfig], dict[str, Any]]


_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
}


def require(row: Row, **values: Any) -> None:
    """Raises ConfigError where a setting is there and is not the only value that our decoder has."""
    for key, value in values.items():
        if row.get(key, value) not in (value, None):
            raise ConfigError(f"config.json has {key} {row[key]!r}; our decoder knows only {value!r}")


def read_sizes(row: Row, *, head_dim: int | None = None) -> dict[str, Any]:
    """Fields of ``DecoderConfig`` that all families state alike.

    Args:
        head_dim: where the file has none; None: the width's share of each head.
    Raises:
        ConfigError: one is missing.
    """
    missing = [key for key in (*_SIZES.values(), "max_position_embeddings") if row.get(key) is None]
    if missing:
        raise ConfigError(f"config.json has no {missing[0]!r}; take the file that came with the checkpoint")
    sizes = {name: int(row[key]) for name, key in _SIZES.items()}
    share = sizes["hidden_size"] // max(sizes["num_heads"], 1)
    eos = row.get("eos_token_id")
    return sizes | {
        "num_kv_heads": int(row.get("num_key_value_heads") or sizes["num_heads"]),
        "head_dim": int(row.get("head_dim") or head_dim or share),
        "max_position_embeddings": int(row["max_position_embeddings"]),
        "rms_norm_eps": float(row.get("rms_norm_eps", 1e-6)),
        "bos_token_id": row.get("bos_token_id"),
        "eos_token_ids": tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (int(eos),),
        "pad_token_id": row.get("pad_token_id"),
    }


def write_sizes(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of ``read_sizes``."""
    return {key: getattr(config, name) for name, key in _SIZES.items()} | {
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) or None,
        "pad_token_id": config.pad_token_id,
    }


def read_llama(row: Row, *, head_dim: int | None = None, theta: float = 10_000.0, tied: bool = False) -> dict[str, Any]:
    """Fields of a model that is Llama's but for what its family adds: ``read_sizes``, rotary positions, the head.

    Args:
        theta, tied: the family's own, where the file says nothing.
    """
    require(row, hidden_act="silu", mlp_bias=False)
    rope = read_rope(row, theta=theta)
    return read_sizes(row, head_dim=head_dim) | {
        "tied_embeddings": bool(row.get("tie_word_embeddings", tied)),
        "rope_theta": rope.theta,
        "rope_scaling": rope.scaling,
    }


def write_llama(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of ``read_llama``."""
    rope = Rope(theta=config.rope_theta, scaling=config.rope_scaling)
    return write_sizes(config) | {"hidden_act": "silu", "mlp_bias": False, "rope_parameters": write_rope(rope)}


def windowed(fields: Row, window: int | None, kinds: Iterable[str] = ()) -> dict[str, Any]:
    """What the layers attend to.

    Args:
        window: in tokens; None: the model has none, and every token sees all before it, whatever its layer is called.
    """
    if window is None:
        kinds, window = ["full_attention"] * fields["num_layers"], fields["max_position_embeddings"]
    return {"layer_types": layers_of(kinds), "sliding_window": window}


def window_in_use(row: Row) -> int | None:
    """The window where a file has a switch for it."""
    return row.get("sliding_window") if row.get("use_sliding_window") else None


def write_windowed(config: DecoderConfig) -> dict[str, Any]:
    """The inverse of ``windowed`` and ``window_in_use``."""
    sliding = "sliding_attention" in config.layer_types
    return {
        "use_sliding_window": sliding,
        "sliding_window": config.sliding_window if sliding else None,
        "layer_types": list(config.layer_types),
    }


def layers_of(kinds: Iterable[str]) -> tuple[LayerType, ...]:
    """What each layer attends to; ``DecoderConfig`` refuses what is neither of the two."""
    return cast("tuple[LayerType, ...]", tuple(kinds))


def read_rope(row: Row, *, theta: float = 10_000.0) -> Rope:
    """Rotary positions, from ``rope_parameters`` or, in files of transformers 4, ``rope_scaling`` and ``rope_theta``.

    Args:
        theta: the family's own, where the file has none.
    Raises:
        ConfigError: a kind of stretching that our decoder does not have.
    """
    rope = row.get("rope_parameters") or row.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or row.get("rope_theta") or theta)
    if rope.get("partial_rotary_factor", row.get("partial_rotary_factor")) not in (None, 1.0, 1):
        raise ConfigError("config.json has partial_rotary_factor: our decoder turns all channels of a head")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in _SCALINGS:
        raise ConfigError(f"config.json has rope_type {kind!r}; our decoder knows {', '.join(_SCALINGS)}")
    try:
        return Rope(theta=theta, scaling=_SCALINGS[kind](rope, row))
    except KeyError as error:
        raise ConfigError(f"config.json has rope_type {kind!r} without {error}; take the checkpoint's own") from error


def write_rope(rope: Rope) -> dict[str, Any]:
    """``rope_parameters`` of transformers 5."""
    kinds = {RopeScaling: "llama3", LinearScaling: "linear", YarnScaling: "yarn"}
    if rope.scaling is None:
        return {"rope_type": "default", "rope_theta": rope.theta}
    return {"rope_type": kinds[type(rope.scaling)], "rope_theta": rope.theta} | asdict(rope.scaling)


def _llama3(rope: Row, row: Row) -> RopeScaling:
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_max_position_embeddings=rope["original_max_position_embeddings"],
    )


def _yarn(rope: Row, row: Row) -> YarnScaling:
    original = rope.get("original_max_position_embeddings") or row["max_position_embeddings"]
    factor = rope.get("factor") or row["max_position_embeddings"] / original
    attention = rope.get("attention_factor")
    if attention is None:
        whole, part = rope.get("mscale_all_dim"), rope.get("mscale")
        attention = _mscale(factor, part) / _mscale(factor, whole) if whole and part else _mscale(factor, 1.0)
    return YarnScaling(
        factor=float(factor),
        original_max_position_embeddings=int(original),
        attention_factor=float(attention),
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        truncate=bool(rope.get("truncate", True)),
    )


def _mscale(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


_SCALINGS: dict[str, Callable[[Row, Row], RopeScaling | LinearScaling | YarnScaling | None]] = {
    "default": lambda rope, row: None,
    "llama3": _llama3,
    "linear": lambda rope, row: LinearScaling(factor=float(rope["factor"])),
    "yarn": _yarn,
}
