"""Whose names the weights have, and how rows stand in them.

Three hold the same numbers. Ours stack what is multiplied with the same input: ``qkv`` is q, k and v, ``gate_up`` is
gate and up. Hugging Face's have each by itself. Meta's do too, under other names, and there the two channels that a
rotary position turns together are neighbours (interleaved), where ours and Hugging Face's stand half a head apart.

Source: cwm/model/transformer.py and cwm/fastgen/kernels/rope.py of facebookresearch/cwm; transformers' CwmForCausalLM.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..config import DecoderConfig

Naming = Literal["hf", "meta"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One weight of a checkpoint.

    Attributes:
        hf, meta: its names; Meta's are empty where CWM has no such weight.
        shape: rows and columns, or the width of a norm.
        interleaved: whether Meta's rows are interleaved: queries and keys.
    """

    hf: str
    shape: tuple[int, ...]
    meta: str = ""
    interleaved: bool = False

    def name(self, naming: Naming) -> str:
        return self.hf if naming == "hf" else self.meta


def stacks(config: DecoderConfig) -> Iterator[tuple[str, list[Part]]]:
    """(our name, the parts stacked in it from the top) of every weight of a decoder, in the order of the forward."""
    width, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    q_rows, kv_rows = config.num_heads * head, config.num_kv_heads * head
    yield "embed.weight", [_part("model.embed_tokens", "tok_embeddings", config.vocab_size, width)]
    for i in range(config.num_layers):
        ours, hf, meta = f"layers.{i}", f"model.layers.{i}", f"layers.{i}"
        yield f"{ours}.attention_norm.weight", [_part(f"{hf}.input_layernorm", f"{meta}.attention_norm", width)]
        rows = {"q": q_rows, "k": kv_rows, "v": kv_rows}
        qkv = [
            _part(f"{hf}.self_attn.{x}_proj", f"{meta}.attention.w{x}", n, width, interleaved=x != "v")
            for x, n in rows.items()
        ]
        yield f"{ours}.attention.qkv.weight", qkv
        for x in rows if config.qkv_bias else ():
            yield f"{ours}.attention.bias.{x}", [Part(hf=f"{hf}.self_attn.{x}_proj.bias", shape=(rows[x],))]
        for x in ("q", "k") if config.qk_norm else ():
            yield f"{ours}.attention.{x}_norm.weight", [_part(f"{hf}.self_attn.{x}_norm", "", head)]
        yield f"{ours}.attention.out.weight", [_part(f"{hf}.self_attn.o_proj", f"{meta}.attention.wo", width, q_rows)]
        # With two norms a half, Hugging Face's name of the only one before the MLP is that of another.
        before = "pre_feedforward_layernorm" if config.post_norms else "post_attention_layernorm"
        if config.post_norms:
            yield f"{ours}.attention_post_norm.weight", [_part(f"{hf}.post_attention_layernorm", "", width)]
        yield f"{ours}.mlp_norm.weight", [_part(f"{hf}.{before}", f"{meta}.ffn_norm", width)]
        gate_up = [
            _part(f"{hf}.mlp.{theirs}_proj", f"{meta}.feed_forward.{w}", inner, width)
            for theirs, w in (("gate", "w1"), ("up", "w3"))
        ]
        yield f"{ours}.mlp.gate_up.weight", gate_up
        yield f"{ours}.mlp.down.weight", [_part(f"{hf}.mlp.down_proj", f"{meta}.feed_forward.w2", width, inner)]
        if config.post_norms:
            yield f"{ours}.mlp_post_norm.weight", [_part(f"{hf}.post_feedforward_layernorm", "", width)]
    yield "norm.weight", [_part("model.norm", "norm", width)]
    if not config.tied_embeddings:
        yield "head.weight", [_part("lm_head", "output", config.vocab_size, width)]


def parts(config: DecoderConfig) -> list[Part]:
    """Every weight of a checkpoint, in the order of the forward."""
    return [part for _, stacked in stacks(config) for part in stacked]


def interleave(weight: Tensor, head_dim: int) -> Tensor:
    """[H x K, D] with halves of a head apart, to Meta's order: of each head row 0 of both halves, then row 1, ..."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).reshape(weight.shape)


def deinterleave(weight: Tensor, head_dim: int) -> Tensor:
    """The inverse of ``interleave``. Whole heads may be left out, so a shard of heads can be turned by itself."""
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).reshape(weight.shape)


def _part(hf: str, meta: str, *shape: int, interleaved: bool = False) -> Part:
    return Part(hf=f"{hf}.weight", meta=meta and f"{meta}.weight", shape=shape, interleaved=interleaved)
