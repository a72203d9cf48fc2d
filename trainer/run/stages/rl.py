"""Reinforcement learning."""

from ...recipe.recipe import Recipe
from ..context import Run
from ..sampled import learn_from_samples


class Reinforcement:
    after = "distilled"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.rl is not None

    async def run(self, run: Run) -> None:
        assert run.recipe.rl is not None
        await learn_from_samples(run, run.recipe.rl)


STAGE = Reinforcement()
