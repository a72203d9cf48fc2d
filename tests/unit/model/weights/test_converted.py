"""A model of transformers from its files and back to them, a weight at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from verigym.errors import CheckpointError, ConfigError
from verigym.model.huggingface import HuggingFaceDecoder, empty_model
from verigym.model.parallel.sharded import layers_of
from verigym.model.weights.converted import named_weights, read_weights, write_weights
from verigym.model.weights.sources import HFSource

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    # one tensor an expert on disk, one of all in memory
    "experts": transformers.Qwen3MoeConfig(
        **SIZES, num_key_value_heads=1, head_dim=8, num_experts=3, moe_intermediate_size=12, intermediate_size=24
    ),
    "other names": transformers.GPTNeoXConfig(**SIZES, intermediate_size=24),
    "tied": transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32),
}


@pytest.fixture(params=CONFIGS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any, Any]:
    """(its folder, a model, the same without numbers)."""
    config = CONFIGS[request.param]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model, empty_model(model.config, torch.float32)


def test_every_weight_is_read_whole_or_a_block_of_it(saved: tuple[Path, Any, Any]) -> None:
    folder, model, empty = saved
    assert all(parameter.is_meta for parameter in empty.parameters())
    expected = named_weights(model)
    found = dict(read_weights(folder, empty))
    assert found.keys() == expected.keys() == named_weights(empty).keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    blocks = {name: (slice(1, value.shape[0] // 2 + 1),) for name, value in expected.items()}
    for name, value in read_weights(folder, empty, blocks):
        assert torch.equal(value, expected[name][blocks[name]])


@pytest.mark.parametrize("shard_bytes", [10**9, 4000], ids=["one file", "shards"])
def test_it_is_written_as_transformers_has_it(saved: tuple[Path, Any, Any], tmp_path: Path, shard_bytes: int) -> None:
    folder, model, empty = saved
    out = tmp_path / "out"
    out.mkdir()
    model.config.save_pretrained(out)
    write_weights(out, empty, named_weights(model).items(), shard_bytes=shard_bytes)
    assert (out / "model.safetensors").exists() == (shard_bytes > 4000)
    assert HFSource(out).shapes == HFSource(folder).shapes
    again, told = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    found = named_weights(again)
    assert all(torch.equal(found[name], value) for name, value in named_weights(model).items())


def test_what_is_missing_or_broken_is_named(saved: tuple[Path, Any, Any]) -> None:
    folder, _, empty = saved
    file = folder / "model.safetensors"
    whole = load_file(file)
    name = next(name for name in whole if name.endswith(("o_proj.weight", "dense.weight", "c_proj.weight")))
    for broken, said in (
        ({key: value for key, value in whole.items() if key != name}, "lacks the tensor .* copy it anew"),
        (whole | {name: whole[name][1:].contiguous()}, "has shape .* but config.json asks for"),
        (whole | {name: whole[name] * torch.nan}, "holds NaN or infinity"),
    ):
        save_file(broken, file, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=said):
            list(read_weights(folder, empty))


def test_what_it_computes_from_its_configuration_is_there_without_its_weights(saved: tuple[Path, Any, Any]) -> None:
    _, model, empty = saved
    buffers = dict(empty.named_buffers())
    for name, value in model.named_buffers():
        assert torch.equal(buffers[name], value)


def test_layers_that_cannot_be_split_one_by_one_are_refused() -> None:
    decoder = HuggingFaceDecoder(empty_model(CONFIGS["experts"], torch.float32))
    layers = layers_of(decoder)
    assert len(layers) == 2
    layers[1].self_attn = layers[0].self_attn
    with pytest.raises(ConfigError, match="share weights; start one process"):
        layers_of(decoder)
    decoder.config.num_hidden_layers = 5
    with pytest.raises(ConfigError, match="has no list of 5"):
        layers_of(decoder)


def test_an_index_names_every_file(tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["tied"])
    write_weights(tmp_path, model, named_weights(model).items(), shard_bytes=4000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert {file.name for file in tmp_path.glob("*.safetensors")} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in named_weights(model).values())
