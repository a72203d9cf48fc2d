"""Rank 0's side: it says what is done, does its own share, and has the result."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import TrainingError, VerigymError
from ...model.lora import AnyDecoder, has_adapters
from ...model.parallel import objects
from ...model.parallel.layout import Layout
from ...model.shape import Shape
from ..batching.packs import PackedBatch, deal
from ..batching.sharing import Share
from ..learning.learner import RANKS, Lesson, sharing_of
from ..learning.step import mean_of
from .launch import Membership
from .rank import BESIDE, PING, STOP, WRITES, Rank, skeleton

PING_SECONDS = 30.0
"""How often the others hear of rank 0 while it samples, so that silence means that something is wrong."""
PACKS_AT_ONCE = 8
"""Packs that a rank is given at a time to measure a loss on."""


class RanksLost(TrainingError):
    """A rank is gone, or silent: those that are left cannot go on, and all are started again from a checkpoint."""


class Ranks(Protocol):
    """All ranks, whoever started them, as those who give them work see them."""

    layout: Layout

    def call(
        self,
        name: str,
        *,
        mine: Mapping[str, Any] | None = None,
        others: Mapping[str, Any] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """See ``Team.call``."""
        ...

    def collect(self, name: str, *, each: Sequence[Mapping[str, Any]] | None = None) -> list[Any]:
        """As ``call``, with the results of all ranks."""
        ...


class Team:
    """All ranks, as rank 0 sees them. A context manager; leaving it lets the others end.

    Calls may come from any thread, one at a time.
    """

    def __init__(self, membership: Membership, *, ping_s: float = PING_SECONDS) -> None:
        """Raises ConfigError where the ranks are on several machines and have no secret, see ``objects``."""
        self._broken: BaseException | None = None
        try:
            objects.share_secret(membership.control, one_machine=membership.one_machine)
        except RuntimeError as error:  # told at the first call
            self._broken = error
        self._control, self._rank, self._ping_s = membership.control, Rank(membership), ping_s
        self.layout = membership.place.layout
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._last = time.monotonic()
        self._pinging = threading.Thread(target=self._ping, name="verigym-ranks", daemon=True)

    def __enter__(self) -> Self:
        self._pinging.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._pinging.join()
        if self._broken is None:
            try:
                self._send(STOP, {})
            except RuntimeError as gone:
                self._broken = gone

    def call(
        self,
        name: str,
        *,
        mine: Mapping[str, Any] | None = None,
        others: Mapping[str, Any] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """Have every rank do a piece of work (a method of ``Rank``) and return rank 0's result.

        Args:
            mine, others: arguments of rank 0 and of the others.
            each: arguments of each rank, in the place of both.
        Raises:
            TrainingError: a rank is gone, or did not come in time.
        """
        with self._lock:
            if self._broken is not None:
                raise self._lost(name, self._broken)
            try:
                self._send(name, others or {}, each)
                return getattr(self._rank, name)(**(each[0] if each else mine or {}))
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self._broken = error
                if isinstance(error, VerigymError):
                    raise  # a broken checkpoint, which all ranks have met
                raise self._lost(name, error) from error
            finally:
                self._last = time.monotonic()

    def learning(self, decoder: AnyDecoder, lesson: Lesson) -> "TeamLearning":
        """What trains shards of a whole decoder, whose weights it begins with. Raises ConfigError where the layout does
        not fit it."""
        return TeamLearning(self, decoder, lesson)

    def collect(self, name: str, *, each: Sequence[Mapping[str, Any]] | None = None) -> list[Any]:
        """As ``call``, with the results of all ranks."""
        told = [{"name": name, "arguments": dict(one)} for one in each or [{}] * dist.get_world_size(self._control)]
        return self._beside(told) if name in WRITES else self.call("gathered", each=told)

    def _beside(self, each: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Have every rank write, on a thread of its own but for this one; other calls go on meanwhile.

        Raises:
            CheckpointError: a rank could not write. TrainingError: one is gone.
        """
        name = each[0]["name"]
        try:
            with self._lock:
                if self._broken is not None:
                    raise self._lost(name, self._broken)
                self._send(BESIDE, {}, each)
            return self._rank.beside(**each[0])
        except VerigymError:
            raise
        except RuntimeError as error:
            raise self._lost(name, error) from error

    def _send(self, name: str, others: Mapping[str, Any], each: Sequence[Mapping[str, Any]] | None = None) -> None:
        world = dist.get_world_size(self._control)
        if world == 1:
            return
        arguments = each[1:] if each else [others] * (world - 1)
        commands = [(name, {}), *((name, dict(one)) for one in arguments)]
        objects.scatter(commands, group=self._control)

    def _ping(self) -> None:
        while not self._closing.wait(self._ping_s / 4):
            with self._lock:
                if self._broken is not None or time.monotonic() - self._last < self._ping_s:
                    continue
                try:
                    self._send(PING, {})
                except RuntimeError as error:  # told at the next call
                    self._broken = error
                self._last = time.monotonic()

    def _lost(self, name: str, error: BaseException) -> TrainingError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return TrainingError(
            f"the ranks could not finish {name!r}: a rank is gone or too late ({reason}). Its own output says why; "
            "start all again with --resume"
        )


