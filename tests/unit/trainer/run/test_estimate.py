"""The plan of a run: which parts it has, and that they grow with what a recipe asks for."""

import pytest

from verigym.trainer.recipe.recipe import Recipe
from verigym.trainer.run.estimate import Costs, estimate, told

FAMILY = {
    "name": "a",
    "env": "verigym/Code-v0",
    "num_demonstrations": 30,
    "num_held_out": 10,
    "turns": 1,
    "turn_tokens": 20,
}
COSTS = Costs(token_s=0.001, sampled_s=0.01, episode_s={"a": 2.0}, played_s={"a": 1.0})


def parts(**changes):
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "families": [FAMILY],
            "model": {"max_context": 100},
            "sft": {"train": {"max_steps": 50, "batch_tokens": 1000, "microbatch_tokens": 1000}},
            "rl": {"steps": 4, "train": {"num_tasks": 2, "group_size": 5}},
            "eval": {"samples": 1, "greedy": False, "controls": ["trivial"]},
            **changes,
        }
    )
    return estimate(recipe, COSTS)


def test_every_part_has_its_seconds():
    worth = 10 * (2.0 + 10 * 0.01)
    step = 10 * (2.0 + 10 * 0.01) + 10 * 50 * 0.001
    assert [(name, pytest.approx(seconds)) for name, seconds in parts()] == [
        ("demonstrations", 30.0),
        ("scripts on the held-out tasks", 20.0),
        ("imitation, up to 50 updates", 50.0),
        ("evaluation before rewards", worth),
        ("reinforcement, 4 steps of 10 episodes", 4 * step),
        ("evaluation after rewards", worth),
        ("control", 4 * step),
        ("evaluation of the control", worth),
    ]


def test_ahead_a_step_takes_as_long_as_the_slower_of_both():
    ahead = {"steps": 4, "train": {"num_tasks": 2, "group_size": 5}, "asynchronous": {}}
    assert dict(parts(rl=ahead))["reinforcement, 4 steps of 10 episodes"] == pytest.approx(4 * 21.0)


def test_beside_the_control_other_work_takes_no_time():
    found = dict(parts(overlap=True))
    worth, step = 10 * (2.0 + 10 * 0.01), 10 * (2.0 + 10 * 0.01) + 10 * 50 * 0.001
    assert found["control, and evaluations and scripts beside it"] == pytest.approx(max(4 * step, 20.0 + 2 * worth))
    assert "evaluation before rewards" not in found
    long = dict(parts(overlap=True, rl={"steps": 1, "train": {"num_tasks": 2, "group_size": 5}}))
    assert long["control, and evaluations and scripts beside it"] == pytest.approx(20.0 + 2 * worth)


def test_what_a_recipe_leaves_out_is_no_part():
    assert [name for name, _ in parts(rl=False)] == [
        "demonstrations",
        "scripts on the held-out tasks",
        "imitation, up to 50 updates",
        "evaluation before rewards",
    ]


def test_it_is_told_in_minutes():
    first, *others = told([("demonstrations", 90.0), ("control", 30.0)], COSTS)
    assert first.startswith("plan: about 2 minutes on this machine as it is now (training 1,000 tokens a second")
    assert others == ["    1.5  demonstrations", "    0.5  control"]
