"""What teachers are shown is refused at the start where an environment does not have it; algorithms' own parts are what
it has."""

from types import SimpleNamespace
from typing import Any

import pytest

from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.errors import ConfigError
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.run.hindsight import check_hindsight

RECIPE = """name = "x"
[rl.train]
algorithm = "sdpo"
{hindsight}
[[families]]
name = "quiz"
env = "verigym/Math-v0"
tasks = "small-sums"
num_demonstrations = 0
{own}
"""


class Silent(ToolEnv):
    family = "quiz"


class Telling(Silent):
    def feedback(self, task, score):
        return "nearly"


def check(tmp_path, env, hindsight="", own=""):
    path = tmp_path / "recipe.toml"
    path.write_text("sft = false\nmodel = { checkpoint = 'm' }\n" + RECIPE.format(hindsight=hindsight, own=own))
    recipe = load_recipe(path)
    task = Task(id="t", family="quiz", prompt="?")
    family: Any = SimpleNamespace(config=recipe.families[0], make_env=env, train=(task,))
    check_hindsight(recipe, family)


NAMED = 'hindsight = { parts = ["verdict", "feedback"] }'


def test_an_algorithms_own_parts_are_those_that_there_are(tmp_path):
    check(tmp_path, Silent)
    check(tmp_path, Telling, NAMED)
    check(tmp_path, Telling, own=f"rl = {{ {NAMED} }}")


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("feedback", "Silent gives none.*define feedback"),
        ("tests", "keeps no names of tests"),
        ("reference", "state no gold answer"),
        ("demonstration", "no expert plays"),
    ],
)
@pytest.mark.parametrize("of_family", [False, True])
def test_a_part_that_is_named_and_not_there_is_refused(tmp_path, part, told, of_family):
    named = f'hindsight = {{ parts = ["verdict", "{part}"] }}'
    with pytest.raises(ConfigError, match=f"(?s)hindsight.parts of family 'quiz' has \"{part}\".*{told}"):
        check(tmp_path, Silent, *(("", f"rl = {{ {named} }}") if of_family else (named,)))
