"""Tasks drawn by their audit: kept, weighted, dropped; resumed where they were."""

import json

import pytest
from pydantic import ValidationError

from verigym.envs.audit.certificate import SCORES, Certificate
from verigym.envs.task import Task
from verigym.errors import ConfigError
from verigym.trainer.recipe.audited import AuditConfig
from verigym.trainer.recipe.config import DifficultyConfig
from verigym.trainer.sampling.audits import task_weights, told_weights
from verigym.trainer.sampling.difficulty import DifficultyStream
from verigym.trainer.sampling.rollouts import TaskStream

TASKS = [Task(id=f"t{n}", family="swe", prompt="") for n in range(10)]
KINDS = ("sound", "weak", "narrow")


@pytest.fixture
def certificates(tmp_path):
    """t0 sound, t1 weak, t2 narrow, and so on; t9 has none."""
    path = tmp_path / "rows.audit.jsonl"
    with path.open("w") as file:
        for n, task in enumerate(TASKS[:9]):
            scores, basis = dict.fromkeys(SCORES, 0.0), dict.fromkeys(SCORES, "measured")
            one = Certificate(
                instance_id=task.id, row_sha256="", scores=scores, basis=basis, kind=KINDS[n % 3], reason=""
            )
            file.write(json.dumps(one.to_json()) + "\n")
    return path


def test_weights_are_by_class_and_found_beside_the_rows(certificates):
    config = AuditConfig(weak=0.5, narrow=0.0)
    rows = str(certificates.with_name("rows.jsonl"))
    weights = task_weights(config, TASKS, family="f", rows=rows)
    assert weights == {"t1": 0.5, "t4": 0.5, "t7": 0.5, "t2": 0.0, "t5": 0.0, "t8": 0.0}
    assert told_weights(weights, 7) == "3 tasks are left out, 3 are drawn in 50% of the epochs, 4 as ever"
    named = AuditConfig(weak=0.5, narrow=0.0, certificates=certificates)
    assert task_weights(named, TASKS, family="f", rows="elsewhere.jsonl") == weights


def test_what_does_nothing_or_drops_everything_is_refused(certificates):
    with pytest.raises(ValidationError, match="no class with a weight below 1"):
        AuditConfig(certificates=certificates)
    config = AuditConfig(sound=0.0, weak=0.0, narrow=0.0, certificates=certificates)
    with pytest.raises(ConfigError, match="drops every task"):
        task_weights(config, TASKS[:9], family="f", rows="")
    others = [Task(id="x", family="swe", prompt="")]
    with pytest.raises(ConfigError, match="a certificate of none"):
        task_weights(config, others, family="f", rows="")


@pytest.mark.parametrize("weight", [0.5, 0.3, 0.9])
def test_a_weighted_task_is_in_its_share_of_the_epochs_and_never_twice_in_one(weight):
    stream = TaskStream(TASKS, seed=1, weights={"t1": weight, "t4": weight})
    taken = [task.id for task in stream.take(10 * 200)]
    rounds = taken.count("t0")
    for name in ("t1", "t4"):
        assert taken.count(name) == pytest.approx(weight * rounds, abs=1.5)
    others = [name for name in taken if name not in ("t1", "t4")]
    assert all(sorted(others[n : n + 8]) == sorted(others[:8]) for n in range(0, len(others) - 8, 8))


def test_a_weighted_stream_goes_on_where_it_was():
    weights = {"t1": 0.5, "t4": 0.25}
    whole = [task.id for task in TaskStream(TASKS, seed=3, weights=weights).take(77)]
    first = TaskStream(TASKS, seed=3, weights=weights)
    begun = [task.id for task in first.take(31)]
    other = TaskStream(TASKS, seed=3, weights=weights)
    other.load_state_dict(first.state_dict())
    assert begun + [task.id for task in other.take(46)] == whole


def test_without_weights_the_order_is_what_it_was():
    stream = TaskStream(TASKS, seed=5)
    taken = [task.id for task in stream.take(35)]
    assert all(sorted(taken[n : n + 10]) == [f"t{i}" for i in range(10)] for n in (0, 10, 20))
    assert taken[:10] != taken[10:20]


@pytest.mark.parametrize("order", ["random", "frontier"])
def test_measured_difficulty_and_audits_go_together(order):
    config = DifficultyConfig(order=order)
    stream = DifficultyStream(TASKS, config, seed=2, weights={"t1": 0.25})
    taken = [task.id for task in stream.take(3000)]
    others = sum(taken.count(f"t{n}") for n in (0, 2, 3, 4)) / 4
    assert taken.count("t1") == pytest.approx(0.25 * others, rel=0.25)
