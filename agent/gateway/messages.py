"""Anthropic's messages: ``POST /v1/messages``."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ...model.chat.messages import Message, ToolCall, ToolSpec
from .asked import Answered, Asked, GatewayError, Given, Reading, check_answers, forced_call, only_known, typed
from .chat_completions import stops_of

USED = frozenset({
    "model", "messages", "system", "tools", "tool_choice", "max_tokens", "temperature", "top_p", "top_k",
    "stop_sequences", "stream",
})  # fmt: skip
LEFT_ASIDE = frozenset({
    "metadata", "service_tier", "thinking", "container", "context_management", "output_config", "betas",
})  # fmt: skip
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
_KINDS |= {429: "rate_limit_error"}


class Messages:
    path = "/v1/messages"
    named_events = True
    last_event: str | None = None

    def read(self, body: Mapping[str, Any]) -> Asked:
        only_known(body, USED, LEFT_ASIDE)
        limit = typed(body, "max_tokens", int)
        if limit is None or limit < 1:
            raise GatewayError(400, f"max_tokens is {limit}; it must be at least 1", param="max_tokens")
        choice = typed(body, "tool_choice", dict) or {"type": "auto"}
        if choice.get("type") not in ("auto", "none"):
            raise forced_call("tool_choice")
        messages = list(_messages(body))
        if not messages:
            raise GatewayError(400, "messages is empty; give at least one", param="messages")
        check_answers(messages)
        tools = [_tool(row, place) for place, row in enumerate(typed(body, "tools", list) or ())]
        return Asked(
            model=typed(body, "model", str) or "",
            messages=messages,
            tools=() if choice["type"] == "none" else tools,
            stream=bool(typed(body, "stream", bool)),
            one_call=bool(choice.get("disable_parallel_tool_use")),
            max_tokens=limit,
            temperature=typed(body, "temperature", int, float),
            top_p=typed(body, "top_p", int, float),
            top_k=typed(body, "top_k", int),
            stop=stops_of(body, "stop_sequences"),
        )

    def answer(self, asked: Asked, answered: Answered) -> dict[str, Any]:
        message = answered.message
        content: list[dict[str, Any]] = []
        if message.thinking is not None:
            content.append({"type": "thinking", "thinking": message.thinking, "signature": ""})
        if message.content or not message.calls:
            content.append({"type": "text", "text": message.content})
        content += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.arguments)}
            for call in message.calls
        ]
        return {
            **_head(asked, answered.id),
            "content": content,
            "stop_reason": _stop_reason(answered),
            "usage": {"input_tokens": answered.num_prompt, "output_tokens": answered.num_sampled},
        }

    async def events(
        self, asked: Asked, answer_id: str, created: int, reading: Reading
    ) -> AsyncGenerator[dict[str, Any], None]:
        blocks, given, begun = _Blocks(), Given(), False
        async with aclosing(reading) as parts:
            async for part in parts:
                if not begun:
                    begun = True
                    usage = {"input_tokens": part.num_prompt if isinstance(part, Answered) else 0, "output_tokens": 0}
                    head = {**_head(asked, answer_id), "content": [], "stop_reason": None, "usage": usage}
                    yield {"type": "message_start", "message": head}
                whole = isinstance(part, Answered)
                delta = given.left(part.message) if isinstance(part, Answered) else part
                given.add(delta)
                for event in blocks.texts(delta):
                    yield event
                if not whole:
                    continue
                for event in blocks.calls(part.message.calls):
                    yield event
                for event in blocks.end():
                    yield event
                usage = {"input_tokens": part.num_prompt, "output_tokens": part.num_sampled}
                ended = {"stop_reason": _stop_reason(part), "stop_sequence": None}
                yield {"type": "message_delta", "delta": ended, "usage": usage}
                yield {"type": "message_stop"}

    def error(self, error: GatewayError) -> dict[str, Any]:
        kind = "api_error" if error.status >= 500 else _KINDS.get(error.status, "invalid_request_error")
        message = error.message
        if error.code == "context_length_exceeded":
            message = f"prompt is too long: {message}"  # the words that Anthropic's clients look for
        return {"type": "error", "error": {"type": kind, "message": message, "code": error.code}}


class _Blocks:
    """The blocks of a stream: one is open at a time."""

    def __init__(self) -> None:
        self._index, self._open = -1, ""

    def texts(self, delta: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for name, kind, key in (("reasoning_content", "thinking", "thinking"), ("content", "text", "text")):
            if delta.get(name):
                empty = {"type": kind, key: ""} | ({"signature": ""} if kind == "thinking" else {})
                yield from self._block(kind, empty)
                yield self._delta({"type": f"{kind}_delta", key: delta[name]})

    def calls(self, calls: Sequence[ToolCall]) -> Iterator[dict[str, Any]]:
        for call in calls:
            yield from self.end()
            yield from self._block("tool_use", {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
            written = json.dumps(dict(call.arguments), ensure_ascii=False)
            yield self._delta({"type": "input_json_delta", "partial_json": written})

    def end(self) -> Iterator[dict[str, Any]]:
        if self._open:
            self._open = ""
            yield {"type": "content_block_stop", "index": self._index}

    def _block(self, kind: str, empty: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._open != kind:
            yield from self.end()
            self._open, self._index = kind, self._index + 1
            yield {"type": "content_block_start", "index": self._index, "content_block": empty}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _messages(body: Mapping[str, Any]) -> Iterator[Message]:
    system = body.get("system")
    if system:
        yield Message(role="system", content=_text(system, "system"))
    names: dict[str, str] = {}
    for place, row in enumerate(typed(body, "messages", list) or ()):
        where = f"messages[{place}]"
        if not isinstance(row, Mapping) or row.get("role") not in ("user", "assistant"):
            raise GatewayError(400, f"{where} must be an object with the role user or assistant", param="messages")
        if row["role"] == "assistant":
            message = _assistant(row.get("content"), where)
            names.update({call.id: call.name for call in message.calls if call.id is not None})
            yield message
        else:
            yield from _user(row.get("content"), names, where)


def _assistant(content: Any, where: str) -> Message:
    texts, thoughts, calls = [], [], []
    for block in _blocks_of(content, where):
        kind = block.get("type")
        if kind == "text":
            texts.append(_text([block], where))
        elif kind == "thinking" and isinstance(block.get("thinking"), str):
            thoughts.append(block["thinking"])
        elif kind == "tool_use":
            name, call_id, given = block.get("name"), block.get("id"), block.get("input")
            if not isinstance(name, str) or not isinstance(call_id, str) or not isinstance(given, Mapping):
                raise GatewayError(400, f"{where}: a tool_use needs id, name and an object as input", param="messages")
            calls.append(ToolCall(name=name, arguments=dict(given), id=call_id))
        elif kind != "redacted_thinking":
            raise _unknown_block(block, where)
    thinking = "".join(thoughts) if thoughts else None
    return Message(role="assistant", content="".join(texts), thinking=thinking, calls=tuple(calls))


def _user(content: Any, names: Mapping[str, str], where: str) -> Iterator[Message]:
    texts: list[str] = []
    for block in _blocks_of(content, where):
        if block.get("type") == "tool_result":
            call_id = block.get("tool_use_id")
            if not isinstance(call_id, str):
                raise GatewayError(400, f"{where}: a tool_result needs the tool_use_id it answers", param="messages")
            if texts:
                yield Message(role="user", content="".join(texts))
                texts = []
            answer = _text(block.get("content") or "", f"{where}, the answer to {call_id}")
            yield Message(role="tool", content=answer, name=names.get(call_id), call_id=call_id)
        elif block.get("type") == "text":
            texts.append(_text([block], where))
        else:
            raise _unknown_block(block, where)
    if texts:
        yield Message(role="user", content="".join(texts))


def _blocks_of(content: Any, where: str) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(block, Mapping) for block in content):
        return content
    raise GatewayError(400, f"{where}: content must be a text or a list of blocks", param="messages")


def _text(content: Any, where: str) -> str:
    blocks = _blocks_of(content, where)
    for block in blocks:
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise _unknown_block(block, where)
    return "".join(block["text"] for block in blocks)


def _unknown_block(block: Mapping[str, Any], where: str) -> GatewayError:
    told = f"{where} has a block of type {block.get('type')!r}; the model reads text, calls and their answers alone"
    return GatewayError(400, told, code="unsupported_content", param="messages")


def _tool(row: Any, place: int) -> ToolSpec:
    name = row.get("name") if isinstance(row, Mapping) and row.get("type") in (None, "custom") else None
    if not isinstance(name, str) or not name:
        told = f"tools[{place}] must have a name and an input_schema; tools that a server runs are not here"
        raise GatewayError(400, told, param="tools")
    schema = row.get("input_schema") or {"type": "object", "properties": {}}
    if not isinstance(schema, Mapping) or not isinstance(schema.get("properties", {}), Mapping):
        raise GatewayError(400, f"tools[{place}].input_schema must be a JSON schema of an object", param="tools")
    return ToolSpec(name=name, description=str(row.get("description") or ""), parameters=schema)


def _head(asked: Asked, answer_id: str) -> dict[str, Any]:
    return {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "stop_sequence": None,
    }


def _stop_reason(answered: Answered) -> str:
    if answered.finish_reason == "length":
        return "max_tokens"
    return "tool_use" if answered.message.calls else "end_turn"
