"""``/v1/completions``: text or token ids in; text, token ids and log-probabilities out."""

import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from ..chat.sampling import Completion, CompletionPart, PromptScore
from ..chat.text import AnswerText
from ..web.errors import refused
from .bodies import CompletionBody
from .gate import Gate, merged, together
from .logprobs import CompletionLogprobs, chosen_logprobs, joined
from .served import Served


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """One completion to make: of which prompt, and which of its samples."""

    index: int
    sample: int
    text: str
    prompt_ids: list[int]
    room: int


class Completions:
    """One request. ``answer`` or ``events`` may be called, once."""

    def __init__(self, served: Served, gate: Gate, body: CompletionBody) -> None:
        """Raises ApiError or BodyError where the request cannot be answered."""
        self._served, self._gate, self._body = served, gate, body
        served.check_name(body.model)
        self._choices = list(self._plan())
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }
        neutral = (body.temperature in (None, 1), body.top_p in (None, 1), body.top_k in (None, 0, -1), not body.min_p)
        if body.logprobs and not served.raw and not all(neutral):
            raise refused(
                "this server's log-probabilities are of what is drawn from, and the likeliest tokens are known of the "
                "model's own distribution alone; ask with logprobs=0, or at temperature 1 with nothing left out",
                param="logprobs",
            )

    async def answer(self) -> dict[str, Any]:
        """The whole answer."""
        found = await together([self._choice(choice) for choice in self._choices])
        return {**self._head, "choices": [row for row, _ in found], "usage": self._usage(sum(n for _, n in found))}

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer's events."""
        num_sampled = 0
        usage = {"usage": None} if self._body.include_usage else {}
        streams = [self._stream(choice) for choice in self._choices]
        async for row, count in merged(streams):
            num_sampled += count
            yield {**self._head, "choices": [row], **usage}
        if self._body.include_usage:
            yield {**self._head, "choices": [], "usage": self._usage(num_sampled)}

    def _plan(self):
        body, served = self._body, self._served
        if served.model.decode is None and (body.stops or isinstance(body.prompt, str)):
            raise refused(
                "this model has no tokenizer; give the prompt as token ids, and no stop texts", param="prompt"
            )
        num_samples = body.n or 1
        for number, prompt in enumerate(body.prompts()):
            text, ids = ("", prompt) if isinstance(prompt, list) else (prompt, [])
            if not isinstance(prompt, list):
                if served.model.encode is None:
                    raise refused("this model has no tokenizer; give the prompt as token ids", param="prompt")
                ids = served.model.encode(text, body.add_special_tokens)
            elif served.model.decode is not None and body.echo and all(one >= 0 for one in ids):
                text = served.model.decode(ids)
            room = served.room(ids, "prompt", least=0 if body.max_tokens == 0 else 1)
            for sample in range(num_samples):
                index = number * num_samples + sample
                yield _Choice(index=index, sample=sample, text=text, prompt_ids=ids, room=room)

    async def _choice(self, choice: _Choice) -> tuple[dict[str, Any], int]:
        """(the choice's object, tokens sampled)."""
        writer = _Writer(self._served, self._body, choice)
        rows = [writer.prompt(await self._score(choice))] if self._body.echo else []
        if self._body.max_tokens != 0:
            parts = await self._gate.complete(*self._asked(choice))
            rows += [writer.part(part) for part in parts]
        whole = _joined(rows)
        if whole["finish_reason"] is None:  # nothing was to be sampled
            whole["finish_reason"] = "length"
        return whole, writer.num_sampled

    async def _stream(self, choice: _Choice) -> AsyncGenerator[tuple[dict[str, Any], int], None]:
        writer = _Writer(self._served, self._body, choice)
        if self._body.echo:
            yield writer.prompt(await self._score(choice)), 0
        before = 0
        async for part in self._gate.stream(*self._asked(choice)):
            row = writer.part(part)
            yield row, writer.num_sampled - before
            before = writer.num_sampled

    async def _score(self, choice: _Choice) -> PromptScore | None:
        if self._body.logprobs is None:
            return None
        return await self._gate.score(choice.prompt_ids, self._body.logprobs)

    def _asked(self, choice: _Choice):
        body, served = self._body, self._served
        most = min(choice.room, 16 if body.max_tokens is None else body.max_tokens)
        raw = body.logprobs is not None and served.raw
        sampling = body.sampling(most, body.logprobs or 0, choice.sample, raw=raw)
        stops = () if body.ignore_eos else served.model.eos_token_ids
        return choice.prompt_ids, sampling, (*stops, *(body.stop_token_ids or ()))

    def _usage(self, num_sampled: int) -> dict[str, int]:
        num_prompt = sum(len(choice.prompt_ids) for choice in self._choices if not choice.sample)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_sampled,
            "total_tokens": num_prompt + num_sampled,
        }


class _Writer:
    """Writes the objects of one choice, part after part."""

    def __init__(self, served: Served, body: CompletionBody, choice: _Choice) -> None:
        self._served, self._body, self._choice = served, body, choice
        names = served.names(as_ids=body.return_tokens_as_token_ids)
        self._logprobs = CompletionLogprobs(names, served.model.decode, body.logprobs or 0)
        self._text = None
        if served.model.decode is not None:
            self._text = AnswerText(served.model.decode, body.stops, keep_stop=body.include_stop_str_in_output)
        self.num_sampled = 0

    def prompt(self, score: PromptScore | None) -> dict[str, Any]:
        """What ``echo`` adds."""
        ids = self._choice.prompt_ids
        logprobs = None if score is None else self._logprobs.prompt(ids, score)
        return self._row(self._choice.text, logprobs, ids, (), None, None)

    def part(self, part: CompletionPart | Completion) -> dict[str, Any]:
        """What a part adds. The stop token has an id and a log-probability, and is no part of the text."""
        self.num_sampled += len(part.token_ids)
        text = "" if self._text is None else self._text.push(part)
        logprobs = None
        if self._body.logprobs is not None:
            values = chosen_logprobs(part, raw=self._served.raw)
            logprobs = self._logprobs.part(part.token_ids, values, part.top_logprobs)
        reason = None if part.stop_reason in self._served.model.eos_token_ids else part.stop_reason
        return self._row(text, logprobs, list(part.token_ids), part.policy_version, part.finish_reason, reason)

    def _row(self, text, logprobs, ids, versions, finish_reason, stop_reason) -> dict[str, Any]:
        row = {
            "index": self._choice.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
        }
        if self._body.return_token_ids:
            row |= {
                "prompt_token_ids": self._choice.prompt_ids,
                "token_ids": [] if ids is self._choice.prompt_ids else ids,
                "policy_version": list(versions),
            }
        return row


def _joined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts of a choice as one."""
    whole = {**rows[-1], "text": "".join(row["text"] for row in rows)}
    if rows[-1]["logprobs"] is not None:
        whole["logprobs"] = joined([row["logprobs"] for row in rows])
    for name in ("token_ids", "policy_version"):
        if name in whole:
            whole[name] = [one for row in rows for one in row[name]]
    return whole
