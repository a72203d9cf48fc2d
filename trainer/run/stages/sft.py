"""Imitation of the demonstrations, to the plateau of the held-out loss."""

from ...learning.learner import Lesson
from ...loops.loop import SFT
from ...recipe.recipe import Recipe
from ...recipe.stages import SFTStage
from ..context import Run
from ..imitation import split_by_task


class Imitation:
    after = "midtrain"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.sft is not None

    async def run(self, run: Run) -> None:
        settings = run.recipe.sft
        assert settings is not None
        await run.aside(supervise, run, "sft", settings, seed=run.recipe.seed)


def supervise(run: Run, stage: str, settings: SFTStage, *, seed: int, seconds: float | None = None) -> None:
    """Imitate as ``settings`` say, or find it done.

    Args:
        seed: of the order of demonstrations.
        seconds: wall clock in place of the settings' end.
    """
    if run.is_done(stage):
        return
    learned, measured = split_by_task(run.demonstrations, settings.held_out_share, run.recipe.seed)
    loop = SFT(
        run.trainee.decoder,
        learned,
        config=settings.train,
        optim=settings.optim,
        held_out=measured,
        seed=seed,
        learning=run.learning(Lesson(optim=settings.optim)),
    )
    run.learn(stage, loop, seconds)


STAGE = Imitation()
