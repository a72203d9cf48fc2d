"""Every family of our decoder against transformers' own model of it: random weights, odd shapes, packed documents."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from verigym.errors import CheckpointError, ConfigError
from verigym.model.attention import Documents
from verigym.model.checkpoint import from_hf_state, load_decoder, to_hf_state
from verigym.model.families.find import FAMILIES, read_config, why_not_ours, write_config
from verigym.model.weights.sources import load_config

transformers = pytest.importorskip("transformers")

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
SIZES = {
    "vocab_size": 131,  # no multiple of anything
    "hidden_size": 48,
    "intermediate_size": 37,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "bos_token_id": 0,
    "eos_token_id": [1, 5],
    "pad_token_id": None,
}
GEMMA_ROPES = {
    "full_attention": {"rope_type": "linear", "rope_theta": 900.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 3": ("llama", {"head_dim": 10, "rope_parameters": LLAMA3}),
    "llama tied, one head": (
        "llama",
        {"num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "llama linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": True}),
    "qwen 2, 8 to 1": ("qwen2", {"num_attention_heads": 8, "num_key_value_heads": 1}),
    "qwen 2.5 yarn": ("qwen2", {"rope_parameters": YARN, "tie_word_embeddings": True}),
    "qwen 2 window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen 3": ("qwen3", {"head_dim": 14, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 7, "head_dim": 6}),
    "mistral without a window": ("mistral", {"sliding_window": None, "num_hidden_layers": 1}),
    "ministral": (
        "ministral",
        {
            "head_dim": 12,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gemma 3": (
        "gemma3_text",
        {
            "head_dim": 14,
            "sliding_window": 6,
            "query_pre_attn_scalar": 11,
            "rope_parameters": GEMMA_ROPES,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
}
LENGTHS = [23, 1, 9, 40]  # beyond the windows, and beyond the original context of what is stretched


def _theirs(kind: str, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **(SIZES | changes))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():  # biases and norms start at constants, under which a mistake would not show
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-3))


@pytest.mark.parametrize("name", SHAPES)
def test_logits_and_every_gradient_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    kind, changes = SHAPES[name]
    theirs = _theirs(kind, **changes)
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    assert ours.config.family == kind
    ids = torch.randint(0, 131, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    upstream = torch.randn(sum(LENGTHS), 131, generator=torch.Generator().manual_seed(2))
    packed = ours.logits(ours(ids, Documents.from_lengths(LENGTHS)))
    (packed * upstream).sum().backward()
    alone = [theirs(part[None], use_cache=False).logits[0] for part in ids.split(LENGTHS)]
    sum((one * up).sum() for one, up in zip(alone, upstream.split(LENGTHS))).backward()
    assert _relative(packed, torch.cat(alone)) < 1e-5
    expected = from_hf_state(ours.config, {key: value.grad for key, value in theirs.named_parameters()})
    found = {key: value.grad for key, value in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for key, grad in found.items():
        assert grad is not None
        assert _relative(grad, expected[key]) < 2e-5, key


@pytest.mark.parametrize("name", SHAPES)
def test_configuration_and_weights_there_and_back(name: str, tmp_path: Path) -> None:
    """What we write, transformers reads as the same model; what it writes of that, we read as the same numbers."""
    kind, changes = SHAPES[name]
    theirs = _theirs(kind, **changes)
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    state = to_hf_state(ours)
    assert all(torch.equal(state[key], value) for key, value in theirs.named_parameters())
    row = write_config(ours.config)
    assert read_config(row) == ours.config
    again = transformers.AutoConfig.for_model(**{key: value for key, value in row.items() if key != "architectures"})
    model = transformers.AutoModelForCausalLM.from_config(again, attn_implementation="eager")
    model.load_state_dict(state, strict=not ours.config.tied_embeddings)
    ids = torch.arange(30)[None]
    assert torch.equal(model.float().eval()(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("kind", sorted(set(FAMILIES) - {"cwm"}))
def test_a_file_that_says_the_least_is_read_as_transformers_reads_it(kind: str) -> None:
    row = {"model_type": kind, "vocab_size": 131, "hidden_size": 48, "intermediate_size": 37, "num_hidden_layers": 7,
           "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96}  # fmt: skip
    theirs = transformers.AutoConfig.for_model(**row)
    assert read_config(row) == read_config(theirs.to_dict() | {"eos_token_id": None, "bos_token_id": None,
                                                               "pad_token_id": None})  # fmt: skip


def test_the_older_form_of_rotary_settings() -> None:
    row = SIZES | {"model_type": "llama", "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert read_config(row).rope_of(0) == read_config(
        SIZES | {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}}
    ).rope_of(0)  # fmt: skip


def test_ends_that_only_the_settings_of_generation_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "llama"}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 1]}))
    assert load_config(tmp_path).eos_token_ids == (7, 1, 5)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"model_type": "qwen3_moe"}, "model_type 'qwen3_moe'"),
        ({"model_type": "deepseek_v3"}, "model_type 'deepseek_v3'"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias True"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"model_type": "llama", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_is_close_but_not_ours_is_told_by_name(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_config(SIZES | row)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | row))
    assert reason in (why_not_ours(tmp_path) or "")


def test_a_flag_that_contradicts_the_file(tmp_path: Path) -> None:
    _theirs("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(CheckpointError, match="says tie_word_embeddings, but lm_head"):
        load_decoder(tmp_path)
    _theirs("llama", tie_word_embeddings=True).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"lacks the tensor lm_head.weight, and its config\.json"):
        load_decoder(tmp_path)
