"""A teacher that is spread over ranks says what it says in one process."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from verigym.model.parallel.layout import Layout
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.learner import Learner, Learning, Lesson
from verigym.trainer.recipe.algorithms import OPDConfig
from verigym.trainer.recipe.config import OptimConfig

from ..learning.test_distillation import saved
from .ranks import run_team
from .test_identity import documents, make_decoder


def columns(learning: Learning, teacher: str) -> list[torch.Tensor]:
    given = [replace(one, taught=teacher) for one in documents()]
    packs = pack(given, max_tokens=30, ways=learning.ways)
    return [found["teacher_logprobs"] for found in learning.columns(packs)]


def by_team(team, lesson: Lesson) -> list[torch.Tensor]:
    return columns(team.learning(make_decoder(), lesson), next(iter(lesson.all_teachers)))


@pytest.mark.parametrize("layout", [Layout(shard=2), Layout(tensor=2)], ids=["shard2", "tp2"])
def test_ranks_say_what_one_process_says(layout: Layout, tmp_path: Path) -> None:
    teacher = make_decoder()
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    lesson = Lesson(optim=OptimConfig(), rl=OPDConfig(teacher=saved(teacher, tmp_path / "teacher")))
    expected = torch.cat(columns(Learner(make_decoder(), lesson), next(iter(lesson.all_teachers))))
    found = torch.cat(run_team(by_team, tmp_path, layout, lesson))
    assert sorted(found.tolist()) == pytest.approx(sorted(expected.tolist()), abs=1e-5)
