"""The shape of a decoder, as numbers: CWM's, and those of the other families. Free of torch."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from ..errors import ConfigError

LayerType = Literal["full_attention", "sliding_attention"]
LAYER_TYPES: tuple[str, ...] = get_args(LayerType)
Activation = Literal["silu", "gelu_tanh"]


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
class LinearScaling:
    """All rotary frequencies divided by ``factor``. Source: arXiv:2306.15595."""

    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """YaRN's stretching of rotary frequencies. Source: arXiv:2309.00071.

    Attributes:
        factor: divisor of the low frequencies.
        beta_fast, beta_slow: turns within the original context above which a frequency stays as it is, and below which
            it is divided by ``factor``; between them a ramp.
        original_max_position_embeddings: tokens of context before the stretching.
        attention_factor: that cosines and sines are multiplied by.
        truncate: whether the ends of the ramp are whole channels.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary positions of a layer: base of the frequencies, and how they are stretched (None: not at all)."""

    theta: float
    scaling: RopeScaling | LinearScaling | YarnScaling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A decoder. What is not said is as in CWM.

    Attributes:
        family: of ``model.families``; whose names its config.json has.
        vocab_size: rows of the embedding and of the head.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the gated MLP.
        num_layers, num_heads, num_kv_heads, head_dim: counts; each key/value head serves num_heads / num_kv_heads
            query heads.
        rms_norm_eps: added to the mean square.
        rope_theta: base of the rotary frequencies.
        rope_scaling: None leaves the frequencies as they are.
        sliding_rope_theta: base of the frequencies of sliding layers, which then are not stretched; None: as all.
        rope_layers: [num_layers], whether queries and keys are turned at all; None: in all layers.
        sliding_window: keys a token of a sliding layer sees, itself included.
        layer_types: [num_layers], "full_attention" or "sliding_attention"; a checkpoint's own list always wins.
        max_position_embeddings: tokens of context the model is meant for.
        tied_embeddings: whether the head's matrix is the embedding's.
        embed_scale: that embeddings are multiplied by, rounded to their dtype.
        qkv_bias: whether queries, keys and values have biases.
        qk_norm: whether queries and keys are normed, head by head, before they are turned.
        query_scale: that queries are multiplied by, beside head_dim^-0.5.
        activation: of the gate.
        post_norms: whether what attention and MLP write is normed once more.
        norm_offset: whether norms multiply by 1 + weight, in float32, and start at 0.
        bos_token_id, eos_token_ids, pad_token_id: reserved ids; bos and pad may be None.
        num_ids: ids that the tokenizer knows, where the head has more rows: those are padding, and are neither drawn
            nor trained. None: all. It is no part of a checkpoint; see ``with_known_ids``.
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
    family: str = "cwm"
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    rope_scaling: RopeScaling | LinearScaling | YarnScaling | None = None
    sliding_rope_theta: float | None = None
    rope_layers: tuple[bool, ...] | None = None
    tied_embeddings: bool = False
    embed_scale: float = 1.0
    qkv_bias: bool = False
    qk_norm: bool = False
    query_scale: float = 1.0
    activation: Activation = "silu"
    post_norms: bool = False
    norm_offset: bool = False
    bos_token_id: int | None = 0
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int | None = None
    num_ids: int | None = None

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
        if self.rope_layers is not None and len(self.rope_layers) != self.num_layers:
            raise ConfigError(f"rope_layers lists {len(self.rope_layers)} layers but num_layers is {self.num_layers}")

    def with_known_ids(self, num_ids: int | None) -> "DecoderConfig":
        """The same for a tokenizer whose largest id is ``num_ids`` - 1; None: without a tokenizer."""
        return replace(self, num_ids=None if num_ids is None or num_ids >= self.vocab_size else num_ids)

    def window_of(self, layer: int) -> int | None:
        """Keys a token of ``layer`` sees, itself included; None where it sees all before it."""
        return self.sliding_window if self.layer_types[layer] == "sliding_attention" else None

    def rope_of(self, layer: int) -> Rope | None:
        """Rotary positions of ``layer``; None where it has none."""
        if self.rope_layers is not None and not self.rope_layers[layer]:
            return None
        if self.sliding_rope_theta is not None and self.window_of(layer) is not None:
            return Rope(theta=self.sliding_rope_theta)
        return Rope(theta=self.rope_theta, scaling=self.rope_scaling)

    def first_mismatch(self, other: "DecoderConfig") -> str | None:
        """The first field in which two shapes differ, in words; None where a checkpoint of one fits the other. Ids of
        reserved tokens are no part of the shape."""
        for field in fields(self):
            if "token_id" in field.name or field.name == "num_ids":
                continue
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if mine != others:
                return f"{field.name} is {others!r}, expected {mine!r}"
        return None


CWM_EOS_TOKEN_IDS = (128001, 128008, 128009)  # end of text, of a message, of a turn


def hf_cwm_layer_types(num_layers: int) -> tuple[LayerType, ...]:
    """What transformers' CwmConfig assumes where a checkpoint lists nothing."""
    return tuple("sliding_attention" if layer % 4 else "full_attention" for layer in range(num_layers))


def cwm_layer_types(num_layers: int) -> tuple[LayerType, ...]:
    """CWM's own interleaving: every fourth layer is global, and so is the last."""
    return (*hf_cwm_layer_types(num_layers)[:-1], "full_attention")


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
    # Shapes of others, to plan with: their weights and tokenizers come with a checkpoint.
    "qwen3-32b": DecoderConfig(  # Qwen/Qwen3-32B
        family="qwen3",
        vocab_size=151_936,
        hidden_size=5120,
        intermediate_size=25_600,
        num_layers=64,
        num_heads=64,
        num_kv_heads=8,
        head_dim=128,
        layer_types=("full_attention",) * 64,
        sliding_window=40_960,
        max_position_embeddings=40_960,
        rms_norm_eps=1e-6,
        qk_norm=True,
        bos_token_id=151_643,
        eos_token_ids=(151_645,),
    ),
    "llama-3.3-70b": DecoderConfig(  # meta-llama/Llama-3.3-70B-Instruct; that of 3.1 is the same
        family="llama",
        vocab_size=128_256,
        hidden_size=8192,
        intermediate_size=28_672,
        num_layers=80,
        num_heads=64,
        num_kv_heads=8,
        head_dim=128,
        layer_types=("full_attention",) * 80,
        sliding_window=131_072,
        max_position_embeddings=131_072,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
        ),
        bos_token_id=128_000,
        eos_token_ids=(128_001, 128_008, 128_009),
    ),
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
