"""The worker's side of an episode: the agent's loop beside its sandboxes, over engines that are asked by HTTP."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...agent.endpoint import Endpoint
from ...agent.harness.open import Rollout
from ...agent.loop import Budget
from ...agent.policy import TokenPolicy
from ...agent.remote_engine import RemoteEngine
from ...agent.seeds import SeededPolicy
from ...agent.trajectory import Trajectory
from ...envs.task import Task
from ...errors import ConfigError, PolicyError
from ...model.chat.sampling import Completion, Sampling
from ...model.format import open_format
from ..engines.pool import EnginePool
from ..recipe.recipe import Recipe
from ..sampling.families import Family, open_family
from .ledger import Answer, Assignment

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One asking of an episode.

    Attributes:
        assignment: of the ledger; the answer has it too.
        family: the recipe's name of it.
        place: of the episode in its run, from which its turns' seeds are derived.
        task, budget, sampling, group_id, unit: as ``agent.loop.rollout``.
    """

    assignment: Assignment
    family: str
    place: tuple[int | str, ...]
    task: Task
    budget: Budget
    sampling: Sampling
    group_id: str
    unit: bool

    @property
    def seconds(self) -> float:
        """See ``workers.Asking``."""
        return self.budget.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a worker needs to know.

    Attributes:
        recipe: of the run.
        format: a folder with the tokenizer and the chat format.
        num_engines: of the run.
        max_context: tokens of a context.
        request_seconds: after which an answer of an engine is given up.
    """

    recipe: Recipe
    format: Path
    num_engines: int
    max_context: int
    request_seconds: float


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

    setup: Setup
    _servers: list[_Server] = field(init=False)
    _pool: EnginePool[_Server] = field(init=False)

    def __post_init__(self) -> None:
        self._servers = [_Server(place) for place in range(self.setup.num_engines)]
        self._pool = EnginePool(
            self._servers,
            request_seconds=self.setup.request_seconds,
            lose=self._lose,
            remedy="the run's folder engines has what they said",
        )

    @property
    def policy_version(self) -> int:
        """Nobody asks a worker: every token says its own."""
        return 0

    @property
    def max_context(self) -> int:
        return self.setup.max_context

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
                asyncio.get_running_loop().call_later(self.setup.request_seconds, _close_later, before)
            if server.connecting is not None:
                server.connecting.cancel()
            server.connecting = None if address is None else asyncio.ensure_future(self._connect(server, address))

    async def _connect(self, server: _Server, address: Address) -> None:
        seconds = self.setup.request_seconds
        try:
            server.engine = await RemoteEngine.connect(
                address.url,
                None,
                api_key_env=(),
                api_key=address.key,
                concurrency=self.setup.recipe.cluster.episodes if self.setup.recipe.cluster else 64,
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


class EpisodeRunner:
    """Runs episodes of a recipe's families; what an episode worker is made of."""

    def __init__(self, setup: Setup) -> None:
        text = open_format(setup.format)
        if text.renderer is None or text.parser is None:
            raise ConfigError(f"{setup.format} cannot be a policy: {text.chat_problem}")
        self._engines = RemoteEngines(setup)
        self._policy = TokenPolicy(self._engines, text.renderer, text.parser)
        self._recipe = setup.recipe
        self._families: dict[str, Family] = {}
        self._running: dict[Assignment, asyncio.Task[Trajectory]] = {}

    async def engines(self, addresses: Sequence[Address]) -> None:
        """See ``RemoteEngines.change``."""
        self._engines.change(addresses)

    async def run(self, request: Request) -> Answer:
        """Run an episode to its end. Raises what ``agent.loop.rollout`` raises."""
        family = self._family(request.family)
        act: Rollout = family.act
        running = asyncio.ensure_future(
            act(
                family.make_env(),
                SeededPolicy(self._policy, *request.place),
                request.task,
                budget=request.budget,
                sampling=request.sampling,
                group_id=request.group_id,
                seats=family.seats,
                unit=request.unit,
            )
        )
        self._running[request.assignment] = running
        try:
            return Answer(assignment=request.assignment, result=await running)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            del self._running[request.assignment]

    async def cancel(self, assignment: Assignment) -> None:
        """End an episode that nobody wants any more, and close its sandbox."""
        running = self._running.get(assignment)
        if running is not None and not running.cancelling():
            running.cancel()

    def _family(self, name: str) -> Family:
        if name not in self._families:
            config: Any = next(one for one in self._recipe.families if one.name == name)
            self._families[name] = open_family(config, self._recipe)
        return self._families[name]
