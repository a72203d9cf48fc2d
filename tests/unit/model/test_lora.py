"""Adapters in models of transformers and in CWM's decoder: only they learn, and what they learn can be taken away."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# Modules of peft have no types, and shapes are unpacked from tables.

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3MoeConfig

from verigym.errors import CheckpointError, ConfigError
from verigym.model.attention import Documents
from verigym.model.checkpoint import save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.huggingface import HuggingFaceDecoder
from verigym.model.lora import (
    adapter_weights,
    add_adapters,
    copy_trained,
    copy_weights,
    dropping,
    load_adapters,
    save_adapters,
    without_adapters,
)
from verigym.model.tokenizer import train_tokenizer
from verigym.model.trained import export

IDS = torch.tensor([5, 9, 30, 2, 77, 8, 41])
LENGTHS = (4, 3)
KINDS = ("qwen3", "cwm")


def make(kind):
    if kind == "cwm":
        small = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2}
        layers = {"head_dim": 8, "layer_types": ("sliding_attention", "full_attention"), "sliding_window": 2}
        return Decoder(preset("cwm-tiny", vocab_size=300, **small, **layers), seed=1)
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    return HuggingFaceDecoder(AutoModelForCausalLM.from_config(config))


def adapted(kind, *, seed=0, learned=True, **settings):
    """A decoder whose adapters have learned something."""
    decoder = make(kind)
    add_adapters(decoder, **{"rank": 3, "alpha": 6.0, **settings}, seed=seed)
    if learned:
        torch.manual_seed(seed + 5)
        with torch.no_grad():
            for weight in adapter_weights(decoder).values():
                weight.normal_(0.0, 0.3)
    return decoder


@torch.no_grad()
def logits(decoder):
    return decoder.logits(decoder(IDS, Documents.from_lengths(LENGTHS)))


def test_lora_works_on_these_kinds_only_and_names_what_there_is():
    with pytest.raises(ConfigError, match=r"'nothing'.* gate_proj, k_proj"):
        adapted("qwen3", targets=("nothing",))
    with pytest.raises(ConfigError, match="down, gate_up, head, out, qkv"):
        adapted("cwm", targets=("q_proj",))
    for kind, name in (("qwen3", "lm_head"), ("cwm", "head"), ("cwm", "embed")):
        with pytest.raises(ConfigError, match="leave them out"):
            adapted(kind, targets=(name,))


def test_stacked_experts_are_told_before_a_run_whose_export_would_lack_them():
    config = Qwen3MoeConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    decoder = HuggingFaceDecoder(AutoModelForCausalLM.from_config(config))
    with pytest.raises(ConfigError, match=r"many experts in one weight.*lora\.targets"):
        add_adapters(decoder, rank=2, alpha=4.0)
    decoder = HuggingFaceDecoder(AutoModelForCausalLM.from_config(config))
    add_adapters(decoder, rank=2, alpha=4.0, targets=["q_proj", "v_proj"])


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_begin_as_nothing_and_alone_have_gradients(kind):
    plain, decoder = make(kind), adapted(kind, learned=False)
    assert torch.equal(logits(plain), logits(decoder))
    trained = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    assert {id(one) for one in trained} == {id(one) for one in adapter_weights(decoder).values()}
    matrices = 7 if kind == "qwen3" else 4
    assert len(trained) == 2 * 2 * matrices
    logprobs, _ = decoder.score(IDS, Documents.from_lengths(LENGTHS), IDS.roll(-1))
    logprobs.sum().backward()
    assert all(parameter.grad is None for parameter in decoder.parameters() if not parameter.requires_grad)
    assert all(weight.grad is not None for weight in trained)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_pair_adds_is_scaled_by_alpha_over_rank(kind):
    layers = [one for one in adapted(kind, rank=3, alpha=6.0).modules() if hasattr(one, "lora_A")]
    assert len(layers) == 2 * (7 if kind == "qwen3" else 4)
    for layer in layers:
        first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert first.shape[0] == 3
        x = torch.randn(5, first.shape[1], generator=torch.Generator().manual_seed(2))
        expected = layer.base_layer(x) + 2.0 * x @ first.T @ second.T
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_without_adapters_it_is_the_base(kind):
    plain, decoder = make(kind), adapted(kind)
    now = logits(decoder)
    assert (now - logits(plain)).abs().max() > 0.01
    with without_adapters(decoder):
        assert torch.equal(logits(decoder), logits(plain))
    assert torch.equal(logits(decoder), now)
    assert all(weight.requires_grad for weight in adapter_weights(decoder).values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_shares_the_frozen_weights_and_takes_the_trained_ones(kind):
    decoder = adapted(kind)
    other = copy_trained(decoder)
    theirs = dict(other.named_parameters())
    for name, parameter in decoder.named_parameters():
        assert (theirs[name].data_ptr() == parameter.data_ptr()) is not parameter.requires_grad, name
    before = logits(other)
    with torch.no_grad():
        for weight in adapter_weights(decoder).values():
            weight.add_(0.1)
    assert torch.equal(logits(other), before)
    copy_weights(decoder, other)
    assert torch.equal(logits(other), logits(decoder))
    assert not torch.equal(logits(other), before)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_come_back_exactly_and_others_are_refused(kind, tmp_path):
    decoder = adapted(kind)
    save_adapters(tmp_path, decoder)
    other = adapted(kind, seed=9)
    assert not torch.equal(logits(other), logits(decoder))
    load_adapters(tmp_path, other)
    assert torch.equal(logits(other), logits(decoder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    kept = logits(other)
    with pytest.raises(CheckpointError, match="use the rank and targets of then"):
        load_adapters(tmp_path, adapted(kind, rank=4))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_adapters(tmp_path / "nowhere", other)
    assert torch.equal(logits(other), kept)


@pytest.mark.parametrize("kind", KINDS)
def test_peft_reads_the_adapters_and_transformers_the_merged_model(kind, tmp_path):
    from peft import PeftModel  # seconds of every worker, at the top

    plain, decoder = make(kind), adapted(kind)
    if kind == "cwm":
        tokenizer = train_tokenizer(["a b"], 280)
        save_checkpoint(tmp_path / "base", plain, tokenizer)
    else:
        train_tokenizer(["a b"], 280).save(tmp_path / "tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
        plain.save(tmp_path / "base")
    export(tmp_path / "out", decoder, tokenizer, base=tmp_path / "base")
    expected = [logits(decoder)[:4], logits(decoder)[4:]]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    beside = PeftModel.from_pretrained(base, tmp_path / "out" / "adapter").eval()
    assert beside.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    for model in (beside, merged):
        for ids, one in zip(IDS.split(LENGTHS), expected, strict=True):
            with torch.no_grad():
                torch.testing.assert_close(model(ids[None]).logits[0], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_on_only_where_it_was_asked_for(kind):
    decoder = adapted(kind, dropout=0.5)
    still = logits(decoder)
    decoder.train()
    if kind == "qwen3":  # a decoder of transformers never drops by itself
        assert torch.equal(logits(decoder), still)
    with dropping(decoder):
        assert not torch.equal(logits(decoder), logits(decoder))
    assert torch.equal(logits(decoder), still)
    with dropping(make(kind)):
        pass


def test_what_is_added_learns_in_float32_beside_a_base_in_bfloat16():
    decoder = HuggingFaceDecoder(make("qwen3").model.bfloat16())
    add_adapters(decoder, rank=2, alpha=4.0)
    assert {weight.dtype for weight in adapter_weights(decoder).values()} == {torch.float32}
    assert logits(decoder).dtype == torch.bfloat16
