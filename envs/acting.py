"""What passes between an environment and whoever drives it, besides messages."""

from dataclasses import dataclass
from typing import Any, Literal

from ..model.chat.messages import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a tool, or ``reply``, returns to end the episode.

    Attributes:
        value: the work to be scored.
        message: the last words: a tool's answer, or the other side's message; of a reply "" says nothing more.
    """

    value: Any
    message: str | None = None


class CutOff(str):
    """A final text that its limit of tokens cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What an action did.

    Attributes:
        messages: the environment's answers.
        format_error: whether the action was one.
        submission: what was handed in, where the episode ended with it.
        ending: "submitted" or "answered"; None where the episode goes on.
        truncated: whether this was the last turn of ``max_turns`` without an ending.
    """

    messages: tuple[Message, ...]
    format_error: bool
    submission: Any
    ending: Literal["submitted", "answered"] | None
    truncated: bool
