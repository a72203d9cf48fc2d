"""Policies: what answers a conversation. An engine's tokens, a chat server's text, or a script."""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

from ..errors import ChatFormatError, PolicyError
from ..model.chat.actions import encode_calls, encode_format_error
from ..model.chat.messages import Message, ToolSpec, text_alone
from ..model.chat.protocols import Engine, Parser, Rendered, Renderer
from ..model.chat.sampling import Completion, CompletionPart, FinishReason, Sampling
from ..model.chat.text import AnswerText
from ..model.chat.turns import Delta, TurnText
from .columns import Column, Ids, Roles, repeated
from .segments import TokenTurn

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer of a policy.

    Attributes:
        message: what was said, as a message.
        action: what the environment takes (model.chat.actions).
        finish_reason: "stop", "length" (the budget ended it) or "abort".
        tokens: the ids and log-probabilities; None for policies of text only.
    """

    message: Message
    action: str
    finish_reason: FinishReason = "stop"
    tokens: TokenTurn | None = None


Entry = Message | Turn
Conversation = Sequence[Entry]


class Policy(Protocol):
    """Answers a conversation. Raises PolicyError where it cannot."""

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        """The next assistant turn. ``conversation`` holds messages and this policy's own earlier turns."""
        ...


@runtime_checkable
class ObservingPolicy(Protocol):
    """A policy that has tokens for what its last turn was answered, though no turn follows."""

    def observed(self, conversation: Conversation, max_context: int) -> Rendered | None:
        """``observed_after`` for this policy, within so many tokens of context; None where there is nothing."""
        ...


@runtime_checkable
class StreamingPolicy(Protocol):
    """A policy whose turn can be read while it is sampled."""

    def stream(
        self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling
    ) -> AsyncGenerator["Delta | Turn", None]:
        """What becomes certain of the next turn's reasoning and content, at the end the turn. Raises PolicyError."""
        ...


async def streamed(
    policy: Policy, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling
) -> AsyncGenerator[Delta | Turn, None]:
    """The next turn of any policy: its parts where it gives them, and the turn."""
    if not isinstance(policy, StreamingPolicy):
        yield await policy.respond(conversation, tools, sampling)
        return
    async with aclosing(policy.stream(conversation, tools, sampling)) as parts:
        async for part in parts:
            yield part


class TokenPolicy:
    """Samples tokens from an engine. Sampled ids are appended to the context and never encoded again."""

    def __init__(self, engine: Engine, renderer: Renderer, parser: Parser) -> None:
        self._engine, self._renderer, self._parser = engine, renderer, parser

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        prompt, sampling = self._prompt(conversation, tools, sampling)
        completion = await self._engine.generate(prompt.token_ids, sampling, self._renderer.stop_token_ids)
        return self._turn(prompt, completion, tools)

    async def stream(
        self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling
    ) -> AsyncGenerator[Delta | Turn, None]:
        """See ``StreamingPolicy``; of an engine that gives no parts, the turn alone."""
        stream = getattr(self._engine, "stream", None)
        if stream is None:
            yield await self.respond(conversation, tools, sampling)
            return
        prompt, sampling = self._prompt(conversation, tools, sampling)
        text = AnswerText(self._renderer.decode, sampling.stop)
        turn = TurnText(self._parser, tools, opened_thought(self._renderer, prompt.token_ids))
        parts: list[CompletionPart] = []
        async with aclosing(stream(prompt.token_ids, sampling, self._renderer.stop_token_ids)) as coming:
            async for part in coming:
                parts.append(part)
                delta = turn.push(text.push(part))
                if delta:
                    yield delta
        yield self._turn(prompt, joined(parts), tools)

    def observed(self, conversation: Conversation, max_context: int) -> Rendered | None:
        return observed_after(conversation, self._renderer, min(max_context, self._engine.max_context))

    def _prompt(
        self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling
    ) -> tuple["_Prompt", Sampling]:
        """(the prompt, the sampling with no more tokens than fit behind it). Raises ContextFull."""
        ids, roles = context_of(conversation, tools, self._renderer)
        context = min(self._engine.max_context, sampling.max_context or self._engine.max_context)
        room = context - len(ids)
        if room < 1:
            raise ContextFull(f"the conversation has {len(ids)} tokens; there is room for {context}")
        if room < sampling.max_tokens:
            sampling = replace(sampling, max_tokens=room)
        return _Prompt(ids, roles), sampling

    def _turn(self, prompt: "_Prompt", completion: Completion, tools: Sequence[ToolSpec]) -> Turn:
        text = self._renderer.decode(completion.token_ids)
        if isinstance(completion.stop_reason, str):
            text = text.partition(completion.stop_reason)[0]
        message, action = read_turn(self._parser, text, tools)
        tokens = TokenTurn(
            prompt_ids=prompt.token_ids,
            prompt_roles=prompt.roles,
            token_ids=completion.token_ids,
            logprobs=completion.logprobs,
            policy_version=completion.policy_version,
        )
        return Turn(message=message, action=action, finish_reason=completion.finish_reason, tokens=tokens)


class _Prompt(NamedTuple):
    token_ids: Column[int]
    roles: Column[str]


_THINK_TAIL = 16  # tokens in which the opening of a thought, and the blanks after it, surely end


