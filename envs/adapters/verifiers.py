"""Tasksets and environments of verifiers 0.4 as ours (``pip install "verifiers>=0.4,<0.5"``)."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from ...errors import ConfigError, GradingError, TaskError
from ...model.chat.messages import Attachment, Message
from ...rewards.score import Score
from ..acting import Submission
from ..core import ToolEnv
from ..task import Task
from ..tools.spec import BoundTool
from .needed import needed

Run = Callable[[Any, Any], Awaitable[None]]
"""``verifiers.v1.Env.run`` without its environment: (task, agents) -> the exchange."""


class Verifiers(ToolEnv):
    """A taskset's tasks, its toolsets' tools, and its rewards and metrics; with ``run``, an environment's exchange too.

    Toolsets work in this process, each episode has its own, with the trace's state; no MCP server is started. Tasks
    that need a container's files are refused: bring those through their own sandboxes. The episode's reward is the
    trace's; it passed where that reaches ``passing``. In ``run`` the first agent that is asked is the policy; others
    are models by their names (``--model NAME=SPEC``).

    Source: verifiers, github.com/PrimeIntellect-ai/verifiers.
    """

    family = "verifiers"

    def __init__(
        self,
        taskset: Any,
        *,
        run: Run | None = None,
        num_tasks: int | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        passing: float | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            taskset: of verifiers.
            run: how an environment plays a task, such as ``partial(MyEnv.run, None)``; None: the agent answers once,
                after its calls.
            num_tasks: the first so many; None: all, of a taskset that ends.
            bounds: the least and the most that a trace's reward comes to.
            passing: from which reward on an episode passed; None: the upper bound.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self._vf = needed("verifiers.v1", "verifiers>=0.4,<0.5")
        self._taskset, self._run, self._num_tasks = taskset, run, num_tasks
        self.reward_bounds, self._passing = bounds, passing
        self._exchange: _Exchange | None = None

    def load(self) -> Sequence[Task]:
        if self._num_tasks is None and not self._taskset.bounded:
            raise ConfigError("the taskset has no end; say num_tasks=N")
        return [
            Task(
                id=str(one.data.id or one.data.name or place),
                family=self.family,
                prompt=one.data.prompt_text,
                hidden={"idx": place},
            )
            for place, one in enumerate(islice(self._taskset, self._num_tasks))
        ]

    def _task_of(self, place: int) -> Any:
        return next(islice(self._taskset, place, None))

    async def start(self, task: Task) -> None:
        vf = self._vf
        self._theirs = theirs = self._task_of(int(task.hidden["idx"]))
        if theirs.NEEDS_CONTAINER:
            raise ConfigError(f"{type(theirs).__name__} needs a container of verifiers; such tasks are not taken")
        self._opening = opening_of(theirs.data)
        from verifiers.v1.state import state_cls  # pyright: ignore[reportMissingImports]

        row = vf.TraceTask(type=type(theirs).__name__, data=theirs.data)
        self._trace = vf.Trace(task=row, agent=vf.AgentInfo(config=vf.AgentConfig()), state=state_cls(type(theirs))())
        self._tools = {}
        for toolset in type(theirs).toolsets(theirs.config):
            await self._adopt(toolset)
        if self._run is not None:
            self._exchange = _Exchange(self, self._run(theirs, _Agents(self)))
            await self._exchange.next_question()

    async def _adopt(self, toolset: Any) -> None:
        from verifiers.v1.utils.decorators import discover_decorated  # pyright: ignore[reportMissingImports]

        toolset._inert_state = self._trace.state  # what a toolset's state is where no server has set another
        await toolset.setup()
        await toolset.setup_task(self._theirs.data)
        prefix = f"{toolset.server_name}_" if toolset.server_name else ""
        for function in discover_decorated(toolset, "tool"):
            bound = BoundTool(function)
            name = prefix + (getattr(function, "tool_name", None) or function.__name__)
            bound.spec = replace(bound.spec, name=name)
            self._tools[name] = bound

    def prompt(self, task: Task) -> list[Message]:  # type: ignore[override]  # several messages
        asked = self._exchange.asked if self._exchange is not None else None
        return self._opening + ([Message(role="user", content=asked)] if asked else [])

    async def reply(self, task: Task, message: str) -> str | Submission:
        self._record()
        if self._exchange is None:
            return Submission(value=message)
        asked = await self._exchange.answer(message)
        return Submission(value=message) if asked is None else asked

    async def score(self, task: Task, submission: Any) -> Score:
        self._record()
        if self._exchange is not None:
            await self._exchange.ended()
        await self._theirs.score(self._trace)
        missing = [name for name, reward in self._trace.rewards.items() if reward is None]
        if missing:
            raise GradingError(f"verifiers gave no value to {', '.join(missing)}; they need a runtime that is not here")
        value, (low, high) = float(self._trace.reward), self.reward_bounds
        parts = {name: float(reward.value) for name, reward in self._trace.rewards.items()}
        parts |= {f"metric {name}": float(one) for name, one in self._trace.metrics.items() if one is not None}
        passed = value >= (high if self._passing is None else self._passing)
        return Score(value=value, passed=passed, breakdown=parts, bounds=(min(low, value), max(high, value)))

    async def stop(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()

    def _record(self) -> None:
        """Write the conversation so far into the trace."""
        nodes, calls = [], 0
        for message in self.transcript:
            ids = [f"call-{calls + place}" for place in range(len(message.calls))]
            if message.role == "tool":
                calls += 1
            made = self._message(message, ids, f"call-{calls - 1}")
            parent = len(nodes) - 1 if nodes else None
            nodes.append(self._vf.MessageNode(parent=parent, message=made, sampled=message.role == "assistant"))
        self._trace.nodes = nodes

    def _message(self, message: Message, ids: Sequence[str], answered: str) -> Any:
        from verifiers.v1 import types  # pyright: ignore[reportMissingImports]

        if message.role == "tool":
            return types.ToolMessage(tool_call_id=answered, content=message.content, name=message.name)
        if message.role == "assistant":
            import json

            calls = [
                types.ToolCall(id=one, name=call.name, arguments=json.dumps(dict(call.arguments)))
                for one, call in zip(ids, message.calls, strict=True)
            ]
            return types.AssistantMessage(content=message.content, tool_calls=calls or None)
        kind = types.SystemMessage if message.role == "system" else types.UserMessage
        shown = [{"type": "image_url", "image_url": {"url": one.url}} for one in message.attachments]
        return kind(content=[{"type": "text", "text": message.content}, *shown] if shown else message.content)


def opening_of(data: Any) -> list[Message]:
    """The messages that open a task of verifiers: its instructions, its prompt.

    Raises:
        TaskError: a part of a message that is neither text nor an image with its bytes.
    """
    first = [Message(role="system", content=data.system_prompt)] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return [*first, Message(role="user", content=data.prompt)]
    return [*first, *(_message_of(one) for one in data.prompt or ())]


def _message_of(one: Any) -> Message:
    parts = [one.content] if isinstance(one.content, str) else list(one.content or ())
    texts = [
        part if isinstance(part, str) else part.text for part in parts if isinstance(part, str) or part.type == "text"
    ]
    images = [_image(part) for part in parts if not isinstance(part, str) and part.type != "text"]
    return Message(role=one.role, content="\n\n".join(texts), attachments=tuple(images))


def _image(part: Any) -> Attachment:
    url = part.image_url.url if part.type == "image_url" else ""
    found = re.fullmatch(r"data:([\w/.+-]+);base64,(.*)", url, re.S)
    if found is None:
        raise TaskError(
            f"a prompt has a part of type {part.type!r} that is no data URL ({url[:80]!r}); put its bytes in"
        )
    return Attachment(media_type=found[1], data=found[2])


class _Exchange:
    """An environment's ``run`` beside ours: it asks for turns, and ours are its answers."""

    def __init__(self, env: Verifiers, run: Awaitable[None]) -> None:
        self._env = env
        self.asked: str | None = None
        self._question, self._answer = asyncio.Event(), asyncio.Queue[str]()
        self._running = asyncio.ensure_future(run)

    async def ask(self, text: str | None) -> Any:
        """Called by ``run``: the policy's next message, as a segment."""
        self.asked = text
        self._question.set()
        said = await self._answer.get()
        from verifiers.v1.agent import Segment  # pyright: ignore[reportMissingImports]
        from verifiers.v1.types import AssistantMessage  # pyright: ignore[reportMissingImports]

        return Segment(messages=[AssistantMessage(content=said)])

    async def next_question(self) -> str | None:
        """What ``run`` says next to the policy; None: it has ended."""
        waiting = asyncio.ensure_future(self._question.wait())
        await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if self._question.is_set():
            self._question.clear()
            return self.asked or ""
        waiting.cancel()
        self._running.result()  # what it raised
        return None

    async def answer(self, message: str) -> str | None:
        self._answer.put_nowait(message)
        return await self.next_question()

    async def ended(self) -> None:
        if self._running.done():
            self._running.result()

    async def aclose(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


class _Agents:
    """``verifiers.v1.Agents``: any name is an agent's."""

    def __init__(self, env: Verifiers) -> None:
        self._env = env
        self._first: str | None = None

    def __getattr__(self, name: str) -> "_Agent":
        if name.startswith("_"):
            raise AttributeError(name)
        return _Agent(self, name)


class _Agent:
    def __init__(self, agents: _Agents, name: str) -> None:
        self._agents, self._name = agents, name
        self.trainable = True

    @asynccontextmanager
    async def interaction(self, task: Any, **_: Any) -> AsyncIterator["_Interaction"]:
        agents = self._agents
        if agents._first is None:
            agents._first = self._name
        yield _Interaction(agents._env, self._name if self._name != agents._first else None, task)

    async def run(self, task: Any, **_: Any) -> Any:
        async with self.interaction(task) as exchange:
            await exchange.turn()
        return exchange.trace


class _Interaction:
    def __init__(self, env: Verifiers, other: str | None, task: Any) -> None:
        self._env, self._other = env, other
        self._heard: list[Message] = []
        if other is not None and task.data.prompt_text:
            self._heard.append(Message(role="user", content=task.data.prompt_text))

    @property
    def trace(self) -> Any:
        return self._env._trace

    async def turn(self, message: Any = None) -> Any:
        text = (
            message if isinstance(message, str) or message is None else "\n".join(str(one.content) for one in message)
        )
        if self._other is None:
            assert self._env._exchange is not None
            return await self._env._exchange.ask(text)
        from verifiers.v1.agent import Segment  # pyright: ignore[reportMissingImports]
        from verifiers.v1.types import AssistantMessage  # pyright: ignore[reportMissingImports]

        if text is not None:
            self._heard.append(Message(role="user", content=text))
        said = await self._env.model(self._other).say(self._heard)
        self._heard.append(Message(role="assistant", content=said.content))
        return Segment(messages=[AssistantMessage(content=said.content)])
