"""Learning by ranks whose weights no process has whole: they read, write and publish their own parts."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError, ConfigError
from ...model.lora import AnyDecoder, adapter_weights, has_adapters
from ...model.shape import Shape
from ...model.weights.checksums import record
from ...model.weights.delta import Block, Published, added
from ..learning.learner import RANKS, WHOLE, Lesson
from .publishing import Part
from .rank import skeleton
from .team import Ranks, TeamLearning, shard_dtype


class ShardedLearning(TeamLearning):
    """``learner.Learning`` by ranks. The decoder of whoever asks has a shape and no numbers."""

    def __init__(
        self, team: Ranks, decoder: AnyDecoder, lesson: Lesson, checkpoint: Path, adapters: Path | None = None
    ) -> None:
        """
        Args:
            decoder: on the meta device, but for adapters.
            checkpoint: of any format, that all ranks see; each reads its shards of it.
            adapters: see ``Rank.build``.
        """
        self._checkpoint, self._adapters = checkpoint, adapters
        self._published: tuple[str, Published] | None = None
        self._pays = True  # whether the last changes were worth writing alone
        super().__init__(team, decoder, lesson)

    def _build(self, lesson: Lesson) -> None:
        shape = Shape.of(self._decoder, shard_dtype(self._decoder))
        self._all("build", shape=shape, lesson=lesson, checkpoint=self._checkpoint, adapters=self._adapters)

    def sync(self) -> None:
        """Nobody has the weights whole; adapters are."""
        if not has_adapters(self._decoder):
            return
        found = self._team.call("adapters")
        with torch.no_grad():
            for name, weight in adapter_weights(self._decoder).items():
                weight.copy_(found[name])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._published = None
        if RANKS in state:
            super().load_state_dict(state)
            return
        mine, weights = self._learned(state), Path(state[WHOLE])
        self._team.call(
            "load_whole",
            mine={"weights": weights, "state": mine},
            others={"weights": weights, "state": skeleton(mine)},
        )

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

    def publish(self, folder: Path, dtype: torch.dtype | None, *, name: str | None = None, whole: bool = True) -> None:
        """Write the weights of now, for engines to read, or what has changed of them since the publish before.

        Args:
            dtype: of the engines; None: of the weights. Changes alone are written in bfloat16: in float32 an update
                changes nearly every weight.
            name: that the folder will have beside those of other publishes; None: no later publish follows this one.
            whole: write them whole, also where changes would do.
        Raises:
            CheckpointError: they could not be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        before = self._published
        self.sync()
        whole = whole or name is None or before is None or dtype != torch.bfloat16 or not self._pays
        self._all("stage_weights", dtype=dtype)
        parts: list[Part] = self._all("write_weights", folder=folder, whole=whole, remember=name is not None)
        told = Published(
            id=secrets.token_hex(16),
            base=None if whole or before is None else before[1].id,
            previous=None if whole or before is None else before[0],
            sums=_sums(parts),
            dtype=str(dtype or shard_dtype(self._decoder)).removeprefix("torch."),
        )
        told.write(folder)
        if name is not None:
            self._published = (name, told)
            whole_bytes = 2 * sum(block.rows * block.columns for part in parts for _, block in part.sums.values())
            self._pays = 2 * sum(part.num_bytes for part in parts) < whole_bytes

    def check(self, folder: Path) -> None:
        """Have the ranks compare what was written with its checksums, each a part. Raises CheckpointError."""
        for problem in self._all("problem", folder=folder):
            if problem is not None:
                raise CheckpointError(problem)

    def _all(self, name: str, **arguments: Any) -> list[Any]:
        return self._team.collect(name, each=[arguments] * self._layout.num_ranks)


def check_all_see(team: Ranks, folder: Path) -> None:
    """Raises ConfigError where a rank does not see a folder that all are to write to."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder.absolute() / f".probe-{secrets.token_hex(8)}"
    probe.touch()
    try:
        seen = team.collect("sees", each=[{"path": probe}] * team.layout.num_ranks)
    finally:
        probe.unlink(missing_ok=True)
    blind = [str(rank) for rank, sees in enumerate(seen) if not sees]
    if blind:
        raise ConfigError(
            f"ranks {', '.join(blind)} do not see the run's folder {folder}, into which each writes its part; give an "
            "--out on a file system that all machines share under the same path"
        )


def _sums(parts: Sequence[Part]) -> dict[str, int]:
    """Of whole weights; a block that several ranks have counts once."""
    found: dict[str, dict[Block, int]] = {}
    for part in parts:
        for name, (value, block) in part.sums.items():
            found.setdefault(name, {})[block] = value
    return {name: added(list(blocks.values())) for name, blocks in found.items()}
