"""Qwen 2, 2.5 and 3: the first two have biases of queries, keys and values, the last norms of queries and keys.

Source: transformers' Qwen2Config and Qwen3Config.
"""

from typing import Any

from ..config import DecoderConfig
from .common import Family, Row, read_llama, require, window_in_use, windowed, write_llama, write_windowed


def _read(row: Row, *, family: str, head_dim: int | None, **own: Any) -> DecoderConfig:
    fields = read_llama(row, head_dim=head_dim)
    first = int(row.get("max_window_layers", 28))
    kinds = row.get("layer_types") or [
        "sliding_attention" if layer >= first else "full_attention" for layer in range(fields["num_layers"])
    ]
    return DecoderConfig(family=family, **windowed(fields, window_in_use(row), kinds), **own, **fields)


def read_qwen2(row: Row) -> DecoderConfig:
    # Qwen 2 knows no size of heads but the width's share, whatever its file says.
    return _read({**row, "head_dim": None}, family="qwen2", head_dim=None, qkv_bias=True)


def read_qwen3(row: Row) -> DecoderConfig:
    require(row, attention_bias=False)
    return _read(row, family="qwen3", head_dim=128, qk_norm=True)


def write_qwen2(config: DecoderConfig) -> dict[str, Any]:
    row = write_qwen3(config)
    del row["head_dim"], row["attention_bias"]
    return row


def write_qwen3(config: DecoderConfig) -> dict[str, Any]:
    row = write_llama(config) | write_windowed(config) | {"attention_bias": False}
    del row["mlp_bias"]  # a setting that neither has
    return row


QWEN2 = Family(model_type="qwen2", architecture="Qwen2ForCausalLM", read=read_qwen2, write=write_qwen2)
QWEN3 = Family(model_type="qwen3", architecture="Qwen3ForCausalLM", read=read_qwen3, write=write_qwen3)
