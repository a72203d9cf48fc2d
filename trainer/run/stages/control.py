"""The control: the supervised weights, imitating on for as long as reinforcement took."""

from ...recipe.recipe import Recipe
from ..context import Run
from ..imitation import further
from .sft import supervise


class Control:
    after = "reinforced"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.has_control

    async def run(self, run: Run) -> None:
        assert run.recipe.sft is not None
        run.trainee.load(run.checkpoint("sft"))
        run.begin_beside()
        seed = run.recipe.seed + 1
        seconds = sum(run.stages[stage.name]["seconds"] for stage in run.recipe.sampled_stages)
        await run.aside(supervise, run, "control", further(run.recipe.sft), seed=seed, seconds=seconds)
        await run.evaluations.of_weights("control", run.trainee, run.families)


STAGE = Control()
