"""Ranks whose weights nobody has whole: they read, write and publish their parts, under any layout."""

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from verigym.errors import CheckpointError
from verigym.model.checkpoint import hf_views, load_checkpoint, save_checkpoint, save_settings
from verigym.model.decoder import Decoder
from verigym.model.engine.weights import checksums, from_checkpoint
from verigym.model.parallel.layout import Layout
from verigym.model.tokenizer import Tokenizer, train_tokenizer
from verigym.model.weights.convert import stream
from verigym.model.weights.delta import DELTA
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.learner import Learner, Lesson
from verigym.trainer.learning.pieces import PieceWriter
from verigym.trainer.ranks.rank import Rank
from verigym.trainer.ranks.sharded import ShardedLearning, check_all_see
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.run.checkpoint import load_latest, save_training
from verigym.trainer.run.saving import CheckpointWriter

from .ranks import run_team
from .test_identity import make_decoder
from .test_resume import some_documents

LESSON = Lesson(optim=OptimConfig(lr=1e-2, eps=1e-4, grad_clip=0.5, warmup_steps=2))
MUON = Lesson(optim=OptimConfig(lr=1e-2, muon_lr=1e-2, matrices="muon"))
ONE, TWO, TENSOR, FOUR = Layout(), Layout(shard=2), Layout(tensor=2), Layout(shard=2, tensor=2)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["counting one two three " * 8], 300)


@pytest.fixture
def start(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "start", make_decoder(), tokenizer)
    return tmp_path / "start"


def step(learning: Any, seed: int = 0) -> list[float]:
    documents = some_documents()
    random.Random(seed).shuffle(documents)
    found = learning.step(pack(documents[:12], max_tokens=64, ways=learning.ways))
    return [found["loss"], found["grad_norm"]]


def sharded(team: Any, start: Path, lesson: Lesson) -> ShardedLearning:
    return ShardedLearning(team, make_decoder().to("meta"), lesson, start)


def sitting(
    team: Any, start: Path, lesson: Lesson, before: Path | None, after: Path, seeds: range
) -> list[list[float]]:
    learning = sharded(team, start, lesson)
    if before is not None:
        learning.check(before)
        learning.load_state_dict({"ranks": str(before)})
    rows = [step(learning, seed) for seed in seeds]
    learning.stage()
    step(learning, 99)  # what was staged does not change any more
    learning.write(after)
    return rows


