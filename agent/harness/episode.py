"""One episode of an agent of others: environment, gateway, harness, and what it all came to."""

import asyncio
import importlib.util
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from types import MappingProxyType
from typing import Literal, cast

from ...envs.core import Acted, ToolEnv
from ...envs.evidence import as_json
from ...envs.mcp.serve import EpisodeTools, http_app
from ...envs.task import Task
from ...errors import AgentError, ConfigError, PolicyError, SandboxError, TaskError
from ...model.chat.messages import Message
from ...model.chat.sampling import Sampling
from ...rewards.score import Score
from ..asking import clocked
from ..failures import Failures
from ..gateway.serve import shared_gateway
from ..gateway.session import MODEL, Limits, Session
from ..loop import Budget, conduct
from ..policy import Policy
from ..segments import Segment
from ..speakers import Seat, seated
from ..trajectory import TERMINATED, Ending, Trajectory
from ..tree import MessageTree
from .spec import Done, Harness, Stage

logger = logging.getLogger(__name__)

GRACE_S = 10.0
"""So long a harness may take to end whose time is up, or whose turns are: before it is ended, and before its
environment is closed under it."""


async def rollout_with(
    harness: Harness,
    env: ToolEnv,
    policy: Policy,
    task: Task,
    *,
    budget: Budget,
    sampling: Sampling,
    group_id: str = "",
    override: bool = True,
    at_once: int = 8,
    model: str = MODEL,
    failures: Failures | None = None,
    seats: Mapping[str, Seat] = MappingProxyType({}),
    unit: bool = False,
) -> Trajectory:
    """``loop.rollout`` with a harness in the loop's place.

    A limit that the last request met is the ending, whatever the harness made of it. Where the harness breaks down, the
    policy's failure is the ending if it could not answer the last request; else "agent_failure", without a reward, if
    the model had not spoken yet; else "agent_crash", scored like any other episode that was cut short: a model that
    brings its harness down earns no second try.

    Args:
        override, model: of ``Session``.
        at_once: requests of the episode in work at once.
        failures, seats, unit: as of ``loop.rollout``.
    """
    limits = Limits(turns=budget.turns, tokens=budget.tokens, seconds=budget.seconds, at_once=at_once)
    session = Session(policy, sampling, limits=limits, override=override, model=model)
    episode = Driven(harness, env, task, budget, session)
    try:
        speakers = seated(seats, policy, sampling)
        return await conduct(episode, env, task, group_id, failures=failures, speakers=speakers, unit=unit)
    finally:
        await episode.left()


