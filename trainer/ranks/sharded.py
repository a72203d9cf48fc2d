"""Learning by ranks whose weights no process has whole: they read, write and publish their own parts."""

from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError
from ...model.decoder import Decoder
from ...model.weights.checksums import record
from ..learning.learner import Lesson
from .team import Ranks, TeamLearning, shard_dtype


class ShardedLearning(TeamLearning):
    """``learner.Learning`` by ranks. The decoder of whoever asks has a shape and no numbers."""

    def __init__(self, team: Ranks, decoder: Decoder, lesson: Lesson, checkpoint: Path) -> None:
        """
        Args:
            decoder: on the meta device.
            checkpoint: of any format, that all ranks see; each reads its shards of it.
        """
        self._checkpoint = checkpoint
        super().__init__(team, decoder, lesson)

    def _build(self, lesson: Lesson) -> None:
        common = {"config": self._decoder.config, "dtype": shard_dtype(self._decoder), "lesson": lesson}
        self._all("build", checkpoint=self._checkpoint, **common)

    def sync(self) -> None:
        """Nobody has the weights whole."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see ``stage`` and ``write``."""
        return {}

    def stage(self) -> None:
        """Copy on every rank what it has of a checkpoint; training may go on then."""
        self._all("stage")

    def write(self, folder: Path) -> None:
        """Write what was copied, with checksums. It may be called on another thread.

        Raises:
            CheckpointError: a rank could not write.
        """
        folder.mkdir(parents=True, exist_ok=True)
        record(folder, self._all("write", folder=folder)[0])

    def publish(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Write the weights of now, without checksums, for engines to read. Raises CheckpointError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._all("stage_weights", dtype=dtype)
        self._all("write_weights", folder=folder)

    def check(self, folder: Path) -> None:
        """Have the ranks compare what was written with its checksums, each a part. Raises CheckpointError."""
        for problem in self._all("problem", folder=folder):
            if problem is not None:
                raise CheckpointError(problem)

    def _all(self, name: str, **arguments: Any) -> list[Any]:
        return self._team.collect(name, each=[arguments] * self._layout.num_ranks)
