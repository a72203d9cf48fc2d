"""The messages that an environment states for a task: a perfect episode's, and one's that does nothing."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

from ..model.chat.messages import Message
from .core import ToolEnv
from .task import Task


def script_of(env: ToolEnv, hook: Literal["gold", "empty"], task: Task) -> list[Message]:
    """The assistant's messages of ``gold`` or ``empty``.

    Raises:
        TaskError: the environment states none for this task. EnvironmentBug: the hook fails or hangs, or returns
        something else.
    """
    hooks = env._hooks
    hooks.task_id = task.id
    return hooks.read(hook, _messages, hooks.call_here(hook, getattr(env, hook), task.own_copy()))


def _messages(found: Any) -> list[Message]:
    if inspect.iscoroutine(found):
        found.close()
    messages = list(found) if isinstance(found, Sequence) else []
    if not messages or not all(isinstance(one, Message) and one.role == "assistant" for one in messages):
        told = f"a {type(found).__name__}" + ("" if found else " without anything")
        raise TypeError(f"it returned {told}; Messages of the assistant are expected, at least one")
    return messages
