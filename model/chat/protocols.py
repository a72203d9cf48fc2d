"""What turns messages into tokens and back: renderers and parsers, as protocols."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .messages import Message, ToolSpec
from .sampling import Completion, CompletionPart, PromptScore, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Tokens with, for each, who wrote it.

    Attributes:
        token_ids: [T].
        roles: [T], each "system", "user", "assistant", "tool", or "template" (headers, terminators, tool lists).
    """

    token_ids: tuple[int, ...]
    roles: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.roles):
            raise ValueError(f"{len(self.token_ids)} tokens but {len(self.roles)} roles; every token has one writer")


class TextTokenizer(Protocol):
    """What a renderer needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text. Reserved tokens spelled out in the text are encoded as text, never as themselves."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, reserved tokens spelled out; invalid UTF-8 replaced."""
        ...

    def reserved(self, name: str) -> int:
        """Id of a reserved token by its spelling, such as "<|eot_id|>". Raises KeyError naming it."""
        ...


class Renderer(Protocol):
    """Messages to token ids, once. Sampled ids are appended by the caller and never rendered again."""

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end an assistant turn."""
        ...

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        """The prompt of the first turn, up to and including the header of the assistant's turn."""
        ...

    def extend(self, sampled: Sequence[int], messages: Sequence[Message]) -> Rendered | None:
        """The tokens to append after a sampled turn: its terminator if ``sampled`` lacks one, the new messages,
        and the header of the next assistant turn. None: this format cannot only append here; render anew with
        ``start`` and open a new segment."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of sampled tokens, without the stop token."""
        ...

    def encode_turn(self, text: str) -> tuple[int, ...]:
        """Ids of an assistant turn that was written, not sampled (a demonstration), its stop token included."""
        ...


class Parser(Protocol):
    """Decoded text to a message. Never raises on model output.

    Attributes:
        call_openers: what the text of a call, and of an attempt at one, begins with.
    """

    @property
    def call_openers(self) -> tuple[str, ...]: ...

    def opening(self, name: str | None) -> str:
        """The text that begins a call of this tool, or of any; what is sampled after it becomes that call."""
        ...

    def split(self, text: str) -> tuple[str | None, str | None]:
        """(thinking or None, answer; None where the thinking is not closed) of a text, or of its beginning."""
        ...

    def parse(self, text: str, tools: Sequence[ToolSpec]) -> tuple[Message, str]:
        """(the assistant message, the action: see ``actions``)."""
        ...

    def format(self, message: Message, tools: Sequence[ToolSpec]) -> str:
        """The text an assistant would have written for ``message`` (demonstrations); parses back to its action."""
        ...


class Engine(Protocol):
    """Token in, token out."""

    @property
    def policy_version(self) -> int:
        """Version of the weights that new tokens are sampled from."""
        ...

    @property
    def max_context(self) -> int:
        """Most tokens a prompt and its completion may have together."""
        ...

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """Sample one completion. Raises PolicyError where it cannot."""
        ...


class ServingEngine(Engine, Protocol):
    """What a server needs of an engine."""

    def stream(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> AsyncIterator[CompletionPart]:
        """The parts of one completion as they are sampled, from an asynchronous generator: closing it frees the
        request. Raises PolicyError."""
        ...

    async def score(self, prompt_ids: Sequence[int], num_top: int = 0) -> PromptScore:
        """Log-probabilities of a prompt's own tokens. Raises PolicyError."""
        ...

    def stats(self) -> Any:
        """Counts of now and totals: ``model.engine.stats.EngineStats``."""
        ...

    def update_weights(self, version: int) -> None:
        """Say that the weights have changed. Raises PolicyError where they may not now."""
        ...

    async def aclose(self) -> None:
        """End. Requests in flight get a PolicyError."""
        ...


@runtime_checkable
class FreezingEngine(ServingEngine, Protocol):
    """An engine that can stand still with requests in it."""

    def pause(self) -> None:
        """Returns when no token is being sampled; none will be until ``resume``."""
        ...

    def resume(self) -> None:
        """Undo one ``pause``."""
        ...
