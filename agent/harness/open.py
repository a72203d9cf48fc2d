"""Which agent acts: a SPEC of the command line or a recipe to what runs an episode."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from ...envs.core import ToolEnv
from ...envs.importing import import_named
from ...envs.task import Task
from ...errors import ConfigError
from ...model.chat.sampling import Sampling
from ..demonstrations import Demonstration, demonstrate
from ..failures import Failures
from ..loop import Budget, rollout
from ..policy import Policy, Script, ScriptedPolicy
from ..speakers import Seat
from ..trajectory import Trajectory

if TYPE_CHECKING:
    from .spec import Harness

OWN = "verigym"
AGENTS = (
    "verigym (our own loop), mini-swe-agent[:CONFIG], mini-swe-agent-inside[:CONFIG], command:COMMAND, beside:COMMAND, "
    "or MODULE:NAME of a Harness"
)


class Rollout(Protocol):
    """``loop.rollout``, or one with another agent in it."""

    async def __call__(
        self,
        env: ToolEnv,
        policy: Policy,
        task: Task,
        *,
        budget: Budget,
        sampling: Sampling,
        group_id: str = "",
        failures: Failures | None = None,
        seats: Mapping[str, Seat] = MappingProxyType({}),
        unit: bool = False,
    ) -> Trajectory: ...


class Demonstrate(Protocol):
    """Lets a script act, see ``demonstrations.demonstrate``."""

    async def __call__(
        self,
        env: ToolEnv,
        script: Script,
        task: Task,
        *,
        budget: Budget,
        seats: Mapping[str, Seat] = MappingProxyType({}),
    ) -> tuple[Demonstration, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How an agent's requests are taken.

    Attributes:
        override: the episode's sampling settings are the sampler's, whatever the agent asks for; training needs it.
        at_once: requests of one episode in work at once.
    """

    override: bool = True
    at_once: int = 8


def open_agent(spec: str, settings: AgentSettings | None = None) -> Rollout:
    """What runs an episode with the agent that SPEC names, see ``AGENTS``.

    Raises:
        ConfigError: there is no such agent, or it takes no settings.
    """
    settings = settings or AgentSettings()
    if spec == OWN:
        if settings != AgentSettings():
            raise ConfigError("our own loop asks no gateway; leave the settings of requests out, or name an agent")
        return rollout
    from .episode import rollout_with

    return partial(rollout_with, harness_of(spec), override=settings.override, at_once=settings.at_once)


def open_demonstrator(spec: str) -> Demonstrate:
    """What plays a demonstration with the agent that SPEC names. Raises ConfigError where there is none."""
    if spec == OWN:
        return by_own_loop
    from .demonstrations import demonstrate_with

    return partial(demonstrate_with, harness_of(spec))


async def by_own_loop(
    env: ToolEnv, script: Script, task: Task, *, budget: Budget, seats: Mapping[str, Seat] = MappingProxyType({})
) -> tuple[Demonstration, ...]:
    """See ``Demonstrate``; the seconds do not count."""
    played = await demonstrate(env, script, task, max_turns=budget.turns, seats=seats)
    return (Demonstration(trajectory=played, tools=env.tool_specs),)


def scripted(spec: str, script: Script) -> Policy:
    """A script as the policy of an agent, in words that the agent takes."""
    if spec == OWN:
        return ScriptedPolicy(script)
    from .demonstrations import InTheirWords

    return InTheirWords(script, harness_of(spec))


def harness_of(spec: str) -> "Harness":
    """The harness of a SPEC. Raises ConfigError where there is none."""
    from .command import BesideHarness, CommandHarness
    from .mini_swe_agent import MiniSweAgent
    from .mini_swe_agent_inside import MiniSweAgentInside

    kind, _, rest = spec.partition(":")
    if kind == "command" and rest.strip():
        return CommandHarness(name=spec, command=rest)
    if kind == "beside" and rest.strip():
        return BesideHarness(name=spec, command=rest)
    if kind == "mini-swe-agent-inside":
        return MiniSweAgentInside(name=spec, config=rest) if rest else MiniSweAgentInside(name=spec)
    if kind == "mini-swe-agent":
        return MiniSweAgent(name=spec, config=rest) if rest else MiniSweAgent(name=spec)
    if rest and kind.replace(".", "").isidentifier():
        try:
            found = getattr(import_named(kind), rest)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"no agent {spec!r} ({error}); an agent is {AGENTS}") from None
        return found() if isinstance(found, type) else found
    raise ConfigError(f"no agent {spec!r}; an agent is {AGENTS}")
