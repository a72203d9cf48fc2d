"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ...model.chat.api import from_openai_messages, from_openai_tools, to_openai_call
from ...model.web.errors import ApiError
from .asked import Answered, Asked, GatewayError, Given, Reading, check_answers, forced_call, only_known, typed

USED = frozenset({
    "model", "messages", "tools", "tool_choice", "parallel_tool_calls", "stream", "stream_options", "max_tokens",
    "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop", "n", "response_format",
})  # fmt: skip
LEFT_ASIDE = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "verbosity", "reasoning_effort",
})  # fmt: skip


class ChatCompletions:
    path = "/v1/chat/completions"
    named_events = False
    last_event: str | None = "[DONE]"

    def read(self, body: Mapping[str, Any]) -> Asked:
        only_known(body, USED, LEFT_ASIDE)
        if typed(body, "n", int) not in (None, 1):
            raise GatewayError(400, f"n is {body['n']}; each request is one turn, send several", param="n")
        kind = (typed(body, "response_format", dict) or {}).get("type", "text")
        if kind != "text":
            raise GatewayError(400, f"response_format is {kind!r}; only text is sampled", param="response_format")
        choice = body.get("tool_choice")
        if choice not in (None, "auto", "none"):
            raise forced_call("tool_choice")
        rows = typed(body, "messages", list)
        if not rows:
            raise GatewayError(400, "messages is empty; give at least one", param="messages")
        messages = from_openai_messages(rows)
        check_answers(messages)
        tools = from_openai_tools(typed(body, "tools", list) or ())
        limit = typed(body, "max_completion_tokens", int)
        return Asked(
            model=typed(body, "model", str) or "",
            messages=messages,
            tools=() if choice == "none" else tools,
            stream=bool(typed(body, "stream", bool)),
            include_usage=bool((typed(body, "stream_options", dict) or {}).get("include_usage")),
            one_call=typed(body, "parallel_tool_calls", bool) is False,
            max_tokens=typed(body, "max_tokens", int) if limit is None else limit,
            temperature=typed(body, "temperature", int, float),
            top_p=typed(body, "top_p", int, float),
            top_k=typed(body, "top_k", int),
            seed=typed(body, "seed", int),
            stop=stops_of(body, "stop"),
        )

    def answer(self, asked: Asked, answered: Answered) -> dict[str, Any]:
        message = answered.message
        said: dict[str, Any] = {
            "role": "assistant",
            "content": message.content or (None if message.calls else ""),
            "refusal": None,
        }
        if message.thinking is not None:
            said["reasoning_content"] = message.thinking
        if message.calls:
            said["tool_calls"] = _calls(answered)
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _finish_reason(answered)}
        head = {**_head(asked, answered.id, answered.created), "object": "chat.completion"}
        return {**head, "choices": [choice], "usage": _usage(answered)}

    async def events(
        self, asked: Asked, answer_id: str, created: int, reading: Reading
    ) -> AsyncGenerator[dict[str, Any], None]:
        head = {**_head(asked, answer_id, created), "object": "chat.completion.chunk"}
        given = Given()

        def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            return {**head, "choices": [choice]} | ({"usage": None} if asked.include_usage else {})

        begun = False
        async with aclosing(reading) as parts:
            async for part in parts:
                if not begun:
                    begun = True
                    yield chunk({"role": "assistant", "content": ""})
                if not isinstance(part, Answered):
                    given.add(part)
                    yield chunk(dict(part))
                    continue
                last: dict[str, Any] = dict(given.left(part.message))
                if part.message.calls:
                    last["tool_calls"] = [{"index": place, **call} for place, call in enumerate(_calls(part))]
                if last:
                    yield chunk(last)
                yield chunk({}, _finish_reason(part))
                if asked.include_usage:
                    yield {**head, "choices": [], "usage": _usage(part)}

    def error(self, error: GatewayError) -> dict[str, Any]:
        return openai_error(error)


def openai_error(error: GatewayError) -> dict[str, Any]:
    """An error in the form of OpenAI's interfaces."""
    return ApiError(error.status, error.message, code=error.code, param=error.param).to_json()


def stops_of(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Stop texts: one, several or none. Raises GatewayError (400)."""
    given = typed(body, name, str, list)
    stops = (given,) if isinstance(given, str) else tuple(given or ())
    if not all(isinstance(one, str) and one for one in stops):
        raise GatewayError(400, f"{name} holds what is no text, or an empty one", param=name)
    return stops


def _head(asked: Asked, answer_id: str, created: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer_id}", "created": created, "model": asked.model}


def _calls(answered: Answered) -> list[dict[str, Any]]:
    return [to_openai_call(call, call.id or "") for call in answered.message.calls]


def _finish_reason(answered: Answered) -> str:
    return "tool_calls" if answered.message.calls and answered.finish_reason == "stop" else answered.finish_reason


def _usage(answered: Answered) -> dict[str, int]:
    prompt, sampled = answered.num_prompt, answered.num_sampled
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}
