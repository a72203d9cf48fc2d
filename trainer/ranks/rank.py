"""What a rank does when rank 0 says so, and the loop in which the others wait for it."""

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import CheckpointError, TrainingError
from ...model.huggingface import HuggingFaceDecoder
from ...model.lora import AnyDecoder, adapter_weights, copy_weights, has_adapters, load_adapters
from ...model.parallel import objects
from ...model.parallel.checkpoint import load_into_shards
from ...model.parallel.place import Place
from ...model.parallel.whole import gather, gather_module, reshard, spread_module, stacks_of
from ...model.shape import Shape
from ...model.weights.checksums import check_sums
from ..batching.packs import PackedBatch
from ..learning.learner import Learner, Lesson
from ..learning.pieces import PieceWriter, merged_pieces
from .launch import Membership
from .publishing import Part, Publisher

logger = logging.getLogger(__name__)

PING, STOP, BESIDE = "ping", "stop", "beside"
WRITES = {"write": "checkpoints", "write_weights": "weights"}
"""Method of a rank -> the thread that does it, beside all others: writing keeps no step waiting."""


class Rank:
    """One rank's share of each piece of work. Every method is called on all ranks at the same time."""

    def __init__(self, membership: Membership) -> None:
        self._place: Place = membership.place
        self._control = membership.control
        self._writer = PieceWriter(membership.saving)
        self._publisher = Publisher(PieceWriter(membership.publishing))
        self._groups = {"write": membership.saving, "write_weights": membership.publishing}
        self._learner: Learner | None = None

    @property
    def learner(self) -> Learner:
        assert self._learner is not None, "rank 0 begins with build"
        return self._learner

    def build(
        self,
        *,
        shape: Shape,
        lesson: Lesson,
        weights: Mapping[str, Tensor] | None = None,
        checkpoint: Path | None = None,
        adapters: Path | None = None,
    ) -> None:
        """Make shards, and what learns with them; what was there before is given up.

        Args:
            weights: rank 0's, of which each rank gets its shards.
            checkpoint: of which each rank reads its shards, where there are no weights.
            adapters: folder of those to begin with beside the checkpoint; None: those that the shape says begin anew.
        Raises:
            ConfigError: the layout does not fit the decoder, or it cannot be trained. CheckpointError: the checkpoint
                cannot be read.
        """
        self._learner = None
        self._publisher.forget()
        decoder = self._place.empty_decoder(shape)
        if weights is not None:
            shape.adapt(decoder)
            spread_module(weights, decoder)
        else:
            assert checkpoint is not None, "weights come from rank 0 or from a checkpoint"
            load_into_shards(checkpoint, decoder)
            if isinstance(decoder, HuggingFaceDecoder):
                decoder.probe()
                reshard(decoder)
            shape.adapt(decoder)
            if adapters is not None:
                load_adapters(adapters, decoder)
        self._learner = Learner(decoder, lesson, place=self._place)

    def step(self, *, packs: Sequence[PackedBatch], divisor: float | None, critic_only: bool) -> dict[str, float]:
        return self.learner.step(packs, divisor=divisor, critic_only=critic_only)

    def loss_sums(self, *, packs: Sequence[PackedBatch]) -> tuple[float, float]:
        return self.learner.loss_sums(packs)

    def columns(self, *, packs: Sequence[PackedBatch]) -> list[dict[str, Tensor]]:
        """Of this rank's packs; none where another rank has the same ones and tells."""
        found = self.learner.columns(packs)
        return found if self._tells else []

    def kept(self) -> list[dict[str, Tensor]]:
        """What this rank's updates found at kept tokens; as ``columns``."""
        found = self.learner.take_kept()
        return found if self._tells else []

    def gathered(self, *, name: str, arguments: Mapping[str, Any]) -> list[Any]:
        """What every rank's method returns, on rank 0; elsewhere nothing."""
        return objects.gather(getattr(self, name)(**arguments), group=self._control) or []

    def beside(self, *, name: str, arguments: Mapping[str, Any]) -> list[Any]:
        """``gathered`` of what is written, over a group of its own: it may be called on another thread.

        Raises:
            CheckpointError: a rank could not write.
        """
        try:
            found = getattr(self, name)(**arguments)
        except CheckpointError as error:
            found = error
        rows = objects.gather(found, group=self._groups[name]) or []
        problem = next((row for row in [found, *rows] if isinstance(row, CheckpointError)), None)
        if problem is not None:
            raise problem
        return rows

    @property
    def _tells(self) -> bool:
        """Whether it is the first of the ranks that share its packs."""
        return self._place.meshes.context_rank == self._place.meshes.tensor_rank == 0

    @torch.no_grad()
    def weights(self, *, into: AnyDecoder | None = None) -> None:
        """Gather the weights, one at a time, and on rank 0 copy them into a whole decoder; of one with adapters these,
        which every rank has."""
        decoder = self.learner.decoder
        reshard(decoder)
        if has_adapters(decoder):
            if into is not None:
                copy_weights(decoder, into)
            return
        stacked, targets = stacks_of(decoder), {} if into is None else into.state_dict()
        for name, value in decoder.state_dict().items():
            whole = gather(value, stacked.get(name))
            if into is not None:
                targets[name].copy_(whole)

    def adapters(self) -> dict[str, Tensor]:
        """Those of now, by their names in the model."""
        return {name: weight.detach().cpu() for name, weight in adapter_weights(self.learner.decoder).items()}

    def state(self, *, with_weights: bool) -> dict[str, Any]:
        """Whole, on every rank; rank 0 keeps it."""
        state = self.learner.state_dict()
        return {**state, "weights": gather_module(self.learner.decoder)} if with_weights else state

    def load(self, *, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take over rank 0's weights and state."""
        spread_module(weights, self.learner.decoder)
        self.learner.load_state_dict(state)

    def load_whole(self, *, weights: Path, state: Mapping[str, Any]) -> None:
        """``load``, where each rank reads its shards of the weights from a folder that all see."""
        self._publisher.forget()
        decoder = self.learner.decoder
        if has_adapters(decoder):
            load_adapters(weights, decoder)
        else:
            load_into_shards(weights, decoder)
        self.learner.load_state_dict(state)

    def stage(self) -> None:
        """Copy everything that is learned, for ``write``."""
        self._writer.stage(self.learner.pieces())

    def stage_weights(self, *, dtype: torch.dtype | None) -> None:
        """Copy the weights alone, for ``write_weights``, in the dtype of whoever reads them."""
        self._publisher.stage(merged_pieces(self.learner.decoder), dtype)

    def write(self, *, folder: Path) -> dict[str, str]:
        """Write what was copied; beside other work, on another thread. See ``PieceWriter.write``."""
        return self._writer.write(folder)

    def write_weights(self, *, folder: Path, whole: bool, remember: bool) -> Part:
        """See ``Publisher.write``; beside other work, on another thread."""
        return self._publisher.write(folder, whole=whole, remember=remember)

    def sees(self, *, path: Path) -> bool:
        """Whether a file is there for this rank."""
        return path.exists()

    def problem(self, *, folder: Path) -> str | None:
        """Whether this rank's share of a folder's files has changed since it was written, in words."""
        try:
            check_sums(folder, share=(dist.get_rank(), dist.get_world_size()))
        except (CheckpointError, OSError) as error:
            return str(error)
        return None

    def restore(self, *, folder: Path) -> None:
        """Go on from what all ranks, of any layout, have written."""
        self._publisher.forget()
        self.learner.restore(folder)

    def drop(self) -> None:
        """Give up what learns, and its memory."""
        self._learner = None


def serve(membership: Membership) -> None:
    """Do what rank 0 says until it says stop. For every rank but 0.

    Raises:
        TrainingError: rank 0, or another rank, is gone or has been silent for the group's timeout.
    """
    rank, agreed = Rank(membership), False
    writing: list[threading.Thread] = []
    while True:
        try:
            if not agreed:
                objects.share_secret(membership.control, one_machine=membership.one_machine)
                agreed = True
            name, arguments = objects.scatter(None, group=membership.control)
        except RuntimeError as error:
            raise TrainingError(
                f"rank {dist.get_rank()} has lost rank 0 ({_first_line(error)}); its output says why. Start all again "
                "with --resume"
            ) from error
        if name == STOP:
            for thread in writing:
                thread.join()
            return
        if name == PING:
            continue
        if name == BESIDE:
            writing = [*(one for one in writing if one.is_alive()), _beside(rank, arguments)]
            continue
        _do(rank, name, arguments)


def _do(rank: Rank, name: str, arguments: Mapping[str, Any]) -> None:
    try:
        getattr(rank, name)(**arguments)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise TrainingError(
            f"rank {dist.get_rank()} could not finish {name!r} ({_first_line(error)}); where that is a lost "
            "connection, another rank's output says why. Start all again with --resume"
        ) from error


def _beside(rank: Rank, arguments: Mapping[str, Any]) -> threading.Thread:
    """Write on a thread of its own; what goes wrong is raised on rank 0."""

    def write() -> None:
        try:
            rank.beside(**arguments)
        except (CheckpointError, RuntimeError) as error:
            logger.warning("rank %d could not write: %s", dist.get_rank(), _first_line(error))

    thread = threading.Thread(target=write, name="verigym-write", daemon=True)
    thread.start()
    return thread


def skeleton(tree: Any) -> Any:
    """The same dicts with tensors that have a shape and a dtype alone: what the others need to receive them."""
    if isinstance(tree, Tensor):
        return torch.empty_like(tree, device="meta")
    return {name: skeleton(value) for name, value in tree.items()} if isinstance(tree, Mapping) else tree


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
