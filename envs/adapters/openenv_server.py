"""Our environments behind OpenEnv's interface; imported where openenv is."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openenv.core.env_server.interfaces import Environment  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.types import Action, Observation, State  # pyright: ignore[reportMissingImports]
from pydantic import Field

from ...model.chat.actions import encode_calls
from ...model.chat.messages import ToolCall
from ..core import ToolEnv
from ..sandbox.background import run_sync
from ..tools.hooks import Hooks
from .openenv import missing


class TextAction(Action):
    """What an assistant says, or calls."""

    message: str = Field(default="", description="a message that calls no tool")
    calls: list[dict[str, Any]] = Field(default_factory=list, description="calls: name, arguments")


class TextObservation(Observation):
    """What is answered."""

    text: str = ""
    messages: list[dict[str, Any]] = Field(default_factory=list)
    tools: list[dict[str, Any]] = Field(default_factory=list)


@dataclass(frozen=True)
class Classes:
    environment: Any
    action: type[TextAction]
    observation: type[TextObservation]


def classes(make: Callable[[], ToolEnv]) -> Classes:
    """OpenEnv's environment class for one of ours, with its actions and observations."""

    class Served(Environment):  # type: ignore[misc]  # an extra, untyped
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._env = make()
            self._state = State(episode_id=None, step_count=0)

        def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> TextObservation:
            return run_sync(self.reset_async(seed=seed, episode_id=episode_id, **kwargs))

        async def reset_async(
            self, seed: int | None = None, episode_id: str | None = None, task_id: str | None = None, **kwargs: Any
        ) -> TextObservation:
            options = None
            if task_id is not None:
                tasks = await Hooks(self._env).call("load", self._env.load)
                options = {"task": next((task for task in tasks if task.id == task_id), None)}
                if options["task"] is None:
                    raise missing(task_id)
            text, info = await self._env.areset(seed=seed, options=options)
            self._state = State(episode_id=episode_id or uuid.uuid4().hex, step_count=0)
            return TextObservation(
                text=text,
                messages=_rows(info["messages"]),
                tools=[spec.to_openai() for spec in info["tools"]],
                metadata={"task_id": info["task"].id},
            )

        def step(self, action: TextAction, timeout_s: float | None = None, **kwargs: Any) -> TextObservation:
            return run_sync(self.step_async(action, timeout_s=timeout_s, **kwargs))

        async def step_async(
            self, action: TextAction, timeout_s: float | None = None, **kwargs: Any
        ) -> TextObservation:
            calls = [ToolCall(name=str(one.get("name")), arguments=one.get("arguments") or {}) for one in action.calls]
            text, reward, terminated, truncated, info = await self._env.astep(
                encode_calls(calls) if calls else action.message
            )
            self._state.step_count += 1
            metadata: dict[str, Any] = {"format_error": info["format_error"]}
            if "score" in info:
                score = info["score"]
                metadata |= {"passed": score.passed, "breakdown": dict(score.breakdown), "ending": info["ending"]}
            return TextObservation(
                text=text,
                messages=_rows(info["messages"]),
                reward=reward,
                done=terminated or truncated,
                metadata=metadata,
            )

        @property
        def state(self) -> State:
            return self._state

        def close(self) -> None:
            run_sync(self._env.aclose())

    return Classes(Served, TextAction, TextObservation)


def _rows(messages: Any) -> list[dict[str, Any]]:
    return [_row(message) for message in messages]


def _row(message: Any) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, **({"name": message.name} if message.name else {})}
