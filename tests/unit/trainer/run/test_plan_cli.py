"""``verigym plan``, on the recipe of the full model."""

import json
from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.trainer.recipe.load import load_recipe

RECIPE = Path(__file__).resolve().parents[4] / "recipes" / "cwm-32b-grpo.toml"
PARAMETERS = 32_581_097_472


def plan(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    assert main(["plan", str(RECIPE), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)["plans"]


def states_by_hand(tensor: int, fsdp: int) -> float:
    """Bytes of a rank's weights and moments in float32; only norms are not split by ``tensor``."""
    norms = 129 * 6144
    return 12 * ((PARAMETERS - norms) / (tensor * fsdp) + norms / fsdp)


def test_the_recipe_can_be_planned(capsys):
    found = plan(capsys, "--gpus", "64", "--quick", "--skip-naive")["this layout"]
    assert found["parameters"] == PARAMETERS
    assert found["layout"] == {
        **{"replicate": 1, "shard": 8, "context": 1, "tensor": 8},
        **{"recompute": "full", "offload": False, "bf16": True},
    }
    states = found["bytes_per_gpu"]["parameters"] + found["bytes_per_gpu"]["optimizer"]
    assert states == pytest.approx(states_by_hand(tensor=8, fsdp=8), rel=0.05)
    assert found["tokens_per_step"] == 8 * 131_072


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "tensor", "fsdp"),
    [
        (("--gpus", "64", "--tp", "1", "--tokens", "32768"), 1, 64),
        (("--gpus", "256", "--tp", "1", "--tokens", "32768", "--skip-naive"), 1, 256),
        (("--gpus", "64", "--skip-naive"), 8, 8),
    ],
)
def test_every_layer_is_traced_and_states_are_those_counted_by_hand(capsys, options, tensor, fsdp):
    plans = plan(capsys, *options)
    found = plans["this layout"]["bytes_per_gpu"]
    assert found["parameters"] + found["optimizer"] == pytest.approx(states_by_hand(tensor, fsdp), rel=0.05)
    naive = plans.get("naive log-probabilities")
    assert naive is None or naive["bytes_per_gpu"]["peak"] > 1.3 * found["peak"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gpus", "64", "--tp", "0"), "--tensor is 0; it must be at least 1"),
        (("--gpus", "60"), "60 GPUs cannot be split into groups of 8"),
        (("--gpus", "64", "--tp", "16"), "num_heads|num_kv_heads 8 cannot be split 16 ways"),
        (("--gpus", "64", "--tokens", "131073"), "131073 tokens is beyond the model's 131072"),
        (("--gpus", "64", "--tokens", "0"), "at least 1"),
        (("--gpus", "64", "--set", "layout.tensr=2"), "unknown key 'layout.tensr'"),
    ],
)
def test_what_cannot_be_planned_is_one_message(capsys, options, message):
    import re

    assert main(["plan", str(RECIPE), *options]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_table_is_printed(capsys):
    slice_ = ("--set", "model.preset='cwm-32b-slice'", "--tokens", "4096")
    assert main(["plan", str(RECIPE), "--gpus", "8", *slice_]) == 0
    out = capsys.readouterr().out
    assert "naive log-probabilities" in out
    assert "activations, GiB" in out


def test_a_layout_is_not_ignored_by_training(tmp_path):
    from verigym.errors import ConfigError
    from verigym.trainer.run.train import train

    with pytest.raises(ConfigError, match="no team of ranks"):
        train(load_recipe(RECIPE), tmp_path / "run")
    assert not (tmp_path / "run").exists()
