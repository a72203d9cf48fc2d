"""Learning from what the policy samples, in turn with sampling or behind it: a stage's run, whichever it is."""

from pathlib import Path
from typing import Any

import torch

from ...agent.policy import TokenPolicy
from ...envs.task import Task
from ..engines.open import RolloutEngine
from ..learning.learner import Learner, Lesson
from ..loops.asynchronous import AsyncRL
from ..loops.loop import StepResult
from ..loops.metrics import metric_rows, sampled_tokens
from ..loops.reinforce import RL
from ..recipe.config import EvaluationConfig
from ..recipe.recipe import teachers_of
from ..recipe.stages import RLStage
from ..sampling.mixture import TaskMixture
from ..sampling.rl_tasks import config_of_families, measure_tasks, mixture_of
from ..sampling.rollouts import EpisodePlan
from .context import Run
from .curves import Curves
from .hindsight import hindsight_of
from .stage_run import StageRun
from .teachers import served_teachers
from .watching import Watcher, best_of, watch


async def learn_from_samples(run: Run, settings: RLStage) -> None:
    """Do a stage, or find it done.

    Raises:
        Interrupted: the run is to end; what there is has been saved.
    """
    if run.is_done(settings.name):
        return
    folder = run.out / settings.name
    ahead = settings.asynchronous is not None
    async with run.engines.open(run.trainee, ahead=ahead) as generator:
        if run.recipe.overlap and ahead:  # the engine samples meanwhile, with a thread of its own
            torch.set_num_threads(max(1, run.recipe.num_threads - 1))
        mixture = mixture_of(run.families, settings, run.recipe.seed)
        config_of = config_of_families(run.families, settings, mixture)
        hindsight = hindsight_of(run, settings, generator.max_context)
        longest = max(family.plan(generator.max_context).budget.tokens for family in run.families)
        asked = (run.recipe, settings, config_of, hindsight, min(longest, generator.max_context))
        async with served_teachers(*asked) as served:
            loop = _loop(run, settings, generator, mixture, config_of=config_of, hindsight=hindsight, served=served)
            with run.running(settings.name, loop) as stage:
                await _play(run, settings, mixture, loop, stage)
    best = best_of(folder)
    rows = list(metric_rows(folder / "metrics.jsonl"))
    num_tokens = round(sum(map(sampled_tokens, rows)))
    num_updates = round(sum(row.get("trainer/updates/count") or 0.0 for row in rows))
    more: dict[str, Any] = {"updates": num_updates, "sampled_tokens": num_tokens}
    if best is not None:
        more["best"] = best
    if loop.stopped_by:
        more["cut"] = loop.stopped_by
    elif stage.steps < settings.steps:
        seconds, tokens = f"{settings.max_seconds:g} s of {settings.name}.max_seconds", settings.max_sampled_tokens
        limit = f"{tokens} tokens of {settings.name}.max_sampled_tokens" if 0 < tokens <= num_tokens else seconds
        more["cut"] = f"{settings.steps} steps were asked for, and the {limit} were up"
    run.finish(settings.name, stage, more)


async def _play(run: Run, settings: RLStage, mixture: TaskMixture, loop: RL, stage: StageRun) -> None:
    if settings.difficulty is not None and settings.difficulty.samples and loop.num_steps == 0:
        await _measure_tasks(run, settings, mixture)
    measure = None
    if settings.evaluation is not None:
        measure = await watch(_watcher(run, settings.evaluation, run.out / settings.name), stage, loop)
    await _steps(run, settings, loop, stage, measure)


async def _steps(run: Run, settings: RLStage, loop: RL, stage: StageRun, measure: Any) -> None:
    rows = list(metric_rows(run.out / settings.name / "metrics.jsonl"))
    curves, num_tokens = Curves(run.progress, settings.steps, rows), sum(map(sampled_tokens, rows))
    with run.progress.bar(f"training: {settings.name}", total=settings.steps) as bar, curves:

        def on_step(result: StepResult) -> None:
            nonlocal num_tokens
            num_tokens += sampled_tokens(result.metrics)
            stage.on_step(result)
            bar.at(result.step, text=f"reward {result.metrics.get('rollout/reward/mean', 0.0):.3f}")
            curves.add(result.step, result.metrics)
            stop_at_limits()

        def stop_at_limits() -> None:
            if 0 < settings.max_seconds < stage.seconds or 0 < settings.max_sampled_tokens <= num_tokens:
                loop.stop()

        stop_at_limits()  # a resume of a stage whose last step was done
        await loop.run(settings.steps, on_step=on_step, measure=measure)
    run.check_interrupt()


async def _measure_tasks(run: Run, settings: RLStage, mixture: TaskMixture) -> None:
    async with run.engines.policy(run.trainee) as sampling:
        with run.progress.bar("how often each task is solved") as bar:
            folder, seed = run.out / settings.name / "difficulty", run.recipe.seed
            await measure_tasks(run.families, settings, mixture, sampling, seed=seed, folder=folder, tell=bar.at)


def _watcher(run: Run, settings: EvaluationConfig, folder: Path) -> Watcher:
    return Watcher(
        run.families,
        settings,
        folder,
        open_policy=lambda: run.engines.policy(run.trainee),
        save=lambda folder: run.trainee.save(folder, run.environments),
        seed=run.recipe.seed,
        concurrency=run.engines.concurrency,
    )


def _loop(run: Run, settings: RLStage, generator: RolloutEngine, mixture: TaskMixture, **more: Any) -> RL:
    """
    Args:
        more: what is known of teachers.
    """
    trainee = run.trainee
    plans = {family.config.name: family.plan(generator.max_context, settings.name) for family in run.families}
    policy = TokenPolicy(generator, trainee.renderer, trainee.parser)

    def plan_of(task: Task) -> EpisodePlan:
        return plans[mixture.name_of(task)]

    lesson = Lesson(optim=settings.optim, rl=settings.train, teachers=teachers_of(run.recipe, settings))
    common: dict[str, Any] = {
        "optim": settings.optim,
        "tasks": mixture,
        "seed": run.recipe.seed,
        "learning": run.learning(lesson) or Learner(trainee.decoder, lesson),
        **more,
    }
    if settings.asynchronous is None:
        return RL(trainee.decoder, generator, policy, plan_of, config=settings.train, **common)
    common["asynchronous"] = settings.asynchronous
    return AsyncRL(trainee.decoder, generator, policy, plan_of, config=settings.train, **common)
