"""Stages: in order, and side by side where the recipe overlaps them."""

import asyncio
from types import SimpleNamespace

import pytest
import torch

from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.trainer.learning.trainee import Trainee
from verigym.trainer.recipe.recipe import ModelConfig, Recipe
from verigym.trainer.run import train
from verigym.trainer.run.context import Run
from verigym.trainer.run.order import known_stages


class Stage:
    """Says when it begins and ends; waits in between until it is told to go on."""

    def __init__(self, name, said, *, beside=False, waits_for=None, sets=None, error=None):
        self.name, self.said, self.beside, self.error = name, said, beside, error
        self.waits_for, self.sets = waits_for, sets

    async def run(self, run):
        self.said.append(f"{self.name} begins")
        try:
            if self.sets is not None:
                self.sets.set()
            if self.waits_for is not None:
                await self.waits_for.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.said.append(f"{self.name} is cancelled")
            raise
        self.said.append(f"{self.name} ends")


def played(monkeypatch, stages, *, overlap=True):
    monkeypatch.setattr(train, "stages_of", lambda recipe: stages)
    run = SimpleNamespace(recipe=SimpleNamespace(overlap=overlap), begin_beside=lambda: None)
    asyncio.run(asyncio.wait_for(train._stages(run), 20))


def test_what_runs_beside_ends_with_what_follows_and_before_the_last(monkeypatch):
    said, go = [], asyncio.Event()
    stages = [
        Stage("sft", said),
        Stage("start", said, beside=True, waits_for=go),
        Stage("rl", said, sets=go),
        Stage("report", said),
    ]
    played(monkeypatch, stages)
    assert said[:4] == ["sft begins", "sft ends", "start begins", "rl begins"]
    assert sorted(said[4:6]) == ["rl ends", "start ends"]
    assert said[6:] == ["report begins", "report ends"]


def test_without_overlap_each_waits_for_the_one_before(monkeypatch):
    said = []
    stages = [Stage("start", said, beside=True), Stage("rl", said), Stage("report", said)]
    played(monkeypatch, stages, overlap=False)
    assert said == [f"{name} {what}" for name in ("start", "rl", "report") for what in ("begins", "ends")]


@pytest.mark.parametrize("fails", ["beside", "following"])
def test_an_error_ends_both_and_the_last_does_not_come(monkeypatch, fails):
    said, never = [], asyncio.Event()
    error = ValueError("no")
    if fails == "beside":
        stages = [Stage("start", said, beside=True, error=error), Stage("rl", said), Stage("report", said)]
    else:
        stages = [
            Stage("start", said, beside=True, waits_for=never),
            Stage("rl", said, error=error),
            Stage("report", said),
        ]
    with pytest.raises(ValueError, match="no"):
        played(monkeypatch, stages)
    assert "report begins" not in said
    assert ("start is cancelled" in said) is (fails == "following")


def test_nothing_that_runs_beside_is_last_and_nothing_trains_beside():
    stages = known_stages()
    assert [name for name, stage in stages.items() if stage.beside] == ["scripts", "start", "distilled", "reinforced"]
    assert list(stages)[-1] == "report"


@pytest.mark.parametrize(("control", "waits"), [(True, True), (False, False)])
def test_what_runs_beside_waits_for_the_control_where_there_is_one(monkeypatch, tmp_path, control, waits):
    said = []
    recipe = Recipe.model_validate(
        {"name": "r", "families": [{"name": "a", "env": "verigym/Code-v0"}], "overlap": True, "control": control}
    )
    run = Run(recipe, tmp_path, SimpleNamespace(), None)

    class Beside(Stage):
        async def run(self, run):
            await run.turn_beside()
            await super().run(run)

    class Control(Stage):
        async def run(self, run):
            run.begin_beside()
            await super().run(run)

    async def rest():
        for _ in range(9):
            await asyncio.sleep(0)

    class Reinforcement(Stage):
        async def run(self, run):
            await rest()
            await super().run(run)

    stages = [Beside("start", said, beside=True), Reinforcement("rl", said)]
    stages += [Control("control", said)] if control else []
    monkeypatch.setattr(train, "stages_of", lambda recipe: [*stages, Stage("report", said)])
    asyncio.run(asyncio.wait_for(train._stages(run), 20))
    assert (said.index("start begins") > said.index("rl ends")) is waits
    assert said[-2:] == ["report begins", "report ends"]


@pytest.mark.parametrize("overlap", [True, False])
def test_a_snapshot_keeps_its_weights_where_stages_overlap(tmp_path, overlap):
    decoder = Decoder(preset("cwm-tiny", vocab_size=320), seed=0)
    recipe = SimpleNamespace(overlap=overlap)
    run = SimpleNamespace(
        recipe=recipe,
        trainee=Trainee(config=ModelConfig(), decoder=decoder, tokenizer=None, renderer=None, parser=None, seed=0),
    )
    before = decoder.head.weight.detach().clone()
    kept = Run.snapshot(run)
    with torch.no_grad():
        decoder.head.weight.add_(1.0)
    assert torch.equal(kept.decoder.head.weight, before) is overlap
