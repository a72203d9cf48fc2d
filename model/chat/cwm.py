"""The chat and tool format of the Code World Model.

Source: PROMPTING_GUIDE.md of facebookresearch/cwm. A chat is ``<|begin_of_text|>`` and then, for each message,
``<|start_header_id|>ROLE<|end_header_id|>``, two line breaks, the content, ``<|eot_id|>``.
"""

import re
from collections.abc import Sequence

from ...errors import ChatFormatError
from .actions import decode_action, encode_calls, encode_format_error
from .bodies import BodyError, announce_body, read_body, write_body
from .messages import Message, ToolCall, ToolSpec
from .protocols import Rendered, TextTokenizer

BEGIN, HEADER, HEADER_END, END_OF_TURN = "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
REASONING_PREAMBLE = (
    "You are a helpful AI assistant. You always reason before responding, using the following format:\n\n"
    "<think>\nyour internal reasoning\n</think>\nyour external response"
)
TOOLS_PREAMBLE = "You have access to the following tools:"
THINK, THINK_END = "<think>\n", "</think>"
_TAG = re.compile(r"<tool:([^>\n]*)>|</tool>|<tool:")


class CwmRenderer:
    """Messages to CWM's tokens. Each piece is encoded by itself, so that no token spans two of them, and reserved
    tokens come from here alone, never from a text that spells them."""

    def __init__(self, tokenizer: TextTokenizer, *, reasoning: bool = False, announce_tools: bool = True) -> None:
        """
        Args:
            tokenizer: must know the reserved tokens of a chat.
            reasoning: open each assistant turn with ``<think>`` and ask for it in the system prompt.
            announce_tools: list the tools in the system prompt; a model that learnt them from demonstrations can do
                without.
        Raises:
            ChatFormatError: the tokenizer lacks a reserved token.
        """
        self._tokenizer = tokenizer
        self._reasoning = reasoning
        self._announce_tools = announce_tools
        try:
            self._begin, self._header, self._header_end, self._end_of_turn = (
                tokenizer.reserved(name) for name in (BEGIN, HEADER, HEADER_END, END_OF_TURN)
            )
        except KeyError as error:
            raise ChatFormatError(f"the tokenizer has no reserved token {error}; CWM's chat needs it") from None

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        return (self._end_of_turn,)

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        """The prompt of the first turn.

        Raises:
            ChatFormatError: a system message that is not the first, or a call that the format cannot express.
        """
        out = _Pieces(self._tokenizer)
        out.reserved(self._begin)
        rest = list(messages)
        system = rest.pop(0).content if rest and rest[0].role == "system" else None
        announced = tool_list(tools) if tools and self._announce_tools else ""
        if system is not None or announced or self._reasoning:
            self._open(out, "system")
            parts = [(REASONING_PREAMBLE if self._reasoning else "", "template"), (system or "", "system")]
            parts = [part for part in [*parts, (announced, "template")] if part[0]]
            for i, (text, role) in enumerate(parts):
                if i:
                    out.text("\n\n", "template")
                out.text(text, role)
            out.reserved(self._end_of_turn)
        self._messages(out, rest, tools)
        return out.build()

    def extend(self, sampled: Sequence[int], messages: Sequence[Message]) -> Rendered:
        """The terminator that ``sampled`` lacks, the new messages, and the next assistant header."""
        out = _Pieces(self._tokenizer)
        if not sampled or sampled[-1] != self._end_of_turn:
            out.reserved(self._end_of_turn)
        self._messages(out, messages, ())
        return out.build()

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        if ids and ids[-1] == self._end_of_turn:
            ids.pop()
        return self._tokenizer.decode(ids)

    def encode_turn(self, text: str) -> tuple[int, ...]:
        return (*self._tokenizer.encode(text), self._end_of_turn)

    def _open(self, out: "_Pieces", role: str) -> None:
        out.reserved(self._header)
        out.text(role, "template")
        out.reserved(self._header_end)
        out.text("\n\n", "template")

    def _messages(self, out: "_Pieces", messages: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
        for message in messages:
            if message.role == "system":
                raise ChatFormatError("CWM's chat has one system message, the first; this one comes later")
            self._open(out, f"tool: {message.name or 'unknown'}" if message.role == "tool" else message.role)
            out.text(_write_turn(message, tools) if message.role == "assistant" else message.content, message.role)
            out.reserved(self._end_of_turn)
        self._open(out, "assistant")
        if self._reasoning:
            out.text(THINK, "template")


class CwmParser:
    """CWM's tool tags. ``reasoning`` as in the renderer, which then writes the opening ``<think>`` itself."""

    call_openers = ("<tool:", "</tool>")

    def __init__(self, *, reasoning: bool = False) -> None:
        self._reasoning = reasoning

    def opening(self, name: str | None) -> str:
        return "<tool: " if name is None else f"<tool: {name}>\n"

    def parse(self, text: str, tools: Sequence[ToolSpec]) -> tuple[Message, str]:
        thinking, answer = self.split(text)
        if answer is None:
            return Message(role="assistant", content="", thinking=thinking), encode_format_error(
                f"the reasoning was not closed with {THINK_END}"
            )
        try:
            content, calls = _read_calls(answer, tools)
        except BodyError as error:
            return Message(role="assistant", content=answer, thinking=thinking), encode_format_error(str(error))
        message = Message(role="assistant", content=content, thinking=thinking, calls=calls)
        if calls:
            return message, encode_calls(calls)
        if decode_action(answer).final is None:  # a final answer that the environment would take for calls
            return message, encode_format_error("calls are written as <tool: NAME>, arguments and </tool>, not as JSON")
        return message, answer

    def format(self, message: Message, tools: Sequence[ToolSpec]) -> str:
        """The text that parses to the message's action.

        Raises:
            ChatFormatError: the format cannot express it, such as a tag inside an argument.
        """
        text = _write_turn(message, tools, thinking_is_open=self._reasoning)
        action = self.parse(text, tools)[1]
        if action != (encode_calls(_in_order(message.calls, tools)) if message.calls else message.content):
            raise ChatFormatError(
                f"CWM's format cannot express this message; it would be read as {action[:200]!r}. Tool tags and "
                f"{THINK_END} cannot be part of a text, a path or a command"
            )
        return text

    def split(self, text: str) -> tuple[str | None, str | None]:
        is_open = self._reasoning or text.startswith("<think>")
        if not is_open:
            return None, text
        thinking, closed, answer = text.partition(THINK_END)
        thinking = thinking.removeprefix("<think>").removeprefix("\n").removesuffix("\n")
        return thinking, answer.removeprefix("\n") if closed else None


def tool_list(tools: Sequence[ToolSpec]) -> str:
    """The list of tools in a system prompt."""
    entries = []
    for spec in tools:
        body = announce_body(spec)
        entries.append(f"<tool: {spec.name}>\n{body}{chr(10) if body else ''}</tool>\n{spec.description}".rstrip())
    return "\n\n".join([TOOLS_PREAMBLE, *entries])


def _read_calls(text: str, tools: Sequence[ToolSpec]) -> tuple[str, tuple[ToolCall, ...]]:
    """(text outside the tags, calls). Raises BodyError where tags or bodies are wrong."""
    known = {spec.name: spec for spec in tools}
    calls: list[ToolCall] = []
    outside: list[str] = []
    position, opened = 0, None
    for tag in _TAG.finditer(text):
        name = tag.group(1)
        if tag.group() == "<tool:":
            raise BodyError("a tag <tool: is not closed with > on its line")
        if opened is None:
            if name is None:
                raise BodyError("there is a </tool> without its <tool: NAME>")
            if name.strip() not in known:
                raise BodyError(f"there is no tool {name.strip()!r}; the tools are {', '.join(known) or 'none'}")
            outside.append(text[position : tag.start()])
            opened = known[name.strip()]
        else:
            if name is not None:
                raise BodyError(f"<tool: {name.strip()}> stands inside <tool: {opened.name}>; close the first one")
            calls.append(ToolCall(name=opened.name, arguments=read_body(_body(text[position : tag.start()]), opened)))
            opened = None
        position = tag.end()
    if opened is not None:
        raise BodyError(f"<tool: {opened.name}> is not closed with </tool>")
    if not calls:
        return text, ()
    return "".join([*outside, text[position:]]).strip(), tuple(calls)


def _body(between: str) -> str | None:
    """What stands between two tags, less the line breaks that belong to the tags."""
    if between in ("", "\n"):
        return None
    return between.removeprefix("\n").removesuffix("\n")


def _write_turn(message: Message, tools: Sequence[ToolSpec], *, thinking_is_open: bool = False) -> str:
    """An assistant's turn as text; ``thinking_is_open``: the opening tag stands before it."""
    known = {spec.name: spec for spec in tools}
    blocks = []
    for call in message.calls:
        if call.name not in known:
            raise ChatFormatError(f"a message calls {call.name!r}; the tools are {', '.join(known) or 'none'}")
        body = write_body(call.arguments, known[call.name])
        blocks.append(f"<tool: {call.name}>\n" + ("" if body is None else f"{body}\n") + "</tool>")
    said = [message.content] if message.content or not blocks else []
    text = "\n".join([*said, *blocks])
    if thinking_is_open or message.thinking is not None:
        opening = "" if thinking_is_open else THINK
        text = f"{opening}{message.thinking or ''}\n{THINK_END}\n{text}"
    return text


def _in_order(calls: Sequence[ToolCall], tools: Sequence[ToolSpec]) -> list[ToolCall]:
    """Calls with their arguments in the order of the parameters, as a parser reads them."""
    order = {spec.name: list(spec.parameters.get("properties", {})) for spec in tools}
    return [
        ToolCall(name=call.name, arguments={n: call.arguments[n] for n in order[call.name] if n in call.arguments})
        for call in calls
    ]


class _Pieces:
    """Tokens under construction, with who wrote each."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._roles: list[str] = []

    def reserved(self, token_id: int) -> None:
        self._ids.append(token_id)
        self._roles.append("template")

    def text(self, text: str, role: str) -> None:
        ids = self._tokenizer.encode(text)
        self._ids += ids
        self._roles += [role] * len(ids)

    def build(self) -> Rendered:
        return Rendered(token_ids=tuple(self._ids), roles=tuple(self._roles))
