"""The agent loop: one policy, one environment, one episode."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from ..envs.core import Acted, CutOff, ToolEnv
from ..envs.evidence import as_json
from ..envs.speakers import Speaker
from ..envs.task import Task
from ..errors import (
    AgentError,
    ChatFormatError,
    ConfigError,
    EnvironmentBug,
    GradingError,
    PolicyError,
    SandboxError,
    TaskError,
    VerigymError,
)
from ..model.chat.messages import Message
from ..model.chat.protocols import Rendered
from ..model.chat.sampling import Sampling
from ..rewards.score import Score
from .asking import Clock, clocked
from .failures import Failures
from .policy import ContextFull, Entry, ObservingPolicy, Policy, Turn
from .rewarded import companions_of, earned
from .segments import Segment, segments_of
from .speakers import Seat, seated
from .trajectory import TERMINATED, Ending, Trajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one episode may spend.

    Attributes:
        turns: assistant turns.
        tokens: tokens of one context, prompt and observations included; counted only for policies with ids.
        seconds: wall clock, sandbox and policy together; grading is not counted. Where it runs out while a policy's
            server is asked, the infrastructure has failed: neither a slow nor a hung server is the agent's doing.
    """

    turns: int = 32
    tokens: int = 32_768
    seconds: float = 900.0


async def rollout(
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
) -> Trajectory:
    """Run one episode to its end. What fails, and is not a reason to stop the run, is recorded as the ending.

    Args:
        failures: of the run, which shows each bug of an environment once; None: this one is shown.
        seats: other speakers that the environment asks by name.
        unit: map rewards from the environment's bounds to [0, 1].
    Returns:
        The trajectory; its reward is None exactly when the infrastructure failed, an exception that nobody foresaw
        among it.
    Raises:
        TaskError, ConfigError, ChatFormatError: the task cannot be used, or not with this policy.
    """
    speakers = seated(seats, policy, sampling)
    episode = _Episode(env, policy, task, budget, sampling)
    return await conduct(episode, env, task, group_id, failures=failures, speakers=speakers, unit=unit)


class Episode(Protocol):
    """An episode that can be run once, whoever acts in it."""

    stage: str
    """"environment", "policy" or "grading": whose failure an exception is."""

    @property
    def num_turns(self) -> int:
        """Of the policy, so far."""
        ...

    async def run(self) -> tuple[Ending, Score, str]:
        """(ending, score, one line about it)."""
        ...

    def trajectory(self, ending: Ending, score: Score | None, detail: str, group_id: str) -> Trajectory:
        """What is left of it."""
        ...


async def conduct(
    episode: Episode,
    env: ToolEnv,
    task: Task,
    group_id: str,
    *,
    failures: Failures | None = None,
    speakers: Mapping[str, Speaker] = MappingProxyType({}),
    unit: bool = False,
) -> Trajectory:
    """Run an episode to its end and close its environment; see ``rollout``."""
    env.seat(speakers)
    failed_in = ""
    try:
        ending, score, detail = await episode.run()
    except (Exception, SystemExit) as error:
        if isinstance(error, REFUSALS) or (isinstance(error, ChatFormatError) and not episode.num_turns):
            raise
        ending, score, detail = _failure(error, episode.stage), None, _told(error)
        if isinstance(error, EnvironmentBug):
            failed_in = error.hook
            (failures or Failures()).met(error)
        elif not isinstance(error, VerigymError):
            logger.error("task %s: %s (%s)", task.id, ending, detail, exc_info=error)
    finally:
        await _close(env)
    found = replace(episode.trajectory(ending, score, detail, group_id), failed_in=failed_in)
    found = earned(found, score, env.earned.by_turn(), unit=unit)
    return replace(found, companions=companions_of(found, score, speakers, unit=unit))


REFUSALS = (TaskError, ConfigError)
"""What was asked for cannot be done, in this episode as in every other. So it is where a chat format cannot express a
task's own messages."""


def _failure(error: BaseException, stage: str) -> Ending:
    """The ending that an error makes: of the boundary it is named for, else of the stage that it left."""
    if isinstance(error, GradingError):
        return "grader_failure"
    if isinstance(error, SandboxError):
        return "sandbox_failure"
    if isinstance(error, AgentError):
        return "agent_failure"
    if isinstance(error, EnvironmentBug):
        return "environment_failure"
    if isinstance(error, PolicyError) or stage == "policy":
        return "policy_failure"
    return "grader_failure" if stage == "grading" else "environment_failure"


