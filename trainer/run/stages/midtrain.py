"""Learning what programs and commands do, from traces and trajectories."""

from ...learning.learner import Lesson
from ...loops.midtrain import Midtrain
from ...loops.midtrain_data import documents_of
from ...recipe.recipe import Recipe
from ...recipe.stages import MidtrainStage
from ..context import Run


class Midtraining:
    after = "scripts"
    beside = False

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.midtrain is not None

    async def run(self, run: Run) -> None:
        settings = run.recipe.midtrain
        assert settings is not None
        if not run.is_done("midtrain"):
            run.learn("midtrain", _loop(run, settings), settings.max_seconds or None)


def _loop(run: Run, settings: MidtrainStage) -> Midtrain:
    trainee, seed = run.trainee, run.recipe.seed
    found = documents_of(
        run.sources,
        settings,
        trainee.cwm_tokenizer,
        trainee.renderer,
        trainee.parser,
        seed=seed,
        folder=run.out / "midtrain",
    )
    for name, count in found.too_long.items():
        if count:
            run.progress.note(f"midtrain: {count} documents of {name} are longer than a microbatch, and left out")
    for name, count in found.overlapping.items():
        if count:
            run.progress.note(f"midtrain: {count} traces of {name} are left out: they hold calls that measure the loss")
    return Midtrain(
        trainee.decoder,
        found.learned,
        {source.name: source.weight for source in settings.sources},
        config=settings.train,
        optim=settings.optim,
        held_out=found.held_out,
        seed=seed,
        learning=run.learning(Lesson(optim=settings.optim)),
    )


STAGE = Midtraining()
