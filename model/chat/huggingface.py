"""A renderer over the chat template of a Hugging Face tokenizer.

A template is a program over the whole conversation; it may rewrite what it rendered before (strip thinking, merge tool
answers, write calls anew). What it does is found out by rendering small conversations when the renderer is made: where
it only appends, ``extend`` appends; where it does not, ``extend`` returns None and a new segment opens.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...errors import ChatFormatError
from .messages import Message, ToolSpec
from .native import PARSERS
from .openai import JsonParser
from .piece_ids import PieceIds
from .protocols import Parser, Rendered
from .settings import Tools
from .template import PROBE_CALL, PROBE_TOOL, ChatTemplate

_KEPT = 16  # renderers with other options


class TemplateTokenizer(Protocol):
    """What is used of ``transformers.PreTrainedTokenizerFast``."""

    chat_template: Any
    eos_token_id: Any

    @property
    def all_special_tokens(self) -> list[str]: ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...

    def encode(self, text: Any, **kwargs: Any) -> list[int]: ...

    def __call__(self, text: Any, **kwargs: Any) -> Any: ...

    def decode(self, token_ids: Any, **kwargs: Any) -> Any: ...

    def convert_tokens_to_ids(self, tokens: Any) -> Any: ...


class HuggingFaceRenderer:
    """Messages to tokens by a tokenizer's own template. Special tokens come from the template alone: a message that
    spells one is encoded as text."""

    def __init__(
        self,
        tokenizer: TemplateTokenizer,
        *,
        eos_token_ids: Sequence[int] = (),
        tools: Tools = "native",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            tokenizer: a fast tokenizer of transformers with a ``chat_template``.
            eos_token_ids: that the model's settings of generation name, besides the tokenizer's.
            tools: "native", as the template writes them; "text", for a template that knows no tools: they are listed in
                the system's message, calls are JSON between <tool_call> and </tool_call>, answers are a user's;
                "taught", so without that list.
            options: passed to the template, such as ``{"enable_thinking": False}``.
        Raises:
            ChatFormatError: there is no template, it drops messages, or it does not end an assistant's turn with a
                special token.
        """
        self._tokenizer = tokenizer
        self._settings = {"eos_token_ids": eos_token_ids, "tools": tools}
        self._options, self._others = dict(options or {}), {}
        self._encoder = PieceIds(tokenizer)
        self._template = ChatTemplate(tokenizer, options or {}, self._encoder.special, tools=tools)
        self._end_of_turn = self._template.end_of_turn
        self._end_id = int(tokenizer.convert_tokens_to_ids(self._end_of_turn))
        ends = [*eos_token_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]
        # A token that ends the parts of a turn would end it after its first, if anything else ends turns.
        first = [] if self._template.ends_parts and ends else [self._end_id]
        self._stop_ids = tuple(dict.fromkeys(map(int, (*first, *ends))))
        self._header = self._template.header()
        self.parser, self.tool_problem = self._find_parser()
        self._appends = {
            (role, thinking): self._template.appends(role, thinking=thinking)
            for role in ("user", "tool")
            for thinking in (False, True)
        }

    def with_options(self, options: Mapping[str, Any]) -> "HuggingFaceRenderer":
        """One that gives these options to the template beside its own. Raises ChatFormatError."""
        if not options:
            return self
        key = json.dumps(options, sort_keys=True, default=str)
        if key not in self._others:
            while len(self._others) >= _KEPT:  # a client chooses the keys
                self._others.pop(next(iter(self._others)))
            merged = {**self._options, **options}
            self._others[key] = HuggingFaceRenderer(self._tokenizer, options=merged, **self._settings)
        return self._others[key]

    def _find_parser(self) -> tuple[Parser, str]:
        """(what reads calls as the template writes them, why tools cannot be used or "")."""
        problem = self._template.tool_problem
        if problem:
            return JsonParser(), problem
        written = self._template.call_text()
        for parser in PARSERS:
            message, _ = parser.parse(written, [PROBE_TOOL])
            if [(call.name, call.arguments) for call in message.calls] == [(PROBE_CALL.name, PROBE_CALL.arguments)]:
                return parser, ""
        return JsonParser(), f"it writes calls in a form that no parser here reads: {written[:120]!r}"

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        return self._stop_ids

    @property
    def append_only(self) -> Mapping[tuple[str, bool], bool]:
        """(role of the new message, whether turns think) -> whether the template only appends there."""
        return dict(self._appends)

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        """The whole conversation, up to the assistant's header.

        Raises:
            ChatFormatError: the template refuses or drops one of the messages, or the tools.
        """
        if tools and self.tool_problem:
            raise ChatFormatError(
                f"the chat template cannot be used with tools: {self.tool_problem}; choose tools = 'text' (serve: "
                "--tools-as text), which writes them into messages, or another template"
            )
        return self._encoder.encode(self._template.pieces(messages, tools))

    def extend(self, sampled: Sequence[int], messages: Sequence[Message]) -> Rendered | None:
        roles = {message.role for message in messages}
        if not roles <= {"user", "tool"} or not messages:
            return None
        thinks = "</think>" in self.decode(sampled)
        if not all(self._appends[role, thinks] for role in roles):
            return None
        tail = self._template.tail(messages)
        if tail is None:
            return None
        ended = bool(sampled) and sampled[-1] in self.stop_token_ids
        rendered = self._encoder.encode(tail, after=self._end_of_turn)
        if ended:
            return rendered
        return Rendered(token_ids=(self._end_id, *rendered.token_ids), roles=("template", *rendered.roles))

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def encode_turn(self, text: str) -> tuple[int, ...]:
        return (*self._encoder.continued(text, self._header), self._end_id)
