"""A rank that dies in a stage costs what was done since its last checkpoint, and nothing else."""

import asyncio
from types import SimpleNamespace

import pytest

from verigym.errors import TrainingError
from verigym.trainer.learning.trainee import Stored
from verigym.trainer.ranks.team import RanksLost
from verigym.trainer.run.context import Run
from verigym.trainer.run.saving import CheckpointWriter
from verigym.trainer.run.train import _to_its_end


class Stage:
    """Loses its ranks so many times."""

    after, beside = None, False

    def __init__(self, times):
        self.left, self.seen = times, []

    async def run(self, run):
        stored = run.trainee.stored
        self.seen.append(stored.publish)  # what a stage finds is as the stage before has left it
        stored.publish = print
        if self.left:
            self.left -= 1
            raise RanksLost("a rank is gone")


def run_with(stage, most):
    renewed = []

    def renew():
        renewed.append(True)
        if len(renewed) > most:
            raise TrainingError("a rank has died too often")

    run = SimpleNamespace(trainee=SimpleNamespace(stored=Stored("somewhere")), places=SimpleNamespace(renew=renew))
    run.renew_ranks = lambda: Run.renew_ranks(run)
    asyncio.run(_to_its_end(run, stage))
    return len(renewed)


def test_a_stage_whose_ranks_die_is_run_again_with_others():
    stage = Stage(2)
    assert run_with(stage, most=3) == 2
    assert stage.seen == [None, None, None]
    assert run_with(Stage(0), most=0) == 0


def test_ranks_that_die_too_often_end_the_run():
    with pytest.raises(TrainingError, match="too often"):
        run_with(Stage(9), most=2)


def test_a_rank_that_dies_while_it_saves_is_no_full_disk(tmp_path):
    writer = CheckpointWriter(tmp_path, None)

    def write(folder):
        raise RanksLost("a rank is gone in 'write'")

    writer._begin(write, {}, 1, {})
    with pytest.raises(RanksLost, match="in 'write'"):
        writer.wait()
    assert not list(tmp_path.glob("step-*"))
