"""Ranks that Ray starts: the same ``Rank`` as torchrun's, each an actor, and all of them as one ``Ranks``."""

import os
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup

from ...errors import TrainingError, VerigymError
from ...model.parallel.layout import Layout
from ..ranks.launch import Launch, joined, speak_through
from ..ranks.rank import WRITES, Rank
from ..ranks.team import RanksLost
from ..recipe.cluster import ClusterConfig
from .placing import end, placed

_START_SECONDS = 300.0
"""Within which ranks that take the place of others must have met, beside the time that a machine may take."""
_LIVE_SECONDS = 30.0


class TrainerRank:
    """A process that is one rank."""

    def __init__(self) -> None:
        self._inside = ExitStack()
        self._rank: Rank | None = None

    def meeting_point(self) -> tuple[str, int, str]:
        """(this machine's address, a free port on it, which machine it is)."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return ray.util.get_node_ip_address(), port, ray.get_runtime_context().get_node_id()

    @ray.method(concurrency_group="life")
    def process_id(self) -> int:
        """Of this process."""
        return os.getpid()

    def join(self, launch: Launch, layout: Layout, address: tuple[str, int], threads: int) -> None:
        """Become a rank. Every rank is called at the same time."""
        values = {"RANK": launch.rank, "WORLD_SIZE": launch.world, "LOCAL_WORLD_SIZE": launch.local_world}
        # Ray shows an actor its own GPU alone: to torch it is the first.
        values |= {"LOCAL_RANK": 0 if torch.cuda.is_available() else launch.local_rank}
        values |= {"MASTER_ADDR": address[0], "MASTER_PORT": address[1]}
        os.environ.update({name: str(value) for name, value in values.items()})
        if launch.local_world < launch.world:
            speak_through(ray.util.get_node_ip_address())
        torch.set_num_threads(threads)
        membership = self._inside.enter_context(joined(launch, layout))
        self._rank = Rank(membership)

    def do(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """A method of ``Rank``."""
        assert self._rank is not None, "a rank joins first"
        return getattr(self._rank, name)(**arguments)

    @ray.method(concurrency_group="checkpoints")
    def write(self, arguments: Mapping[str, Any]) -> Any:
        """``Rank.write``."""
        return self.do("write", arguments)

    @ray.method(concurrency_group="weights")
    def write_weights(self, arguments: Mapping[str, Any]) -> Any:
        """``Rank.write_weights``."""
        return self.do("write_weights", arguments)


class RayRanks:
    """``team.Ranks`` over actors. The process that asks is none of them."""

    def __init__(self, config: ClusterConfig, layout: Layout, group: PlacementGroup) -> None:
        self.layout, self._config, self._group = layout, config, group
        self._lock = threading.Lock()
        self._num_renewed = 0
        self.actors: list[Any] = []
        self._start(config.answer_seconds)

    def renew(self) -> None:
        """End all ranks and start others in their places; nothing is built in them.

        Raises:
            TrainingError: that was done ``restarts`` times already.
            RanksLost: they have found no room, or did not meet, in time.
        """
        self.close()
        if self._num_renewed >= self._config.restarts:
            raise TrainingError(
                f"a rank has died {self._num_renewed + 1} times; their output says why. Go on with --resume, or raise "
                "cluster.restarts"
            )
        self._num_renewed += 1
        if not self._group.wait(self._config.wait_seconds):
            raise RanksLost(f"there is no room for the ranks' machine in {self._config.wait_seconds:g} s")
        self._start(min(self._config.answer_seconds, self._config.wait_seconds + _START_SECONDS))

    def _start(self, seconds: float) -> None:
        config = self._config
        resources: dict[str, Any] = {"num_cpus": config.rank_cpus, "num_gpus": config.rank_gpus}
        resources |= {"concurrency_groups": dict.fromkeys((*WRITES.values(), "life"), 1)}
        self.actors = [
            placed(TrainerRank, self._group, rank // self.layout.tensor, **resources).remote()
            for rank in range(self.layout.num_ranks)
        ]
        try:
            self._join(seconds)
        except BaseException:
            self.close()
            raise

    def _join(self, seconds: float) -> None:
        found = self._answers([actor.meeting_point.remote() for actor in self.actors], "meeting_point", seconds)
        nodes = [node for _, _, node in found]
        threads = max(1, int(self._config.rank_cpus))
        joining = []
        for rank, (actor, node) in enumerate(zip(self.actors, nodes, strict=True)):
            launch = Launch(
                rank=rank,
                world=len(nodes),
                local_rank=nodes[:rank].count(node),
                # Nodes of one machine, as in tests, are not told apart by gloo's loopback: it is for one node alone.
                local_world=nodes.count(node),
            )
            joining.append(actor.join.remote(launch, self.layout, found[0][:2], threads))
        self._answers(joining, "join", seconds)

    def call(
        self,
        name: str,
        *,
        mine: Mapping[str, Any] | None = None,
        others: Mapping[str, Any] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
    ) -> Any:
        """See ``team.Team.call``."""
        world = len(self.actors)
        return self.collect(name, each=each or [mine or {}, *[others or {}] * (world - 1)])[0]

    def collect(self, name: str, *, each: Sequence[Mapping[str, Any]] | None = None) -> list[Any]:
        """What every rank's method returns.

        Raises:
            RanksLost: a rank is gone, or has not answered in ``answer_seconds``.
        """
        told = each or [{}] * len(self.actors)
        if name in WRITES:
            return self._answers([getattr(a, name).remote(one) for a, one in zip(self.actors, told)], name)
        # What is the same for all is sent once, and packs of ranks that share them are few: Ray carries both.
        with self._lock:
            return self._answers([a.do.remote(name, one) for a, one in zip(self.actors, told, strict=True)], name)

    def _answers(self, asked: list[Any], name: str, seconds: float | None = None) -> list[Any]:
        seconds = seconds or self._config.answer_seconds
        waiting = list(asked)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=seconds)
            if not done:
                raise RanksLost(f"a rank has not finished {name!r} in {seconds:g} s (cluster.answer_seconds)")
            try:
                ray.get(done)  # the first error ends the wait: the other ranks may wait for the one that failed
            except RayTaskError as error:
                meant = _meant(error, name)
                if name in WRITES and not isinstance(meant, RanksLost) and not self._all_live():
                    meant = RanksLost(f"a rank is gone in {name!r} ({_first_line(meant)})")
                raise meant from error
            except RayError as error:
                raise RanksLost(f"a rank is gone in {name!r} ({_first_line(error)})") from error
        return ray.get(asked)

    def _all_live(self) -> bool:
        """Whether every rank answers: what it cannot write, another rank's death may be the reason of."""
        asked = [actor.process_id.remote() for actor in self.actors]
        done, late = ray.wait(asked, num_returns=len(asked), timeout=_LIVE_SECONDS)
        try:
            ray.get(done)
        except RayError:
            return False
        return not late

    def process_ids(self) -> list[int]:
        """Of the ranks, each on its own machine."""
        return self._answers([actor.process_id.remote() for actor in self.actors], "process_id")

    def close(self) -> None:
        """End all ranks."""
        for actor in self.actors:
            end(actor)


def _meant(error: Any, name: str) -> Exception:
    """What a rank raised: an error for people as it is, a torn connection as a lost rank."""
    cause = error.cause
    if isinstance(cause, VerigymError):
        return cause
    if isinstance(cause, RuntimeError) and not isinstance(cause, torch.OutOfMemoryError):
        return RanksLost(f"the ranks could not finish {name!r} ({_first_line(cause)})")
    return cause if isinstance(cause, Exception) else TrainingError(str(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