def folder_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("lesson", "layouts"),
    [
        pytest.param(LESSON, (TENSOR, ONE, TWO), id="tp2-1-2"),
        pytest.param(LESSON, (TWO, FOUR), id="2-4", marks=pytest.mark.slow),
        pytest.param(MUON, (TWO, TENSOR), id="muon", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_all_ranks_is_gone_on_with_by_others(
    tmp_path: Path, start: Path, lesson: Lesson, layouts: tuple[Layout, ...]
) -> None:
    alone = Learner(make_decoder(), lesson)
    expected = [step(alone, seed) for seed in range(2 * len(layouts) + 2)]
    rows, before = [], None
    for number, layout in enumerate(layouts):
        seeds, after = range(2 * number, 2 * number + 2), tmp_path / f"state-{number}"
        folder = folder_of(tmp_path, str(number))
        rows += run_team(sitting, folder, layout, start, lesson, before, after, seeds)
        before = after
    # And one process, which has the weights whole.
    resumed = Learner(make_decoder(), lesson)
    resumed.load_state_dict({"ranks": str(before)})
    rows += [step(resumed, seed) for seed in range(2 * len(layouts), 2 * len(layouts) + 2)]
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-5)
    assert resumed.optimizer.num_updates == 2 * len(layouts) + 2


def going_on(team: Any, start: Path, root: Path, seeds: range) -> list[list[float]]:
    learning = sharded(team, start, LESSON)
    state = load_latest(root, None, check=learning.check)
    assert state is not None
    learning.load_state_dict(state.trainer)
    return [step(learning, seed) for seed in seeds]


def test_ranks_go_on_from_what_one_process_has_saved(tmp_path: Path, start: Path, tokenizer: Tokenizer) -> None:
    alone, root = Learner(make_decoder(), LESSON), tmp_path / "steps"
    step(alone, 0)
    step(alone, 1)
    save_training(root, step=2, decoder=alone.decoder, tokenizer=tokenizer, trainer=alone.state_dict())
    expected = [step(alone, seed) for seed in range(2, 4)]
    for row, wanted in zip(
        run_team(going_on, folder_of(tmp_path, "ranks"), TENSOR, start, root, range(2, 4)), expected, strict=True
    ):
        assert row == pytest.approx(wanted, rel=1e-5)


def stepping_beside(team: Any, start: Path, root: Path) -> list[bool]:
    learning, told = sharded(team, start, LESSON), []
    learning.stage()
    writing = threading.Thread(target=lambda: told.append(learning.write(root / "state")))
    writing.start()
    step(learning)  # nobody writes before this has ended
    found = [(root / "state" / ".metadata").exists()]
    (root / "go").touch()
    writing.join()
    return [*found, bool(told), (root / "state" / ".metadata").exists()]


def test_a_step_does_not_wait_for_what_is_written(tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = PieceWriter.write

    def waits(self: PieceWriter, folder: Path, **options: Any) -> Any:
        deadline = time.monotonic() + 60
        while not (tmp_path / "go").exists():
            assert time.monotonic() < deadline, "the step waits for the write"
            time.sleep(0.01)
        return write(self, folder, **options)

    monkeypatch.setattr(PieceWriter, "write", waits)
    assert run_team(stepping_beside, folder_of(tmp_path, "ranks"), TWO, start, tmp_path) == [False, True, True]


def looking(team: Any, folder: Path) -> None:
    check_all_see(team, folder)


def test_a_folder_that_a_rank_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_team(looking, folder_of(tmp_path, "all"), TWO, tmp_path)
    monkeypatch.setattr(Rank, "sees", lambda self, path: dist.get_rank() == 0)
    with pytest.raises(AssertionError, match=r"ranks 1 do not see the run's folder .* give an --out on a file system"):
        run_team(looking, folder_of(tmp_path, "one"), TWO, tmp_path)
    assert not list(tmp_path.glob(".probe-*"))


def writing_nowhere(team: Any, start: Path, root: Path) -> str:
    learning = sharded(team, start, LESSON)
    learning.stage()
    (root / "state" / "__1_0.distcp").mkdir(parents=True)  # rank 1 finds something in its place
    with pytest.raises(CheckpointError) as raised:
        learning.write(root / "state")
    step(learning)  # and training goes on
    learning.stage()
    learning.write(root / "again")
    return str(raised.value)


def test_what_cannot_be_written_is_told_and_no_rank_hangs(tmp_path: Path, start: Path) -> None:
    told = run_team(writing_nowhere, folder_of(tmp_path, "ranks"), TWO, start, tmp_path)
    assert "could not be written" in told
    assert (tmp_path / "again" / ".metadata").exists()


def publishing(team: Any, start: Path, root: Path, tokenizer: Tokenizer) -> tuple[list[dict[str, str]], list[int]]:
    learning = sharded(team, start, Lesson(optim=OptimConfig(lr=1e-6)))
    engine = Decoder(make_decoder().config, seed=5).to(torch.bfloat16)
    found, sizes = [], []
    for number in range(4):
        name = f"weights-{number:06d}"
        learning.publish(root / name, torch.bfloat16, name=name, whole=False)
        save_settings(root / name, learning._decoder.config, tokenizer, torch.bfloat16)
        if number != 2:  # it misses one
            from_checkpoint(root / name)(engine)
            found.append(checksums(engine))
        sizes.append(sum(file.stat().st_size for file in (root / name).glob("delta-*")))
        step(learning, number)
    learning.publish(root / "aside", torch.bfloat16)
    save_settings(root / "aside", learning._decoder.config, tokenizer, torch.bfloat16)
    from_checkpoint(root / "aside")(engine)
    return [*found, checksums(engine)], sizes


@pytest.mark.parametrize("layout", [TENSOR, pytest.param(FOUR, marks=pytest.mark.slow)], ids=["tp2", "2x2"])
def test_ranks_publish_what_has_changed(tmp_path: Path, start: Path, tokenizer: Tokenizer, layout: Layout) -> None:
    alone = Learner(make_decoder(), Lesson(optim=OptimConfig(lr=1e-6)))
    expected = []
    for number in range(4):
        if number != 2:
            copy = make_decoder()
            copy.load_state_dict(alone.decoder.state_dict())
            expected.append(checksums(copy.to(torch.bfloat16)))
        step(alone, number)
    expected.append(checksums(make_decoder_like(alone)))
    found, sizes = run_team(publishing, folder_of(tmp_path, "ranks"), layout, start, tmp_path, tokenizer)
    assert [(tmp_path / f"weights-{n:06d}" / DELTA).exists() for n in range(4)] == [False, True, True, True]
    assert sizes[0] == 0
    assert min(sizes[1:]) > 0
    for ours, theirs in zip(found, expected, strict=True):
        differ = [name for name in theirs if ours[name] != theirs[name]]
        assert not differ


def make_decoder_like(learner: Learner) -> Decoder:
    copy = make_decoder()
    copy.load_state_dict(learner.decoder.state_dict())
    return copy.to(torch.bfloat16)


def exporting(team: Any, start: Path, root: Path, tokenizer: Tokenizer) -> None:
    learning = sharded(team, start, LESSON)
    step(learning)
    learning.publish(root / "shards", None)
    save_settings(root / "shards", learning._decoder.config, tokenizer, torch.float32)
    stream(root / "shards", root / "hf")


def test_what_ranks_have_is_exported_a_tensor_at_a_time(tmp_path: Path, start: Path, tokenizer: Tokenizer) -> None:
    run_team(exporting, folder_of(tmp_path, "ranks"), TENSOR, start, tmp_path, tokenizer)
    alone = Learner(make_decoder(), LESSON)
    step(alone)
    found, _ = load_checkpoint(tmp_path / "hf")
    assert not torch.equal(found.head.weight, make_decoder().head.weight)
    assert isinstance(alone.decoder, Decoder)
    expected = hf_views(alone.decoder)
    for name, value in hf_views(found).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


def saving_for_ever(team: Any, start: Path, root: Path, tokenizer: Tokenizer) -> None:
    learning = sharded(team, start, LESSON)
    writer = CheckpointWriter(root, tokenizer)
    for number in range(1, 1000):
        step(learning, number)
        writer.save_shards(learning, learning._decoder, {"num_steps": number}, step=number, info={})


@pytest.mark.slow
def test_killed_at_ten_moments_the_last_good_one_is_left(tmp_path: Path, start: Path, tokenizer: Tokenizer) -> None:
    """Each time another process group goes on in the same folder, and is killed while it writes."""
    root, newest = tmp_path / "steps", 0
    context = multiprocessing.get_context("fork")
    for moment in range(10):
        folder = folder_of(tmp_path, f"ranks-{moment}")
        process = context.Process(target=_in_own_group, args=(saving_for_ever, folder, TWO, start, root, tokenizer))
        process.start()
        deadline = time.monotonic() + 240
        while not list(root.glob("step-*")) or not list(root.glob(".partial-*")):  # one whole, another being written
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(0.004 * moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        learner = Learner(make_decoder(), LESSON)
        state = load_latest(root, learner.decoder)
        assert state is not None
        learner.load_state_dict(state.trainer)
        assert state.step == state.trainer["num_steps"] == learner.optimizer.num_updates
        newest = max(newest, state.step)
    assert newest >= 1


def _in_own_group(*args: Any) -> None:
    os.setsid()
    run_team(*args)


def test_a_broken_state_names_the_remedy(tmp_path: Path, start: Path) -> None:
    state = tmp_path / "state"
    run_team(sitting, folder_of(tmp_path, "ranks"), ONE, start, LESSON, None, state, range(1))
    file = next(state.glob("__0_*"))
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="take an earlier one"):
        Learner(make_decoder(), LESSON).load_state_dict({"ranks": str(state)})
