"""An episode worker as an actor of Ray's, and the controller's end of the line to it."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup

from ..recipe.cluster import ClusterConfig
from .bundles import SANDBOX
from .episodes import Request, Setup
from .ledger import Answer, Assignment
from .leftovers import sweep_after
from .placing import end, placed
from .remote import Address
from .workers import Asking, Remote, WorkerLost

logger = logging.getLogger(__name__)


def whereabouts() -> tuple[str, int]:
    """(Ray's id of this machine, this process's own)."""
    return ray.get_runtime_context().get_node_id(), os.getpid()


class EpisodeWorker:
    """A process that runs episodes, many at once on one event loop."""

    def __init__(self, setup: Setup) -> None:
        self._runner = setup.runner()

    async def ready(self) -> tuple[str, int]:
        """See ``whereabouts``."""
        return whereabouts()

    async def engines(self, addresses: Sequence[Address]) -> None:
        """See ``RemoteEngines.change``."""
        await self._runner.engines(addresses)

    async def run(self, request: Request) -> Answer:
        """See ``EpisodeRunner.run``."""
        return await self._runner.run(request)

    async def cancel(self, assignment: Assignment) -> None:
        """See ``EpisodeRunner.cancel``."""
        await self._runner.cancel(assignment)


class PlacedWorker:
    """``workers.Remote`` in an actor."""

    def __init__(self, actor: Any, *, start_seconds: float, episode_seconds: float) -> None:
        """
        Args:
            start_seconds: within which it must have been placed and started.
            episode_seconds: deadline of an episode beyond its own clock: grading is not on that.
        """
        self.actor = actor
        self._start_seconds, self._episode_seconds = start_seconds, episode_seconds
        self._where: tuple[str, int] | None = None

    async def ready(self) -> None:
        """See ``Remote``."""
        self._where = await _answered(self.actor.ready.remote(), self._start_seconds)

    async def engines(self, addresses: Sequence[Address]) -> None:
        """See ``Remote``."""
        await _answered(self.actor.engines.remote(list(addresses)), self._start_seconds)

    async def run(self, request: Asking) -> Answer:
        """See ``Remote``."""
        return await _answered(self.actor.run.remote(request), request.seconds + self._episode_seconds)

    def cancel(self, assignment: Assignment) -> None:
        """See ``Remote``."""
        self.actor.cancel.remote(assignment)

    def end(self) -> None:
        """See ``Remote``. Its sandboxes end with it."""
        end(self.actor)
        if self._where is not None:
            sweep_after(*self._where)


def resources_of(config: ClusterConfig) -> dict[str, Any]:
    """Of a worker, as an actor takes them."""
    return {"num_cpus": config.worker_cpus, "resources": {SANDBOX: config.sandbox}}


def starts_workers(
    config: ClusterConfig, group: PlacementGroup, setup: Callable[[], Setup]
) -> Callable[[int, int], Remote]:
    """What starts a worker in its bundle; Ray finds another machine for the bundle where its own is gone."""

    def start(place: int, incarnation: int) -> Remote:
        most = 4 * config.episodes + 16
        actor = placed(EpisodeWorker, group, place, max_concurrency=most, **resources_of(config))
        # Pickled once for each worker: the recipe is small, and no object of a dead controller is needed.
        return PlacedWorker(
            actor.remote(setup()), start_seconds=config.answer_seconds, episode_seconds=config.answer_seconds
        )

    return start


async def _answered(reference: Any, seconds: float) -> Any:
    """A call's result. Raises WorkerLost where the actor is gone or late, else what the call raised."""
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(reference.future())
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else WorkerLost(str(error))) from error
    except RayError as error:
        raise WorkerLost((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
    except TimeoutError:
        raise WorkerLost(f"it has not answered in {seconds:g} s") from None
