"""Engines that Ray places: each an actor that keeps ``verigym serve`` beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup

from ...errors import PolicyError
from ...model.server.process import ServerProcess
from ..engines.server import device_options
from ..recipe.cluster import ClusterConfig
from .placing import end, placed

_END_SECONDS = 60.0


class Engine:
    """Starts a server on its machine, and ends with it."""

    def __init__(self) -> None:
        self._process: ServerProcess | None = None

    async def start(
        self, weights: str, log: str, options: Sequence[str], environment: Mapping[str, str], timeout_s: float
    ) -> str:
        """The server's root, once it answers. Raises PolicyError."""
        device = device_options(bool(ray.get_gpu_ids()))
        host = ["--host", ray.util.get_node_ip_address()]
        self._process = ServerProcess(
            Path(weights), log=Path(log), options=[*options, *host, *device], environment=environment
        )
        return await self._process.url(timeout_s)

    async def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            await self._process.aclose()

    async def process_id(self) -> int | None:
        """Of the server."""
        return None if self._process is None else self._process.process_id


class PlacedProcess:
    """``engines.server.EngineProcess`` in an actor."""

    def __init__(self, actor: Any, started: tuple[Any, ...]) -> None:
        self.actor, self._started = actor, started

    async def url(self, timeout_s: float) -> str:
        """See ``EngineProcess``."""
        starting = self.actor.start.remote(*self._started, timeout_s)
        try:
            async with asyncio.timeout(timeout_s + _END_SECONDS):
                return await asyncio.wrap_future(starting.future())
        except RayTaskError as error:
            await self.aclose()
            cause = error.cause
            raise (
                cause if isinstance(cause, PolicyError) else PolicyError(f"an engine could not start: {cause}")
            ) from error
        except (RayError, TimeoutError) as error:
            await self.aclose()
            told = " ".join(str(error).split())[:300] or f"no machine has taken it in {timeout_s:g} s"
            raise PolicyError(f"an engine could not be started on the cluster: {told}") from error

    async def aclose(self) -> None:
        """See ``EngineProcess``."""
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await asyncio.wrap_future(self.actor.stop.remote().future())
        end(self.actor)


class OnCluster:
    """``engines.server.Launch``: a server in the room that was reserved for it."""

    def __init__(self, config: ClusterConfig, tensor_parallel: int, groups: Sequence[PlacementGroup]) -> None:
        self._groups = groups
        self._resources = {"num_cpus": config.engine_cpus, "num_gpus": tensor_parallel * config.rank_gpus}

    def __call__(
        self, place: int, weights: Path, *, log: Path, options: Sequence[str], environment: Mapping[str, str]
    ) -> PlacedProcess:
        """See ``Launch``."""
        actor = placed(Engine, self._groups[place], 0, **self._resources).remote()
        return PlacedProcess(actor, (str(weights), str(log.absolute()), list(options), dict(environment)))
