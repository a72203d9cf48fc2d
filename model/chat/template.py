"""What a Jinja chat template does, found out by rendering conversations whose texts are known.

Every text of a message is replaced by a mark; the template is rendered with the marks and with the texts, and the two
are aligned. So each stretch of the result has a known writer, and only the template's own may hold special tokens.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import ChatFormatError
from .conversation import Form, conversation
from .messages import Message, ToolCall, ToolSpec
from .named_templates import HOW
from .piece_ids import Piece
from .settings import Tools

ANCHOR = "zqanchorqz"
_MARK = re.compile(r"zq(\d+)qz")
_QUESTION, _ANSWER, _THOUGHT, _RESULT = "zqquestionqz", "zqanswerqz", "zqthoughtqz", "zqresultqz"
_PURPOSE, _VALUE = "zqpurposeqz", "zqvalueqz"
PROBE_TOOL = ToolSpec(
    name="probe",
    description=_PURPOSE,
    parameters={"type": "object", "properties": {"given": {"type": "string"}}, "required": ["given"]},
)
PROBE_CALL = ToolCall(name="probe", arguments={"given": _VALUE})
_LONG_ID = "chatcmpl-tool-0123456789abcdef"


class ChatTemplate:
    """A tokenizer's template, probed.

    Attributes:
        end_of_turn: spelling of the special token that ends an assistant's turn.
        ends_parts: whether that token also ends a part of a turn, so that it does not say that the turn has ended.
        tool_problem: why tools cannot be used with it; "" where they can.
    """

    def __init__(
        self, tokenizer: Any, options: Mapping[str, Any], special: Sequence[str], *, tools: Tools = "native"
    ) -> None:
        """
        Args:
            special: spellings of the tokenizer's special tokens, the longest first.
            tools: how it is given them.
        Raises:
            ChatFormatError: it cannot be trusted; the message says why.
        """
        if not tokenizer.chat_template:
            raise ChatFormatError(f"the tokenizer has no chat template; {HOW}")
        self._tokenizer, self._options = tokenizer, dict(options)
        self._special = special
        self._form = Form(tools_as_text=tools != "native", lists_tools=tools != "taught")
        question = Message(role="user", content=_QUESTION)
        text = self._render([question, Message(role="assistant", content=ANCHOR), question])
        if text.count(_QUESTION) != 2 or ANCHOR not in text:
            raise ChatFormatError("the chat template drops messages: a user's or an assistant's text is not rendered")
        self.end_of_turn = self._find_end_of_turn(text)
        # Where the template has no place of its own for thinking, it stays part of the content.
        probe = [question, Message(role="assistant", content=_ANSWER, thinking=_THOUGHT)]
        own = replace(self._form, thinking_inline=False)
        thought = self._render(probe, generate=False, form=own)
        self.ends_parts = self.end_of_turn in thought.partition(_THOUGHT)[2].partition(_ANSWER)[0]
        if _THOUGHT in thought:
            self._form = own
        self._find_system()
        self.tool_problem = self._find_calls(question)

    def pieces(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Piece]:
        """A conversation up to the next assistant header, by writer."""
        marks = _Marks()
        marked = self._render(marks.replace(messages), tools)
        for text, role, mark in marks.entries:
            if role in ("system", "user", "tool") and mark not in marked:
                raise ChatFormatError(f"the chat template drops a message of role {role!r}: {text[:80]!r}")
        true = self._render(messages, tools)
        aligned = _align(marked, true, marks)
        if aligned is not None:
            return aligned
        # The template rewrites texts. That is its business, as long as no text can pass for its special tokens.
        spelled = [s for text, _, _ in marks.entries for s in self._special if s in text]
        if spelled:
            raise ChatFormatError(
                f"a message spells the special token {spelled[0]!r} and the chat template rewrites texts, so that the "
                "two cannot be told apart; use a template that renders texts as they are"
            )
        return [(true, "template")]

    def tail(self, messages: Sequence[Message]) -> list[Piece] | None:
        """What follows the end-of-turn token of an assistant's turn when ``messages`` are answered to it; None where
        that cannot be told."""
        num_tools = sum(message.role == "tool" for message in messages)
        question = Message(role="user", content=_QUESTION)
        # Where several calls are several turns, what follows the last of them is not all.
        most = min(1, num_tools) if self._form.one_call else num_tools
        for count in dict.fromkeys((most, min(1, num_tools), 0)):
            calls = tuple(ToolCall(name=ANCHOR, id=f"call{i:05d}") for i in range(count))
            turn = Message(role="assistant", content="" if calls else ANCHOR, calls=calls)
            try:
                pieces = self.pieces([question, turn, *messages], [PROBE_TOOL] if num_tools else [])
            except ChatFormatError:
                if count == 0:
                    raise
                continue
            return self._after_anchor(pieces)
        return None

    def appends(self, role: str, *, thinking: bool) -> bool:
        """Whether a prompt begins with the one before, and keeps the turn between them as it was sampled, when a
        message of this role answers a turn that thinks, or does not: after any kind of earlier turn."""
        if role == "tool" and self.tool_problem:
            return False
        question = Message(role="user", content=_QUESTION)
        earlier: list[list[Message]] = [[], _exchange("user", False), _exchange("user", True)]
        if not self.tool_problem:
            earlier += [_exchange("tool", False), _exchange("tool", True)]
        # Some templates write the tools anew before each answer of the user: with tools it must hold as well.
        with_tools = [[PROBE_TOOL]] if role == "tool" else [[], *([] if self.tool_problem else [[PROBE_TOOL]])]
        return all(
            self._extends([question, *history], role, thinking, tools) for history in earlier for tools in with_tools
        )

    def _extends(self, before: list[Message], role: str, thinking: bool, tools: list[ToolSpec]) -> bool:
        try:
            prompt = self._render(before, tools)
            longer = self._render([*before, *_exchange(role, thinking)], tools)
        except ChatFormatError:
            return False
        turn = longer[len(prompt) :].partition(self.end_of_turn)[0]
        return longer.startswith(prompt) and _keeps(turn, role, thinking)

    def _find_end_of_turn(self, text: str) -> str:
        after = text.partition(ANCHOR)[2].partition(_QUESTION)[0].lstrip()
        for token in self._special:
            if after.startswith(token):
                return token
        raise ChatFormatError(
            f"the chat template ends an assistant's turn with {after[:30]!r}, which is no special token of the "
            f"tokenizer ({', '.join(self._special[:8])}); the end of a sampled turn could not be told"
        )

    def _find_system(self) -> None:
        """Some templates refuse a system's message, or drop it."""
        system = [Message(role="system", content=_PURPOSE), Message(role="user", content=_QUESTION)]
        for form in (self._form, replace(self._form, no_system=True)):
            try:
                if _PURPOSE in self._render(system, form=form):
                    self._form = form
                    return
            except ChatFormatError:
                continue

    def _find_calls(self, question: Message) -> str:
        """Choose the form in which calls are given to the template. Returns why tools cannot be used, or ""."""
        problems = []
        for as_text in (False, True):
            form = replace(self._form, arguments_as_text=as_text)
            problems.append(self._problem_with(question, 1, form))
            if not problems[-1]:
                break
        else:
            return problems[0]
        if problem := self._problem_with(question, 2, form):
            form = replace(form, one_call=True)
            if self._problem_with(question, 2, form):
                return problem
        if self._problem_with(question, 1, form, call_id=_LONG_ID):
            form = replace(form, short_ids=True)
        self._form = form
        return ""

    def _problem_with(self, question: Message, count: int, form: Form, call_id: str | None = None) -> str:
        """What becomes of so many calls of a tool, and of their answers; "" where nothing is lost."""
        calls = tuple(ToolCall(name="probe", arguments={"given": f"{_VALUE}{i}"}, id=call_id) for i in range(count))
        results = [Message(role="tool", name="probe", content=f"{_RESULT}{i}", call_id=call_id) for i in range(count)]
        try:
            text = self._render(
                [question, Message(role="assistant", content="", calls=calls), *results], [PROBE_TOOL], form=form
            )
        except ChatFormatError as error:
            return str(error)
        if form.lists_tools and _PURPOSE not in text:
            return "it does not show the tools"
        if any(f"{_VALUE}{i}" not in text for i in range(count)):
            return "it does not show calls"
        if any(result.content not in text for result in results):
            return "it drops the answer of a tool" if count == 1 else "it drops one of two answers of tools"
        return ""

    def call_text(self) -> str:
        """An assistant's turn that is nothing but ``PROBE_CALL``, as the template writes it, without what ends it."""
        question = Message(role="user", content=_QUESTION)
        turn = Message(role="assistant", content="", calls=(PROBE_CALL,))
        prompt = self._render([question], [PROBE_TOOL])
        text = self._render([question, turn], [PROBE_TOOL], generate=False)
        text = text[len(prompt) :] if text.startswith(prompt) else text.rpartition(_QUESTION)[2]
        while ended := next((one for one in self._special if text.rstrip().endswith(one)), None):
            text = text.rstrip()[: -len(ended)]
        return text.strip()

    def header(self) -> str:
        """What the template puts between a user's text and the assistant's turn."""
        return self._render([Message(role="user", content=_QUESTION)]).rpartition(_QUESTION)[2]

    def _after_anchor(self, pieces: Sequence[Piece]) -> list[Piece] | None:
        last = max((i for i, (text, role) in enumerate(pieces) if role == "template" and ANCHOR in text), default=None)
        if last is None:
            return None
        after = pieces[last][0].rpartition(ANCHOR)[2]
        _, found, rest = after.partition(self.end_of_turn)
        return [(rest, "template"), *pieces[last + 1 :]] if found else None

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        generate: bool = True,
        form: Form | None = None,
    ) -> str:
        form = form or self._form
        native = () if form.tools_as_text else tools
        try:
            return self._tokenizer.apply_chat_template(
                conversation(messages, tools, form),
                tools=[spec.to_openai() for spec in native] or None,
                tokenize=False,
                add_generation_prompt=generate,
                **self._options,
            )
        except _template_errors() as error:
            raise ChatFormatError(f"the chat template refuses the conversation: {error}") from None


