"""A family whose tasks are a published training set."""

import asyncio
import logging

import pytest

from verigym.envs.task import read_jsonl, write_jsonl
from verigym.errors import TaskError
from verigym.trainer.recipe.recipe import Recipe
from verigym.trainer.sampling.families import prepare_family

HELD = "There are three cards with letters a b c placed in a row in some order; which is the first?"


def recipe(tmp_path, rows, **changes):
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_jsonl(tmp_path / "suite.jsonl", [{"unique_id": "held", "problem": HELD, "answer": "a"}])
    family = {"name": "math", "env": "verigym/Math-v0", "tasks": str(tmp_path / "rows.jsonl"), "num_held_out": 1}
    return Recipe.model_validate(
        {"name": "r", "sandbox": "unsafe", "families": [{**family, "num_train": 0}], **changes}
    )


def prepare(made, folder):
    return asyncio.run(prepare_family(made.families[0], made, folder, lambda done, wanted: None))


ROWS = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(4)]


def test_a_training_set_is_decontaminated_split_and_accounted_for(tmp_path, caplog):
    rows = [*ROWS, {"problem": f"Think. {HELD}", "answer": "a"}, {"problem": "Prove it.", "answer": "proof"}]
    made = recipe(tmp_path, rows, decontaminate=[str(tmp_path / "suite.jsonl")])
    with caplog.at_level(logging.WARNING):
        family = prepare(made, tmp_path / "tasks")
    assert (len(family.train), len(family.held_out)) == (3, 1)
    assert {task.prompt for task in (*family.train, *family.held_out)} == {row["problem"] for row in ROWS}
    left_out = list(read_jsonl(tmp_path / "tasks" / "math.left_out.jsonl"))
    assert [row["reason"] for row in left_out] == [
        "its answer is 'proof': nothing to compare with",
        "like an evaluation's by its statement",
    ]
    assert left_out[1]["detail"] == "held"
    assert "4 of 6 rows are tasks, 2 are left out" in caplog.text
    again = prepare(made, tmp_path / "tasks")
    assert again.train == family.train


def test_tasks_of_another_family_are_left_out_with_the_reason(tmp_path):
    code = {"prompt": "p", "verification_info": {"test_cases": [{"input": "", "output": ""}]}}
    math = [{"prompt": row["problem"], "verification_info": {"ground_truth": row["answer"]}} for row in ROWS]
    family = prepare(recipe(tmp_path, [code, *math]), tmp_path / "tasks")
    assert len(family.train) == 3
    (row,) = read_jsonl(tmp_path / "tasks" / "math.left_out.jsonl")
    assert row["reason"] == "of family 'code', not 'math'"


def test_too_few_tasks_are_refused(tmp_path):
    with pytest.raises(TaskError, match="nothing would be left to train on"):
        prepare(recipe(tmp_path, ROWS[:1]), tmp_path / "tasks")
