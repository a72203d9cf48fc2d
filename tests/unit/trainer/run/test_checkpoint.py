import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from verigym.errors import CheckpointError
from verigym.model.checkpoint import load_checkpoint
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.loops.loop import SFT
from verigym.trainer.recipe.config import OptimConfig, SFTConfig
from verigym.trainer.run.checkpoint import latest, load_latest, load_training, save_training


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["counting one two three " * 8], 320)


@pytest.fixture
def make_trainer(make_decoder, make_segment, make_trajectory):
    def make(**changes):
        demonstrations = [make_trajectory(make_segment(range(k, k + 9), [0] + [1] * 8)) for k in range(10)]
        config = SFTConfig(max_steps=100, batch_tokens=32, microbatch_tokens=16, patience=0)
        return SFT(make_decoder(vocab_size=320, **changes), demonstrations, config=config, optim=OptimConfig(lr=1e-2))

    return make


@pytest.fixture
def save(tmp_path, tokenizer):
    def save(trainer, **options):
        return save_training(
            tmp_path / "checkpoints",
            step=trainer.num_steps,
            decoder=trainer.decoder,
            tokenizer=tokenizer,
            trainer=trainer.state_dict(),
            **options,
        )

    return save


def test_a_resume_from_disk_repeats_the_losses(make_trainer, save, tmp_path):
    whole = make_trainer()
    expected = [whole.step().metrics["trainer/loss/mean"] for _ in range(9)]
    first = make_trainer()
    losses = [first.step().metrics["trainer/loss/mean"] for _ in range(5)]
    path = save(first, info={"recipe": {"lr": 1e-2}})
    assert latest(tmp_path / "checkpoints") == path

    second = make_trainer()
    with torch.no_grad():
        second.decoder.head.weight.zero_()
    torch.manual_seed(99)
    loaded = load_training(path, second.decoder)
    second.load_state_dict(loaded.trainer)
    assert (loaded.step, loaded.info) == (5, {"recipe": {"lr": 1e-2}})
    losses += [second.step().metrics["trainer/loss/mean"] for _ in range(4)]
    assert losses == expected


def test_the_model_folder_loads_anywhere(make_trainer, save):
    trainer = make_trainer()
    decoder, _ = load_checkpoint(save(trainer) / "model")
    assert torch.equal(decoder.head.weight, trainer.decoder.head.weight)


def test_only_the_newest_are_kept_and_a_step_saved_again_comes_first(make_trainer, save, tmp_path):
    trainer = make_trainer()
    for step in (1, 2, 10):
        trainer.num_steps = step
        save(trainer)
    again = save(trainer)
    root = tmp_path / "checkpoints"
    assert latest(root) == again
    assert sorted(path.name for path in root.iterdir()) == ["step-000010", "step-000010-2"]
    with pytest.raises(CheckpointError, match="1 or more"):
        save(trainer, keep=0)


def test_what_is_missing_broken_or_of_another_shape_is_refused(make_trainer, save, tmp_path):
    assert latest(tmp_path / "nowhere") is None
    trainer = make_trainer()
    with pytest.raises(CheckpointError, match="no complete training checkpoint"):
        load_training(tmp_path / "nowhere", trainer.decoder)
    good = save(trainer)
    with pytest.raises(CheckpointError, match="another shape: hidden_size"):
        load_training(good, make_trainer(hidden_size=64).decoder)
    trainer.num_steps = 1
    bad = save(trainer)
    content = (bad / "trainer.pt").read_bytes()
    (bad / "trainer.pt").write_bytes(content[:-1])
    assert latest(tmp_path / "checkpoints") == good
    with pytest.raises(CheckpointError, match=r"trainer.pt has \d+ bytes of"):
        load_training(bad, trainer.decoder)
    (bad / "trainer.pt").write_bytes(bytes(len(content)))
    with pytest.raises(CheckpointError, match="take an earlier checkpoint"):
        load_training(bad, trainer.decoder)


def outcome(attempt) -> str:
    """What a save did in a process of its own: "saved", "refused" (CheckpointError), "died", or "untouched", where
    ``attempt`` returns False: it had no more point to fail at."""

    def child() -> None:
        try:
            touched = attempt()
        except CheckpointError:
            os._exit(3)
        os._exit(4 if touched is False else 0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout=60)
    assert process.exitcode is not None
    return {0: "saved", 3: "refused", 4: "untouched"}.get(process.exitcode, "died")


