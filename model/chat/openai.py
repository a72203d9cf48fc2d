"""Calls as JSON in the text of a reply (Hermes, Qwen, Llama)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...errors import ChatFormatError
from .actions import decode_action, encode_calls, encode_format_error
from .messages import Message, ToolCall, ToolSpec

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_FENCE = re.compile(r"^```[ \t]*(?:json|tool_call)?[ \t]*\n(.*?)\n?^```[ \t]*$", re.S | re.M)
_LOOKS_LIKE_CALL = re.compile(r'^[ \t]*[\[{]\s*(?:\{\s*)?"(?:name|tool_calls|function|calls)"\s*:', re.M)
_MOST_CANDIDATES = 20
_MOST_CHARACTERS = 1_000_000


class JsonParser:
    """Reads calls from ``<tool_call>`` blocks, a fenced block, or bare JSON that begins a line.

    A call is ``{"name", "arguments"}`` (or ``"parameters"``, or OpenAI's ``{"function": {...}}``); several are a
    list, or the list under ``"tool_calls"``. JSON of any other form is part of a final answer.
    """

    call_openers = (OPEN, CLOSE, "```", "{", "[")

    def opening(self, name: str | None) -> str:
        begun = f'{OPEN}\n{{"name": "'
        return begun if name is None else f'{begun}{name}", "arguments": '

    def split(self, text: str) -> tuple[str | None, str | None]:
        """A prompt may have opened the thinking: then only its end is in the text."""
        if "</think>" in text:
            thinking, _, answer = text.partition("</think>")
            thinking = thinking.removeprefix("<think>").removeprefix("\n").removesuffix("\n")
            return thinking, answer.removeprefix("\n").removeprefix("\n")
        if text.startswith("<think>"):
            return text.removeprefix("<think>").removeprefix("\n").removesuffix("\n"), None
        return None, text

    def parse(self, text: str, tools: Sequence[ToolSpec]) -> tuple[Message, str]:
        thinking, answer = self.split(text)
        if answer is None:
            message = Message(role="assistant", content="", thinking=thinking)
            return message, encode_format_error("the reasoning was not closed with </think>")
        try:
            content, calls = self.find_calls(answer, tools)
            _check_names(calls, tools)
        except CallError as error:
            return Message(role="assistant", content=answer, thinking=thinking), encode_format_error(str(error))
        message = Message(role="assistant", content=content, thinking=thinking, calls=calls)
        if calls:
            return message, encode_calls(calls)
        if decode_action(content).final is None:
            return message, encode_format_error('each call needs {"name": str, "arguments": object}')
        return message, content

    def find_calls(self, text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
        """(text beside the calls, calls). Raises CallError where something is meant as a call and cannot be read."""
        return _find_calls(text)

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """Calls as the model writes them. Raises TypeError, ValueError: arguments that are no plain JSON."""
        return "\n".join(
            f"{OPEN}\n{json.dumps({'name': c.name, 'arguments': dict(c.arguments)}, ensure_ascii=False)}\n{CLOSE}"
            for c in calls
        )

    def format(self, message: Message, tools: Sequence[ToolSpec]) -> str:
        """The text with calls that parses to the message's action.

        Raises:
            ChatFormatError: there is none, such as for a final answer that is itself a call.
        """
        try:
            blocks = [self.write_calls(message.calls)] if message.calls else []
            expected = encode_calls(message.calls) if message.calls else message.content
        except (TypeError, ValueError) as error:
            raise ChatFormatError(f"the arguments of a call are not plain JSON ({error})") from None
        said = [message.content] if message.content or not blocks else []
        text = "\n".join([*said, *blocks])
        if message.thinking is not None:
            text = f"<think>\n{message.thinking}\n</think>\n\n{text}"
        action = self.parse(text, tools)[1]
        if action != expected:
            raise ChatFormatError(
                f"calls cannot express this message; it would be read as {action[:200]!r}. A text cannot hold "
                f"{self.call_openers[0]} or look like a call"
            )
        return text


class CallError(ValueError):
    """A call that cannot be read; the message is for the policy."""


def _find_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """(text beside the calls, calls). Raises CallError where something is meant as a call and cannot be read."""
    if OPEN in text or CLOSE in text:
        return _tagged_calls(text)
    readable = set()
    for start, end, value in _json_values(text):
        readable.add(start)
        rows = _call_rows(value)
        if rows is not None:
            calls = tuple(read_call(row) for row in rows)
            return (text[:start] + text[end:]).strip(), calls
    found = next((m for m in _LOOKS_LIKE_CALL.finditer(text) if m.start() not in readable), None)
    if found and re.search(r'"(arguments|parameters|tool_calls|calls)"', text[found.start() :]):
        raise CallError(f"the call is not valid JSON: {text[found.start() : found.start() + 120].strip()!r}")
    return text, ()


def _tagged_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    outside, *blocks = text.split(OPEN)
    if CLOSE in outside:
        raise CallError(f"there is a {CLOSE} without its {OPEN}")
    calls: list[ToolCall] = []
    beside = [outside]
    for block in blocks:
        body, closed, after = block.partition(CLOSE)
        if not closed or CLOSE in after:
            raise CallError(f"each {OPEN} needs one {CLOSE}")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise CallError(f"the call is not valid JSON: {body.strip()[:120]!r}") from None
        calls += [read_call(row) for row in (value if isinstance(value, list) else [value])]
        beside.append(after)
    if not calls:
        raise CallError(f"a {OPEN} block holds no call")
    return "".join(beside).strip(), tuple(calls)


def _json_values(text: str) -> Iterator[tuple[int, int, Any]]:
    """(start, end, value) of fenced blocks, and of JSON that begins a line."""
    if len(text) > _MOST_CHARACTERS:
        return
    for fence in list(_FENCE.finditer(text))[:_MOST_CANDIDATES]:
        try:
            yield fence.start(), fence.end(), json.loads(fence.group(1))
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder()
    for begin in list(re.finditer(r"^[ \t]*(?=[\[{])", text, re.M))[:_MOST_CANDIDATES]:
        try:
            value, end = decoder.raw_decode(text, begin.end())
        except (ValueError, RecursionError):
            continue
        yield begin.start(), end, value


def _call_rows(value: Any) -> list[Any] | None:
    """The calls that a JSON value means; None where it is no call."""
    if isinstance(value, Mapping):
        for key in ("tool_calls", "calls"):
            if set(value) == {key} and isinstance(value[key], list) and value[key]:
                return value[key]
    rows = value if isinstance(value, list) else [value]
    return rows if rows and all(_is_call(row) for row in rows) else None


def _is_call(row: Any) -> bool:
    if not isinstance(row, Mapping):
        return False
    if isinstance(row.get("function"), Mapping):
        return "name" in row["function"]
    return "name" in row and bool({"arguments", "parameters"} & set(row)) and len(row) <= 4


def read_call(row: Any) -> ToolCall:
    """A call from its JSON. Raises CallError where it is not one."""
    if not isinstance(row, Mapping):
        raise CallError('each call needs {"name": str, "arguments": object}')
    function = row["function"] if isinstance(row.get("function"), Mapping) else row
    name = function.get("name")
    if not isinstance(name, str):
        raise CallError('each call needs {"name": str, "arguments": object}')
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise CallError(f"the arguments of {name} are not valid JSON: {arguments[:120]!r}") from None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise CallError(f"the arguments of {name} must be a JSON object, not a {type(arguments).__name__}")
    call_id = row.get("id")
    return ToolCall(name=name, arguments=dict(arguments), id=call_id if isinstance(call_id, str) else None)


def _check_names(calls: Sequence[ToolCall], tools: Sequence[ToolSpec]) -> None:
    known = [spec.name for spec in tools]
    for call in calls:
        if call.name not in known:
            raise CallError(f"there is no tool {call.name!r}; the tools are {', '.join(known) or 'none'}")
