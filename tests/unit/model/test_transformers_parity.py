"""The decoder against transformers' CwmForCausalLM: random shapes, mixed layers, windows crossed, packed documents."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from verigym.model.attention import Documents
from verigym.model.checkpoint import from_hf_state, load_checkpoint, save_checkpoint
from verigym.model.config import DecoderConfig, RopeScaling
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import Tokenizer
from verigym.model.weights.convert import convert

transformers = pytest.importorskip("transformers")

STRETCHED = RopeScaling(factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
KINDS = ("full_attention", "sliding_attention")


@st.composite
def configs(draw: st.DrawFn) -> DecoderConfig:
    groups, group_size, layers = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    types = draw(st.lists(st.sampled_from(KINDS), min_size=layers, max_size=layers))
    return DecoderConfig(
        vocab_size=320,
        hidden_size=24 * groups * group_size,
        intermediate_size=draw(st.integers(5, 40)),
        num_layers=layers,
        num_heads=groups * group_size,
        num_kv_heads=groups,
        head_dim=2 * draw(st.integers(1, 8)),
        layer_types=tuple(types),
        sliding_window=draw(st.integers(1, 12)),
        max_position_embeddings=256,
        rope_theta=draw(st.sampled_from([100.0, 1_000_000.0])),
        rope_scaling=STRETCHED if draw(st.booleans()) else None,
        bos_token_id=0,
        pad_token_id=2,
    )


@torch.no_grad()
def _relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, beside the largest value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-3))


@settings(max_examples=8)
@given(config=configs(), lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_logits_and_every_gradient_through_conversion_both_ways(
    config: DecoderConfig, lengths: list[int], seed: int, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ours -> Hugging Face -> transformers -> saved by transformers -> Meta's format -> ours: bit for bit the same
    weights, and packed documents give what transformers gives for each alone, to 1e-5."""
    folder: Path = tmp_path_factory.mktemp("parity")
    ours = Decoder(config, seed=seed)
    save_checkpoint(folder / "ours", ours, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "ours", attn_implementation="eager")
    assert type(theirs).__name__ == "CwmForCausalLM"
    theirs.save_pretrained(folder / "theirs")
    tokenizer.save(folder / "theirs")
    convert(folder / "theirs", folder / "meta", to="dcp")
    back, _ = load_checkpoint(folder / "meta")
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in back.state_dict().items())

    generator = torch.Generator().manual_seed(seed)
    # Above the pad token (2): transformers gives its row of the embedding no gradient.
    ids = torch.randint(3, 320, (sum(lengths),), generator=generator)
    upstream = torch.randn(sum(lengths), 320, generator=generator)
    packed = back.logits(back(ids, Documents.from_lengths(lengths)))
    (packed * upstream).sum().backward()
    alone = [theirs(part[None]).logits[0] for part in ids.split(lengths)]
    sum((one * up).sum() for one, up in zip(alone, upstream.split(lengths))).backward()
    assert _relative(packed, torch.cat(alone)) < 1e-5
    expected = from_hf_state(config, {name: value.grad for name, value in theirs.named_parameters()})
    for name, parameter in back.named_parameters():
        assert parameter.grad is not None
        assert _relative(parameter.grad, expected[name]) < 1e-5, name
