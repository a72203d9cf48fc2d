"""A conversation as the rows that a Jinja chat template reads, in the form that the template at hand can take."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .messages import Message, ToolCall, ToolSpec
from .openai import CLOSE, OPEN

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_SPECIFICATION = """# Tools

You can call these tools:
{tools}

To call one, write a JSON object with its name and its arguments between tags, and nothing after it:
{open}
{{"name": "the tool's name", "arguments": {{"an argument": "its value"}}}}
{close}
The answer comes as the next message, between <tool_response> and </tool_response>."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a template can take.

    Attributes:
        thinking_inline: thinking stands in the content, as the template has no place of its own for it.
        arguments_as_text: arguments of calls are JSON in a string, not an object.
        one_call: an assistant's message holds one call at most; several follow each other, each with its answer.
        short_ids: ids of calls are nine letters or digits; others are turned into such.
        tools_as_text: tools, calls and answers are written into messages, for a template that knows none of them.
        lists_tools: tools that are written into messages are listed in the first of them.
        no_system: the system's message stands before the first user's.
    """

    thinking_inline: bool = True
    arguments_as_text: bool = False
    one_call: bool = False
    short_ids: bool = False
    tools_as_text: bool = False
    lists_tools: bool = True
    no_system: bool = False


def conversation(messages: Sequence[Message], tools: Sequence[ToolSpec], form: Form) -> list[dict[str, Any]]:
    """Rows for ``apply_chat_template``."""
    if form.tools_as_text:
        messages = _without_tools(messages, tools if form.lists_tools else ())
    if form.no_system:
        messages = _without_system(messages)
    if form.one_call:
        messages = _one_call_each(messages)
    rows: list[dict[str, Any]] = []
    unanswered: list[str] = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking is not None and form.thinking_inline:
            row["content"] = f"<think>\n{message.thinking}\n</think>\n\n{message.content}"
        elif message.thinking is not None:
            row["reasoning_content"] = message.thinking
        if message.calls:
            unanswered = [_id(call.id, f"call{i:05d}", form) for i, call in enumerate(message.calls)]
            row["tool_calls"] = [_call(call, i, form) for i, call in zip(unanswered, message.calls, strict=True)]
        if message.role == "tool":
            by_order = unanswered.pop(0) if unanswered else "call00000"
            row |= {"name": message.name or "tool", "tool_call_id": _id(message.call_id, by_order, form)}
        rows.append(row)
    return rows


def _call(call: ToolCall, call_id: str, form: Form) -> dict[str, Any]:
    arguments: Any = dict(call.arguments)
    if form.arguments_as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _id(own: str | None, by_order: str, form: Form) -> str:
    if own is None or not form.short_ids or _SHORT_ID.fullmatch(own):
        return own or by_order
    return hashlib.sha256(own.encode("utf-8", "replace")).hexdigest()[:9]


def _one_call_each(messages: Sequence[Message]) -> list[Message]:
    """Each assistant's message with several calls as several, each before the answer to its call."""
    found: list[Message] = []
    waiting: list[Message] = []
    for message in messages:
        if len(message.calls) > 1:
            turns = [
                Message(role="assistant", content="" if i else message.content, calls=(call,),
                        thinking=None if i else message.thinking)
                for i, call in enumerate(message.calls)
            ]  # fmt: skip
            found.append(turns[0])
            waiting = turns[1:]
            continue
        found.append(message)
        if message.role == "tool" and waiting:
            found.append(waiting.pop(0))
    return found + waiting


def _without_system(messages: Sequence[Message]) -> list[Message]:
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    if not rest or rest[0].role != "user":
        return [Message(role="user", content=system.content), *rest]
    return [Message(role="user", content=f"{system.content}\n\n{rest[0].content}"), *rest[1:]]


def _without_tools(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        if message.role == "tool":
            text = f"<tool_response>\n{message.content}\n</tool_response>"
            if found and found[-1].role == "user" and found[-1].name == "tool":
                text = f"{found.pop().content}\n{text}"
            found.append(Message(role="user", content=text, name="tool"))
        elif message.calls:
            blocks = [
                f"{OPEN}\n{json.dumps({'name': c.name, 'arguments': dict(c.arguments)}, ensure_ascii=False)}\n{CLOSE}"
                for c in message.calls
            ]
            content = "\n".join([*([message.content] if message.content else []), *blocks])
            found.append(Message(role="assistant", content=content, thinking=message.thinking))
        else:
            found.append(message)
    if not tools:
        return found
    specs = "\n".join(json.dumps(spec.to_openai(), ensure_ascii=False) for spec in tools)
    said = _SPECIFICATION.format(tools=specs, open=OPEN, close=CLOSE)
    if found and found[0].role == "system":
        return [Message(role="system", content=f"{found[0].content}\n\n{said}"), *found[1:]]
    return [Message(role="system", content=said), *found]
