"""A recipe from its tasks to its report, stage by stage. What a stage has written is not made again on a resume."""

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ...agent.demonstrations import texts_of, tokenize
from ...agent.policy import TokenPolicy
from ...agent.trajectory import Trajectory
from ...envs.task import Task, read_jsonl, write_jsonl
from ...errors import ConfigError
from ...model.chat.protocols import Parser
from ..engines.open import Engines, RolloutEngine
from ..learning.learner import Learning, Lesson
from ..learning.trainee import Trainee, open_trainee
from ..loops.asynchronous import AsyncRL
from ..loops.loop import SFT, StepResult, Supervised
from ..loops.midtrain import Midtrain
from ..loops.midtrain_data import Episode, Source, documents_of, gather
from ..loops.reinforce import RL
from ..loops.throughput import Throughput
from ..ranks.team import Team
from ..recipe.config import EvaluationConfig, LayoutConfig
from ..recipe.context import check_context
from ..recipe.recipe import FamilyConfig, MidtrainStage, Recipe, RLStage, SFTStage
from ..sampling.families import Family, prepare_family
from ..sampling.held_out import Account, HeldOut, held_out_of_run, keep_apart, without_held_out
from ..sampling.mixture import TaskMixture
from ..sampling.rl_tasks import config_of_families, measure_tasks, mixture_of
from ..sampling.rollouts import EpisodePlan
from .folder import check_kept, keep, opened_run, read_stage, write_stage
from .imitation import further, play_experts, split_by_task
from .progress import Bar, Progress
from .report import write_report
from .stage_evaluations import StageEvaluations
from .stage_run import StageRun
from .watching import Watcher, best_of, watch

logger = logging.getLogger(__name__)


def train(recipe: Recipe, out: Path, *, resume: bool = False, team: Team | None = None) -> int:
    """Run a recipe.

    Args:
        out: folder of the run. Holds the resolved recipe, tasks, demonstrations, checkpoints, verdicts, metrics, and
            at the end ``report.json``, ``report.md``, ``curves.png`` and ``episodes.txt``.
        resume: go on with what is in ``out``; without it a folder that holds a run is refused.
        team: the processes that train, where the recipe's layout splits the model; this is rank 0. It alone makes
            tasks, samples and evaluates.
    Returns:
        The exit status: 0, or 130 where it was interrupted (the state is saved).
    Raises:
        ConfigError: ``out`` holds another run, or is in use by another process.
    """
    if team is None and recipe.layout != LayoutConfig():
        raise ConfigError("the recipe's layout splits the model, and there is no team of ranks; remove layout")
    with opened_run(recipe, out, resume=resume):
        if team is None:
            torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
        with Progress() as progress:
            return asyncio.run(_Run(recipe, out, progress, team).main())


class Interrupted(Exception):
    """Ctrl-C: the state is saved, and the run ends here."""


