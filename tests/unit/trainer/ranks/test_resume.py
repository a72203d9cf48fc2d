"""A run goes on under any number of ranks, with the losses of one that was never interrupted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from verigym.model.checkpoint import load_checkpoint
from verigym.model.parallel.layout import Layout
from verigym.model.tokenizer import Tokenizer, train_tokenizer
from verigym.trainer.batching.documents import Document, DocumentStream
from verigym.trainer.learning.learner import Lesson
from verigym.trainer.loops.loop import Supervised
from verigym.trainer.recipe.config import OptimConfig, SupervisedConfig
from verigym.trainer.run.checkpoint import latest, load_training, save_training

from .ranks import run_team
from .test_identity import make_decoder

OPTIM = OptimConfig(lr=1e-2, eps=1e-4, grad_clip=0.5, warmup_steps=4)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["counting one two three " * 8], 300)


def some_documents() -> list[Document]:
    rng = np.random.default_rng(4)
    return [
        Document(
            token_ids=rng.integers(0, 300, length),
            targets=rng.integers(0, 300, length),
            loss_mask=np.ones(length, bool),
            old_logprobs=np.full(length, np.nan, np.float32),
        )
        for length in rng.integers(4, 24, 20)
    ]


def make_loop(team: Any = None) -> Supervised:
    decoder, documents = make_decoder(), some_documents()
    config = SupervisedConfig(max_steps=100, batch_tokens=64, microbatch_tokens=32, eval_every=2)
    stream = DocumentStream(documents[3:], batch_tokens=64)
    learning = None if team is None else team.learning(decoder, Lesson(optim=OPTIM))
    return Supervised(decoder, stream, config=config, optim=OPTIM, held_out=documents[:3], learning=learning)


def sitting(team: Any, root: Path, tokenizer: Tokenizer, num_steps: int) -> list[list[float]]:
    """Resume from ``root``, where something is there, take steps, save."""
    loop = make_loop(team)
    found = latest(root)
    if found is not None:
        loop.load_state_dict(load_training(found, loop.decoder).trainer)
    rows = steps(loop, num_steps)
    loop.sync()
    state = loop.state_dict()
    save_training(root, step=loop.num_steps, decoder=loop.decoder, tokenizer=tokenizer, trainer=state)
    return rows


def steps(loop: Supervised, count: int) -> list[list[float]]:
    names = ("trainer/loss/mean", "trainer/grad_norm/mean", "trainer/held_out_loss/mean", "trainer/tokens/count")
    found = [loop.step().metrics for _ in range(count)]
    return [[one[name] for name in names if name in one] for one in found]


TWO, TENSOR, FOUR = Layout(shard=2), Layout(tensor=2), Layout(shard=2, context=2)


@pytest.mark.parametrize(
    "layouts",
    [
        pytest.param((TWO, None, TENSOR), id="2-1-tp2"),
        pytest.param((TWO, None, FOUR), id="2-1-4", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_under_other_ranks(tmp_path: Path, tokenizer: Tokenizer, layouts: tuple) -> None:
    expected = steps(make_loop(), 9)
    rows: list[list[float]] = []
    root = tmp_path / "steps"
    for number, layout in enumerate(layouts):
        folder = tmp_path / str(number)
        folder.mkdir()
        if layout is None:
            rows += sitting(None, root, tokenizer, 3)
        else:
            rows += run_team(sitting, folder, layout, root, tokenizer, 3)
    assert len({row[0] for row in expected}) == 9
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)
    # What the ranks wrote is a checkpoint like any other.
    newest = latest(root)
    assert newest is not None
    decoder, _ = load_checkpoint(newest / "model")
    assert not torch.equal(decoder.head.weight, make_decoder().head.weight)
