"""What passes between an environment and whoever drives it, besides messages."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..model.chat.messages import Attachment, Message, Role
from .task import Task
from .tools.bounds import bounded

MAX_OPENING = 1 << 24
"""Characters of the messages that open an episode: what any context takes, and no more than is encoded in minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a tool, or ``reply``, returns to end the episode.

    Attributes:
        value: the work to be scored.
        message: the last words: a tool's answer, or the other side's message; of a reply "" says nothing more.
    """

    value: Any
    message: str | None = None


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


def opening_of(found: Any) -> list[Message]:
    """What a hook ``prompt`` returned, as the messages that open an episode.

    Raises:
        ValueError: it is no text and no message, a conversation whose last word is the assistant's, or too long.
    """
    if isinstance(found, str):
        found = Message(role="user", content=found)
    messages = [_spoken(found)] if isinstance(found, Message) else found
    if not isinstance(messages, Sequence) or not messages or not all(isinstance(one, Message) for one in messages):
        raise ValueError(
            f"it returned a {type(found).__name__}; a str, a Message or a sequence of Messages is expected"
        )
    if messages[-1].role == "assistant":
        raise ValueError("its last message is the assistant's, who would have to speak twice; end with another's")
    messages = [sound(one) for one in messages]
    size = sum(len(one.content) for one in messages)
    if size > MAX_OPENING:
        raise ValueError(f"its messages have {size:,} characters; {MAX_OPENING:,} are the most that are taken")
    return messages


def shown_before(shots: Sequence[tuple[str, str]]) -> list[Message]:
    """Solved questions as turns of a conversation."""
    pairs = ((Message(role="user", content=q), Message(role="assistant", content=a)) for q, a in shots)
    return [message for pair in pairs for message in pair]


def sound(message: Message) -> Message:
    """A message that a hook wrote, if it is one throughout.

    Raises:
        TypeError: its text is no str, an attachment is none, or a call's arguments are not JSON.
        ValueError: it has another role.
    """
    if not isinstance(message.content, str):
        raise TypeError(f"its message's content is a {type(message.content).__name__}; a str is expected")
    if message.role not in get_args(Role):
        raise ValueError(f"its message's role is {message.role!r}; it is one of {', '.join(get_args(Role))}")
    for one in message.attachments:
        if not isinstance(one, Attachment) or not all(isinstance(text, str) for text in (one.media_type, one.data)):
            raise TypeError("its message has an attachment that is none; Attachment.of(BYTES, MEDIA_TYPE) makes one")
    json.dumps([dict(one.arguments) for one in message.calls])
    return message


def ending_of(found: Submission) -> Submission:
    """What ends an episode, if its last words are some.

    Raises:
        TypeError: they are no text.
    """
    if not isinstance(found.message, str | None):
        told = f"its Submission's message is a {type(found.message).__name__}"
        raise TypeError(f"{told}; a str is expected, or None (what is to be scored is its value)")
    return found


def _spoken(message: Message) -> Message:
    """What another speaker said, to whom it was the assistant's, as it stands in the agent's conversation."""
    if message.role != "assistant":
        return message
    return Message(role="user", content=message.content, attachments=message.attachments)


def said_of(found: Any) -> Message:
    """What somebody said to the agent, as the other side's next message.

    Raises:
        TypeError: it is no text and no message.
    """
    if isinstance(found, Message):
        return _spoken(sound(found))
    if not isinstance(found, str):
        raise TypeError(f"it returned a {type(found).__name__}; a str, a Message or a Submission is expected")
    return Message(role="user", content=bounded(found))


def said_by(found: Any) -> Message:
    """What a hook ``stand_in`` returned, as what its speaker says.

    Raises:
        TypeError: it is no text and no message.
    """
    if isinstance(found, Message):
        return sound(found)
    if not isinstance(found, str):
        raise TypeError(f"it returned a {type(found).__name__}; a str or a Message is expected")
    return Message(role="assistant", content=found)


def reply_of(found: Any) -> Message | Submission:
    """What a hook ``reply`` returned.

    Raises:
        TypeError: it is no text, no message and no end.
    """
    return ending_of(found) if isinstance(found, Submission) else said_of(found)


def answer_of(found: Any) -> str | Message | Submission:
    """What a tool returned, as what answers its call: text as it is, lists and mappings as JSON, nothing as "".

    Raises:
        TypeError: bytes or a generator, which are no text, or a list or a mapping that is not JSON.
    """
    if isinstance(found, Submission):
        return ending_of(found)
    if isinstance(found, Message):
        return sound(found)
    if isinstance(found, bytes | bytearray | memoryview):
        told = f"it returned {type(found).__name__}; return text, or a Message with attachments=(Attachment.of(...),)"
        raise TypeError(told)
    if isinstance(found, Iterator):
        raise TypeError(f"it returned a {type(found).__name__}, which has no text; return text, or a list")
    if isinstance(found, dict | list | tuple):
        return bounded(json.dumps(found, ensure_ascii=False))
    return "" if found is None else bounded(str(found))


def tasks_of(found: Any) -> tuple[Task, ...]:
    """What a hook ``load`` returned.

    Raises:
        TypeError: it is no sequence of tasks, or a task is not JSON.
    """
    tasks = tuple(found) if isinstance(found, Iterable) else (found,)
    if not isinstance(found, Iterable) or not all(isinstance(one, Task) for one in tasks):
        raise TypeError(f"it returned {str(found)[:100]}; a sequence of verigym.envs.task.Task is expected")
    for task in tasks:
        for name in ("id", "family", "prompt"):
            if not isinstance(getattr(task, name), str):
                raise TypeError(f"the {name} of task {task.id!r} is {getattr(task, name)!r}; a str is expected")
        _json_of(task)
    return tasks


def _json_of(task: Task) -> str:
    try:
        return json.dumps([dict(part) for part in (task.files, task.hidden, task.metadata)])
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"task {task.id!r} is not JSON ({error}); files, hidden and metadata hold text, numbers, lists and mappings"
        ) from None