def _told(error: BaseException) -> str:
    """One line; an error that was not raised for people has its class before its text."""
    if isinstance(error, VerigymError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


async def _close(env: ToolEnv) -> None:
    """Close the environment; where that fails the episode has its ending already, and keeps it."""
    try:
        await env.aclose()
    except Exception as error:
        logger.warning("an environment did not close: %s", _told(error))


class _Episode:
    def __init__(self, env: ToolEnv, policy: Policy, task: Task, budget: Budget, sampling: Sampling) -> None:
        self.env, self.policy, self.task, self.budget, self.sampling = env, policy, task, budget, sampling
        self.conversation: list[Entry] = []
        self.num_format_errors = 0
        self.seconds = {"policy": 0.0, "environment": 0.0, "grading": 0.0}
        self.started = time.perf_counter()
        self.stage = "environment"

    @property
    def num_turns(self) -> int:
        return sum(isinstance(entry, Turn) for entry in self.conversation)

    async def run(self) -> tuple[Ending, Score, str]:
        ending: Ending
        deadline = asyncio.timeout(self.budget.seconds)
        with clocked() as clock:
            try:
                async with deadline:
                    ending, acted = await self._turns(clock)
            except TimeoutError:
                if not deadline.expired():
                    raise
                if clock.asked is not None:
                    raise PolicyError(f"the episode's {self.budget.seconds:g} s ran out while {clock.asked}") from None
                ending, acted = "wall_clock", None
        with self._timed("grading"):
            score = await (self.env.ascore(acted.submission) if acted is not None else self.env.afinish())
        if ending in TERMINATED and score.ending:
            ending = score.ending
        return ending, score, score.detail

    async def _turns(self, clock: Clock) -> tuple[Ending, Acted | None]:
        """(ending, the action that handed something in; None where a limit ended the episode)."""
        with self._timed("environment"):
            _, info = await self.env.areset(options={"task": self.task})
        self.conversation += info["messages"]
        sampling = replace(self.sampling, max_context=self.budget.tokens)
        for _ in range(self.budget.turns):
            try:
                with self._timed("policy"):
                    turn = await self.policy.respond(self.conversation, info["tools"], sampling)
            except ContextFull:
                return "token_limit", None
            clock.asked = None  # a question that the policy itself gave up is no longer waited for
            self.conversation.append(turn)
            if turn.tokens is not None:
                self.env.context_tokens = len(turn.tokens.prompt_ids) + len(turn.tokens.token_ids)
            if turn.finish_reason == "abort":
                raise PolicyError("the engine aborted the turn")
            if turn.finish_reason == "length":
                if not turn.message.calls:
                    self.env.cut_off = CutOff(turn.message.content)
                return "token_limit", None
            with self._timed("environment"):
                acted = await self.env.aact(turn.action)
            self.conversation += acted.messages
            self.num_format_errors += acted.format_error
            if acted.ending is not None:
                return acted.ending, acted
            if acted.truncated:
                break
        return "turn_limit", None

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Adds the wall clock of the block to a stage, also where it fails or is cut off."""
        before, self.stage = time.perf_counter(), stage
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - before

    def _observed(self) -> Rendered | None:
        """What the last turn was answered, in tokens, where the policy has them."""
        if not isinstance(self.policy, ObservingPolicy):
            return None
        try:
            return self.policy.observed(self.conversation, self.budget.tokens)
        except ChatFormatError as error:  # no turn follows that would need it
            logger.warning("task %r: its last observation has no tokens: %s", self.task.id, error)
            return None

    def trajectory(self, ending: Ending, score: Score | None, detail: str, group_id: str) -> Trajectory:
        turns = [entry for entry in self.conversation if isinstance(entry, Turn)]
        segments: tuple[Segment, ...] = ()
        try:
            segments = segments_of([turn.tokens for turn in turns if turn.tokens is not None], self._observed())
        except ValueError as error:  # an engine whose log-probabilities are none
            ending, score, detail = "policy_failure", None, str(error)
        messages: Sequence[Message] = [e.message if isinstance(e, Turn) else e for e in self.conversation]
        return Trajectory(
            task_id=self.task.id,
            family=self.task.family,
            group_id=group_id or self.task.id,
            ending=ending,
            segments=segments,
            messages=tuple(messages),
            reward=None if score is None else score.value,
            passed=None if score is None else score.passed,
            breakdown={} if score is None else dict(score.breakdown),
            detail=detail,
            turn_tokens=tuple(len(turn.tokens.token_ids) for turn in turns if turn.tokens is not None),
            num_turns=self.num_turns,
            num_format_errors=self.num_format_errors,
            timings={**self.seconds, "total": time.perf_counter() - self.started},
            evidence=as_json(self.env.evidence),
        )
