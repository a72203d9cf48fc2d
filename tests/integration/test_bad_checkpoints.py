"""Checkpoints that are broken, as a user meets them: one line that names what, before any work."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from verigym.__main__ import main
from verigym.model.checkpoint import save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import train_tokenizer

NAME = "model.layers.1.self_attn.k_proj.weight"


def lacking(folder, file, tensors):
    del tensors[NAME]
    save_file(tensors, file, metadata={"format": "pt"})


def spoiled(folder, file, tensors):
    tensors[NAME][3, 5] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})


def cut(folder, file, tensors):
    file.write_bytes(file.read_bytes()[:-100])


def without_a_shard(folder, file, tensors):
    file.unlink()


def of_another_shape(folder, file, tensors):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 4}))


SEEN = [
    (lacking, f"lacks the tensor {NAME}"),
    (cut, "safetensors cannot be read"),
    (without_a_shard, "safetensors cannot be read"),
    (of_another_shape, "but config.json asks for"),
]
"""What is told without reading a weight."""


def damaged(folder, damage):
    tokenizer = train_tokenizer(["a few words"], 320)
    save_checkpoint(folder, Decoder(preset("cwm-tiny", vocab_size=320)), tokenizer, shard_bytes=500_000)
    assert len(list(folder.glob("*.safetensors"))) > 1
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    file = folder / index[NAME]
    damage(folder, file, load_file(file))
    return folder


@pytest.mark.parametrize(("damage", "told"), [*SEEN, (spoiled, f"{NAME} holds NaN or infinity")])
def test_a_broken_checkpoint_is_named_by_every_command(damage, told, tmp_path, capsys):
    folder = damaged(tmp_path / "model", damage)
    for argv in (
        ["serve", str(folder), "--port", "0", "--device", "cpu"],
        ["rollout", "verigym/Math-v0", "--policy", f"engine:{folder}"],
        ["convert", str(folder), str(tmp_path / "converted"), "--to", "dcp"],
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.startswith("verigym: error: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(("damage", "told"), SEEN)
@pytest.mark.parametrize(
    "recipe",
    [
        'model = { checkpoint = "FOLDER" }\n',
        '[rl]\nsteps = 1\ntrain = { algorithm = "opd", teacher = "FOLDER" }\n',
    ],
    ids=["student", "teacher"],
)
def test_a_broken_checkpoint_is_named_before_a_run_makes_tasks(recipe, damage, told, tmp_path, capsys):
    folder = damaged(tmp_path / "model", damage)
    path = tmp_path / "recipe.toml"
    family = '[[families]]\nname = "math"\nenv = "verigym/Math-v0"\ntasks = "small-sums"\n'
    path.write_text(f'name = "broken"\n{recipe.replace("FOLDER", str(folder))}{family}')
    out = tmp_path / "run"
    assert main(["train", str(path), "--out", str(out)]) == 2
    assert told in capsys.readouterr().err
    assert not (out / "tasks").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-context", "8193"], "max_context is 8193; this model takes 2 to 8192 tokens"),
        (["--tensor-parallel", "3"], "num_heads 4 cannot be split 3 ways"),
        (["--cache-tokens", "8"], "cache_tokens is 8; it must hold one whole context"),
        (["--attention", "triton"], "the attention backend 'triton' cannot run"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_told(options, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # the interpreter would run the kernels here
    save_checkpoint(tmp_path, Decoder(preset("cwm-tiny")), train_tokenizer(["a few words"], 320))
    assert main(["serve", str(tmp_path), "--port", "0", "--device", "cpu", *options]) == 2
    assert told in capsys.readouterr().err
