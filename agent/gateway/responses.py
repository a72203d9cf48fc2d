"""OpenAI's responses: ``POST /v1/responses``. Nothing is stored: the harness sends the whole context each time."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from ...errors import ChatFormatError
from ...model.chat.api import from_openai_tools
from ...model.chat.items import call_item, from_items, item_id, part_name, text_item, text_items, text_part
from ...model.chat.messages import Message
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
        messages = _messages(body)
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
                item = text_item(kind, self._id, "", "in_progress") | {"content": []}
                yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
                if kind == "message":
                    yield {"type": "response.content_part.added", **self._where(), "part": text_part(kind, "")}
            self._text += delta[name]
            about = {"logprobs": []} if kind == "message" else {}
            yield {"type": f"response.{part_name(kind)}.delta", **self._where(), "delta": delta[name], **about}

    def end(self, answered: Answered) -> Iterator[dict[str, Any]]:
        yield from self._close()
        if self._index < 0 and not answered.message.calls:  # an empty message is one, too
            self._index += 1
            item = text_item("message", self._id, "", "completed")
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
        yield {"type": f"response.{part_name(kind)}.done", **self._where(kind), "text": self._text, **about}
        if kind == "message":
            yield {"type": "response.content_part.done", **self._where(kind), "part": text_part(kind, self._text)}
        item = text_item(kind, self._id, self._text, "completed")
        yield {"type": "response.output_item.done", "output_index": self._index, "item": item}

    def _where(self, kind: str = "") -> dict[str, Any]:
        item = item_id(kind or self._open, self._id)
        return {"item_id": item, "output_index": self._index, "content_index": 0}


def _messages(body: Mapping[str, Any]) -> list[Message]:
    instructions = typed(body, "instructions", str)
    first = [Message(role="system", content=instructions)] if instructions else []
    given = typed(body, "input", str, list)
    try:
        return first + from_items(() if given is None else given)
    except ChatFormatError as error:
        raise GatewayError(400, str(error), code="unsupported_content", param="input") from None


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
    return text_items(answered.message, answered.id) + _call_items(answered)


def _call_items(answered: Answered) -> list[dict[str, Any]]:
    return [call_item(call, call.id) for call in answered.message.calls]
