"""Evaluation during training: the same tasks and seeds, off the clock, and the best weights kept whatever happens."""

import asyncio
import json
from contextlib import asynccontextmanager, nullcontext
from types import SimpleNamespace

import pytest

import verigym.trainer.run.watching as watching
from verigym.trainer.recipe.config import EvaluationConfig
from verigym.trainer.run.watching import Watcher, best_of, evaluations_of, watch


@pytest.fixture
def make(tmp_path, monkeypatch):
    """(watcher, what it asked for); each measure takes the next rates from ``rates``."""

    def make(rates, families=("a",), fail_at=None, **config):
        asked, saved = [], []

        async def pass_counts(family, tasks, policy, max_context, **settings):
            asked.append((family.config.name, tasks, policy, settings["seed"], settings["temperature"]))
            rate = rates.pop(0)
            return {"t": (0, 0)} if rate is None else {"t": (round(10 * rate), 10), "failed": (0, 0)}

        monkeypatch.setattr(watching, "pass_counts", pass_counts)

        @asynccontextmanager
        async def open_policy():
            yield f"policy {len(asked)}", 64

        def save(folder):
            folder.mkdir()
            (folder / "weights").write_text(str(len(asked)))
            saved.append(folder.name)
            if len(saved) == fail_at:
                raise OSError("the disk is full")

        members = [SimpleNamespace(config=SimpleNamespace(name=name), held_out=tuple(range(9))) for name in families]
        settings = EvaluationConfig(**{"num_tasks": 3, **config})
        watcher = Watcher(members, settings, tmp_path, open_policy=open_policy, save=save, seed=7, concurrency=2)
        return watcher, asked

    return make


def measure(watcher, *steps):
    return [asyncio.run(watcher.measure(step)) for step in steps]


def weights_of(folder):
    return (folder / "best" / "weights").read_text()


def test_the_best_is_kept_the_earliest_of_equal_ones_and_every_measure_recorded(make, tmp_path):
    watcher, asked = make([0.2, 0.6, 0.6, 0.5], temperature=0.5)
    found = measure(watcher, 0, 10, 20, 30)
    assert [row["eval/passed/rate"] for row in found] == [0.2, 0.6, 0.6, 0.5]
    assert [row["eval/best/rate"] for row in found] == [0.2, 0.6, 0.6, 0.6]
    assert {(name, tasks, seed, temperature) for name, tasks, _, seed, temperature in asked} == {
        ("a", (0, 1, 2), 7, 0.5)
    }
    assert len({policy for _, _, policy, _, _ in asked}) == 4
    assert best_of(tmp_path) == {"step": 10, "pass@1": 0.6, "families": {"a": 0.6}}
    assert weights_of(tmp_path) == "2"
    assert [row["step"] for row in evaluations_of(tmp_path)] == [0, 10, 20, 30]
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-000010"]


def test_it_survives_a_resume_and_steps_that_come_again_replace_their_measures(make, tmp_path):
    measure(make([0.2, 0.6, 0.4])[0], 0, 10, 20)
    watcher, _ = make([0.5, 0.7])
    assert watcher.best["step"] == 10
    measure(watcher, 10)
    assert (best_of(tmp_path)["pass@1"], weights_of(tmp_path)) == (0.6, "2")
    measure(watcher, 20)
    assert (best_of(tmp_path)["step"], weights_of(tmp_path)) == (20, "2")
    assert [(row["step"], row["pass@1"]) for row in evaluations_of(tmp_path)] == [(0, 0.2), (10, 0.5), (20, 0.7)]


def test_a_save_that_fails_leaves_the_best_before_it_and_its_rest_goes_with_the_next(make, tmp_path):
    watcher, _ = make([0.2, 0.6], fail_at=2)
    with pytest.raises(OSError, match="the disk is full"):
        measure(watcher, 0, 10)
    assert (best_of(tmp_path)["step"], weights_of(tmp_path)) == (0, "1")
    measure(make([0.6])[0], 10)
    assert best_of(tmp_path)["step"] == 10
    assert not list(tmp_path.glob(".partial-*"))


def test_a_better_measure_of_the_same_step_replaces_what_the_link_points_to(make, tmp_path):
    measure(make([0.2])[0], 10)
    measure(make([0.4])[0], 10)
    assert best_of(tmp_path)["pass@1"] == 0.4
    assert len(list(tmp_path.glob("best-*"))) == 1


def test_failures_of_the_infrastructure_choose_no_best(make, tmp_path):
    watcher, _ = make([0.2, 0.9, None], families=("a", "b"))
    assert "eval/passed/rate" in measure(watcher, 0)[0]
    watcher, _ = make([1.0, None], families=("a", "b"))
    found = measure(watcher, 10)[0]
    assert "eval/passed/rate" not in found
    assert best_of(tmp_path)["step"] == 0


def test_only_every_so_many_steps_off_the_clock_and_the_start_once(make):
    watcher, asked = make([0.1, 0.2, 0.3], every=2)
    clock = []

    class Run:
        def off_the_clock(self):
            clock.append(True)
            return nullcontext()

    async def main():
        ask = await watch(watcher, Run(), SimpleNamespace(num_steps=0, stopping=False))
        return [bool(await ask(step)) for step in (1, 2, 3, 4)]

    assert asyncio.run(main()) == [False, True, False, True]
    assert len(clock) == len(asked) == 3
    asyncio.run(watch(watcher, Run(), SimpleNamespace(num_steps=4, stopping=False)))
    assert len(asked) == 3


def test_best_info_is_json_beside_the_weights(make, tmp_path):
    measure(make([0.2])[0], 10)
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 10
