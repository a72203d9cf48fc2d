"""What is said of a model of transformers, and of adapters, over ranks before anything starts."""

from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.model.huggingface import HuggingFaceDecoder, load_model
from verigym.model.lora import adapter_weights, add_adapters
from verigym.model.parallel.layout import Layout
from verigym.trainer.recipe.cluster import ClusterConfig
from verigym.trainer.recipe.fits import Need, check_fits, needs_of_rank
from verigym.trainer.recipe.load import load_recipe

RECIPE = str(Path(__file__).resolve().parents[4] / "recipes" / "single-gpu-lora.toml")


def changes(checkpoint: Path, *more: str) -> list[str]:
    return [f"model.checkpoint={checkpoint}", "model.dtype=float32", "model.max_context=200", *more]


def words(checkpoint: Path, *more: str) -> list[str]:
    return [RECIPE, *(word for change in changes(checkpoint, *more) for word in ("--set", change))]


@pytest.mark.parametrize("axis", ["tensor", "context"])
def test_its_heads_and_tokens_are_not_split(huggingface_checkpoint, capsys, axis) -> None:
    told = words(huggingface_checkpoint, "model.lora=false", f"layout.{axis}=2")
    assert main(["train", *told, "--dry-run", "--ranks", "4"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "layout.tensor and layout.context split our own decoder" in said
    assert "remove them: the ranks shard the parameters then" in said


def test_a_dry_run_says_what_its_weights_take(huggingface_checkpoint, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", *words(huggingface_checkpoint, "model.lora=false"), "--dry-run", "--ranks", "4"]) == 0
    said = capsys.readouterr().out
    assert "4 (replicate 1, shard 4, context 1, tensor 1)" in said
    for what in ("load", "step, activations left out", "publish", "save"):
        assert f"a rank's {what}" in said


def test_a_plan_that_cannot_be_traced_names_what_can_be_said(huggingface_checkpoint, capsys) -> None:
    assert main(["plan", *words(huggingface_checkpoint), "--gpus", "4"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the step of a model that runs in transformers' own code cannot be traced" in said
    assert "--dry-run --ranks 4" in said


def needs(checkpoint: Path, *more: str, ways: int = 2) -> dict[str, Need]:
    recipe = load_recipe(RECIPE, changes(checkpoint, *more))
    return {need.what: need for need in needs_of_rank(recipe, Layout(shard=ways))}


def test_what_a_rank_needs_by_hand(huggingface_checkpoint) -> None:
    decoder = HuggingFaceDecoder(load_model(huggingface_checkpoint))
    count = sum(parameter.numel() for parameter in decoder.parameters())
    found = needs(huggingface_checkpoint, "model.lora=false")
    assert found["load"].device_bytes == 4 * count / 2
    assert found["save"].device_bytes == 12 * count / 2
    largest = max(parameter.numel() for parameter in decoder.parameters())
    assert found["step, activations left out"].device_bytes == 16 * count / 2 + 4 * largest
    add_adapters(decoder, rank=3, alpha=6.0)
    learned = sum(weight.numel() for weight in adapter_weights(decoder).values())
    frozen = needs(huggingface_checkpoint, "model.dtype=bfloat16", "model.lora={rank=3}")
    assert frozen["load"].device_bytes == 2 * count / 2
    assert frozen["save"].device_bytes == 2 * count / 2 + 12 * learned  # every rank has them whole
    with pytest.raises(ValueError, match=r"a rank's .* takes .* GiB of its host's memory"):
        check_fits(list(found.values()), ClusterConfig(rank_gpus=0, rank_host_gib=1e-5))


def test_a_rank_of_our_decoder_needs_less_to_save_adapters(family_checkpoint) -> None:
    short = "rl.train.microbatch_tokens=256"
    whole, adapted = (needs(family_checkpoint, f"model.lora={lora}", short) for lora in ("false", "{rank=3}"))
    assert adapted["save"].host_bytes < whole["save"].host_bytes
    assert adapted["load"].device_bytes == whole["load"].device_bytes
