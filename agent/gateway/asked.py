"""What a request asks for and what it gets, in no dialect's words."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...model.chat.messages import Message, ToolSpec
from ...model.chat.sampling import FinishReason
from ...model.chat.turns import Delta, rest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for one turn.

    Attributes:
        model: the name that was asked for.
        messages: the whole context.
        tools: that the turn may call.
        stream: whether the answer is to come as events.
        include_usage: whether a stream tells the counts of tokens at its end, where that is a choice.
        one_call: calls after the first are left out.
        max_tokens, temperature, top_p, top_k, seed: as the harness wishes; None: it does not say.
        stop: texts that end the turn.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    stream: bool = False
    include_usage: bool = True
    one_call: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A turn as a dialect tells it.

    Attributes:
        id: of the answer, unique; the same when the answer is given again.
        created: seconds since 1970.
        message: what was said; its calls have ids.
        finish_reason: "stop" or "length".
        num_prompt, num_sampled: tokens; 0 for a policy of text only.
    """

    id: str
    created: int
    message: Message
    finish_reason: FinishReason
    num_prompt: int
    num_sampled: int


class GatewayError(Exception):
    """What a harness is told in the place of an answer.

    Attributes:
        status: HTTP's.
        code: a short name, such as "context_length_exceeded".
        param: the field that is wrong, where it is one.
    """

    def __init__(self, status: int, message: str, *, code: str = "invalid_request", param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


Reading = AsyncGenerator[Delta | Answered, None]
"""What becomes certain of a turn, and at the end the whole of it."""


class Dialect(Protocol):
    """One HTTP interface: how it asks, how it is answered, and how it is told of errors."""

    path: str
    """Of the route that takes requests, such as "/v1/messages"."""
    named_events: bool
    """Whether events have their type as a name of their own."""
    last_event: str | None
    """The data of the line that ends a stream; None: there is none."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Raises GatewayError, ChatFormatError: a body that cannot be used, or asks for what is not done here."""
        ...

    def answer(self, asked: Asked, answered: Answered) -> dict[str, Any]:
        """The body of an answer."""
        ...

    def events(
        self, asked: Asked, answer_id: str, created: int, reading: Reading
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of an answer."""
        ...

    def error(self, error: GatewayError) -> dict[str, Any]:
        """The body that tells an error."""
        ...


def only_known(body: Mapping[str, Any], used: frozenset[str], left_aside: frozenset[str]) -> None:
    """Refuse what would be taken and not done.

    Args:
        used: fields that are read.
        left_aside: fields about the caller or the account, which change nothing in an answer.
    Raises:
        GatewayError: another field has a value.
    """
    for name, value in body.items():
        if name not in used and name not in left_aside and value not in (None, False, [], {}):
            raise GatewayError(
                400, f"{name} is not done by this gateway; leave it out", code="unsupported_parameter", param=name
            )


def typed(body: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """A field's value or None. Raises GatewayError (400) where it is of another type."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise GatewayError(400, f"{name} is {str(value)[:80]!r}; it must be {wanted}", param=name)
    return value


def check_answers(messages: Sequence[Message]) -> None:
    """Raises GatewayError (400) where a tool's answer answers no call that came before it."""
    calls: set[str | None] = set()
    for place, message in enumerate(messages):
        calls.update(call.id for call in message.calls)
        if message.role == "tool" and message.call_id not in calls:
            raise GatewayError(
                400,
                f"message {place} answers the call {message.call_id!r}, and no assistant's message before it has one "
                "of that id; send the call with its answer",
                param="messages",
            )


class Given:
    """What of a turn a stream has told."""

    def __init__(self) -> None:
        self.reasoning = self.content = ""

    def add(self, delta: Delta) -> None:
        self.reasoning += delta.get("reasoning_content", "")
        self.content += delta.get("content", "")

    def left(self, message: Message) -> Delta:
        """What of the whole turn is still to be told."""
        left = {
            "reasoning_content": rest_of(message.thinking or "", self.reasoning),
            "content": rest_of(message.content, self.content),
        }
        return {name: text for name, text in left.items() if text}


def forced_call(name: str) -> GatewayError:
    """A call that must come would put tokens into the turn that nobody sampled."""
    return GatewayError(
        400,
        f"{name} wants a call whatever the model samples, and every token of an episode is sampled; leave it to the "
        'model ("auto"), or offer no tools ("none")',
        code="unsupported_parameter",
        param=name,
    )
