"""Checkpoints are written beside the training."""

import threading

import pytest
import torch

from verigym.errors import CheckpointError
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.run import saving
from verigym.trainer.run.checkpoint import latest, load_training
from verigym.trainer.run.saving import CheckpointWriter


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["counting one two three " * 8], 300)


@pytest.fixture
def slow_disk(monkeypatch):
    """A gate that every write waits at."""
    gate, real = threading.Event(), saving.write_training

    def write(*args, **kwargs):
        gate.wait()
        return real(*args, **kwargs)

    monkeypatch.setattr(saving, "write_training", write)
    yield gate
    gate.set()


def test_training_goes_on_while_the_disk_works(make_decoder, tokenizer, tmp_path, slow_disk):
    decoder, writer, root = make_decoder(), CheckpointWriter(tmp_path / "steps", tokenizer), tmp_path / "steps"
    saved = decoder.head.weight.detach().clone()
    slow_disk.set()
    writer.save(decoder, {"a": 1}, step=1, info={})
    writer.wait()
    first = latest(root)
    slow_disk.clear()
    writer.save(decoder, {"a": 2}, step=2, info={})
    assert writer.busy
    with torch.no_grad():  # the next step
        decoder.head.weight.add_(1.0)
    assert latest(root) == first  # until the new one is whole
    slow_disk.set()
    writer.wait()
    newest = latest(root)
    assert newest is not None
    other = make_decoder()
    loaded = load_training(newest, other)
    assert (loaded.step, loaded.trainer) == (2, {"a": 2})
    assert torch.equal(other.head.weight, saved)


def test_no_two_are_written_at_once(make_decoder, tokenizer, tmp_path, slow_disk):
    decoder, writer = make_decoder(), CheckpointWriter(tmp_path / "steps", tokenizer)
    writer.save(decoder, {}, step=1, info={})
    second = threading.Thread(target=lambda: writer.save(decoder, {}, step=2, info={}))
    second.start()
    second.join(timeout=0.5)
    assert second.is_alive()  # it waits for the first
    slow_disk.set()
    second.join()
    writer.wait()
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["step-000001", "step-000002"]


def test_an_error_is_raised_at_the_next_step_and_once(make_decoder, tokenizer, tmp_path):
    (tmp_path / "steps").write_text("a file where a folder should be")
    writer = CheckpointWriter(tmp_path / "steps", tokenizer)
    writer.check()
    writer.save(make_decoder(), {}, step=1, info={})
    assert writer._thread is not None
    writer._thread.join()
    with pytest.raises(CheckpointError, match="step 1 could not be written"):
        writer.check()
    writer.check()


def test_a_thread_that_cannot_start_is_not_waited_for(make_decoder, tokenizer, tmp_path, monkeypatch):
    writer = CheckpointWriter(tmp_path / "steps", tokenizer)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            writer.save(make_decoder(), {}, step=1, info={})
    writer.wait()
    assert latest(tmp_path / "steps") is None
