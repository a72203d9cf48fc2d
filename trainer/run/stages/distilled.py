"""What the weights are worth after teachers scored what they sampled."""

from ...recipe.recipe import Recipe
from ..context import Run


class Distilled:
    after = "distill"
    beside = True

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.distill is not None

    async def run(self, run: Run) -> None:
        trainee = run.snapshot()
        await run.turn_beside()
        await run.evaluations.of_weights("distill", trainee, run.families)


STAGE = Distilled()