class TeamLearning:
    """``learner.Learning`` by all ranks: packs are dealt to those that have packs of their own."""

    def __init__(self, team: Ranks, decoder: AnyDecoder, lesson: Lesson) -> None:
        self._team, self._decoder, self._layout = team, decoder, team.layout
        self.share: Share = sharing_of(lesson.rl, decoder, team.layout.token_split)
        self._synced = True
        self._build(lesson)

    def _build(self, lesson: Lesson) -> None:
        team, decoder = self._team, self._decoder
        weights = decoder.state_dict()
        common = {"shape": Shape.of(decoder, shard_dtype(decoder)), "lesson": lesson}
        team.call("build", mine={**common, "weights": weights}, others={**common, "weights": skeleton(weights)})

    @property
    def ways(self) -> int:
        return self._layout.replicate * self._layout.shard

    def step(
        self, packs: Sequence[PackedBatch], *, divisor: float | None = None, critic_only: bool = False
    ) -> dict[str, float]:
        if not any(bool(pack.weights.sum() > 0) for pack in packs):
            raise ValueError("the step has no trained token; give it at least one document with one")
        share = None if divisor is None else divisor / self.ways
        found = self._team.call(
            "step",
            each=[
                {"packs": [pack for _, pack in mine], "divisor": share, "critic_only": critic_only}
                for mine in self._dealt(packs)
            ],
        )
        self._synced = False
        return found

    def mean_loss(self, packs: Sequence[PackedBatch]) -> float:
        total = weight = 0.0
        # A few for each rank at a time: held-out packs lie on disk, and all of them may not fit into memory.
        for start in range(0, len(packs), PACKS_AT_ONCE * self.ways):
            dealt = self._dealt(packs[start : start + PACKS_AT_ONCE * self.ways])
            sums = self._team.call("loss_sums", each=[{"packs": [one for _, one in mine]} for mine in dealt])
            total, weight = total + sums[0], weight + sums[1]
        return mean_of(total, weight)

    def columns(self, packs: Sequence[PackedBatch]) -> list[dict[str, Tensor]]:
        dealt = self._dealt(packs)
        gathered = self._team.collect("columns", each=[{"packs": [one for _, one in mine]} for mine in dealt])
        found: dict[int, dict[str, Tensor]] = {}
        for mine, columns in zip(dealt, gathered, strict=True):
            for (number, _), column in zip(mine, columns):  # ranks of the same packs have sent nothing
                if number is not None:
                    found[number] = column
        return [found[number] for number in range(len(packs))]

    def take_kept(self) -> list[dict[str, Tensor]]:
        return [one for rank in self._team.collect("kept") for one in rank]

    def sync(self) -> None:
        if not self._synced:
            self._team.call("weights", mine={"into": self._decoder})
            self._synced = True

    def state_dict(self) -> dict[str, Any]:
        # Where the decoder is kept in less than the shards have, what is saved of it is not enough to go on from.
        arguments = {"with_weights": self._decoder.head.weight.dtype != shard_dtype(self._decoder)}
        return self._team.call("state", mine=arguments, others=arguments)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if RANKS in state:
            self._team.collect("restore", each=[{"folder": Path(state[RANKS])}] * self._layout.num_ranks)
            self._synced = False
            self.sync()
            return
        mine = self._learned(state)
        weights = state.get("weights") or self._decoder.state_dict()
        self._team.call(
            "load",
            mine={"weights": weights, "state": mine},
            others={"weights": skeleton(weights), "state": skeleton(mine)},
        )
        self._synced = True

    def _learned(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What is learned in a loop's state."""
        names = ("optimizer", "reference", "critic", "critic_optimizer", "averages")
        return {name: state[name] for name in names if name in state}

    def _dealt(self, packs: Sequence[PackedBatch]) -> list[list[tuple[int | None, PackedBatch]]]:
        """What each rank works on; neighbours that share a pack get the same ones."""
        split = self._layout.token_split
        return [mine for mine in deal(list(packs), self.ways) for _ in range(split)]


def shard_dtype(decoder: AnyDecoder) -> torch.dtype:
    """Of the weights that ranks have: those that are updated need float32, whatever they are sampled or saved in; those
    below adapters stay as they are."""
    dtype = decoder.head.weight.dtype
    return dtype if dtype == torch.float64 or has_adapters(decoder) else torch.float32
