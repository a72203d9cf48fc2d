"""The worker's side of an episode: the agent's loop beside its sandboxes, over engines that are asked by HTTP."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...agent.harness.open import Rollout
from ...agent.loop import Budget
from ...agent.seeds import SeededPolicy
from ...agent.sources import PolicyFor
from ...agent.speakers import Seat
from ...agent.trajectory import Trajectory
from ...envs.core import ToolEnv
from ...envs.task import Task
from ...model.chat.sampling import Sampling
from ..recipe.recipe import Recipe
from ..sampling.families import open_family
from .ledger import Answer, Assignment
from .remote import Address, Reach, RemoteEngines


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One asking of an episode.

    Attributes:
        assignment: of the ledger; the answer has it too.
        scene: the name of what it takes, see ``Scene``; in a recipe its family's.
        place: of the episode in its run, from which its turns' seeds are derived.
        task, budget, sampling, group_id, unit: as ``agent.loop.rollout``.
    """

    assignment: Assignment
    scene: str
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
class Scene:
    """What an episode takes beside its task.

    Attributes:
        make_env: a fresh environment of a task.
        policy_for: the policy of an episode.
        act: runs it.
        seats: other speakers.
    """

    make_env: Callable[[Task], ToolEnv]
    policy_for: PolicyFor
    act: Rollout
    seats: Mapping[str, Seat] = field(default_factory=dict)


class Setup(Protocol):
    """What a worker is told when it starts; it can be pickled."""

    def runner(self) -> "EpisodeRunner":
        """What runs the episodes that it describes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeSetup:
    """``Setup`` of a recipe's families, whose policy is trained.

    Attributes:
        recipe: of the run.
        reach: its engines.
    """

    recipe: Recipe
    reach: Reach

    def runner(self) -> "EpisodeRunner":
        """See ``Setup``. Raises ConfigError where the model cannot be a policy."""
        engines, policy = self.reach.open()

        def scene(name: str) -> Scene:
            config: Any = next(one for one in self.recipe.families if one.name == name)
            family = open_family(config, self.recipe)
            return Scene(
                make_env=lambda task: family.make_env(),
                policy_for=lambda env, task: policy,
                act=family.act,
                seats=family.seats,
            )

        return EpisodeRunner(scene, engines)


class EpisodeRunner:
    """Runs episodes; what an episode worker is made of."""

    def __init__(self, scene: Callable[[str], Scene], engines: RemoteEngines | None = None) -> None:
        """
        Args:
            scene: name -> what it is; asked once for each.
            engines: that its policies ask, and that may move.
        """
        self._scene, self._engines = scene, engines
        self._scenes: dict[str, Scene] = {}
        self._running: dict[Assignment, asyncio.Task[Trajectory]] = {}

    async def engines(self, addresses: Sequence[Address]) -> None:
        """See ``RemoteEngines.change``."""
        if self._engines is not None:
            self._engines.change(addresses)

    async def run(self, request: Request) -> Answer:
        """Run an episode to its end. Raises what ``agent.loop.rollout`` raises."""
        scene = self._scenes.get(request.scene)
        if scene is None:
            scene = self._scenes[request.scene] = self._scene(request.scene)
        env = scene.make_env(request.task)
        running = asyncio.ensure_future(_acted(scene, env, request))
        self._running[request.assignment] = running
        try:
            return Answer(assignment=request.assignment, result=await running, patch=env.patch)
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


async def _acted(scene: Scene, env: ToolEnv, request: Request) -> Trajectory:
    return await scene.act(
        env,
        SeededPolicy(scene.policy_for(env, request.task), *request.place),
        request.task,
        budget=request.budget,
        sampling=request.sampling,
        group_id=request.group_id,
        seats=scene.seats,
        unit=request.unit,
    )