def opened_thought(renderer: Renderer, prompt_ids: Sequence[int]) -> str:
    """What of the turn stands in the prompt already: the opening of a thought, or nothing."""
    return "<think>\n" if renderer.decode(list(prompt_ids[-_THINK_TAIL:])).rstrip().endswith("<think>") else ""


def joined(parts: Sequence[CompletionPart]) -> Completion:
    """A completion of its parts. Raises PolicyError where the last one is missing."""
    if not parts or parts[-1].finish_reason is None:
        raise PolicyError("the engine's stream ended before its last part")
    return Completion(
        token_ids=tuple(one for part in parts for one in part.token_ids),
        logprobs=tuple(one for part in parts for one in part.logprobs),
        policy_version=tuple(one for part in parts for one in part.policy_version),
        finish_reason=parts[-1].finish_reason,
        stop_reason=parts[-1].stop_reason,
    )


def read_turn(parser: Parser, text: str, tools: Sequence[ToolSpec]) -> tuple[Message, str]:
    """What a parser makes of a text. One that raises, which none may, has met a format error of the policy: else some
    text would be a way out of every episode."""
    try:
        return parser.parse(text, tools)
    except Exception:
        logger.exception("%s cannot read a turn of %d characters", type(parser).__name__, len(text))
        return Message(role="assistant", content=text), encode_format_error("the turn could not be read")


class ContextFull(PolicyError):
    """The conversation has no room left in the model's context: a token limit, not a failure."""


Script = Callable[[Sequence[Message]], Message]


class ScriptedPolicy:
    """Plays a script: a function from the messages so far to the next assistant message."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        message = self._script([entry.message if isinstance(entry, Turn) else entry for entry in conversation])
        return Turn(message=message, action=action_of(message))


def action_of(message: Message) -> str:
    """What the environment takes of an assistant message that was written as one."""
    return encode_calls(message.calls) if message.calls else message.content


def play(messages: Sequence[Message], *, on: bool = False) -> Script:
    """A script that says the given assistant messages one after the other, whatever is answered.

    Args:
        on: where the episode goes on behind them, say the last one again, until a limit ends it; else PolicyError.
    """

    def script(conversation: Sequence[Message]) -> Message:
        said = sum(message.role == "assistant" for message in conversation)
        if said >= len(messages) and on and messages:
            return messages[-1]
        if said >= len(messages):
            raise PolicyError(f"the script has {len(messages)} messages and the episode did not end with them")
        return messages[said]

    return script


def context_of(
    conversation: Conversation, tools: Sequence[ToolSpec], renderer: Renderer
) -> tuple[Column[int], Column[str]]:
    """(prompt ids, role of each) for the next turn: the last turn's ids as they were, then what is new."""
    last = next((i for i in reversed(range(len(conversation))) if isinstance(conversation[i], Turn)), None)
    if last is not None:
        turn = conversation[last]
        assert isinstance(turn, Turn)
        if turn.tokens is None:
            raise PolicyError("an earlier turn of this conversation has no token ids; it came from a text policy")
        news = [entry for entry in conversation[last + 1 :] if isinstance(entry, Message)]
        text_alone(news)
        added = _extended(renderer, turn.tokens.token_ids, news)
        if added is not None:
            sampled_roles = repeated(Roles, "assistant", len(turn.tokens.token_ids))
            ids = Ids.of(turn.tokens.prompt_ids) + turn.tokens.token_ids + added.token_ids
            return ids, Roles.of(turn.tokens.prompt_roles) + sampled_roles + added.roles
    messages = [e.message if isinstance(e, Turn) else e for e in conversation]
    text_alone(messages)
    rendered = renderer.start(messages, tools)
    return Ids(rendered.token_ids), Roles(rendered.roles)


def _extended(renderer: Renderer, sampled: Sequence[int], news: Sequence[Message]) -> Rendered | None:
    """``Renderer.extend``; None, too, where words put into the assistant's mouth cannot be appended."""
    try:
        return renderer.extend(sampled, news)
    except ChatFormatError:
        if all(message.role != "assistant" for message in news):
            raise
        return None


def observed_after(conversation: Conversation, renderer: Renderer, max_context: int | None = None) -> Rendered | None:
    """The tokens of what the environment answered after the last turn, to be appended to that turn's.

    The header of a turn that never came is left out; what a context of ``max_context`` tokens cannot hold is cut.

    Returns:
        None where nothing was answered, no turn has tokens, or the format cannot append.
    """
    last = max((i for i, entry in enumerate(conversation) if isinstance(entry, Turn)), default=None)
    if last is None:
        return None
    turn, news = conversation[last], [entry for entry in conversation[last + 1 :] if isinstance(entry, Message)]
    if not isinstance(turn, Turn) or turn.tokens is None or not news:
        return None
    added = renderer.extend(turn.tokens.token_ids, news)
    if added is None:
        return None
    end = without_header(added, renderer.stop_token_ids)
    if max_context is not None:
        end = min(end, max(0, max_context - len(turn.tokens.prompt_ids) - len(turn.tokens.token_ids)))
    return Rendered(token_ids=added.token_ids[:end], roles=added.roles[:end]) if end else None


def without_header(added: Rendered, stops: Sequence[int]) -> int:
    """Where the messages of what was appended end: behind the terminator of the last one, where the format has one."""
    said = max((at for at, role in enumerate(added.roles) if role != "template"), default=-1)
    ends = [at for at in range(said + 1, len(added.roles)) if added.token_ids[at] in stops]
    return ends[-1] + 1 if ends else said + 1
