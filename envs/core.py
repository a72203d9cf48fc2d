"""``ToolEnv``: a Gymnasium environment whose actions are messages and tool calls.

A new environment overrides ``load``, ``prompt`` and ``score``, marks its tools with ``@tool``, and, where it
holds something, ``start`` and ``close``. Hooks and tools may be synchronous or ``async``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium

from ..errors import GradingError, TaskError
from ..model.chat.actions import Action, decode_action
from ..model.chat.messages import Message, ToolCall, ToolSpec
from ..rewards.score import Score
from .sandbox.background import call, call_to_its_end, run_sync
from .task import Task
from .tools.bounds import bounded
from .tools.spec import ToolError, tools_of
from .tools.text_space import UnicodeText


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a tool returns to end the episode: the work to be scored, and the tool's last words."""

    value: Any
    message: str = "submitted"


class CutOff(str):
    """A final text that its limit of tokens cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What an action did.

    Attributes:
        messages: the environment's answers.
        format_error: whether the action was one.
        submission: what was handed in, where the episode ended with it.
        ending: "submitted" or "answered"; None where the episode goes on.
        truncated: whether this was the last turn of ``max_turns`` without an ending.
    """

    messages: tuple[Message, ...]
    format_error: bool
    submission: Any
    ending: Literal["submitted", "answered"] | None
    truncated: bool