class Driven:
    """See ``loop.Episode``."""

    def __init__(self, harness: Harness, env: ToolEnv, task: Task, budget: Budget, session: Session) -> None:
        self.harness, self.env, self.task, self.budget, self.session = harness, env, task, budget, session
        self.messages: tuple[Message, ...] = ()
        self.done: Done | None = None
        self.tools: EpisodeTools | None = None
        self.seconds = {"policy": 0.0, "environment": 0.0, "grading": 0.0}
        self.started, self.stage = time.perf_counter(), "environment"
        self._running: asyncio.Task[Done] | None = None

    @property
    def num_turns(self) -> int:
        return self.session.counts.turns

    async def play(self) -> Ending:
        """The episode up to its grading.

        Raises:
            PolicyError: it could not answer. AgentError: the harness broke down before the policy had spoken.
        """
        self.session.adopt_context()
        with self._timed("environment"):
            _, info = await self.env.areset(options={"task": self.task})
        self.messages = tuple(info["messages"])
        with self._timed("policy"):
            await self._perform()
        return self._ending()

    async def run(self) -> tuple[Ending, Score, str]:
        with clocked() as clock:
            ending = await self.play()
            if ending == "wall_clock" and (clock.asked is not None or self.session.failure is not None):
                trouble = clock.asked or f"the policy could not answer: {self.session.failure}"
                raise PolicyError(f"the episode's {self.budget.seconds:g} s ran out while {trouble}")
        done = self.done
        with self._timed("grading"):
            if ending in TERMINATED:
                score = await self.env.ascore(self._submission())
            else:
                score = await self.env.afinish()
        if ending in TERMINATED and score.ending:
            ending = score.ending
        detail = score.detail
        if ending == "agent_crash" and done is not None:
            detail = f"the harness broke down ({done.exit}); {detail}"
        return ending, score, detail

    async def _perform(self) -> None:
        """Let the harness work until it ends, or its time does."""
        left = max(0.0, self.budget.seconds - (time.perf_counter() - self.started))
        async with shared_gateway() as gateway, gateway.admit(self.session), self._tools_by_mcp():
            where = {"gateway": gateway, "session": self.session}
            stage = Stage(env=self.env, task=self.task, messages=self.messages, seconds=left, **where)
            self._running = asyncio.create_task(self._harness(stage))
            try:
                await self._until_over(left)
                if not self._running.done():
                    self.session.limit_met = self.session.limit_met or "wall_clock"
            finally:
                await self._end(self._running)
        if self._running.done() and not self._running.cancelled():
            self.done = self._running.result()

    async def _end(self, running: asyncio.Task[Done]) -> None:
        """End the harness while the gateway still answers: one that waits for a turn, or asks for another, is told that
        there will be none. Without an answer it would try again for minutes, also where the episode was cancelled."""
        if not running.done():
            await self.session.aclose()
            running.cancel()
            await asyncio.wait({running}, timeout=GRACE_S)

    @asynccontextmanager
    async def _tools_by_mcp(self) -> AsyncGenerator[None, None]:
        """Offer the environment's tools to harnesses that speak MCP, where the package is installed."""
        if importlib.util.find_spec("mcp") is None or not self.env.tool_specs:
            yield
            return
        self.tools = EpisodeTools(self.env)
        async with http_app(self.tools) as self.session.tools_app:
            yield

    async def _until_over(self, seconds: float) -> None:
        """Wait for the harness's end; once a request has met a final limit, not much longer."""
        assert self._running is not None
        over = asyncio.create_task(self.session.over.wait())
        try:
            await asyncio.wait({self._running, over}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                await asyncio.wait({self._running}, timeout=GRACE_S)
        finally:
            over.cancel()

    async def _harness(self, stage: Stage) -> Done:
        try:
            return await self.harness.run(stage)
        except (ConfigError, TaskError, SandboxError):
            raise
        except Exception as error:  # a harness is a stranger's program: whatever it raises is its crash
            logger.info("task %s: the harness raised", self.task.id, exc_info=error)
            return Done(exit=f"{type(error).__name__}: {error}"[:500], crashed=True)

    def _ending(self) -> Ending:
        session, done = self.session, self.done
        if self._handed_in is not None and self._handed_in.ending is not None:
            return self._handed_in.ending
        if session.limit_met is not None or done is None:
            return cast("Ending", session.limit_met or "wall_clock")
        if done.timed_out:
            return "wall_clock"
        if not done.crashed:
            return "answered" if done.finished else "turn_limit"
        if session.failure is not None:
            raise PolicyError(f"{session.failure}; the harness ended with {done.exit}") from session.failure
        if not session.counts.turns:
            raise AgentError(f"the harness {self.harness.name!r} broke down before it asked for a turn: {done.exit}; "
                             f"it said {done.output[-500:]!r}")  # fmt: skip
        return "agent_crash"

    @property
    def _handed_in(self) -> Acted | None:
        """The call of a tool that ended the episode."""
        return None if self.tools is None else self.tools.ended

    def _submission(self) -> object:
        """What a tool handed in, what the harness did, or the last words of the model, for an environment that takes a
        text."""
        if self._handed_in is not None:
            return self._handed_in.submission
        if self.done is not None and self.done.submission is not None:
            return self.done.submission
        said = [message.content for message in self.session.messages() if message.role == "assistant"]
        return said[-1] if said else ""

    async def left(self) -> None:
        """What the harness still does is over once its sandbox is closed: wait for that."""
        await self.session.aclose()
        if self._running is not None and not self._running.done():
            _, pending = await asyncio.wait({self._running}, timeout=GRACE_S)
            if pending:
                logger.warning("task %s: the harness %s goes on after its episode", self.task.id, self.harness.name)

    @contextmanager
    def _timed(self, stage: Literal["environment", "policy", "grading"]) -> Iterator[None]:
        before, self.stage = time.perf_counter(), stage
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - before

    def trajectory(self, ending: Ending, score: Score | None, detail: str, group_id: str) -> Trajectory:
        tree: MessageTree | None = None
        segments: tuple[Segment, ...] = ()
        try:
            tree = self.session.tree()
            segments = () if tree is None else tree.segments()
        except ValueError as error:  # an engine whose log-probabilities are none
            ending, score, detail = "policy_failure", None, str(error)
        counts, done = self.session.counts, self.done
        return Trajectory(
            task_id=self.task.id,
            family=self.task.family,
            group_id=group_id or self.task.id,
            ending=ending,
            segments=segments,
            tree=tree,
            messages=self.session.messages() or self.messages,
            reward=None if score is None else score.value,
            passed=None if score is None else score.passed,
            breakdown={} if score is None else dict(score.breakdown),
            detail=detail,
            num_turns=counts.turns,
            num_format_errors=counts.format_errors,
            timings={**self.seconds, "total": time.perf_counter() - self.started},
            evidence=as_json(self.env.evidence),
            agent={
                "name": self.harness.name,
                "exit": "" if done is None else done.exit,
                "output": "" if done is None else done.output,
                "requests": asdict(counts),
            },
        )
