"""What somebody may do to a run's folder between two sittings: refused by name, or the state before it taken."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from verigym.errors import CheckpointError, ConfigError
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.loops.loop import SFT
from verigym.trainer.loops.metrics import MetricsWriter, read_metrics
from verigym.trainer.recipe.config import OptimConfig, SFTConfig
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.run.checkpoint import latest, load_latest, load_training, save_training
from verigym.trainer.run.folder import RECIPE, opened_run
from verigym.trainer.run.stage_run import StageRun

from .test_folder import TEXT


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["counting one two three " * 8], 320)


@pytest.fixture
def make_loop(make_decoder, make_segment, make_trajectory):
    def make():
        demonstrations = [make_trajectory(make_segment(range(k, k + 9), [0] + [1] * 8)) for k in range(4)]
        config = SFTConfig(max_steps=100, batch_tokens=32, microbatch_tokens=16, patience=0)
        return SFT(make_decoder(vocab_size=320), demonstrations, config=config, optim=OptimConfig(lr=1e-2))

    return make


@pytest.fixture
def saved(tmp_path, make_loop, tokenizer):
    """(root, the checkpoints of steps 1 and 2)."""
    loop, root = make_loop(), tmp_path / "steps"
    paths = []
    for step in (1, 2):
        loop.num_steps = step
        state = loop.state_dict()
        paths.append(save_training(root, step=step, decoder=loop.decoder, tokenizer=tokenizer, trainer=state))
    return root, *paths


def edit_manifest(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest["files"])
    (path / "manifest.json").write_text(json.dumps(manifest))


def swap(one, other):
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])


def to_fifo(path):
    path.unlink()
    os.mkfifo(path)


ATTACKS = {
    "a manifest that names nothing": lambda p: (p / "manifest.json").write_text('{"files": {}}'),
    "a manifest without the training state": lambda p: edit_manifest(p, lambda files: files.pop("trainer.pt")),
    "a manifest without state.json": lambda p: edit_manifest(p, lambda files: files.pop("state.json")),
    "a manifest nested without end": lambda p: (p / "manifest.json").write_text("[" * 100_000),
    "a manifest of another kind": lambda p: (p / "manifest.json").write_text('{"files": [1, 2]}'),
    "a manifest that is no text": lambda p: (p / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "a manifest that is a FIFO": lambda p: to_fifo(p / "manifest.json"),
    "a manifest that is a folder": lambda p: ((p / "manifest.json").unlink(), (p / "manifest.json").mkdir()),
    "a name with NUL": lambda p: edit_manifest(p, lambda files: files.update({"a\0b": {"bytes": 1, "sha256": ""}})),
    "a file of adapters put beside": lambda p: (p / "model/adapter_config.json").write_text("{}"),
    "a shard put beside": lambda p: shutil.copy(
        next((p / "model").glob("*.safetensors")), p / "model/model-00009-of-00009.safetensors"
    ),
    "a truncated file": lambda p: os.truncate(p / "trainer.pt", 100),
    "two files swapped": lambda p: swap(p / "trainer.pt", p / "state.json"),
    "a link to nowhere": lambda p: ((p / "state.json").unlink(), (p / "state.json").symlink_to("/nosuch")),
    "an endless file": lambda p: ((p / "trainer.pt").unlink(), (p / "trainer.pt").symlink_to("/dev/zero")),
    "another step's state": lambda p: shutil.copy(p.parent / "step-000001/trainer.pt", p / "trainer.pt"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_was_done_to_the_newest_is_told_and_the_one_before_it_taken(saved, make_loop, caplog, name):
    root, _, newest = saved
    ATTACKS[name](newest)
    with caplog.at_level(logging.WARNING):
        loaded = load_latest(root, make_loop().decoder)
    assert loaded is not None
    assert loaded.step == 1
    assert "step-000002 is left out" in caplog.text or name.startswith("a manifest that is a f"), caplog.text
    with pytest.raises(CheckpointError, match="step-000002"):
        load_training(newest, make_loop().decoder)
    latest(root)


def test_a_renamed_checkpoint_is_not_the_newest_for_ever(saved, make_loop, caplog):
    root, first, _ = saved
    shutil.copytree(first, root / "step-000099")
    loaded = load_latest(root, make_loop().decoder)
    assert loaded is not None
    assert loaded.step == 2
    assert "it is of step 1; give its folder the name that it had" in caplog.text


def test_foreign_files_among_the_steps_are_passed_over(saved, make_loop):
    root, _, _ = saved
    (root / "step-x").mkdir()
    (root / "step-000100").write_text("no folder")
    (root / "step-000101").symlink_to("/nosuch")
    (root / "step-000102").symlink_to(root)
    loaded = load_latest(root, make_loop().decoder)
    assert loaded is not None
    assert loaded.step == 2


def stage_of(folder, recipe, make_loop, tokenizer):
    loop = make_loop()
    trainee: Any = SimpleNamespace(decoder=loop.decoder, tokenizer=tokenizer)  # all of it that is asked
    return StageRun(recipe, folder, loop, trainee, lambda: True), loop


def test_a_checkpoint_of_another_run_or_stage_is_refused(tmp_path, make_loop, tokenizer):
    recipes = []
    for seed in (0, 1):
        path = tmp_path / f"{seed}.toml"
        path.write_text(f'name = "small"\nseed = {seed}\n{TEXT}')
        recipes.append(load_recipe(path))
    for folder, recipe in (("a/sft", recipes[0]), ("b/sft", recipes[1]), ("a/rl", recipes[0])):
        out = tmp_path / folder[0]
        with opened_run(recipe, out, resume=(out / RECIPE).exists()):
            pass
        stage, loop = stage_of(tmp_path / folder, recipe, make_loop, tokenizer)
        with stage:
            stage.on_step(loop.step())
    for other, what in (("b/sft", "recipe"), ("a/rl", "stage")):
        shutil.rmtree(tmp_path / "a/sft/steps")
        shutil.copytree(tmp_path / other / "steps", tmp_path / "a/sft/steps")
        with pytest.raises(CheckpointError, match=f"is of another {what} .*remove it"):
            stage_of(tmp_path / "a/sft", recipes[0], make_loop, tokenizer)
    shutil.rmtree(tmp_path / "a/sft/steps")
    stage_of(tmp_path / "a/sft", recipes[0], make_loop, tokenizer)


@pytest.mark.parametrize(
    "line", [b"[1]", b"{}", b'{"step": "2"}', b"\xff", b"[" * 9000, b"nonsense", b'{"step": null}', b"\x85"]
)
def test_a_row_of_metrics_that_is_none_is_named_and_a_cut_last_one_left_out(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    row = b'{"step": 1, "seconds": 0.5}'
    path.write_bytes(row + b"\n" + line + b"\n" + row + b"\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_metrics(path)
    path.write_bytes(row + b"\n" + line)
    assert read_metrics(path) == [json.loads(row)]
    with MetricsWriter(path, resume_step=1) as metrics:
        metrics.write(2, {"a": 1.0})
    assert [one["step"] for one in read_metrics(path)] == [1, 2]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('name = "small"\n' + TEXT)
    return load_recipe(path)


def test_a_link_in_the_place_of_a_file_leads_nowhere(recipe, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").symlink_to(mine)
    with (
        pytest.raises(ConfigError, match=r"\.lock cannot be locked .*remove it"),
        opened_run(recipe, out, resume=False),
    ):
        pass
    (out / ".lock").unlink()
    for name in ("recipe.json.partial", "SHA256SUMS.partial"):
        (out / name).symlink_to(mine)
    with opened_run(recipe, out, resume=False):
        pass
    assert mine.read_text() == "precious"
    assert json.loads((out / RECIPE).read_text())["name"] == "small"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_no_file_in_the_place_of_a_file_is_told_and_nothing_waits(recipe, tmp_path, make):
    out = tmp_path / "out"
    out.mkdir()
    make(out / ".lock")
    with pytest.raises(ConfigError, match="cannot be locked"), opened_run(recipe, out, resume=False):
        pass
    (out / ".lock").rmdir() if make is os.mkdir else (out / ".lock").unlink()
    with opened_run(recipe, out, resume=False):
        pass
    (out / RECIPE).unlink()
    make(out / RECIPE)
    with pytest.raises(ConfigError, match="cannot be read"), opened_run(recipe, out, resume=True):
        pass


def test_a_folder_that_cannot_be_made_is_told(recipe, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nosuch" / "deeper")
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "link", tmp_path / "file" / "out", tmp_path / "file"):
        with pytest.raises(ConfigError, match="give another --out"), opened_run(recipe, out, resume=False):
            pass


def test_two_names_of_one_folder_are_one_run(recipe, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "other").symlink_to(out)
    with (
        opened_run(recipe, out, resume=False),
        pytest.raises(ConfigError, match="in use by another run"),
        opened_run(recipe, tmp_path / "other", resume=True),
    ):
        pass


def test_a_kill_at_any_moment_leaves_a_run_that_can_be_resumed(recipe, tmp_path):
    """The folder's own files: recipe, sums, lock."""

    def begin(out):
        with opened_run(recipe, out, resume=(out / RECIPE).exists()):
            time.sleep(0.02)

    for number in range(12):
        out = tmp_path / "out"
        process = multiprocessing.get_context("fork").Process(target=begin, args=(out,))
        process.start()
        time.sleep(0.002 * number)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        begin(out)
        if number % 3 == 0:
            shutil.rmtree(out)
