"""One stage while it runs: its metrics, its checkpoints, its clock."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, TrainingError
from ...model.weights.checksums import digest
from ..learning.trainee import Trainee
from ..loops.loop import StepResult, Supervised
from ..loops.metrics import MetricsWriter
from ..loops.reinforce import RL
from ..loops.trackers import Tracker
from ..ranks.sharded import ShardedLearning
from ..recipe.recipe import Recipe
from .checkpoint import load_latest
from .folder import RECIPE
from .recording import EpisodeRecorder
from .saving import CheckpointWriter


def _digest_of(path: Path) -> str:
    """Of the run's recipe, which no resume changes; "" where there is none."""
    return digest(path) if path.is_file() else ""


class StageRun:
    """One stage's metrics and checkpoints: resumes where they stand, saves now and then and when interrupted."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        loop: Supervised | RL,
        trainee: Trainee,
        must_save: Callable[[], bool],
        *,
        tracker: Tracker | None = None,
    ) -> None:
        """
        Args:
            folder: of the stage; its name is the stage's.
            must_save: whether to save after this step, however recent the last save is.
            tracker: is told of every step too.
        """
        self._recipe, self._folder, self._loop, self._must_save = recipe, folder, loop, must_save
        self._tracker = tracker
        self._trainee, self._writer = trainee, CheckpointWriter(folder / "steps", trainee.tokenizer)
        self._before = 0.0
        self._own = {"stage": folder.name, "recipe": _digest_of(folder.parent / RECIPE)}
        self._sharded = loop.learning if isinstance(loop.learning, ShardedLearning) else None
        if self._sharded is None:
            state = load_latest(self._folder / "steps", trainee.decoder)
        else:
            state = load_latest(self._folder / "steps", None, check=self._sharded.check)
        if state is not None:
            self._check_own(state.info)
            loop.load_state_dict(state.trainer)
            self._before = float(state.info.get("seconds", 0.0))
        self._started = self._saved = time.monotonic()
        self._recorder: EpisodeRecorder | None = None

    def __enter__(self) -> "StageRun":
        path, steps = self._folder / "metrics.jsonl", self._loop.num_steps
        self._metrics = MetricsWriter(path, resume_step=steps, tracker=self._tracker)
        if isinstance(self._loop, RL):
            self._recorder = EpisodeRecorder(
                self._folder,
                self._recipe.record,
                seed=self._recipe.seed,
                resume_step=steps,
                decode=self._trainee.text_of,
            )
            self._loop.keeps = self._recorder.keeps
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._metrics.close()
        try:
            if self._recorder is not None:
                self._recorder.close()
        finally:
            self._wait(kind)

    def _wait(self, kind: type[BaseException] | None) -> None:
        try:
            self._writer.wait()
        except (CheckpointError, TrainingError):
            if kind is None:
                raise

    @property
    def seconds(self) -> float:
        """Wall clock of the stage, that of earlier sittings included."""
        return self._before + time.monotonic() - self._started

    @contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """What is done inside does not count in ``seconds``."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - started

    @property
    def steps(self) -> int:
        return self._loop.num_steps

    def on_step(self, result: StepResult) -> None:
        self._metrics.write(result.step, result.metrics)
        if self._recorder is not None and result.trajectories:
            self._recorder.write(result)
        self._writer.check()
        is_due = time.monotonic() - self._saved > self._recipe.save_seconds
        if self._must_save() or (is_due and not self._writer.busy):
            self._save()

    def _check_own(self, info: Mapping[str, Any]) -> None:
        """Raises CheckpointError for what another run or stage has saved; earlier versions did not say."""
        for key, own in self._own.items():
            if info.get(key, own) != own:
                raise CheckpointError(
                    f"the newest checkpoint in {self._folder / 'steps'} is of another {key} ({info[key]!r:.40}); "
                    "remove it to go on from the one before it, or give another --out"
                )

    def _save(self) -> None:
        self._loop.sync()
        if self._recorder is not None:
            self._recorder.flush()  # a resume from this checkpoint does not make these steps again
        state, info = self._loop.state_dict(), {"seconds": self.seconds, **self._own}
        decoder, step = self._trainee.decoder, self._loop.num_steps
        if self._sharded is None:
            self._writer.save(decoder, state, step=step, info=info)
        else:
            self._writer.save_shards(self._sharded, decoder, state, step=step, info=info)
        self._saved = time.monotonic()
