"""OpenAI's responses: ``POST /v1/responses``. Nothing is stored: the harness sends the whole context each time."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ...errors import ChatFormatError
from ...model.chat.api import from_openai_tools
from ...model.chat.messages import Message, ToolCall
from ...model.chat.openai import CallError, read_call
from .asked import Answered, Asked, GatewayError, Given, Reading, check_answers, forced_call, only_known, typed
from .chat_completions import openai_error

USED = frozenset({
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "stream", "stream_options",
    "max_output_tokens", "temperature", "top_p", "text", "truncation", "previous_response_id",
})  # fmt: skip
LEFT_ASIDE = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "include", "reasoning", "max_tool_calls", "client_metadata",
})  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class Responses:
    path = "/v1/responses"
    named_events = True
    last_event: str | None = None

    def read(self, body: Mapping[str, Any]) -> Asked:
        only_known(body, USED, LEFT_ASIDE)
        if body.get("previous_response_id") is not None:
            told = "no answer is stored here; send the whole input in place of previous_response_id"
            raise GatewayError(400, told, code="unsupported_parameter", param="previous_response_id")
        if typed(body, "truncation", str) not in (None, "disabled"):
            told = f"truncation is {body['truncation']!r}; nothing is left out here, shorten the input"
            raise GatewayError(400, told, code="unsupported_parameter", param="truncation")
        kind = ((typed(body, "text", dict) or {}).get("format") or {}).get("type", "text")
        if kind != "text":
            raise GatewayError(400, f"text.format is {kind!r}; only text is sampled", param="text")
        choice = body.get("tool_choice")
        if choice not in (None, "auto", "none"):
            raise forced_call("tool_choice")
        messages = list(_messages(body))
        if not messages:
            raise GatewayError(400, "input is empty; give at least one message", param="input")
        check_answers(messages)
        rows = [_function(row, place) for place, row in enumerate(typed(body, "tools", list) or ())]
        tools = from_openai_tools(rows)
        return Asked(
            model=typed(body, "model", str) or "",
            messages=messages,
            tools=() if choice == "none" else tools,
            stream=bool(typed(body, "stream", bool)),
            one_call=typed(body, "parallel_tool_calls", bool) is False,
            max_tokens=typed(body, "max_output_tokens", int),
            temperature=typed(body, "temperature", int, float),
            top_p=typed(body, "top_p", int, float),
        )

    def answer(self, asked: Asked, answered: Answered) -> dict[str, Any]:
        cut = answered.finish_reason == "length"
        prompt, sampled = answered.num_prompt, answered.num_sampled
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": sampled,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + sampled,
        }
        return {
            **_head(asked, answered.id, answered.created),
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": _items(answered),
            "usage": usage,
        }

    async def events(
        self, asked: Asked, answer_id: str, created: int, reading: Reading
    ) -> AsyncGenerator[dict[str, Any], None]:
        number, written, given = 0, _Written(answer_id), Given()

        def numbered(event: dict[str, Any]) -> dict[str, Any]:
            nonlocal number
            number += 1
            return {**event, "sequence_number": number - 1}

        head = {**_head(asked, answer_id, created), "status": "in_progress", "output": [], "usage": None}
        head["incomplete_details"] = None
        begun = False
        async with aclosing(reading) as parts:
            async for part in parts:
                if not begun:
                    begun = True
                    yield numbered({"type": "response.created", "response": head})
                    yield numbered({"type": "response.in_progress", "response": head})
                delta = given.left(part.message) if isinstance(part, Answered) else part
                given.add(delta)
                for event in written.texts(delta):
                    yield numbered(event)
                if isinstance(part, Answered):
                    for event in written.end(part):
                        yield numbered(event)
                    answer = self.answer(asked, part)
                    yield numbered({"type": f"response.{answer['status']}", "response": answer})

    def error(self, error: GatewayError) -> dict[str, Any]:
        told = openai_error(error)
        return {**told, "type": "error", "code": error.code, "message": error.message, "param": error.param}


class _Written:
    """The items of a stream: reasoning and message as they come, calls at the end."""

    def __init__(self, answer_id: str) -> None:
        self._id, self._index, self._open, self._text = answer_id, -1, "", ""

    def texts(self, delta: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for name, kind in (("reasoning_content", "reasoning"), ("content", "message")):
            if not delta.get(name):
                continue
            if self._open != kind:
                yield from self._close()
                self._index, self._open, self._text = self._index + 1, kind, ""
                item = _text_item(kind, self._id, "", "in_progress") | {"content": []}
                yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
                if kind == "message":
                    yield {"type": "response.content_part.added", **self._where(), "part": _part(kind, "")}
            self._text += delta[name]
            about = {"logprobs": []} if kind == "message" else {}
            yield {"type": f"response.{_part_name(kind)}.delta", **self._where(), "delta": delta[name], **about}

    def end(self, answered: Answered) -> Iterator[dict[str, Any]]:
        yield from self._close()
        if self._index < 0 and not answered.message.calls:  # an empty message is one, too
            self._index += 1
            item = _text_item("message", self._id, "", "completed")
            yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
            yield {"type": "response.output_item.done", "output_index": self._index, "item": item}
        for item in _call_items(answered):
            self._index += 1
            where = {"output_index": self._index, "item_id": item["id"]}
            begun = item | {"arguments": "", "status": "in_progress"}
            yield {"type": "response.output_item.added", "output_index": self._index, "item": begun}
            yield {"type": "response.function_call_arguments.delta", **where, "delta": item["arguments"]}
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield {"type": "response.function_call_arguments.done", **where, **done}
            yield {"type": "response.output_item.done", "output_index": self._index, "item": item}

    def _close(self) -> Iterator[dict[str, Any]]:
        kind, self._open = self._open, ""
        if not kind:
            return
        about = {"logprobs": []} if kind == "message" else {}
        yield {"type": f"response.{_part_name(kind)}.done", **self._where(kind), "text": self._text, **about}
        if kind == "message":
            yield {"type": "response.content_part.done", **self._where(kind), "part": _part(kind, self._text)}
        item = _text_item(kind, self._id, self._text, "completed")
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}

    def _where(self, kind: str = "") -> dict[str, Any]:
        item = _item_id(kind or self._open, self._id)
        return {"item_id": item, "output_index": self._index, "content_index": 0}


def _messages(body: Mapping[str, Any]) -> Iterator[Message]:
    """The input as messages: what an assistant thought, said and called is one until somebody answers."""
    instructions = typed(body, "instructions", str)
    if instructions:
        yield Message(role="system", content=instructions)
    given = typed(body, "input", str, list)
    if isinstance(given, str):
        yield Message(role="user", content=given)
        return
    turn: Message | None = None
    names: dict[str, str] = {}
    for place, item in enumerate(given or ()):
        where = f"input[{place}]"
        if not isinstance(item, Mapping):
            raise GatewayError(400, f"{where} must be an object", param="input")
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
            raise GatewayError(400, f"{where} needs the call_id it answers", param="input")
        return Message(role="tool", content=_text(item.get("output"), where), name=names.get(call_id), call_id=call_id)
    if kind in (None, "message") and role in ("system", "user"):
        return Message(role="system" if role == "system" else "user", content=_text(item.get("content"), where))
    told = f"{where} is of type {kind!r} and role {item.get('role')!r}; messages, functions' calls and outputs are read"
    raise GatewayError(400, told, code="unsupported_content", param="input")


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("input_text", "output_text", "text") or not isinstance(part.get("text"), str):
            told = f"{where} has content of type {kind!r}; the model reads text alone"
            raise GatewayError(400, told, code="unsupported_content", param="input")
    return "".join(part["text"] for part in parts)


def _function(row: Any, place: int) -> dict[str, Any]:
    if not isinstance(row, Mapping) or row.get("type") != "function":
        kind = row.get("type") if isinstance(row, Mapping) else row
        told = f"tools[{place}] is of type {kind!r}; functions alone can be called here"
        raise GatewayError(400, told, code="unsupported_parameter", param="tools")
    return {"type": "function", "function": row}


def _head(asked: Asked, answer_id: str, created: int) -> dict[str, Any]:
    tools = [{"type": "function", "strict": False, **spec.to_openai()["function"]} for spec in asked.tools]
    return {
        "id": f"resp_{answer_id}",
        "object": "response",
        "created_at": created,
        "model": asked.model,
        "error": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": not asked.one_call,
        "temperature": asked.temperature,
        "tool_choice": "auto",
        "tools": tools,
        "top_p": asked.top_p,
    }


def _items(answered: Answered) -> list[dict[str, Any]]:
    message, items = answered.message, []
    if message.thinking:
        items.append(_text_item("reasoning", answered.id, message.thinking, "completed"))
    if message.content or not (message.calls or items):
        items.append(_text_item("message", answered.id, message.content, "completed"))
    return items + _call_items(answered)


def _text_item(kind: str, answer_id: str, text: str, status: str) -> dict[str, Any]:
    about = {"summary": []} if kind == "reasoning" else {"role": "assistant"}
    return {
        "type": kind,
        "id": _item_id(kind, answer_id),
        "status": status,
        "content": [_part(kind, text)],
        **about,
    }


def _item_id(kind: str, answer_id: str) -> str:
    return f"{'rs' if kind == 'reasoning' else 'msg'}_{answer_id}"


def _part_name(kind: str) -> str:
    return "reasoning_text" if kind == "reasoning" else "output_text"


def _part(kind: str, text: str) -> dict[str, Any]:
    about = {} if kind == "reasoning" else {"annotations": [], "logprobs": []}
    return {"type": _part_name(kind), "text": text, **about}


def _call_items(answered: Answered) -> list[dict[str, Any]]:
    return [_call_item(call) for call in answered.message.calls]


def _call_item(call: ToolCall) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call.id}",
        "call_id": call.id,
        "name": call.name,
        "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
        "status": "completed",
    }
