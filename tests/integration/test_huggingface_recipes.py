"""Recipes that name a model of transformers, as a user runs them: by adapters (recipes/single-gpu-lora.toml with a tiny
model), and whole, with imitation first."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from verigym.agent.demonstrations import tokenize_messages
from verigym.agent.trajectory import Trajectory
from verigym.model.chat.messages import Message
from verigym.model.engine.open import open_checkpoint
from verigym.trainer.learning.trainee import open_trainee
from verigym.trainer.loops.loop import SFT
from verigym.trainer.recipe.config import OptimConfig, SFTConfig
from verigym.trainer.recipe.model import ModelConfig

from .small_recipe import TORCHRUN

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = '''
import gymnasium
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.rewards.score import Score


class LettersEnv(ToolEnv):
    """Late letters are worth more."""

    family = "letters"

    def load(self):
        return [Task(id=str(n), family="letters", prompt=f"say something, {n}") for n in range(6)]

    def score(self, task, submission):
        value = sum(ord(letter) % 7 for letter in submission) / (7.0 * max(1, len(submission)))
        return Score(value=value, passed=value > 0.5, breakdown={"value": value})

    def gold(self, task):
        return [Message(role="assistant", content="\\u0416" * 4)]


gymnasium.register("letters/Letters-v0", entry_point=LettersEnv, disable_env_checker=True, order_enforce=False)
'''
SMALL = (
    "model.dtype=float32",
    "model.max_context=200",
    "families.0.env=letters_environment:letters/Letters-v0",
    "families.0.tasks=environment",
    "families.0.num_held_out=2",
    "families.0.turn_tokens=6",
    "rl.steps=2",
    "rl.train.group_size=4",
    "rl.train.microbatch_tokens=256",
    "save_seconds=0",
    "sandbox=unsafe",
    "threads=1",
)


@pytest.fixture(scope="module")
def talker(tmp_path_factory, huggingface_checkpoint):
    """A checkpoint of a model that has learned to say two letters, and to end its turn."""
    trainee = open_trainee(ModelConfig(checkpoint=huggingface_checkpoint), lambda parser: [], seed=0)
    said = []
    for number, word in ((number, word) for number in range(6) for word in ("aa", "bd", "gf", "zc", "em")):
        messages = [
            Message(role="user", content=f"say something, {number}"),
            Message(role="assistant", content=word),
        ]
        segments = tokenize_messages(messages, (), trainee.renderer, trainee.parser)
        said.append(Trajectory(task_id=str(number), family="letters", ending="answered", segments=segments))
    config = SFTConfig(max_steps=100, batch_tokens=512, microbatch_tokens=512, patience=0)
    SFT(trainee.decoder, said, config=config, optim=OptimConfig(lr=1e-2)).run()
    folder = tmp_path_factory.mktemp("talker") / "model"
    trainee.save(folder, {})
    return folder


@pytest.fixture
def train(tmp_path, talker):
    (tmp_path / "letters_environment.py").write_text(ENVIRONMENT)

    def train(*changes, resume=False, launcher=()):
        every = (f"model.checkpoint={talker}", *SMALL, *changes)
        sets = [word for change in every for word in ("--set", change)]
        command = [
            sys.executable,
            *launcher,
            "-m",
            "verigym",
            "train",
            str(ROOT / "recipes" / "single-gpu-lora.toml"),
            *sets,
        ]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        resumed = ["--resume"] if resume else []
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "run"), *resumed],
            capture_output=True, text=True, timeout=600, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return tmp_path / "run", json.loads((tmp_path / "run" / "report.json").read_text())

    return train


@pytest.mark.slow
def test_the_recipe_for_one_gpu_runs_whole_with_a_tiny_model(train, talker):
    from peft import PeftModel  # seconds of every worker, at the top

    out, report = train()
    assert list(report["stages"]) == ["rl"]
    rows = [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert sum(row["trainer/updates/count"] for row in rows) >= 1
    assert max(row["trainer/mismatch/max"] for row in rows if row["trainer/updates/count"]) < 1e-4
    checkpoint = Path(report["stages"]["rl"]["checkpoint"])
    base = AutoModelForCausalLM.from_pretrained(talker)
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        before = base(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(checkpoint).eval()(ids).logits
        beside = PeftModel.from_pretrained(base, checkpoint / "adapter").eval()(ids).logits
    torch.testing.assert_close(merged, beside, rtol=1e-4, atol=1e-4)
    assert (beside - before).abs().max() > 1e-6
    served = open_checkpoint(checkpoint, max_batch=2, max_context=64)
    assert (served.renderer is not None, served.chat_problem) == (True, "")
    asyncio.run(served.engine.aclose())
    (out / "report.json").unlink()
    _, again = train(resume=True)
    assert again["stages"] == report["stages"]


@pytest.mark.slow
def test_a_whole_model_imitates_and_is_reinforced(train):
    sft = "sft={train={max_steps=2,patience=0,batch_tokens=256,microbatch_tokens=256},held_out_share=0.4}"
    out, report = train("model.lora=false", sft, "families.0.num_demonstrations=4", "rl.asynchronous.max_lag=1")
    assert list(report["stages"]) == ["sft", "rl"]
    losses = [
        json.loads(line)["trainer/loss/mean"] for line in (out / "sft" / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[1] < losses[0]
    rows = [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert sum(row["trainer/updates/count"] for row in rows) >= 1
    assert not (out / "rl" / "checkpoint" / "adapter").exists()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [(), ("rl.asynchronous.max_lag=1",)], ids=["in turn", "ahead"])
def test_adapters_are_sampled_in_a_process_of_its_own(train, changes):
    """It gets the model with what they learned added to its weights, and says what the trainer says of them."""
    out, report = train("engines.count=1", "engines.start_seconds=300", *changes)
    assert list(report["stages"]) == ["rl"]
    rows = [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["trainer/updates/count"] for row in rows) >= 1
    if not changes:
        assert max(row["trainer/mismatch/max"] for row in rows if row["trainer/updates/count"]) < 1e-4
    assert (out / "rl" / "checkpoint" / "adapter").exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["whole", "adapters"])
@pytest.mark.parametrize("engines", ["", "engines={count=1,start_seconds=500}"], ids=["here", "apart"])
def test_two_processes_have_the_losses_of_one(train, tmp_path, model, engines):
    """Where the first process samples, and where nobody has the weights whole."""
    sft = "sft={train={max_steps=2,patience=0,batch_tokens=256,microbatch_tokens=256},held_out_share=0.4}"
    changes = [sft, "families.0.num_demonstrations=4", *(["model.lora=false"] if model == "whole" else [])]
    names = ("trainer/loss/mean", "trainer/grad_norm/mean", "rollout/reward/mean")
    found = []
    for launcher in ((), TORCHRUN):
        out, report = train(*changes, *([engines] if launcher and engines else []), launcher=launcher)
        assert list(report["stages"]) == ["sft", "rl"]
        rows = [
            json.loads(line)
            for stage in ("sft", "rl")
            for line in (out / stage / "metrics.jsonl").read_text().splitlines()
        ]
        found.append([[row[name] for name in names if row.get(name) is not None] for row in rows])
        AutoModelForCausalLM.from_pretrained(out / "rl" / "checkpoint")
        assert (out / "rl" / "checkpoint" / "adapter").exists() == (model == "adapters")
        out.rename(tmp_path / f"{len(found)}")
    for row, wanted in zip(found[1], found[0], strict=True):
        assert row == pytest.approx(wanted, rel=1e-5, abs=1e-5)
