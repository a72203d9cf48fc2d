"""How long the run will take here, told before the long parts begin."""

from ...recipe.recipe import Recipe
from ..context import Run
from ..estimate import estimate, measure, told


class Plan:
    after = "tasks"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.estimate

    async def run(self, run: Run) -> None:
        costs = await measure(run.recipe, run.families)
        for line in told(estimate(run.recipe, costs), costs):
            run.progress.note(line)


STAGE = Plan()
