"""Items of OpenAI's Responses API: a conversation as they tell it, read and written."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import ChatFormatError
from .messages import Message, ToolCall
from .openai import CallError, read_call

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def from_items(given: str | Sequence[Any], where: str = "input") -> list[Message]:
    """Messages of items: what an assistant thought, said and called is one message until somebody answers.

    Raises:
        ChatFormatError: an item that cannot be read, or has no text; it says which.
    """
    if isinstance(given, str):
        return [Message(role="user", content=given)]
    return list(_messages(given, where))


def _messages(given: Sequence[Any], whole: str) -> Iterator[Message]:
    turn: Message | None = None
    names: dict[str, str] = {}
    for place, item in enumerate(given):
        where = f"{whole}[{place}]"
        if not isinstance(item, Mapping):
            raise ChatFormatError(f"{where} must be an object")
        part = _assistant_part(item, where)
        if part is not None:
            names.update({call.id: call.name for call in part.calls if call.id is not None})
            turn = part if turn is None else _joined(turn, part)
            continue
        if turn is not None:
            yield turn
            turn = None
        yield _other(item, names, where)
    if turn is not None:
        yield turn


def _assistant_part(item: Mapping[str, Any], where: str) -> Message | None:
    kind = item.get("type")
    if kind == "reasoning":
        texts = [part.get("text") for part in item.get("content") or () if isinstance(part, Mapping)]
        told = [text for text in texts if isinstance(text, str)]
        return Message(role="assistant", content="", thinking="".join(told) if told else None)
    if kind == "function_call":
        try:
            call = read_call({"name": item.get("name"), "arguments": item.get("arguments"), "id": item.get("call_id")})
        except CallError as error:
            raise ChatFormatError(f"{where} cannot be read: {error}") from None
        return Message(role="assistant", content="", calls=(call,))
    if kind in (None, "message") and item.get("role") == "assistant":
        return Message(role="assistant", content=_text(item.get("content"), where))
    return None


def _joined(first: Message, second: Message) -> Message:
    thinking = second.thinking if first.thinking is None else first.thinking + (second.thinking or "")
    return replace(
        first, content=first.content + second.content, thinking=thinking, calls=(*first.calls, *second.calls)
    )


def _other(item: Mapping[str, Any], names: Mapping[str, str], where: str) -> Message:
    kind, role = item.get("type"), _ROLES.get(str(item.get("role")))
    if kind == "function_call_output":
        call_id = item.get("call_id")
        if not isinstance(call_id, str):
            raise ChatFormatError(f"{where} needs the call_id it answers")
        return Message(role="tool", content=_text(item.get("output"), where), name=names.get(call_id), call_id=call_id)
    if kind in (None, "message") and role in ("system", "user"):
        return Message(role="system" if role == "system" else "user", content=_text(item.get("content"), where))
    raise ChatFormatError(
        f"{where} is of type {kind!r} and role {item.get('role')!r}; messages, functions' calls and outputs are read"
    )


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("input_text", "output_text", "text") or not isinstance(part.get("text"), str):
            raise ChatFormatError(f"{where} has content of type {kind!r}; text alone is read")
    return "".join(part["text"] for part in parts)


def to_items(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Items of messages, in order. Calls without an id take one by their place, as do their answers."""
    items: list[dict[str, Any]] = []
    unanswered: list[str] = []
    num_calls = 0
    for place, message in enumerate(messages):
        if message.role == "tool":
            by_order = unanswered.pop(0) if unanswered else f"call_{num_calls}"
            output = {"call_id": message.call_id or by_order, "output": message.content}
            items.append({"type": "function_call_output", **output})
        elif message.role == "assistant":
            unanswered = [call.id or f"call_{num_calls + number}" for number, call in enumerate(message.calls)]
            num_calls += len(message.calls)
            calls = [call_item(call, call_id) for call, call_id in zip(message.calls, unanswered, strict=True)]
            items += [*text_items(message, str(place)), *calls]
        else:
            items.append({"type": "message", "role": message.role, "content": message.content})
    return items


def text_items(message: Message, name: str) -> list[dict[str, Any]]:
    """What an assistant thought and said beside its calls; one who neither thought nor called said something, if only
    nothing.

    Args:
        name: of the message, which the ids of its items end with.
    """
    items = []
    if message.thinking:
        items.append(text_item("reasoning", name, message.thinking, "completed"))
    if message.content or not (message.calls or items):
        items.append(text_item("message", name, message.content, "completed"))
    return items


def text_item(kind: str, name: str, text: str, status: str) -> dict[str, Any]:
    """One item of an assistant's words."""
    about = {"summary": []} if kind == "reasoning" else {"role": "assistant"}
    return {"type": kind, "id": item_id(kind, name), "status": status, "content": [text_part(kind, text)], **about}


def text_part(kind: str, text: str) -> dict[str, Any]:
    """The one part of such an item."""
    about = {} if kind == "reasoning" else {"annotations": [], "logprobs": []}
    return {"type": part_name(kind), "text": text, **about}


def part_name(kind: str) -> str:
    return "reasoning_text" if kind == "reasoning" else "output_text"


def item_id(kind: str, name: str) -> str:
    return f"{'rs' if kind == 'reasoning' else 'msg'}_{name}"


def call_item(call: ToolCall, call_id: str | None) -> dict[str, Any]:
    """A function's call."""
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": call.name,
        "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
        "status": "completed",
    }
