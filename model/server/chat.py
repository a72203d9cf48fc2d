"""``/v1/chat/completions``: messages and tools in; a message, its reasoning and its calls out."""

import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from ..chat.api import from_openai_messages, from_openai_tools, to_openai_call
from ..chat.messages import Message
from ..chat.sampling import Completion, CompletionPart
from ..chat.text import AnswerText
from ..chat.turns import TurnText
from ..web.errors import refused
from .bodies import ChatBody, NamedToolChoice
from .gate import Gate, merged, together
from .logprobs import chat_logprobs, chosen_logprobs
from .served import Served

_THINK_TAIL = 16  # tokens in which the opening of a thought, and the blanks after it, surely end


class Chat:
    """One request. ``answer`` or ``events`` may be called, once."""

    def __init__(self, served: Served, gate: Gate, body: ChatBody) -> None:
        """Raises ApiError or ChatFormatError where the request cannot be answered."""
        self._served, self._gate, self._body = served, gate, body
        served.check_name(body.model)
        self._renderer, self._parser = served.chat(body.chat_template_kwargs or {})
        self._decode = self._renderer.decode
        if body.top_logprobs and not served.raw:
            raise refused(
                "this server's log-probabilities are of the distribution that is drawn from, and the likeliest tokens "
                "are known of the model's own alone; leave top_logprobs out",
                param="top_logprobs",
            )
        tools = from_openai_tools(body.tools or ())
        self._tools = () if body.tool_choice == "none" else tuple(tools)
        rendered = self._renderer.start(from_openai_messages(body.messages), self._tools)
        begun = self._begun(rendered.token_ids)
        self._prompt_ids = [*rendered.token_ids, *begun.ids]
        self._turn_begun = begun.text
        room = served.room(self._prompt_ids, "messages")
        self._most = room if body.most_tokens is None else min(room, body.most_tokens)
        self._stop_token_ids = (*self._renderer.stop_token_ids, *(body.stop_token_ids or ()))
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name}

    async def answer(self) -> dict[str, Any]:
        """The whole answer."""
        found = await together([self._choice(index) for index in range(self._body.n or 1)])
        usage = self._usage(sum(count for _, count in found))
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [row for row, _ in found],
            "usage": usage,
        } | self._prompt_told()

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer's events."""
        head = {**self._head, "object": "chat.completion.chunk"}
        usage = {"usage": None} if self._body.include_usage else {}
        num_sampled, first = 0, self._prompt_told()
        async for row, count in merged([self._stream(index) for index in range(self._body.n or 1)]):
            num_sampled += count
            yield {**head, "choices": [row], **usage, **first}
            first = {}
        if self._body.include_usage:
            yield {**head, "choices": [], "usage": self._usage(num_sampled)}

    async def _choice(self, index: int) -> tuple[dict[str, Any], int]:
        """(the choice's object, tokens sampled)."""
        writer = _Writer(self)
        parts = await self._gate.complete(*self._asked(index))
        for part in parts:
            writer.push(part)
        _, message = writer.turn.finish()
        said: dict[str, Any] = {"role": "assistant", "content": message.content or (None if message.calls else "")}
        if message.thinking is not None:
            said["reasoning_content"] = message.thinking
        if message.calls:
            said["tool_calls"] = _calls_of(message)
        ids = [one for part in parts for one in part.token_ids]
        row = {
            "index": index,
            "message": said,
            "logprobs": {"content": writer.logprobs} if self._body.logprobs else None,
            "finish_reason": _finish_reason(parts[-1].finish_reason, message),
            "stop_reason": self._stop_reason(parts[-1]),
        }
        if self._body.return_token_ids:
            row["token_ids"] = ids
        return row, len(ids)

    async def _stream(self, index: int) -> AsyncGenerator[tuple[dict[str, Any], int], None]:
        writer = _Writer(self)
        yield (
            {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None},
            0,
        )
        async for part in self._gate.stream(*self._asked(index)):
            delta: dict[str, Any] = writer.push(part)
            message = None
            if part.finish_reason is not None:
                left, message = writer.turn.finish()
                delta = {name: delta.get(name, "") + left.get(name, "") for name in {**delta, **left}}
                if message.calls:
                    delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(_calls_of(message))]
            logprobs, writer.logprobs = writer.logprobs, []
            row = {
                "index": index,
                "delta": delta,
                "logprobs": {"content": logprobs} if self._body.logprobs else None,
                "finish_reason": None if message is None else _finish_reason(part.finish_reason, message),
            }
            if message is not None:
                row["stop_reason"] = self._stop_reason(part)
            if self._body.return_token_ids:
                row["token_ids"] = list(part.token_ids)
            if delta or logprobs or message is not None or self._body.return_token_ids:
                yield row, len(part.token_ids)
            else:  # nothing certain yet; the tokens still count
                yield {**row, "delta": {}}, len(part.token_ids)

    def _begun(self, prompt_ids: tuple[int, ...]) -> "_Begun":
        """What of the turn stands in the prompt: an opened thought, and the beginning of a call that must come."""
        served, choice = self._served, self._body.tool_choice
        assert served.model.decode is not None
        tail = served.model.decode(prompt_ids[-_THINK_TAIL:]).rstrip()
        text = "<think>\n" if tail.endswith("<think>") else ""
        if choice != "required" and not isinstance(choice, NamedToolChoice):
            return _Begun(text, ())
        name = choice.function.name if isinstance(choice, NamedToolChoice) else None
        if name is not None and name not in [spec.name for spec in self._tools]:
            raise refused(f"tool_choice names {name!r}, which is none of the tools", param="tool_choice")
        # A call that must come leaves no room for a thought: an opened one is closed.
        forced = ("\n</think>\n" if text else "") + self._parser.opening(name)
        return _Begun(text + forced, self._renderer.encode_turn(forced)[:-1])

    def _asked(self, index: int):
        body = self._body
        raw = bool(body.logprobs) and self._served.raw
        sampling = body.sampling(self._most, body.top_logprobs or 0, index, raw=raw)
        return self._prompt_ids, sampling, self._stop_token_ids

    def _stop_reason(self, part: CompletionPart | Completion) -> int | str | None:
        mine = self._body.stop_token_ids or ()
        return part.stop_reason if isinstance(part.stop_reason, str) or part.stop_reason in mine else None

    def _prompt_told(self) -> dict[str, Any]:
        return {"prompt_token_ids": self._prompt_ids} if self._body.return_token_ids else {}

    def _usage(self, num_sampled: int) -> dict[str, int]:
        num_prompt = len(self._prompt_ids)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_sampled,
            "total_tokens": num_prompt + num_sampled,
        }

    def writer_parts(self) -> tuple[AnswerText, TurnText]:
        """The text of one choice, and its turn."""
        text = AnswerText(self._decode, self._body.stops, keep_stop=self._body.include_stop_str_in_output)
        most_calls = 1 if self._body.parallel_tool_calls is False else None
        return text, TurnText(self._parser, self._tools, self._turn_begun, most_calls=most_calls)

    def logprobs_of(self, part: CompletionPart | Completion) -> list[dict[str, Any]]:
        """Of a part's tokens; none where they were not asked for."""
        if not self._body.logprobs:
            return []
        names = self._served.names(as_ids=self._body.return_tokens_as_token_ids)
        values = chosen_logprobs(part, raw=self._served.raw)
        return chat_logprobs(names, part.token_ids, values, part.top_logprobs)


class _Begun:
    """The beginning of a turn that stands in the prompt: its text, and the ids that the renderer did not write."""

    def __init__(self, text: str, ids: tuple[int, ...]) -> None:
        self.text, self.ids = text, ids


class _Writer:
    """One choice as it grows. ``logprobs`` are those not yet given."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._text, self.turn = chat.writer_parts()
        self.logprobs: list[dict[str, Any]] = []

    def push(self, part: CompletionPart | Completion) -> dict[str, str]:
        """What became certain of the turn."""
        self.logprobs += self._chat.logprobs_of(part)
        return self.turn.push(self._text.push(part))


def _calls_of(message: Message) -> list[dict[str, Any]]:
    return [to_openai_call(call, call.id or f"call_{uuid.uuid4().hex[:24]}") for call in message.calls]


def _finish_reason(reason: str | None, message: Message) -> str | None:
    return "tool_calls" if message.calls and reason == "stop" else reason
