"""recipes/smollm2.toml: what it trains is paid for the right answer alone."""

import asyncio
from pathlib import Path

import pytest

from verigym.envs.scripts import script_of
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.sampling.families import prepare_family

ROOT = Path(__file__).resolve().parents[4]
RECIPE = ROOT / "recipes" / "smollm2.toml"


def test_it_adapts_the_checkpoint_that_the_command_writes():
    recipe = load_recipe(RECIPE)
    makefile = (ROOT / "Makefile").read_text()
    assert f"demo-real: setup {recipe.model.checkpoint}\n" in makefile
    assert recipe.model.lora is not None
    assert load_recipe(RECIPE, ["model.checkpoint=/tmp/other"]).model.checkpoint == Path("/tmp/other")


@pytest.mark.parametrize("name", ["math", "code"])
def test_gold_is_paid_and_an_echo_of_the_question_is_not(name, tmp_path):
    recipe = load_recipe(RECIPE, ["sandbox=unsafe", "seed=3"])
    (config,) = (one for one in recipe.families if one.name == name)
    config = config.model_copy(update={"num_train": 8, "num_held_out": 4})

    async def scores():
        family = await prepare_family(config, recipe, tmp_path, lambda made, wanted: None)
        assert (len(family.train), len(family.held_out)) == (8, 4)
        found = []
        for task in family.held_out:
            env = family.make_env()
            hidden = task.hidden["solution"]
            for text in (script_of(env, "gold", task)[-1].content, task.prompt, f"\\boxed{{{hidden}}}"):
                score = env.score(task, text)
                found.append((await score if asyncio.iscoroutine(score) else score).value)
        return found

    assert asyncio.run(scores()) == [1.0, 0.0, 0.0] * 4
