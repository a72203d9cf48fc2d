"""The yardsticks: what scripts that learn nothing get on the held-out tasks."""

from ...recipe.recipe import Recipe
from ..context import Run


class Scripts:
    after = "model"
    beside = True

    def wanted(self, recipe: Recipe) -> bool:
        return True

    async def run(self, run: Run) -> None:
        await run.turn_beside()
        await run.evaluations.of_scripts(run.families)


STAGE = Scripts()