class _Run:
    def __init__(self, recipe: Recipe, out: Path, progress: Progress, team: Team | None) -> None:
        self.recipe, self.out, self.progress, self.team = recipe, out, progress, team
        self.engines = Engines(recipe, out)
        self.families: list[Family] = []
        self.sources: list[Source] = []
        self.account = Account()
        self.loop: Supervised | RL | None = None
        self.interrupted = False
        self.evaluations = StageEvaluations(recipe, out, self.engines, progress, self._check_interrupt)
        self.stages: dict[str, dict[str, Any]] = {}

    async def main(self) -> int:
        previous = signal.signal(signal.SIGINT, lambda *_: self._interrupt())
        try:
            await self._stages()
        except Interrupted:
            self.progress.note(f"interrupted; `verigym train ... --out {self.out} --resume` goes on from here")
            return 130
        finally:
            await self.engines.aclose()
            signal.signal(signal.SIGINT, previous)
        return 0

    def _interrupt(self) -> None:
        """The first Ctrl-C ends the step in progress and saves; the second ends at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.progress.note("interrupted: saving after this step (again to stop at once)")
        if self.loop is not None:
            self.loop.stop()

    def _check_interrupt(self) -> None:
        if self.interrupted:
            raise Interrupted

    async def _stages(self) -> None:
        recipe = self.recipe
        started = time.monotonic()
        await self._prepare()
        trainee, demonstrations = await self._model_and_demonstrations()
        await self.evaluations.of_scripts(self.families)
        start = "start"
        if recipe.midtrain is not None:
            start = "midtrain"
            self._midtrain(trainee, recipe.midtrain)
        if recipe.sft is not None:
            start = "sft"
            self._supervise("sft", trainee, demonstrations, recipe.sft)
        await self.evaluations.of_weights(start, trainee, self.families)
        if recipe.rl is not None:
            await self._reinforce(trainee)
            await self.evaluations.of_weights("rl", trainee, self.families)
            await self.evaluations.of_best(trainee, self.families)
            if recipe.control and recipe.sft is not None:
                trainee.load(self._checkpoint("sft"))
                self._supervise("control", trainee, demonstrations, further(recipe.sft), self.stages["rl"]["seconds"])
                await self.evaluations.of_weights("control", trainee, self.families)
        write_report(
            self.out,
            recipe=recipe,
            families=self.families,
            evaluations=self.evaluations.found,
            stages=self.stages,
            left_out=self.account.counts(),
            seconds=time.monotonic() - started,
            note=self.progress.print,
        )

    # Tasks, demonstrations, model.

    async def _prepare(self) -> None:
        check_context(self.recipe)
        for config in self.recipe.families:
            with self.progress.bar(f"tasks: {config.name}") as bar:
                self.families.append(await self._family(config, bar))
            self._check_interrupt()
        self.families = keep_apart(self.families, self.recipe.decontaminate, self.account)

    async def _family(self, config: FamilyConfig, bar: Bar) -> Family:
        paths = [self.out / "tasks" / f"{config.name}.{split}.jsonl" for split in ("train", "held_out")]
        is_new = not all(path.exists() for path in paths)
        for path in paths if not is_new else ():
            check_kept(self.out, path.relative_to(self.out).as_posix())
        family = await prepare_family(config, self.recipe, self.out / "tasks", bar.at)
        for path in paths if is_new else ():
            keep(self.out, path)
        return family

    async def _model_and_demonstrations(self) -> tuple[Trainee, list[Trajectory]]:
        recipe = self.recipe
        held_out = held_out_of_run(self.families, recipe.decontaminate)
        trajectories = await self._demonstrations(held_out)
        tools = {family.config.name: family.tools for family in self.families}
        if recipe.midtrain is not None:
            episodes = [Episode(trajectory=one, tools=tools[name]) for name, one in trajectories]
            with self.progress.bar("traces") as bar:
                self.sources = await gather(
                    recipe.midtrain, recipe, self.out / "midtrain", episodes, held_out, self.account, bar.at
                )
        self.account.write(self.out / "held_out.jsonl")
        for line in self.account.lines():
            self.progress.note(line)

        def texts(parser: Parser) -> list[str]:
            found = [text for name, one in trajectories for text in texts_of(one, tools[name], parser)]
            return found + [text for source in self.sources for text in source.texts(parser)]

        # Beside shards, and engines that have weights of their own, the whole decoder is only passed on and saved.
        passed_on = self.team is not None and recipe.engines is not None
        trainee = open_trainee(recipe.model, texts, seed=recipe.seed, device="cpu" if passed_on else None)
        renderer, parser = trainee.renderer, trainee.parser
        return trainee, [tokenize(one, tools[name], renderer, parser) for name, one in trajectories]

    async def _demonstrations(self, held_out: HeldOut) -> list[tuple[str, Trajectory]]:
        """(family, episode) for each episode an expert played in the real environment; none where none is used."""
        if not self.recipe.uses_demonstrations:
            return []
        path = self.out / "demonstrations.jsonl"
        if not path.exists():
            rows: list[dict[str, Any]] = []
            for family in self.families:
                rows += await play_experts(family, self.recipe, self.progress, self._check_interrupt)
            write_jsonl(path, rows)
            keep(self.out, path)
        check_kept(self.out, path.name)
        played = [(row["name"], Trajectory.from_json(row["trajectory"])) for row in read_jsonl(path)]
        return without_held_out(played, held_out, self.account)

    # Stages.

    def _midtrain(self, trainee: Trainee, settings: MidtrainStage) -> None:
        if self._is_done("midtrain", trainee):
            return
        seed = self.recipe.seed
        found = documents_of(self.sources, settings, trainee.cwm_tokenizer, trainee.renderer, trainee.parser, seed=seed)
        for name, count in found.too_long.items():
            if count:
                self.progress.note(f"midtrain: {count} documents of {name} are longer than a microbatch, and left out")
        for name, count in found.overlapping.items():
            if count:
                self.progress.note(
                    f"midtrain: {count} traces of {name} are left out: they hold calls that measure the loss"
                )
        loop = Midtrain(
            trainee.decoder,
            found.learned,
            {source.name: source.weight for source in settings.sources},
            config=settings.train,
            optim=settings.optim,
            held_out=found.held_out,
            seed=seed,
            learning=self._learning(trainee, Lesson(optim=settings.optim)),
        )
        self._learn("midtrain", loop, trainee, settings.max_seconds or None)

    def _supervise(
        self,
        stage: str,
        trainee: Trainee,
        demonstrations: Sequence[Trajectory],
        settings: SFTStage,
        seconds: float | None = None,
    ) -> None:
        if self._is_done(stage, trainee):
            return
        config = settings.train
        learned, measured = split_by_task(demonstrations, settings.held_out_share, self.recipe.seed)
        loop = SFT(
            trainee.decoder,
            learned,
            config=config,
            optim=settings.optim,
            held_out=measured,
            seed=self.recipe.seed + (stage == "control"),
            learning=self._learning(trainee, Lesson(optim=settings.optim)),
        )
        self._learn(stage, loop, trainee, seconds)

    def _learn(self, stage: str, loop: Supervised, trainee: Trainee, seconds: float | None) -> None:
        """Run a supervised loop to its end, or for so many seconds, and keep its checkpoint."""
        with self._running(stage, loop, trainee) as run:
            left = None if seconds is None else max(0.0, seconds - run.seconds)
            total = loop.config.max_steps if seconds is None else None
            with self.progress.bar(f"training: {stage}", total=total) as bar:

                def on_step(result: StepResult) -> None:
                    run.on_step(result)
                    loss = result.metrics["trainer/loss/mean"]
                    bar.at(result.step, text=f"loss {loss:.3f}, best held-out loss {loop.best_loss:.3f}")

                loop.run(on_step=on_step, seconds=left)
            self._check_interrupt()
        self._finish(stage, trainee, run)

    async def _reinforce(self, trainee: Trainee) -> None:
        settings = self.recipe.rl
        if settings is None or self._is_done("rl", trainee):
            return
        async with self.engines.open(trainee, ahead=settings.asynchronous is not None) as generator:
            mixture = mixture_of(self.families, settings, self.recipe.seed)
            loop = self._rl_loop(settings, trainee, generator, mixture)
            with self._running("rl", loop, trainee) as run:
                if settings.difficulty is not None and settings.difficulty.samples and loop.num_steps == 0:
                    async with self.engines.policy(trainee) as sampling:
                        with self.progress.bar("how often each task is solved") as bar:
                            folder, seed = self.out / "rl" / "difficulty", self.recipe.seed
                            await measure_tasks(
                                self.families, settings, mixture, sampling, seed=seed, folder=folder, tell=bar.at
                            )
                measure = None
                if settings.evaluation is not None:
                    measure = await watch(self._watcher(settings.evaluation, trainee), run, loop)
                with self.progress.bar("training: rl", total=settings.steps) as bar:

                    def on_step(result: StepResult) -> None:
                        run.on_step(result)
                        bar.at(result.step, text=f"reward {result.metrics.get('rollout/reward/mean', 0.0):.3f}")
                        if settings.max_seconds and run.seconds > settings.max_seconds:
                            loop.stop()

                    await loop.run(settings.steps, on_step=on_step, measure=measure)
                self._check_interrupt()
        best = best_of(self.out / "rl")
        self._finish("rl", trainee, run, {} if best is None else {"best": best})

    def _watcher(self, settings: EvaluationConfig, trainee: Trainee) -> Watcher:
        return Watcher(
            self.families,
            settings,
            self.out / "rl",
            open_policy=lambda: self.engines.policy(trainee),
            save=lambda folder: trainee.save(folder, self._environments),
            seed=self.recipe.seed,
            concurrency=self.engines.concurrency,
        )

    def _rl_loop(self, settings: RLStage, trainee: Trainee, generator: RolloutEngine, mixture: TaskMixture) -> RL:
        plans = self._plans(generator.max_context)
        policy = TokenPolicy(generator, trainee.renderer, trainee.parser)

        def plan_of(task: Task) -> EpisodePlan:
            return plans[mixture.name_of(task)]

        learning = self._learning(trainee, Lesson(optim=settings.optim, rl=settings.train))
        common: dict[str, Any] = {
            "optim": settings.optim,
            "tasks": mixture,
            "seed": self.recipe.seed,
            "config_of": config_of_families(self.families, settings, mixture),
            "learning": learning,
        }
        if settings.asynchronous is None:
            return RL(trainee.decoder, generator, policy, plan_of, config=settings.train, **common)
        common["asynchronous"] = settings.asynchronous
        return AsyncRL(trainee.decoder, generator, policy, plan_of, config=settings.train, **common)

    def _learning(self, trainee: Trainee, lesson: Lesson) -> Learning | None:
        return None if self.team is None else self.team.learning(trainee.decoder, lesson)

    @contextmanager
    def _running(self, stage: str, loop: Supervised | RL, trainee: Trainee) -> Iterator[StageRun]:
        with StageRun(self.recipe, self.out / stage, loop, trainee, lambda: self.interrupted) as run:
            self.loop = loop
            num_devices = 1 if self.team is None else self.team.layout.num_ranks
            loop.throughput = Throughput(trainee.decoder, self.recipe.peak_tflops, num_devices)
            try:
                yield run
            finally:
                self.loop = None

    def _is_done(self, stage: str, trainee: Trainee) -> bool:
        """Whether an earlier run finished this stage; its weights are then loaded."""
        info = read_stage(self.out, stage)
        if info is None:
            return False
        self.stages[stage] = info
        trainee.load(self._checkpoint(stage))
        return True

    def _finish(
        self, stage: str, trainee: Trainee, run: StageRun, more: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        checkpoint = self._checkpoint(stage)
        trainee.save(checkpoint, self._environments)
        self.stages[stage] = {
            "seconds": round(run.seconds, 1),
            "checkpoint": str(checkpoint),
            "steps": run.steps,
            **more,
        }
        write_stage(self.out, stage, self.stages[stage])
        if self.team is not None:
            self.team.call("drop")
        # What was kept to resume this stage from is not needed any more.
        shutil.rmtree(self.out / stage / "steps", ignore_errors=True)

    @property
    def _environments(self) -> dict[str, dict[str, Any]]:
        """What the environments were made with, which is kept beside the weights."""
        return {f.config.env: f.config.options for f in self.families if f.config.options}

    def _checkpoint(self, stage: str) -> Path:
        return self.out / stage / "checkpoint"

    def _plans(self, max_context: int) -> Mapping[str, EpisodePlan]:
        return {family.config.name: family.plan(max_context) for family in self.families}
