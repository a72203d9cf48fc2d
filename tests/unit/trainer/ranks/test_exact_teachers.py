"""Exact divergences from sharded teachers: the gradients of one process, whatever ranks, packs and hints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from verigym.model.parallel.layout import Layout
from verigym.trainer.batching.documents import TOP, Document, Hint
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.learner import Learner, Learning, Lesson
from verigym.trainer.recipe.algorithms import OPDConfig
from verigym.trainer.recipe.teachers import TeacherConfig

from ..learning.test_distillation import saved
from .ranks import run_team
from .test_identity import PLAIN, check_same, make_decoder
from .test_identity import documents as plain_documents

FAR = "far"


def documents(names: list[str]) -> list[Document]:
    """Of two checkpoints, an average, the policy itself, a server where there is one, and nobody, some with hints."""
    rng = np.random.default_rng(5)
    found = []
    for index, one in enumerate(plain_documents()):
        hint = Hint(token_ids=rng.integers(0, 300, 3 + index), before=1 + index % len(one)) if index % 2 else None
        found.append(replace(one, taught=("", *names)[index % (1 + len(names))], hint=hint))
    if FAR not in names:
        return found
    told = np.stack([np.stack([rng.permutation(300)[:9] for _ in range(400)]), np.full((400, 9), -2.5)], axis=1)
    return [replace(one, columns={TOP: told[: len(one)].astype(np.float32)}) for one in found]


def one_step(learning: Learning, decoder: Any, lesson: Lesson, max_tokens: int) -> dict[str, Any]:
    packs = pack(documents(sorted(lesson.all_teachers)), max_tokens=max_tokens, ways=learning.ways)
    first = learning.step(packs)
    second = learning.step(packs)  # with weights that have moved, and teachers that have not
    learning.sync()
    return {"metrics": [first, second], "state": learning.state_dict(), "weights": decoder.state_dict()}


def by_team(team, lesson: Lesson, sizes: list[int]) -> list[dict[str, Any]]:
    found = []
    for size in sizes:
        decoder = make_decoder()
        found.append(one_step(team.learning(decoder, lesson), decoder, lesson, size))
    return found


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        pytest.param(Layout(shard=2), {"kind": "jensen_shannon"}, id="shard2"),
        pytest.param(Layout(tensor=2), {"kind": "reverse", "support": 9}, id="tp2"),
        pytest.param(Layout(context=2), {"kind": "forward"}, id="cp2"),
        pytest.param(Layout(context=2), {"kind": "reverse", "support": 9, "support_of": "teacher"}, id="cp2-server"),
        pytest.param(Layout(replicate=2, context=2), {"kind": "reverse"}, id="4", marks=pytest.mark.slow),
    ],
)
def test_ranks_equal_one_process(layout: Layout, settings: dict[str, Any], tmp_path: Path) -> None:
    names = []
    for seed in (5, 6):
        teacher = make_decoder()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in teacher.parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
        names.append(str(saved(teacher, tmp_path / f"teacher{seed}")))
    rl = OPDConfig(teacher=names[0], divergence=settings)  # type: ignore[arg-type]
    lesson = Lesson(
        optim=PLAIN,
        rl=rl,
        teachers={
            names[1]: TeacherConfig(policy=f"engine:{names[1]}"),
            "mean": TeacherConfig(policy="ema"),
            "me": TeacherConfig(policy="self"),
            **({FAR: TeacherConfig(policy="tokens:x@http://far#x")} if "support_of" in settings else {}),
        },
    )
    decoder = make_decoder()
    expected = one_step(Learner(decoder, lesson), decoder, lesson, 256)
    assert expected["metrics"][0]["divergence"] > 0.001
    assert expected["metrics"][0]["grad_norm"] > 0.01
    sizes = [256, 30]
    for found in run_team(by_team, tmp_path, layout, lesson, sizes):
        for mine, wanted in zip(found.pop("metrics"), expected["metrics"], strict=True):
            check_same(mine, wanted)
        check_same(found, {name: value for name, value in expected.items() if name != "metrics"}, 1e-5)
