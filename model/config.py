"""The shape of a CWM decoder, as numbers. Free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from ..errors import ConfigError

LayerType = Literal["full_attention", "sliding_attention"]
LAYER_TYPES: tuple[str, ...] = get_args(LayerType)


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's stretching of rotary frequencies.

    Attributes:
        factor: divisor of the low frequencies.
        low_freq_factor: wavelengths above original_max_position_embeddings / this are divided by ``factor``.
        high_freq_factor: wavelengths below original_max_position_embeddings / this stay as they are.
        original_max_position_embeddings: tokens of context before the stretching.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A CWM decoder.

    Attributes:
        vocab_size: rows of the embedding and of the head, which are separate weights.
        hidden_size: width of the residual stream.
        intermediate_size: width of the SwiGLU.
        num_layers, num_heads, num_kv_heads, head_dim: counts; each key/value head serves num_heads / num_kv_heads
            query heads.
        rms_norm_eps: added to the mean square.
        rope_theta: base of the rotary frequencies.
        rope_scaling: None leaves the frequencies as they are.
        sliding_window: keys a token of a sliding layer sees, itself included.
        layer_types: [num_layers], "full_attention" or "sliding_attention"; a checkpoint's own list always wins.
        max_position_embeddings: tokens of context the model is meant for.
        bos_token_id, eos_token_ids, pad_token_id: reserved ids; pad may be None.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layer_types: tuple[LayerType, ...]
    sliding_window: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | None = None
    bos_token_id: int = 0
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_dim", "sliding_window", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need an even one")
        if len(self.layer_types) != self.num_layers:
            raise ConfigError(
                f"layer_types lists {len(self.layer_types)} layers but num_layers is {self.num_layers}; "
                "list one type a layer"
            )
        for index, layer_type in enumerate(self.layer_types):
            if layer_type not in LAYER_TYPES:
                raise ConfigError(f"layer_types[{index}] is {layer_type!r}; it must be one of {', '.join(LAYER_TYPES)}")

    def window_of(self, layer: int) -> int | None:
        """Keys a token of ``layer`` sees, itself included; None where it sees all before it."""
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None

    def first_mismatch(self, other: "DecoderConfig") -> str | None:
        """The first field in which two shapes differ, in words; None where a checkpoint of one fits the other. Ids of
        reserved tokens are no part of the shape."""
        for field in fields(self):
            if "token_id" in field.name:
                continue
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if mine != others:
                return f"{field.name} is {others!r}, expected {mine!r}"
        return None

    def to_hf_dict(self) -> dict[str, Any]:
        """The config.json of transformers' CwmConfig."""
        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.rope_scaling is not None:
            rope["rope_type"] = "llama3"
            rope.update({f.name: getattr(self.rope_scaling, f.name) for f in fields(RopeScaling)})
        return {
            "architectures": ["CwmForCausalLM"],
            "model_type": "cwm",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            "sliding_window": self.sliding_window,
            "layer_types": list(self.layer_types),
            "tie_word_embeddings": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": list(self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
        }

    @classmethod
    def from_hf_dict(cls, row: Mapping[str, Any]) -> "DecoderConfig":
        """Read the config.json of a CWM checkpoint, in the form of transformers 4 or 5.

        Raises:
            ConfigError: a setting this decoder does not have; it names the first.
        """
        required = {"model_type": "cwm", "hidden_act": "silu", "tie_word_embeddings": False, "mlp_bias": False}
        for key, value in required.items():
            if row.get(key, value) != value:
                raise ConfigError(f"config.json has {key} {row[key]!r}; only {value!r} can be loaded as a CWM decoder")
        missing = [key for key in (*_HF_NAMES.values(), "sliding_window") if key not in row]
        if missing:
            raise ConfigError(f"config.json has no {missing[0]!r}; take the file that came with the checkpoint")
        theta, scaling = _rope_from_hf(row)
        num_layers = int(row["num_hidden_layers"])
        eos = row.get("eos_token_id")
        return cls(
            **{name: row[key] for name, key in _HF_NAMES.items()},
            layer_types=tuple(row.get("layer_types") or _hf_default_layer_types(num_layers)),
            sliding_window=int(row["sliding_window"]),
            rms_norm_eps=float(row.get("rms_norm_eps", 1e-5)),
            rope_theta=theta,
            rope_scaling=scaling,
            bos_token_id=int(row.get("bos_token_id", 128000)),
            eos_token_ids=tuple(eos)
            if isinstance(eos, list)
            else (int(eos),)
            if eos is not None
            else CWM_EOS_TOKEN_IDS,
            pad_token_id=row.get("pad_token_id"),
        )


CWM_EOS_TOKEN_IDS = (128001, 128008, 128009)  # end of text, of a message, of a turn
_HF_NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_position_embeddings",
}


def _rope_from_hf(row: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    rope = row.get("rope_parameters") or row.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or row.get("rope_theta") or 1_000_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ConfigError(f"config.json has rope_type {kind!r}; only 'llama3' and 'default' can be loaded")
    return theta, RopeScaling(**{field.name: rope[field.name] for field in fields(RopeScaling)})


def _hf_default_layer_types(num_layers: int) -> tuple[LayerType, ...]:
    """What transformers' CwmConfig assumes where the checkpoint lists nothing."""
    return tuple("sliding_attention" if layer % 4 else "full_attention" for layer in range(num_layers))


def cwm_layer_types(num_layers: int) -> tuple[LayerType, ...]:
    """CWM's own interleaving: every fourth layer is global, and so is the last."""
    return (*_hf_default_layer_types(num_layers)[:-1], "full_attention")


_CWM_32B = DecoderConfig(
    vocab_size=128_256,
    hidden_size=6144,
    intermediate_size=21_504,
    num_layers=64,
    num_heads=48,
    num_kv_heads=8,
    head_dim=128,
    layer_types=cwm_layer_types(64),
    sliding_window=8192,
    max_position_embeddings=131_072,
    rope_scaling=RopeScaling(
        factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
    ),
    bos_token_id=128_000,
    eos_token_ids=CWM_EOS_TOKEN_IDS,
)

PRESETS: dict[str, DecoderConfig] = {
    "cwm-32b": _CWM_32B,
    # Full width and few layers: what one machine can measure of the full model.
    "cwm-32b-slice": replace(_CWM_32B, num_layers=4, layer_types=cwm_layer_types(4)),
    "cwm-tiny": DecoderConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=448,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        layer_types=cwm_layer_types(4),
        sliding_window=64,
        max_position_embeddings=8192,
        rope_theta=10_000.0,
        rope_scaling=RopeScaling(
            factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=2048
        ),
        bos_token_id=0,
        eos_token_ids=(1, 5, 6),  # the order of tokenizer.RESERVED_TOKENS
        pad_token_id=2,
    ),
}


def preset(name: str, **changes: Any) -> DecoderConfig:
    """A named configuration, with fields changed.

    Raises:
        ConfigError: no preset has this name.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no model preset {name!r}; presets are {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
