"""How long a tool's answer may be, and a conversation as text."""

from collections.abc import Sequence

from ...model.chat.messages import Message

MAX_ANSWER_CHARS = 65_536


def bounded(text: str, most: int = MAX_ANSWER_CHARS) -> str:
    """Text of about ``most`` characters at most: of longer text its beginning, how much is left out, and its end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def readable(text: str, most: int) -> str:
    """``bounded``, for text of programs that nobody trusts: what cannot be printed, tabs and line ends apart, stands as
    Python escapes it (control characters, halves of surrogate pairs, marks that turn a line round)."""
    shown = (one if one.isprintable() or one in "\n\t" else _escaped(one) for one in bounded(text, most))
    return bounded("".join(shown), most)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shown_as_text(messages: Sequence[Message]) -> str:
    """Each message under who wrote it, with its calls."""
    return "\n\n".join(_shown(message) for message in messages)


def _shown(message: Message) -> str:
    calls = "".join(f"\n-> {one.name}({dict(one.arguments)})" for one in message.calls)
    return f"[{message.name or message.role}]\n{message.content}{calls}"
