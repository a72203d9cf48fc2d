"""An assistant's turn as it comes, split into reasoning and content."""

from collections.abc import Sequence
from dataclasses import replace

from .messages import Message, ToolSpec
from .protocols import Parser
from .text import overlap

_THINK, _THINK_END = "<think>", "</think>"
Delta = dict[str, str]


class TurnText:
    """Grows with the sampled text; hands out what is certain of its reasoning and of its content.

    Text that may be part of a call is held back to the end, when the parser reads the whole. So the deltas, joined,
    are what the parser makes of the text.
    """

    def __init__(
        self, parser: Parser, tools: Sequence[ToolSpec], begun: str = "", *, most_calls: int | None = None
    ) -> None:
        """
        Args:
            begun: text of the turn that stands in the prompt already.
            most_calls: calls that the turn may have; those after them are left out. None: any number.
        """
        self._most_calls = most_calls
        self._parser, self._tools = parser, tools
        self._openers = tuple(parser.call_openers) if tools else ()
        self._text = begun
        self._reasoning = self._content = ""

    def push(self, text: str) -> Delta:
        """What became certain: "reasoning_content", "content", both or none."""
        self._text += text
        if len(self._text) < len(_THINK) and _THINK.startswith(self._text):
            return {}
        thinking, answer = None, self._text
        if self._text.startswith(_THINK):
            thinking, answer = self._parser.split(self._text)
        delta: Delta = {}
        reasoning = thinking or ""
        if answer is None:
            reasoning = reasoning[: len(reasoning) - overlap(reasoning, (_THINK_END,))].rstrip("\n")
        if len(reasoning) > len(self._reasoning):
            delta["reasoning_content"] = reasoning[len(self._reasoning) :]
            self._reasoning = reasoning
        content = self._certain(answer or "")
        if len(content) > len(self._content):
            delta["content"] = content[len(self._content) :]
            self._content = content
        return delta

    def finish(self) -> tuple[Delta, Message]:
        """(what is left of reasoning and content, the turn as the parser reads it)."""
        message, _ = self._parser.parse(self._text, self._tools)
        left = {
            "reasoning_content": rest_of(message.thinking or "", self._reasoning),
            "content": rest_of(message.content, self._content),
        }
        if self._most_calls is not None:
            message = replace(message, calls=message.calls[: self._most_calls])
        return {name: text for name, text in left.items() if text}, message

    def _certain(self, answer: str) -> str:
        if not self._openers:
            return answer
        found = [place for opener in self._openers if (place := answer.find(opener)) >= 0]
        end = min(found, default=len(answer) - overlap(answer, self._openers))
        return answer[:end].rstrip()  # blanks beside a call are no part of the content


def rest_of(whole: str, given: str) -> str:
    """What of ``whole`` is still to be given. Beside calls the parser strips the content's ends."""
    for begun in (given, given.lstrip()):
        if whole.startswith(begun):
            return whole[len(begun) :]
    return ""
