"""``verigym eval --ray``: a policy's episodes on all machines of a cluster, over engines that Ray places."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...agent.harness.open import Rollout
from ...agent.sources import PolicyFor, PolicySource
from ...agent.trajectory import Trajectory
from ...envs.core import ToolEnv
from ...envs.task import Task
from ...errors import ConfigError
from ..engines.fleet import Fleet
from ..engines.sizes import Sizes
from ..policies import build_policy, checkpoint_of
from ..recipe.config import EnginesConfig
from ..recipe.family import SeatConfig
from ..sampling.seats import open_seats
from .commands import Room, all_free_room
from .elsewhere import Elsewhere
from .episodes import EpisodeRunner, Scene
from .remote import Reach, addresses_of
from .workers import LOOK_SECONDS, Workers

_SCRIPTS = ("gold", "empty")
_AT_ONCE, _SCRIPTS_AT_ONCE = 8, 2
"""Episodes of one worker at once: a model is waited for, a script leaves its core to the sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What an evaluation's episodes take; ``episodes.Setup``.

    Attributes:
        make_env: a fresh environment of a task.
        policy: SPEC, as of the command.
        act: runs an episode.
        speakers: NAME=SPEC of other speakers.
        reach: the engines of ``engine:CHECKPOINT``; None for any other policy.
    """

    make_env: Callable[[Task], ToolEnv]
    policy: str
    act: Rollout
    speakers: tuple[str, ...] = ()
    reach: Reach | None = None

    def runner(self) -> EpisodeRunner:
        """See ``Setup``. Raises ConfigError, CheckpointError where there is no such policy."""
        named = (one.partition("=") for one in self.speakers)
        seats, _ = open_seats({name: SeatConfig(policy=spec) for name, _, spec in named})
        engines = None
        if self.reach is None:
            policy_for = build_policy(self.policy, max_batch=_AT_ONCE).policy_for
        else:
            engines, policy = self.reach.open()
            policy_for: PolicyFor = lambda env, task: policy  # noqa: E731
        scene = Scene(make_env=self.make_env, policy_for=policy_for, act=self.act, seats=seats)
        return EpisodeRunner(lambda name: scene, engines)


class ClusterEpisodes:
    """``Rollout`` by workers; they, and the engines, are started with the first episode."""

    def __init__(self, workers: Workers, fleet: Fleet | None) -> None:
        self._workers, self._fleet = workers, fleet
        self._act = Elsewhere(workers, "")
        self._opening, self._inside = asyncio.Lock(), AsyncExitStack()

    async def __call__(self, *arguments: Any, **options: Any) -> Trajectory:
        """See ``Rollout``. Raises PolicyError where an engine could not start."""
        async with self._opening:
            if not self._workers.is_open:
                await self._open()
        return await self._act(*arguments, **options)

    async def _open(self) -> None:
        self._inside.push_async_callback(self._workers.aclose)
        if self._fleet is None:
            await self._workers.open([])
            return
        fleet = await self._inside.enter_async_context(self._fleet.open())
        self._inside.push_async_callback(fleet.aclose)
        fleet.on_change = lambda: self._workers.change(addresses_of(fleet))
        watching = asyncio.ensure_future(fleet.watch(LOOK_SECONDS))
        self._inside.callback(watching.cancel)
        await self._workers.open(addresses_of(fleet))

    async def aclose(self) -> None:
        """End workers and engines."""
        await self._inside.aclose()


@contextmanager
def evaluating_on_cluster(
    address: str,
    make_env: Callable[[Task], ToolEnv],
    source: PolicySource,
    act: Rollout,
    *,
    speakers: Sequence[str],
    attention: str,
    seconds: float,
    out: Path | None,
) -> Iterator[tuple[ClusterEpisodes, int]]:
    """(what runs episodes, how many at once) in all free room of a cluster.

    Args:
        make_env: a fresh environment of a task; it can be pickled, as ``act`` can.
        source: of the policy, opened with ``elsewhere``.
        act: runs an episode on its worker.
        speakers: NAME=SPEC of other speakers.
        attention: of the engines.
        seconds: of an episode.
        out: folder of the evaluation, which all machines must see.
    Raises:
        ConfigError: Ray is not installed, no cluster answers, or it cannot be used; an engine has no folder to log in.
    """
    checkpoint = checkpoint_of(source.name)
    if checkpoint is not None and out is None:
        raise ConfigError("engines on a cluster write their logs into the evaluation's folder; give --out DIR")
    sees = [] if checkpoint is None else [checkpoint]
    at_once = _SCRIPTS_AT_ONCE if source.name in _SCRIPTS else _AT_ONCE
    with all_free_room(address, out, sees=sees, engines=checkpoint is not None) as room:
        from .worker_actor import starts_workers

        fleet = reach = None
        if checkpoint is not None and out is not None:
            assert source.max_context is not None, "an engine knows its context"
            sizes = Sizes(
                concurrency=at_once * room.config.workers,
                max_context=source.max_context,
                request_seconds=seconds,
                attention=attention,
            )
            fleet = _fleet(room, checkpoint.absolute(), out / "engines", sizes)
            reach = Reach(
                format=checkpoint.absolute(),
                num_engines=len(room.engines),
                max_context=source.max_context,
                request_seconds=seconds,
                concurrency=at_once,
            )
        setup = Evaluation(make_env=make_env, policy=source.name, act=act, speakers=tuple(speakers), reach=reach)
        start = starts_workers(room.config, room.workers, lambda: setup)
        workers = Workers(start, room.config.workers, most_inside=at_once)
        yield ClusterEpisodes(workers, fleet), at_once * room.config.workers


def _fleet(room: Room, checkpoint: Path, folder: Path, sizes: Sizes) -> Fleet:
    """Engines of a checkpoint whose weights never change."""
    from .engines import OnCluster

    def save(weights: Path, whole: bool) -> None:
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.symlink_to(checkpoint)

    launch = OnCluster(room.config, 1, room.engines)
    return Fleet(EnginesConfig(count=len(room.engines)), folder, sizes, save=save, launch=launch)
