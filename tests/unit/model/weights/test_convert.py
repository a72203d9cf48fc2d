import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from verigym.__main__ import main
from verigym.errors import CheckpointError, ConfigError
from verigym.model.attention import Documents
from verigym.model.checkpoint import load_checkpoint, load_weights, save_checkpoint
from verigym.model.config import cwm_layer_types
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import Tokenizer
from verigym.model.weights.convert import convert
from verigym.model.weights.names import interleave

from ..conftest import small_config


@pytest.fixture
def saved(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "hf", decoder.to(torch.bfloat16), tokenizer)
    return tmp_path / "hf"


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def test_there_and_back_is_bit_exact_and_sharded(saved: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    convert(saved, tmp_path / "dcp", to="dcp", tell=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    convert(tmp_path / "dcp", tmp_path / "back", to="hf", shard_bytes=20_000)
    before, after = _tensors(saved), _tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    files = sorted(path.name for path in (tmp_path / "back").glob("*.safetensors"))
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert set(index["weight_map"]) == set(before)
    sizes = {file: sum(v.nbytes for v in load_file(tmp_path / "back" / file).values()) for file in files}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    biggest = max(value.nbytes for value in before.values())
    assert all(size <= max(20_000, biggest) for size in sizes.values())
    assert load_checkpoint(tmp_path / "back")[1].encode("add(1)") == load_checkpoint(saved)[1].encode("add(1)")


def test_transformers_reads_shards_written_here(saved: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    convert(saved, tmp_path / "sharded", to="hf", shard_bytes=20_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "sharded", dtype=torch.bfloat16)
    state = theirs.state_dict()
    assert all(torch.equal(state[name], value) for name, value in _tensors(saved).items())


def test_the_distributed_format_is_metas_release(saved: Path, tmp_path: Path) -> None:
    """Names and rows as facebookresearch/cwm has them, read with torch alone."""
    convert(saved, tmp_path / "dcp", to="dcp")
    theirs = _tensors(saved)
    state = {
        "model": {
            "tok_embeddings.weight": torch.empty(320, 32, dtype=torch.bfloat16),
            "layers.1.attention.wk.weight": torch.empty(16, 32, dtype=torch.bfloat16),
            "layers.2.feed_forward.w3.weight": torch.empty(48, 32, dtype=torch.bfloat16),
        }
    }
    dcp.load(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    found = state["model"]
    assert torch.equal(found["tok_embeddings.weight"], theirs["model.embed_tokens.weight"])
    assert torch.equal(found["layers.2.feed_forward.w3.weight"], theirs["model.layers.2.mlp.up_proj.weight"])
    k = theirs["model.layers.1.self_attn.k_proj.weight"]
    assert torch.equal(found["layers.1.attention.wk.weight"], interleave(k, 8))
    assert not torch.equal(found["layers.1.attention.wk.weight"], k)


def test_a_release_of_metas_loads_without_config_json(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    reserved = {"bos_token_id": 128000, "eos_token_ids": (128001, 128008, 128009), "pad_token_id": None}
    config = small_config(num_layers=6, layer_types=cwm_layer_types(6), **reserved)
    whole = Decoder(config, seed=4)
    save_checkpoint(tmp_path / "hf", whole, tokenizer)
    convert(tmp_path / "hf", tmp_path / "dcp", to="dcp")
    (tmp_path / "dcp" / "config.json").unlink()
    loaded, _ = load_checkpoint(tmp_path / "dcp")
    assert loaded.config.first_mismatch(config) is None
    ids = torch.arange(3, 29)
    documents = Documents.from_lengths([len(ids)])
    assert torch.equal(loaded(ids, documents), whole(ids, documents))
    convert(tmp_path / "dcp", tmp_path / "back", to="hf")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["layer_types"] == list(config.layer_types)


def test_a_cut_or_missing_file_shows_before_anything_is_written(saved: Path, tmp_path: Path) -> None:
    convert(saved, tmp_path / "dcp", to="dcp")
    convert(saved, tmp_path / "shards", to="hf", shard_bytes=20_000)
    told: list[int] = []
    for folder, pattern in (("dcp", "*.distcp"), ("shards", "*.safetensors")):
        file = sorted((tmp_path / folder).glob(pattern))[1]
        whole = file.read_bytes()
        for damage in (lambda f=file, w=whole: f.write_bytes(w[:-7]), lambda f=file: f.unlink()):
            damage()
            with pytest.raises(CheckpointError, match=rf"{file.name}.* cannot be read"):
                convert(tmp_path / folder, tmp_path / "out", to="hf", tell=lambda done, total: told.append(done))
            assert not told
            assert not (tmp_path / "out").exists()


def test_nan_is_named_and_leaves_nothing_behind(saved: Path, tmp_path: Path) -> None:
    tensors = _tensors(saved)
    tensors["model.layers.2.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    for to in ("dcp", "hf"):
        with pytest.raises(CheckpointError, match=r"model\.layers\.2\.mlp\.down_proj\.weight holds NaN"):
            convert(saved, tmp_path / "out", to=to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_dcp_weights_load_into_a_decoder_of_the_same_shape_only(saved: Path, decoder: Decoder, tmp_path: Path) -> None:
    convert(saved, tmp_path / "dcp", to="dcp")
    other = Decoder(decoder.config, seed=9).to(torch.bfloat16)
    load_weights(tmp_path / "dcp", other)
    assert all(torch.equal(value, decoder.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(CheckpointError, match="num_layers is 3, expected 2"):
        load_weights(tmp_path / "dcp", Decoder(small_config(num_layers=2, layer_types=("full_attention",) * 2)))


def test_an_existing_target_is_kept(saved: Path) -> None:
    with pytest.raises(ConfigError, match="exists; give a new folder"):
        convert(saved, saved, to="dcp")


def test_the_command(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(saved), str(tmp_path / "dcp"), "--to", "dcp"]) == 0
    assert "dcp" in capsys.readouterr().out
    assert main(["convert", str(saved), str(tmp_path / "dcp"), "--to", "hf"]) == 2
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "x"), "--to", "hf"]) == 2
    assert "no checkpoint at" in capsys.readouterr().err
