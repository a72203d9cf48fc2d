"""What the weights are worth after they were rewarded, and the best of them where those were looked for."""

from ...recipe.recipe import Recipe
from ..context import Run


class Reinforced:
    after = "rl"
    beside = True

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.rl is not None

    async def run(self, run: Run) -> None:
        trainee = run.snapshot()
        await run.turn_beside()
        await run.evaluations.of_weights("rl", trainee, run.families)
        await run.evaluations.of_best(trainee, run.families)


STAGE = Reinforced()
