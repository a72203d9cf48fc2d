"""Who a process is, and what is refused before any long work."""

from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.errors import ConfigError
from verigym.trainer.ranks.launch import Launch
from verigym.trainer.recipe.config import LayoutConfig
from verigym.trainer.recipe.dry_run import launch_command
from verigym.trainer.recipe.layouts import layout_of

RECIPES = Path(__file__).resolve().parents[4] / "recipes"
LORA = "model={checkpoint='nowhere', preset='cwm-tiny', lora={rank=4}}"
STARTED = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


def test_a_process_knows_its_rank_from_the_environment_alone() -> None:
    assert Launch.from_environment({}) == Launch(rank=0, world=1, local_rank=0, local_world=1)
    assert Launch.from_environment(STARTED) == Launch(rank=3, world=8, local_rank=1, local_world=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": None}, "MASTER_PORT missing"),
        ({"WORLD_SIZE": None, "LOCAL_RANK": None}, "WORLD_SIZE, LOCAL_RANK missing"),
        ({"RANK": "three"}, "no number"),
        ({"RANK": "8"}, "RANK is 8 and WORLD_SIZE 8"),
    ],
)
def test_an_environment_in_part_is_refused(change: dict[str, str | None], message: str) -> None:
    values = {name: value for name, value in (STARTED | change).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        Launch.from_environment(values)


def test_ranks_that_are_left_over_shard() -> None:
    assert layout_of(LayoutConfig(), 4).shard == 4
    assert layout_of(LayoutConfig(tensor=8), 64).shard == 8
    with pytest.raises(ConfigError, match=r"6 processes cannot be split into groups of 4 .* --nproc-per-node 4"):
        layout_of(LayoutConfig(tensor=2, context=2), 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "layout.tensor=2"), "1 processes cannot be split into groups of 2"),
        (("--set", "layout.tensor=3", "--dry-run", "--ranks", "3"), "num_heads 4 cannot be split 3 ways"),
        (("--dry-run", "--ranks", "7"), "hidden_size 128 cannot be split 7 ways"),
        (("--set", LORA, "--set", "layout.tensor=2", "--dry-run", "--ranks", "2"), "every rank has adapters"),
        (("--ranks", "2"), "to start N processes use torchrun"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(tmp_path, capsys, options, message) -> None:
    out = tmp_path / "run"
    assert main(["train", str(RECIPES / "smoke.toml"), "--out", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["cwm-32b-grpo", "cwm-32b-ppo"])
def test_the_full_models_recipes_can_be_run_on_64_ranks(name, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    recipe = str(RECIPES / f"{name}.toml")
    assert main(["train", recipe, "--dry-run", "--ranks", "64"]) == 0
    printed = capsys.readouterr().out
    assert "64 (replicate 1, shard 8, context 1, tensor 8)" in printed
    assert "--nnodes 8" in printed
    assert "data/swe.jsonl" in printed  # no task of it is here
    assert main(["train", recipe, "--dry-run", "--ranks", "60"]) == 2
    assert "60 processes cannot be split into groups of 8" in capsys.readouterr().err


def test_a_dry_run_starts_nothing(tmp_path, capsys) -> None:
    out = tmp_path / "run"
    assert main(["train", str(RECIPES / "smoke.toml"), "--out", str(out), "--dry-run"]) == 0
    assert "nothing" in capsys.readouterr().out
    assert not out.exists()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_run(path, capsys) -> None:
    ranks = 64 if path.stem.startswith("cwm-32b") else 1
    assert main(["train", str(path), "--dry-run", "--ranks", str(ranks)]) == 0
    assert "a recipe that can be run" in capsys.readouterr().out


def test_a_dry_run_names_a_model_that_is_not_cwm(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    recipe = str(RECIPES / "single-gpu-lora.toml")
    assert main(["train", recipe, "--dry-run"]) == 0
    assert "not on this machine │ checkpoints/SmolLM3-3B" in capsys.readouterr().out
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    assert main(["train", recipe, "--set", f"model.checkpoint={tmp_path}", "--dry-run"]) == 0
    assert f"{tmp_path}, a qwen3" in capsys.readouterr().out


def test_a_dry_run_refuses_episodes_longer_than_the_context(tmp_path, capsys) -> None:
    recipe = str(RECIPES / "smoke.toml")
    assert main(["train", recipe, "--set", "model.max_context=8193", "--dry-run"]) == 2
    assert "model.max_context is 8193 and the model's context 8192; lower it" in capsys.readouterr().err
    recipe = str(RECIPES / "single-gpu-lora.toml")
    options = ["--set", f"model.checkpoint={tmp_path}", "--dry-run", "--set"]
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "max_position_embeddings": 2048}')
    assert main(["train", recipe, *options, "model.max_context=2049"]) == 2
    assert "model.max_context is 2049 and the model's context 2048; lower it" in capsys.readouterr().err
    assert main(["train", recipe, *options, "model.max_context=2048"]) == 0
    (tmp_path / "config.json").write_text('{"model_type": "nothing-that-is-known"}')
    assert main(["train", recipe, *options, "model.max_context=2049"]) == 0


def test_the_command_to_start_with() -> None:
    recipe = Path("r.toml")
    assert launch_command(recipe, 1) == "verigym train r.toml"
    assert launch_command(recipe, 4) == "torchrun --nproc-per-node 4 -m verigym train r.toml"
    assert "--nnodes 2 " in launch_command(recipe, 16)