def _keeps(turn: str, role: str, thinking: bool) -> bool:
    """Whether a turn is rendered as it was sampled: nothing taken out of it, and nothing put before it."""
    if thinking:
        return _THOUGHT in turn and "</think>" in turn
    return turn == _ANSWER if role == "user" else "</think>" not in turn


def _template_errors() -> tuple[type[Exception], ...]:
    """What a template can fail with; transformers needs jinja2 for any template."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError, KeyError, ValueError, AttributeError)


def _exchange(role: str, thinking: bool) -> list[Message]:
    """An assistant's turn and what answers it."""
    thought = _THOUGHT if thinking else None
    if role == "user":
        turn = Message(role="assistant", content=_ANSWER, thinking=thought)
        return [turn, Message(role="user", content=_QUESTION)]
    turn = Message(role="assistant", content="", thinking=thought, calls=(PROBE_CALL,))
    return [turn, Message(role="tool", name="probe", content=_RESULT)]


class _Marks:
    """Stand-ins for the texts of messages. Empty texts and blanks stay, because templates ask for them."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, str]] = []
        """(text, role, mark)."""

    def replace(self, messages: Sequence[Message]) -> list[Message]:
        return [self._message(message) for message in messages]

    def _message(self, message: Message) -> Message:
        calls = tuple(
            ToolCall(name=call.name, arguments=self._value(call.arguments), id=call.id) for call in message.calls
        )
        thinking = message.thinking and self._mark(message.thinking, "assistant")
        content = self._mark(message.content, message.role)
        return Message(
            role=message.role,
            content=content,
            thinking=thinking,
            calls=calls,
            name=message.name,
            call_id=message.call_id,
        )

    def _mark(self, text: str, role: str) -> str:
        if not text.strip() or text in (ANCHOR, _QUESTION):
            return text
        mark = f"zq{len(self.entries)}qz"
        self.entries.append((text, role, mark))
        return mark

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._mark(value, "assistant")
        if isinstance(value, Mapping):
            return {key: self._value(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(one) for one in value]
        return value


def _align(marked: str, true: str, marks: _Marks) -> list[Piece] | None:
    """Split the true rendering by writer; None where it is not the marked one with texts in the marks' places."""
    parts = _MARK.split(marked)
    pieces: list[Piece] = [(parts[0], "template")]
    if not true.startswith(parts[0]):
        return None
    position = len(parts[0])
    for number, following in zip(parts[1::2], parts[2::2], strict=True):
        if int(number) >= len(marks.entries):
            return None
        text, role, _ = marks.entries[int(number)]
        # Templates trim texts, and write arguments as JSON.
        escaped = json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]
        for candidate in (text, text.strip(), text.rstrip(), text.strip("\n"), *escaped):
            if true.startswith(candidate + following, position):
                break
        else:
            return None
        pieces += [(candidate, role), (following, "template")]
        position += len(candidate) + len(following)
    return [piece for piece in pieces if piece[0]] if position == len(true) else None
