"""What a rank does when rank 0 says so, and the loop in which the others wait for it."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import TrainingError
from ...model.config import DecoderConfig
from ...model.decoder import Decoder
from ...model.parallel import objects
from ...model.parallel.place import Place
from ...model.parallel.whole import gather, gather_module, reshard, spread_module, stacks_of
from ..batching.packs import PackedBatch
from ..learning.learner import Learner, Lesson
from .launch import Membership

logger = logging.getLogger(__name__)

PING, STOP = "ping", "stop"


class Rank:
    """One rank's share of each piece of work. Every method is called on all ranks at the same time."""

    def __init__(self, membership: Membership) -> None:
        self._place: Place = membership.place
        self._control = membership.control
        self._learner: Learner | None = None

    @property
    def learner(self) -> Learner:
        assert self._learner is not None, "rank 0 begins with build"
        return self._learner

    def build(
        self, *, config: DecoderConfig, dtype: torch.dtype, lesson: Lesson, weights: Mapping[str, Tensor]
    ) -> None:
        """Make shards of rank 0's weights, and what learns with them; what was there before is given up.

        Raises:
            ConfigError: the layout does not fit the decoder.
        """
        self._learner = None
        decoder = self._place.empty_decoder(config, dtype)
        spread_module(weights, decoder)
        self._learner = Learner(decoder, lesson, place=self._place)

    def step(self, *, packs: Sequence[PackedBatch], divisor: float | None, critic_only: bool) -> dict[str, float]:
        return self.learner.step(packs, divisor=divisor, critic_only=critic_only)

    def loss_sums(self, *, packs: Sequence[PackedBatch]) -> tuple[float, float]:
        return self.learner.loss_sums(packs)

    def columns(self, *, packs: Sequence[PackedBatch]) -> list[list[dict[str, Tensor]]]:
        """Of every rank's packs, on rank 0; elsewhere none."""
        found = self.learner.columns(packs)
        meshes = self._place.meshes
        first = meshes.context_rank == meshes.tensor_rank == 0  # the others of its packs have found the same
        return objects.gather(found if first else [], group=self._control) or []

    def kept(self) -> list[list[dict[str, Tensor]]]:
        """What the updates of every rank found at kept tokens, on rank 0; elsewhere none."""
        found = self.learner.take_kept()
        meshes = self._place.meshes
        first = meshes.context_rank == meshes.tensor_rank == 0
        return objects.gather(found if first else [], group=self._control) or []

    @torch.no_grad()
    def weights(self, *, into: Decoder | None = None) -> None:
        """Gather the weights, one at a time, and on rank 0 copy them into a whole decoder."""
        decoder = self.learner.decoder
        reshard(decoder)
        stacked, targets = stacks_of(decoder), {} if into is None else into.state_dict()
        for name, value in decoder.state_dict().items():
            whole = gather(value, stacked.get(name))
            if into is not None:
                targets[name].copy_(whole)

    def state(self, *, with_weights: bool) -> dict[str, Any]:
        """Whole, on every rank; rank 0 keeps it."""
        state = self.learner.state_dict()
        return {**state, "weights": gather_module(self.learner.decoder)} if with_weights else state

    def load(self, *, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Take over rank 0's weights and state."""
        spread_module(weights, self.learner.decoder)
        self.learner.load_state_dict(state)

    def drop(self) -> None:
        """Give up what learns, and its memory."""
        self._learner = None


def serve(membership: Membership) -> None:
    """Do what rank 0 says until it says stop. For every rank but 0.

    Raises:
        TrainingError: rank 0, or another rank, is gone or has been silent for the group's timeout.
    """
    rank, agreed = Rank(membership), False
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
            return
        if name == PING:
            continue
        try:
            getattr(rank, name)(**arguments)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise TrainingError(
                f"rank {dist.get_rank()} could not finish {name!r} ({_first_line(error)}); where that is a lost "
                "connection, another rank's output says why. Start all again with --resume"
            ) from error


def skeleton(tree: Any) -> Any:
    """The same dicts with tensors that have a shape and a dtype alone: what the others need to receive them."""
    if isinstance(tree, Tensor):
        return torch.empty_like(tree, device="meta")
    return {name: skeleton(value) for name, value in tree.items()} if isinstance(tree, Mapping) else tree


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