def check_the_last_good_one(root: Path, good: Path, result: str, trainer, weight: torch.Tensor) -> None:
    newest = latest(root)
    assert newest is not None
    if result == "refused":
        assert [path for path in root.iterdir() if path.name.startswith(".")] == []
    loaded = load_training(newest, trainer.decoder)
    assert loaded.step == (7 if newest == good else 8)
    assert torch.equal(trainer.decoder.head.weight, weight if newest == good else weight + 1)


def test_a_full_disk_leaves_the_last_good_checkpoint(make_trainer, save, tmp_path):
    trainer = make_trainer()
    trainer.step()
    weight = trainer.decoder.head.weight.detach().clone()
    trainer.num_steps = 7
    good = save(trainer, keep=1)
    largest = max(path.stat().st_size for path in good.rglob("*") if path.is_file())

    def attempt(limit: int) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit says EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        trainer.num_steps = 8
        save(trainer, keep=1)

    for limit in (0, 1, 100, 500, 2_000, 10_000, largest // 2, largest - 1):
        result = outcome(lambda limit=limit: attempt(limit))
        assert result == "refused", limit
        assert latest(tmp_path / "checkpoints") == good
        check_the_last_good_one(tmp_path / "checkpoints", good, result, make_trainer(), weight)


@pytest.mark.parametrize("how", ["killed", "failing"])
def test_a_crash_at_any_point_leaves_the_last_good_checkpoint(make_trainer, save, tmp_path, how):
    trainer = make_trainer()
    trainer.step()
    weight = trainer.decoder.head.weight.detach().clone()
    trainer.num_steps = 7
    good = save(trainer, keep=1)
    real = {name: getattr(os, name) for name in ("fsync", "rename", "unlink", "mkdir", "rmdir")}

    def attempt(last: int) -> bool:
        calls = 0

        def counted(name):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == last and how == "killed":
                    os._exit(9)
                if calls == last:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real[name](*args, **kwargs)

            return call

        for name in real:
            setattr(os, name, counted(name))
        with torch.no_grad():
            trainer.decoder.head.weight.copy_(weight + 1)
        trainer.num_steps = 8
        save(trainer, keep=1)
        return calls >= last

    results: list[str] = []
    root = tmp_path / "checkpoints"
    while "untouched" not in results:
        results.append(outcome(lambda: attempt(len(results) + 1)))
        check_the_last_good_one(root, good, results[-1], make_trainer(), weight)
        for path in root.glob("step-000008*"):
            shutil.rmtree(path)
        if not good.exists() or not (good / "manifest.json").exists():  # a later one was whole when it was deleted
            shutil.rmtree(good, ignore_errors=True)
            trainer.num_steps = 7
            save(trainer, keep=1)
    assert len(results) > 10
    assert results.count("died" if how == "killed" else "refused") > 8


def test_a_flipped_byte_in_any_file_is_found(make_trainer, save, tmp_path):
    trainer = make_trainer()
    trainer.num_steps = 1
    good = save(trainer)
    trainer.num_steps = 2
    bad = save(trainer)
    other = make_trainer()
    for path in sorted(path for path in bad.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in {0, len(content) // 3, len(content) // 2, len(content) - 2}:
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(CheckpointError, match=r"take an earlier"):
                load_training(bad, other.decoder)
            loaded = load_latest(tmp_path / "checkpoints", other.decoder)
            assert loaded is not None
            assert loaded.step == 1, path
        path.write_bytes(content)
    assert load_training(bad, other.decoder).step == 2

    for folder in (good, bad):
        path = folder / "trainer.pt"
        path.write_bytes(b"\x01" + path.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole .*trainer\.pt.*remove .* to begin"):
        load_latest(tmp_path / "checkpoints", other.decoder)
    assert load_latest(tmp_path / "nowhere", other.decoder) is None


def test_a_checkpoint_with_sizes_alone_still_loads(make_trainer, save, tmp_path):
    path = save(make_trainer())
    manifest = json.loads((path / "manifest.json").read_text())
    sizes = {name: facts["bytes"] for name, facts in manifest["files"].items()}
    (path / "manifest.json").write_text(json.dumps({"files": sizes}))
    assert load_latest(tmp_path / "checkpoints", make_trainer().decoder) is not None
