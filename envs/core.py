"""``ToolEnv``: a Gymnasium environment whose actions are messages and tool calls.

A new environment overrides ``load``, ``prompt`` and ``score``, marks its tools with ``@tool``, and, where it
holds something, ``start`` and ``close``. Hooks and tools may be synchronous or ``async``.
"""

import asyncio
import inspect
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import gymnasium

from ..errors import EnvironmentBug, GradingError, HookTimeout, SandboxError, TaskError
from ..model.chat.actions import Action, decode_action
from ..model.chat.messages import Message, ToolCall, ToolSpec
from ..rewards.score import Score
from .acting import Acted as Acted
from .acting import CutOff as CutOff
from .acting import Submission as Submission
from .acting import answer_of, opening_of, reply_of, said_by, shown_before, tasks_of
from .definition import Definition
from .earnings import Earnings, added_of, told_of, whole
from .sandbox.background import run_sync
from .speakers import Speaker, StandIn, Waited
from .task import Task
from .tools.bounds import bounded, shown_as_text
from .tools.hooks import Hooks, text_of
from .tools.spec import ToolError, tools_of
from .tools.text_space import UnicodeText

logger = logging.getLogger(__name__)


class ToolEnv(Definition, gymnasium.Env[str, str]):
    """A task, tools, and a score at the end.

    ``reset`` returns the prompt and, in ``info``, ``task`` (Task), ``messages`` and ``tools``. ``step`` takes an
    action (model.chat.actions) and returns the answer as text and, in ``info``, the new ``messages``,
    ``format_error`` (bool) and, at the end, ``ending`` and ``score`` (Score). A final message is the answer.

    ``areset``, ``astep``, ``afinish`` and ``aclose`` are the same for asyncio; one environment object is driven by
    one of the two faces, never by both.

    Raises (both faces):
        SandboxError: the sandbox failed. GradingError: the score could not be found out. EnvironmentBug: a hook or a
        tool raised anything else. None is a reward.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "human"], "render_fps": 1}  # type: ignore[misc]

    def __init__(
        self, *, tasks: Sequence[Task] | None = None, max_turns: int | None = None, render_mode: str | None = None
    ) -> None:
        """
        Args:
            tasks: what ``reset`` draws from; None takes the environment's own (``load``).
            max_turns: the episode is truncated after so many steps; None: the caller's budget decides.
            render_mode: "ansi": ``render`` gives the conversation as text; "human": messages are written to standard
                output as they come.
        """
        self.observation_space = UnicodeText(max_length=1 << 24, min_length=0)
        self.action_space = UnicodeText(max_length=1 << 24, min_length=0)
        self.render_mode = render_mode
        self.max_turns = max_turns
        self._tools = tools_of(self)
        self._tasks = tuple(tasks) if tasks is not None else None
        self._task: Task | None = None
        self._transcript: list[Message] = []
        self._num_turns = self._num_shown = 0
        self._over = True
        self._started = False
        self._hooks = Hooks(self)
        self._models: Mapping[str, Speaker] = {}
        self.earned = Earnings()
        """What ``reward`` was given in this episode."""
        self.context_tokens: int | None = None
        """Tokens of the conversation so far, told by the loop for policies that have ids; None: nobody counts."""
        self.evidence: dict[str, Any] = {}
        """What the score was taken from, for people who look at the episode: JSON, a few thousand lines at most."""
        self.patch: str | None = None
        """The work of the last episode as a patch, whole; None where it is none."""
        self.cut_off: CutOff | None = None
        """The text of a turn without calls that met its limit of tokens, told by the loop; what ``unfinished`` may
        hand in where an answer in it can be complete."""

    # What an environment uses.

    def reward(self, value: float, name: str) -> None:
        """Reward the turn that is being answered (by a tool, ``reply`` or ``score``), beside the score at the end."""
        self.earned.give(self._num_turns - 1, name, value)

    def model(self, name: str) -> Speaker:
        """The other speaker that has this seat: ``await self.model("user").say(messages)``."""
        seated = self._models.get(name)
        return StandIn(name, self._stand_in) if seated is None else Waited(seated)

    async def _stand_in(self, name: str, messages: Sequence[Message]) -> Message:
        said = await self._hooks.call("stand_in", self.stand_in, name, messages)
        return self._hooks.read("stand_in", said_by, said)

    @property
    def transcript(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(self._transcript)

    def seat(self, models: Mapping[str, Speaker]) -> None:
        """Give seats to other speakers, until the next call: told by the loop before an episode."""
        self._models = models

    # Gymnasium's face.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return run_sync(self.areset(seed=seed, options=options))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return run_sync(self.astep(action))

    def close(self) -> None:
        run_sync(self.aclose())

    def render(self) -> str | None:  # type: ignore[override]
        if self.render_mode == "human":
            self._show()
        return shown_as_text(self._transcript) if self.render_mode == "ansi" else None

    def _show(self) -> None:
        """Write what is new in the conversation."""
        new, self._num_shown = self._transcript[self._num_shown :], len(self._transcript)
        if new:
            charset = sys.stdout.encoding or "utf-8"  # what it does not hold is shown as "?"
            sys.stdout.write(shown_as_text(new).encode(charset, "replace").decode(charset) + "\n\n")
            sys.stdout.flush()

    # The asynchronous face.

    async def areset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin an episode. ``options={"task": task}`` chooses the task; else one is drawn with the seed.

        Raises:
            TaskError: there is no task, or it is not of this environment.
        """
        super().reset(seed=seed)
        await self.aclose()
        task = (options or {}).get("task")
        if task is None:
            if self._tasks is None:
                self._tasks = await self.aload()
            if not self._tasks:
                raise TaskError(f"{type(self).__name__} was given an empty list of tasks")
            task = self._tasks[int(self.np_random.integers(len(self._tasks)))]
        if not isinstance(task, Task):
            raise TaskError(f"options['task'] is a {type(task).__name__}; a verigym.envs.task.Task is expected")
        if self.family and task.family != self.family:
            raise TaskError(f"task {task.id!r} is of family {task.family!r}; this environment takes {self.family!r}")
        self._hooks.task_id = task.id
        task = task.own_copy()
        await self._hooks.call("check", self.check, task)
        self._task, self._num_turns, self._over, self._started = task, 0, False, True
        self.context_tokens = self.cut_off = None
        self.evidence = {}
        self.earned, self._transcript = Earnings(), []
        messages = [Message(role="system", content=self.system_prompt)] if self.system_prompt else []
        messages += shown_before(self.shots)
        try:
            await self._hooks.call_to_its_end("start", self.start, task)
            messages += self._hooks.read("prompt", opening_of, await self._hooks.call("prompt", self.prompt, task))
        except BaseException:
            await self._close_after_failure()
            raise
        self._transcript, self._num_shown = list(messages), 0
        if self.render_mode == "human":
            self._show()
        return messages[-1].content, {"task": task, "messages": tuple(messages), "tools": self.tool_specs}

    async def astep(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Returns:
            (observation, reward, terminated, truncated, info); the reward is what the turn earned, and at the end the
            score too: their sum over the episode is ``info["score"].value``.
        Raises:
            gymnasium.error.ResetNeeded: there is no episode, or it has ended.
        """
        acted = await self.aact(action)
        info: dict[str, Any] = {"messages": acted.messages, "format_error": acted.format_error}
        terminated, truncated = acted.ending is not None, acted.truncated
        if terminated:
            info |= {"ending": acted.ending, "score": await self.ascore(acted.submission)}
        elif truncated:
            info |= {"ending": "turn_limit", "score": await self.afinish()}
        turn = self._num_turns - 1
        reward = self.earned.in_turn(turn)
        if "score" in info:
            reward += info["score"].value - self.earned.total
        return "\n".join(message.content for message in acted.messages), reward, terminated, truncated, info

    async def acompare(self, task: Task, episodes: Sequence[Any], *, unit: bool = False) -> list[Mapping[str, float]]:
        """What ``compare`` adds to the reward of each episode of a group, by name. The environment has no episode then.

        Args:
            unit: the episodes' rewards are mapped to [0, 1] already.
        Raises:
            EnvironmentBug: the hook fails, or does not return a mapping of finite numbers for each, or with these a
            reward leaves its bounds.
        """
        self._hooks.task_id, self.evidence = task.id, {}
        try:
            found = await self._hooks.call("compare", self.compare, task.own_copy(), episodes)
            return self._hooks.read("compare", added_of, found, episodes, self.reward_bounds, unit)
        finally:
            await self.aclose()

    async def aload(self) -> tuple[Task, ...]:
        """The environment's own tasks.

        Raises:
            TaskError: it has none. EnvironmentBug: the hook fails, or returns something else.
        """
        load = self.load if inspect.iscoroutinefunction(self.load) else self._load
        return self._hooks.read("load", tasks_of, await self._hooks.call("load", load))

    def _load(self) -> Any:
        """A generator's tasks are made within the hook."""
        found = self.load()
        return tuple(found) if isinstance(found, Iterator) else found

    async def aact(self, action: str) -> Acted:
        """The first half of a step: what the action does. Where the result has an ending, ``ascore`` is the second.

        Raises:
            gymnasium.error.ResetNeeded: there is no episode, or it has ended.
        """
        if self._over or self._task is None:
            raise gymnasium.error.ResetNeeded("the episode has ended or not begun; call reset()")
        self._num_turns += 1
        decoded = decode_action(action)
        messages, submission, ending = await self._act(decoded)
        self._transcript += messages
        if self.render_mode == "human":
            self._show()
        return Acted(
            messages=tuple(messages),
            format_error=decoded.format_error is not None,
            submission=submission,
            ending=ending,
            truncated=ending is None and self.max_turns is not None and self._num_turns >= self.max_turns,
        )

    async def afinish(self) -> Score:
        """End a running episode from outside (a budget ran out) and score what had been handed in, else 0."""
        assert self._task is not None
        submission = await self._hooks.call("unfinished", self.unfinished, self._task)
        if submission is not None:
            return await self.ascore(submission)
        await self.aclose()
        low, high = self.reward_bounds
        nothing = Score(
            value=min(max(0.0, low), high),
            passed=False,
            breakdown={"passed": 0.0},
            detail="truncated before anything was handed in",
            bounds=self.reward_bounds,
        )
        return self._whole(nothing)

    def _whole(self, found: Any) -> Score:
        """The episode's Score: what ``score`` returned, and what the turns earned."""
        return self._hooks.read("score", whole, found, self.earned, self.reward_bounds)

    async def aclose(self) -> None:
        """Free what the episode holds. May be called twice."""
        self._over = True
        started, self._started = self._started, False
        try:
            if started:
                await self._hooks.call_to_its_end("stop", self.stop)
        except asyncio.CancelledError:
            self._started = inspect.iscoroutinefunction(self.stop)  # which was cut off: it is called again
            raise
        except (SandboxError, GradingError):
            self._started = True  # of the machinery, which may do the next time; a bug would be one again
            raise
        finally:
            self._hooks.close()

    async def _close_after_failure(self) -> None:
        """Close; what fails in that is told and leaves the failure before it as it is."""
        try:
            await self.aclose()
        except Exception as error:
            logger.warning("%s did not close: %s", type(self).__name__, error)

    @property
    def tool_specs(self) -> tuple[ToolSpec, ...]:
        return tuple(bound.spec for bound in self._tools.values())

    async def _act(self, action: Action) -> tuple[list[Message], Any, Literal["submitted", "answered"] | None]:
        """(answers, submission, ending or None where the episode goes on)."""
        if action.format_error is not None:
            return [Message(role="user", content=f"format error: {action.format_error}")], None, None
        if not action.calls:
            self._transcript.append(Message(role="assistant", content=action.final or ""))
            return await self._reply(action.final or "")
        self._transcript.append(Message(role="assistant", content="", calls=action.calls))
        return await self._answer(action.calls)

    async def _answer(self, calls: Sequence[ToolCall]) -> tuple[list[Message], Any, Literal["submitted"] | None]:
        """What calls are answered, as ``_act``: one tool after the other, up to one that hands something in."""
        answers: list[Message] = []
        for one in calls:
            result = await self._call_tool(one)
            text = (result.message or "submitted") if isinstance(result, Submission) else result
            if isinstance(text, Message):
                answers.append(replace(text, role="tool", name=one.name, call_id=one.id))
            else:
                answers.append(Message(role="tool", name=one.name, call_id=one.id, content=text))
            if isinstance(result, Submission):
                return answers, result.value, "submitted"
        return answers, None, None

    async def _reply(self, message: str) -> tuple[list[Message], Any, Literal["submitted", "answered"] | None]:
        try:
            result = await self._hooks.call("reply", self.reply, self._task, message)
        except ToolError as error:
            result = f"error: {text_of(error)}"
        said = self._hooks.read("reply", reply_of, result)
        if isinstance(said, Submission):
            last = [Message(role="user", content=said.message)] if said.message else []
            return last, said.value, "answered"
        return [said], None, None

    async def _call_tool(self, one: ToolCall) -> str | Message | Submission:
        bound = self._tools.get(one.name)
        if bound is None:
            known = ", ".join(spec.name for spec in self.tool_specs) or "none"
            return f"error: there is no tool {one.name[:100]!r}; the tools are {known}"
        try:
            result = await self._hooks.call(f"tool {one.name}", bound.method, **bound.check(one.arguments))
        except ToolError as error:
            return bounded(f"error: {text_of(error)}")
        except EnvironmentBug as bug:
            if (bound.on_error or self.on_error) == "fail" or isinstance(bug, HookTimeout):
                raise  # with the thread of one that hangs what is tied to it is lost
            logger.info("the policy is told: %s", bug)
            return bounded(f"error: {type(bug.__cause__).__name__}: {text_of(bug.__cause__)}")
        return self._hooks.read(f"tool {one.name}", answer_of, result)

    async def ascore(self, submission: Any) -> Score:
        """Score a submission and end the episode.

        Raises:
            GradingError, SandboxError: the score could not be found out. EnvironmentBug: the hook is wrong.
        """
        assert self._task is not None
        try:
            found = await self._hooks.call("score", self.score, self._task, submission)
            found = self._whole(found)
            told = await self._hooks.call("feedback", self.feedback, self._task, found)
            if told is not None:
                self.evidence["feedback"] = self._hooks.read("feedback", told_of, told)
        except BaseException:
            await self._close_after_failure()
            raise
        await self.aclose()
        return found
