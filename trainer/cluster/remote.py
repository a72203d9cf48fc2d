"""A run's engines as an episode worker asks them, by HTTP, wherever they are."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...agent.endpoint import Endpoint
from ...agent.policy import TokenPolicy
from ...agent.remote_engine import RemoteEngine
from ...errors import ConfigError, PolicyError
from ...model.chat.sampling import Completion, Sampling
from ...model.format import open_format
from ..engines.fleet import Fleet
from ..engines.pool import EnginePool

logger = logging.getLogger(__name__)

_HEALTH_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an engine is.

    Attributes:
        place: its number.
        url: its root.
        key: that it asks for.
    """

    place: int
    url: str
    key: str | None


def addresses_of(fleet: Fleet) -> list[Address]:
    """Of the engines of a fleet that can be asked."""
    return [
        Address(place=server.place, url=server.url, key=server.key)
        for server in fleet.servers
        if server.engine is not None
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a worker needs to know of a run's engines, before it is told where they are.

    Attributes:
        format: a folder with the tokenizer and the chat format.
        num_engines: of the run.
        max_context: tokens of a context.
        request_seconds: after which an answer of an engine is given up.
        concurrency: most requests of a worker to one engine at once.
    """

    format: Path
    num_engines: int
    max_context: int
    request_seconds: float
    concurrency: int = 64

    def open(self) -> "tuple[RemoteEngines, TokenPolicy]":
        """(the engines, what answers conversations through them). Raises ConfigError, CheckpointError."""
        text = open_format(self.format)
        if text.renderer is None or text.parser is None:
            raise ConfigError(f"{self.format} cannot be a policy: {text.chat_problem}")
        engines = RemoteEngines(self)
        return engines, TokenPolicy(engines, text.renderer, text.parser)


@dataclass(slots=True)
class _Server:
    """An engine as a worker knows it; see ``pool.Asked``."""

    place: int
    address: Address | None = None
    engine: RemoteEngine | None = None
    num_inside: int = 0
    connecting: asyncio.Task[None] | None = None

    @property
    def is_connecting(self) -> bool:
        return self.connecting is not None and not self.connecting.done()

    async def answers(self) -> bool:
        if self.address is None:
            return False
        endpoint = Endpoint(
            self.address.url, api_key_env=(), api_key=self.address.key, attempts=1, timeout_s=_HEALTH_SECONDS
        )
        try:
            await endpoint.get("/health")
        except PolicyError:
            return False
        finally:
            await endpoint.aclose()
        return True


@dataclass(slots=True)
class RemoteEngines:
    """``Engine`` over the run's engines, as whoever owns them says where they are."""

    reach: Reach
    _servers: list[_Server] = field(init=False)
    _pool: EnginePool[_Server] = field(init=False)

    def __post_init__(self) -> None:
        self._servers = [_Server(place) for place in range(self.reach.num_engines)]
        self._pool = EnginePool(
            self._servers,
            request_seconds=self.reach.request_seconds,
            lose=self._lose,
            remedy="the run's folder engines has what they said",
        )

    @property
    def policy_version(self) -> int:
        """Nobody asks a worker: every token says its own."""
        return 0

    @property
    def max_context(self) -> int:
        return self.reach.max_context

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """See ``EnginePool.generate``."""
        return await self._pool.generate(prompt_ids, sampling, stop_token_ids)

    def change(self, addresses: Sequence[Address]) -> None:
        """Ask these from now on. What is being asked of another is asked anew.

        It does not wait for them: an engine that is given new weights answers nobody, and no caller must be kept.
        """
        known = {one.place: one for one in addresses}
        for server in self._servers:
            address = known.get(server.place)
            if server.address == address and (server.engine is not None or server.is_connecting):
                continue
            before, server.engine, server.address = server.engine, None, address
            self._pool.forget(server.place)
            if before is not None:
                asyncio.get_running_loop().call_later(self.reach.request_seconds, _close_later, before)
            if server.connecting is not None:
                server.connecting.cancel()
            server.connecting = None if address is None else asyncio.ensure_future(self._connect(server, address))

    async def _connect(self, server: _Server, address: Address) -> None:
        seconds = self.reach.request_seconds
        try:
            server.engine = await RemoteEngine.connect(
                address.url,
                None,
                api_key_env=(),
                api_key=address.key,
                concurrency=self.reach.concurrency,
                timeout_s=seconds,
                give_up_s=seconds,
                attempts=2,
            )
        except (PolicyError, ConfigError) as error:
            logger.warning("engine %d at %s cannot be asked: %s", server.place, address.url, error)

    def _lose(self, server: _Server, engine: RemoteEngine, error: BaseException) -> None:
        if server.engine is engine:
            logger.warning("engine %d does not answer here: %s", server.place, error)
            server.engine = None


def _close_later(engine: RemoteEngine) -> None:
    asyncio.ensure_future(engine.aclose())  # noqa: RUF006 (nobody waits for it)
