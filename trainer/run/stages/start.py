"""What the weights are worth before they are rewarded."""

from ...recipe.recipe import Recipe
from ..context import Run


class Start:
    after = "sft"
    beside = True

    def wanted(self, recipe: Recipe) -> bool:
        return True

    async def run(self, run: Run) -> None:
        recipe = run.recipe
        name = "sft" if recipe.sft is not None else "midtrain" if recipe.midtrain is not None else "start"
        trainee = run.snapshot()
        await run.turn_beside()
        await run.evaluations.of_weights(name, trainee, run.families)


STAGE = Start()