class ToolEnv(gymnasium.Env[str, str]):
    """A task, tools, and a score at the end.

    ``reset`` returns the prompt and, in ``info``, ``task`` (Task), ``messages`` and ``tools``. ``step`` takes an
    action (model.chat.actions) and returns the answer as text and, in ``info``, the new ``messages``,
    ``format_error`` (bool) and, at the end, ``ending`` and ``score`` (Score). A final message is the answer.

    ``areset``, ``astep``, ``afinish`` and ``aclose`` are the same for asyncio; one environment object is driven by
    one of the two faces, never by both.

    Raises (both faces):
        SandboxError: the sandbox failed. GradingError: the score could not be found out. Neither is a reward.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}  # type: ignore[misc]
    family: ClassVar[str] = ""
    system_prompt: ClassVar[str] = ""

    def __init__(
        self, *, tasks: Sequence[Task] | None = None, max_turns: int | None = None, render_mode: str | None = None
    ) -> None:
        """
        Args:
            tasks: what ``reset`` draws from; None takes the environment's own (``load``).
            max_turns: the episode is truncated after so many steps; None: the caller's budget decides.
            render_mode: "ansi" for the conversation as text.
        """
        self.observation_space = UnicodeText(max_length=1 << 24, min_length=0)
        self.action_space = UnicodeText(max_length=1 << 24, min_length=0)
        self.render_mode = render_mode
        self.max_turns = max_turns
        self._tools = tools_of(self)
        self._tasks = tuple(tasks) if tasks is not None else None
        self._task: Task | None = None
        self._transcript: list[Message] = []
        self._num_turns = 0
        self._over = True
        self._started = False
        self.context_tokens: int | None = None
        """Tokens of the conversation so far, told by the loop for policies that have ids; None: nobody counts."""
        self.evidence: dict[str, Any] = {}
        """What the score was taken from, for people who look at the episode: JSON, a few thousand lines at most."""
        self.cut_off: CutOff | None = None
        """The text of a turn without calls that met its limit of tokens, told by the loop; what ``unfinished`` may
        hand in where an answer in it can be complete."""

    # What an environment defines.

    def load(self) -> Sequence[Task]:
        """The environment's own tasks, used where none are given."""
        raise TaskError(f"{type(self).__name__} has no tasks of its own; pass tasks=[...] or options={{'task': task}}")

    def prompt(self, task: Task) -> str:
        """The user's message that opens the episode."""
        return task.prompt

    def check(self, task: Task) -> Any:
        """Raise TaskError where the task cannot be scored: before an episode begins, and before a text is graded
        without one. May be async."""

    def start(self, task: Task) -> Any:
        """Make ready what the tools need. May be async."""

    def score(self, task: Task, submission: Any) -> Any:
        """The Score of a submission (a final message's text, or what a tool submitted). May be async."""
        raise NotImplementedError

    def stop(self) -> Any:
        """Free what ``start`` took. May be async; called after every ``start``, also a failed one."""

    def unfinished(self, task: Task) -> Any:
        """The submission of a truncated episode; None: there is none, and the score is 0. May be async."""
        return None

    def gold(self, task: Task) -> Sequence[Message]:
        """The assistant messages of a perfect episode; ``validate`` and ``--policy gold`` play them."""
        raise TaskError(f"{type(self).__name__} states no gold answer for task {task.id!r}")

    def empty(self, task: Task) -> Sequence[Message]:
        """The assistant messages of an episode that does nothing; must score 0."""
        return [Message(role="assistant", content="")]

    # Gymnasium's face.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return run_sync(self.areset(seed=seed, options=options))

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return run_sync(self.astep(action))

    def close(self) -> None:
        run_sync(self.aclose())

    def render(self) -> str | None:  # type: ignore[override]
        if self.render_mode != "ansi":
            return None
        return "\n\n".join(f"[{message.name or message.role}]\n{message.content}" for message in self._transcript)

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
                self._tasks = tuple(await call(self.load))
            if not self._tasks:
                raise TaskError(f"{type(self).__name__} was given an empty list of tasks")
            task = self._tasks[int(self.np_random.integers(len(self._tasks)))]
        if not isinstance(task, Task):
            raise TaskError(f"options['task'] is a {type(task).__name__}; a verigym.envs.task.Task is expected")
        if self.family and task.family != self.family:
            raise TaskError(f"task {task.id!r} is of family {task.family!r}; this environment takes {self.family!r}")
        await call(self.check, task)
        self._task, self._num_turns, self._over, self._started = task, 0, False, True
        self.context_tokens = self.cut_off = None
        self.evidence = {}
        messages = [Message(role="system", content=self.system_prompt)] if self.system_prompt else []
        try:
            await call_to_its_end(self.start, task)
            messages.append(Message(role="user", content=self.prompt(task)))
        except BaseException:
            await self.aclose()
            raise
        self._transcript = list(messages)
        return messages[-1].content, {"task": task, "messages": tuple(messages), "tools": self.tool_specs}

    async def astep(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Returns:
            (observation, reward, terminated, truncated, info); the reward is 0 until the end, then the score.
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
        reward = info["score"].value if "score" in info else 0.0
        return "\n".join(message.content for message in acted.messages), reward, terminated, truncated, info

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
        submission = await call(self.unfinished, self._task)
        if submission is not None:
            return await self.ascore(submission)
        await self.aclose()
        return Score(
            value=0.0, passed=False, breakdown={"passed": 0.0}, detail="truncated before anything was handed in"
        )

    async def aclose(self) -> None:
        """Free what the episode holds. May be called twice."""
        self._over = True
        if self._started:
            await call_to_its_end(self.stop)
            self._started = False

    @property
    def tool_specs(self) -> tuple[ToolSpec, ...]:
        return tuple(bound.spec for bound in self._tools.values())

    async def _act(self, action: Action) -> tuple[list[Message], Any, Literal["submitted", "answered"] | None]:
        """(answers, submission, ending or None where the episode goes on)."""
        if action.format_error is not None:
            return [Message(role="user", content=f"format error: {action.format_error}")], None, None
        if not action.calls:
            self._transcript.append(Message(role="assistant", content=action.final or ""))
            return [], action.final, "answered"
        self._transcript.append(Message(role="assistant", content="", calls=action.calls))
        answers = []
        for one in action.calls:
            result = await self._call_tool(one)
            text = result.message if isinstance(result, Submission) else result
            answers.append(Message(role="tool", name=one.name, call_id=one.id, content=text))
            if isinstance(result, Submission):
                return answers, result.value, "submitted"
        return answers, None, None

    async def _call_tool(self, one: ToolCall) -> str | Submission:
        bound = self._tools.get(one.name)
        if bound is None:
            return f"error: there is no tool {one.name[:100]!r}; the tools are {', '.join(self._tools) or 'none'}"
        try:
            result = await call(bound.method, **bound.check(one.arguments))
        except ToolError as error:
            return bounded(f"error: {error}")
        return result if isinstance(result, Submission) else bounded(str(result))

    async def ascore(self, submission: Any) -> Score:
        """Score a submission and end the episode.

        Raises:
            GradingError, SandboxError: the score could not be found out.
        """
        assert self._task is not None
        try:
            score = await call(self.score, self._task, submission)
        finally:
            await self.aclose()
        if not isinstance(score, Score):
            raise GradingError(f"{type(self).__name__}.score returned a {type(score).__name__}; a Score is expected")
        return score
