"""What a run says can be done next does that."""

from pathlib import Path

from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.run.told import eval_command


def test_a_checkpoint_is_measured_through_the_agent_that_it_was_trained_with():
    told = eval_command(Path("run"), load_recipe("mini-swe-agent"), "run/rl/checkpoint")
    assert "--agent mini-swe-agent:/" in told
    assert told.endswith("/recipes/mini-swe-agent.yaml")
    assert "--agent" not in eval_command(Path("run"), load_recipe("quickstart"), "run/rl/checkpoint")
