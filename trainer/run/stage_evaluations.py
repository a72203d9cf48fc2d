"""What the stages of a run are worth: their weights, and scripts beside them, on the families' held-out tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..engines.open import Engines
from ..learning.trainee import Trainee
from ..recipe.recipe import Recipe
from ..sampling.evaluation import Evaluation, evaluate_engine, evaluate_script
from ..sampling.families import Family
from .progress import Progress
from .watching import BEST, best_of


class StageEvaluations:
    """Evaluates after each stage. Verdicts are kept in the run's folder, and not made again on a resume.

    Attributes:
        found: stage, or name of a script -> family -> what it was worth.
    """

    def __init__(
        self, recipe: Recipe, out: Path, engines: Engines, progress: Progress, check_interrupt: Callable[[], None]
    ) -> None:
        """
        Args:
            out: folder of the run.
            check_interrupt: raises where the run is to end.
        """
        self._recipe, self._out, self._engines, self._progress = recipe, out, engines, progress
        self._check_interrupt = check_interrupt
        self.found: dict[str, dict[str, Evaluation]] = {}

    async def of_weights(self, stage: str, trainee: Trainee, families: Sequence[Family], *, skip: int = 0) -> None:
        """The trainee's weights of the moment.

        Args:
            skip: held-out tasks of each family to leave out, from the first.
        """
        settings = self._recipe.eval
        async with self._engines.policy(trainee) as (policy, max_context):
            for family in families:
                name, tasks = family.config.name, family.held_out[skip:]
                episodes = len(tasks) * (settings.samples + settings.greedy)
                with self._progress.bar(f"evaluation of {stage}: {name}", total=episodes) as bar:
                    found = await evaluate_engine(
                        family,
                        policy,
                        max_context,
                        tasks=tasks,
                        settings=settings,
                        seed=self._recipe.seed,
                        concurrency=self._engines.concurrency,
                        out=self._out / "evals" / stage / name,
                        tell=bar.advance,
                    )
                self.found.setdefault(stage, {})[name] = found
                self._check_interrupt()

    async def of_best(self, trainee: Trainee, families: Sequence[Family]) -> None:
        """The best checkpoint, on the held-out tasks that did not choose it. The trainee is left with its weights."""
        settings = self._recipe.rl.evaluation if self._recipe.rl else None
        if settings is not None and best_of(self._out / "rl") is not None:
            trainee.load(self._out / "rl" / BEST)
            await self.of_weights(BEST, trainee, families, skip=settings.num_tasks)

    async def of_scripts(self, families: Sequence[Family]) -> None:
        """The recipe's controls."""
        for family in families:
            for name in self._recipe.eval.controls:
                if name == "trivial" and family.trivial is None:
                    continue
                title = f"control {name}: {family.config.name}"
                with self._progress.bar(title, total=len(family.held_out)) as bar:
                    self.found.setdefault(name, {})[family.config.name] = await evaluate_script(
                        family,
                        name,
                        concurrency=4 * self._recipe.num_workers,
                        out=self._out / "evals" / name / family.config.name,
                        tell=bar.advance,
                    )
                self._check_interrupt()
