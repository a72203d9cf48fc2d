"""OpenAI's chat API: messages and tools in its form, written for a server and read from a client."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ChatFormatError
from .actions import decode_action, encode_calls, encode_format_error
from .messages import Message, Role, ToolCall, ToolSpec
from .openai import CallError, read_call

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def to_openai_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in the form of OpenAI's chat API. A call or an answer without an id takes one by its place."""
    rows: list[dict[str, Any]] = []
    unanswered: list[str] = []
    num_calls = 0
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            unanswered = [call.id or f"call_{num_calls + i}" for i, call in enumerate(message.calls)]
            num_calls += len(message.calls)
            row["tool_calls"] = [to_openai_call(call, i) for call, i in zip(message.calls, unanswered, strict=True)]
        if message.role == "tool":
            by_order = unanswered.pop(0) if unanswered else "call_0"
            row["tool_call_id"] = message.call_id or by_order
        if message.attachments and message.role != "tool":
            row["content"] = _parts(message)
        rows.append(row)
        if message.attachments and message.role == "tool":
            # An answer of a tool is text in this API: what it shows stands behind it.
            rows.append(
                {"role": "user", "content": _parts(Message(role="user", content="", attachments=message.attachments))}
            )
    return rows


def _parts(message: Message) -> list[dict[str, Any]]:
    """Text, then what is attached."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    for one in message.attachments:
        if one.is_image:
            parts.append({"type": "image_url", "image_url": {"url": one.url}})
        else:
            parts.append({"type": "file", "file": {"filename": one.name or "file", "file_data": one.url}})
    return parts


def to_openai_call(call: ToolCall, call_id: str) -> dict[str, Any]:
    """One entry of ``tool_calls``."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def from_openai_message(row: Mapping[str, Any]) -> tuple[Message, str]:
    """(the assistant message, its action) of a server's ``choices[i].message``. Calls that cannot be read are a
    format error, never an exception; their words stay in the content, so that the policy sees what it wrote."""
    content = row.get("content")
    content = content if isinstance(content, str) else ""
    thinking = row.get("reasoning_content") or row.get("reasoning")
    thinking = thinking if isinstance(thinking, str) else None
    told = row.get("tool_calls") or []
    try:
        if not isinstance(told, list):
            raise CallError("tool_calls must be a list")
        calls = tuple(read_call(one) for one in told)
    except CallError as error:
        words = told if isinstance(told, list) else [told]
        content = "\n".join([content, *(json.dumps(one, ensure_ascii=False) for one in words)]).strip()
        return Message(role="assistant", content=content, thinking=thinking), encode_format_error(str(error))
    message = Message(role="assistant", content=content, thinking=thinking, calls=calls)
    if calls:
        return message, encode_calls(calls)
    if decode_action(content).final is None:
        return message, encode_format_error("calls belong into tool_calls, not into the text")
    return message, content


def from_openai_messages(rows: Sequence[Any]) -> list[Message]:
    """A client's ``messages``. A tool's answer gets its tool's name from the call it answers.

    Raises:
        ChatFormatError: a row that cannot be read; it says which.
    """
    messages: list[Message] = []
    names: dict[str, str] = {}
    for index, row in enumerate(rows):
        where = f"messages[{index}]"
        if not isinstance(row, Mapping):
            raise ChatFormatError(f"{where} must be an object with role and content, not a {type(row).__name__}")
        role = _ROLES.get(str(row.get("role")))
        if role is None:
            raise ChatFormatError(f"{where} has the role {row.get('role')!r}; the roles are {', '.join(_ROLES)}")
        content = _text_of(row.get("content"), where)
        if role == "assistant":
            message = _assistant(row, content, where)
            names.update({call.id: call.name for call in message.calls if call.id is not None})
        elif role == "tool":
            call_id = row.get("tool_call_id")
            if not isinstance(call_id, str):
                raise ChatFormatError(f"{where} answers no call; give its tool_call_id")
            message = Message(role=role, content=content, name=row.get("name") or names.get(call_id), call_id=call_id)
        else:
            message = Message(role=role, content=content)
        messages.append(message)
    return messages


def from_openai_tools(rows: Sequence[Any]) -> list[ToolSpec]:
    """A client's ``tools``.

    Raises:
        ChatFormatError: a tool that is no function with a name and a JSON schema of its parameters.
    """
    specs = []
    for index, row in enumerate(rows):
        function = row.get("function") if isinstance(row, Mapping) and row.get("type") == "function" else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise ChatFormatError(
                f'tools[{index}] must be {{"type": "function", "function": {{"name", "parameters"}}}}'
            )
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties", {}), Mapping):
            raise ChatFormatError(f"tools[{index}].function.parameters must be a JSON schema of an object")
        description = function.get("description") or ""
        specs.append(ToolSpec(name=function["name"], description=str(description), parameters=parameters))
    return specs


def _assistant(row: Mapping[str, Any], content: str, where: str) -> Message:
    told = row.get("tool_calls") or ()
    try:
        calls = tuple(read_call(one) for one in told) if isinstance(told, list | tuple) else None
    except CallError as error:
        raise ChatFormatError(f"{where}.tool_calls cannot be read: {error}") from None
    if calls is None:
        raise ChatFormatError(f"{where}.tool_calls must be a list")
    thinking = row.get("reasoning_content") or row.get("reasoning")
    return Message(
        role="assistant", content=content, thinking=thinking if isinstance(thinking, str) else None, calls=calls
    )


def _text_of(content: Any, where: str) -> str:
    """A message's text: a string, nothing, or a list of parts of type text."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    raise ChatFormatError(f"{where}.content must be a text, or a list of parts of type text")
