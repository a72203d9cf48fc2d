"""Distillation from teachers."""

from ...recipe.recipe import Recipe
from ..context import Run
from ..sampled import learn_from_samples


class Distillation:
    after = "start"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.distill is not None

    async def run(self, run: Run) -> None:
        assert run.recipe.distill is not None
        await learn_from_samples(run, run.recipe.distill)


STAGE = Distillation()
