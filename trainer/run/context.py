"""What the stages of a run share: the recipe and its folder, what earlier stages made, and how a loop is run."""

import asyncio
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ...agent.trajectory import Trajectory
from ..engines.open import Engines, Places
from ..learning.learner import Learning, Lesson
from ..learning.trainee import Trainee
from ..loops.loop import StepResult, Supervised
from ..loops.midtrain_sources import Source
from ..loops.reinforce import RL
from ..loops.throughput import Throughput
from ..loops.trackers import RunTracker, Tracker
from ..ranks.sharded import ShardedLearning
from ..ranks.team import Ranks, TeamLearning
from ..recipe.recipe import Recipe
from ..sampling.families import Family
from ..sampling.left_out import Account
from .folder import read_stage, write_stage
from .progress import Progress
from .stage_evaluations import StageEvaluations
from .stage_run import StageRun


class Interrupted(Exception):
    """Ctrl-C: the state is saved, and the run ends here."""


class Run:
    """One run of a recipe.

    Attributes:
        families: of the recipe, with their tasks; made by the stage ``tasks``.
        demonstrations: tokenized; made by ``model``, as ``trainee`` and ``sources`` (of midtraining) are.
        stages: name -> what a finished stage left: "seconds", "checkpoint", "steps", ...
        evaluations: of the weights after stages, and of scripts.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        progress: Progress,
        team: Ranks | None,
        places: Places | None = None,
    ) -> None:
        """
        Args:
            team, places: as ``train``.
        """
        self.recipe, self.out, self.progress, self.team, self.places = recipe, out, progress, team, places
        self.engines = Engines(recipe, out, places)
        self.evaluations = StageEvaluations(recipe, out, self.engines, progress, self.check_interrupt)
        self.families: list[Family] = []
        self.sources: list[Source] = []
        self.demonstrations: list[Trajectory] = []
        self.account = Account()
        self.stages: dict[str, dict[str, Any]] = {}
        self._trainee: Trainee | None = None
        self._loop: Supervised | RL | None = None
        self._tracker: RunTracker | None = None
        self._interrupted = False
        self._beside = asyncio.Event()
        self._started = time.monotonic()

    @property
    def trainee(self) -> Trainee:
        assert self._trainee is not None, "the stage model makes it"
        return self._trainee

    @trainee.setter
    def trainee(self, trainee: Trainee) -> None:
        self._trainee = trainee

    @property
    def is_apart(self) -> bool:
        """Whether ranks train what engines elsewhere sample from: no process needs the weights whole."""
        return self.team is not None and self.recipe.engines is not None

    def snapshot(self) -> Trainee:
        """The trainee with its weights of now: a copy, where stages that go on changing them run beside."""
        return self.trainee.copied() if self.recipe.overlap else self.trainee

    async def turn_beside(self) -> None:
        """Wait until what nothing but the last stage needs may be done: at once, or beside the control where a run has
        one. That takes as many seconds as reinforcement took, and so what runs beside it costs no time."""
        if self.recipe.overlap and self.recipe.has_control:
            await self._beside.wait()

    def begin_beside(self) -> None:
        """Have those begin that wait for their turn."""
        self._beside.set()

    async def aside(self, work: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Call what blocks: in a thread, where other stages run beside it."""
        if not self.recipe.overlap:
            work(*args, **kwargs)
            return

        def in_thread() -> None:
            torch.set_num_threads(self.recipe.num_threads)  # a setting of each thread
            work(*args, **kwargs)

        await asyncio.to_thread(in_thread)

    @property
    def seconds(self) -> float:
        """Wall clock of this sitting."""
        return time.monotonic() - self._started

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        """What the environments were made with, which is kept beside the weights."""
        return {f.config.env: f.config.options for f in self.families if f.config.options}

    def interrupt(self) -> None:
        """The first Ctrl-C ends the step in progress and saves; the second ends at once."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        self.progress.note("interrupted: saving after this step (again to stop at once)")
        if self._loop is not None:
            self._loop.stop()

    def check_interrupt(self) -> None:
        """Raises Interrupted where the run is to end."""
        if self._interrupted:
            raise Interrupted

    def checkpoint(self, stage: str) -> Path:
        return self.out / stage / "checkpoint"

    def learning(self, lesson: Lesson) -> Learning | None:
        """What does a loop's updates; None: this process alone."""
        if self.team is None:
            return None
        decoder, stored = self.trainee.decoder, self.trainee.stored
        if stored is None:
            return TeamLearning(self.team, decoder, lesson)
        checkpoint, adapters = (stored.base or stored.checkpoint).absolute(), stored.adapters
        learning = ShardedLearning(self.team, decoder, lesson, checkpoint, adapters and adapters.absolute())
        stored.publish = learning.publish
        return learning

    async def renew_ranks(self) -> None:
        """After RanksLost: others take their places, and the stage goes on from what it has saved. Engines and episode
        workers stay. Raises TrainingError where that cannot be."""
        assert self.places is not None, "nobody else loses ranks and goes on"
        assert self.trainee.stored is not None, "ranks elsewhere have the weights"
        self.trainee.stored.publish = None
        await asyncio.to_thread(self.places.renew)

    def is_done(self, stage: str) -> bool:
        """Whether an earlier sitting finished this stage; its weights are then loaded."""
        info = read_stage(self.out, stage)
        if info is None:
            return False
        self.stages[stage] = info
        self.trainee.load(self.checkpoint(stage))
        return True

    def learn(self, stage: str, loop: Supervised, seconds: float | None) -> None:
        """Run a supervised loop to its end, or for so many seconds, and keep its checkpoint."""
        with self.running(stage, loop) as run:
            left = None if seconds is None else max(0.0, seconds - run.seconds)
            total = loop.config.max_steps if seconds is None else None
            with self.progress.bar(f"training: {stage}", total=total) as bar:

                def on_step(result: StepResult) -> None:
                    run.on_step(result)
                    text = f"loss {result.metrics['trainer/loss/mean']:.3f}"
                    if math.isfinite(loop.best_loss):  # measured at least once
                        text += f", best held-out loss {loop.best_loss:.3f}"
                    bar.at(result.step, text=text)

                loop.run(on_step=on_step, seconds=left)
            self.check_interrupt()
        self.finish(stage, run, {} if seconds is None or loop.finished else {"cut": f"its {seconds:g} s were up"})

    @contextmanager
    def running(self, stage: str, loop: Supervised | RL) -> Iterator[StageRun]:
        """Inside, the stage's metrics and checkpoints are written, and Ctrl-C stops the loop."""
        tracker = self._tracker_of(stage)
        with StageRun(
            self.recipe, self.out / stage, loop, self.trainee, lambda: self._interrupted, tracker=tracker
        ) as run:
            self._loop = loop
            num_devices = 1 if self.team is None else self.team.layout.num_ranks
            loop.throughput = Throughput(self.trainee.decoder, self.recipe.peak_tflops, num_devices)
            try:
                yield run
            finally:
                self._loop = None

    def _tracker_of(self, stage: str) -> Tracker | None:
        """The stage's part of the recipe's tracker, which is opened with the first stage that trains."""
        if self.recipe.tracker == "none":
            return None
        if self._tracker is None:
            config = self.recipe.model_dump(mode="json")
            self._tracker = RunTracker(self.recipe.tracker, project=self.recipe.name, folder=self.out, config=config)
        steps_before = sum(int(done.get("steps", 0)) for done in self.stages.values())
        return self._tracker.stage(stage, steps_before=steps_before)

    async def aclose(self) -> None:
        """End what samples, and the tracker's run, which a resume goes on with."""
        try:
            await self.engines.aclose()
            for family in self.families:
                await family.close()
        finally:
            if self._tracker is not None:
                self._tracker.finish()

    def finish(self, stage: str, run: StageRun, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Save the weights as the stage's checkpoint, and say that it is done."""
        checkpoint = self.checkpoint(stage)
        self.trainee.save(checkpoint, self.environments)
        self.stages[stage] = {
            "seconds": round(run.seconds, 1),
            "checkpoint": str(checkpoint),
            "steps": run.steps,
            **more,
        }
        write_stage(self.out, stage, self.stages[stage])
        if self.team is not None:
            self.team.call("drop")
        if self.trainee.stored is not None:
            self.trainee.stored.publish, self.trainee.stored.checkpoint = None, checkpoint
        # What was kept to resume this stage from is not needed any more.
        shutil.rmtree(self.out / stage / "steps", ignore_errors=True)
