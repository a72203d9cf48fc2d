"""A renderer over the chat template of a Hugging Face tokenizer.

A template is a program over the whole conversation; it may rewrite what it rendered before (strip thinking, merge tool
answers, write calls anew). What it does is found out by rendering small conversations when the renderer is made: where
it only appends, ``extend`` appends; where it does not, ``extend`` returns None and a new segment opens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...errors import ChatFormatError
from .encoding import valid_text
from .messages import Message, ToolSpec
from .protocols import Rendered
from .template import ChatTemplate, Piece


class TemplateTokenizer(Protocol):
    """What is used of ``transformers.PreTrainedTokenizerFast``."""

    chat_template: Any
    eos_token_id: Any

    @property
    def all_special_tokens(self) -> list[str]: ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...

    def encode(self, text: Any, **kwargs: Any) -> list[int]: ...

    def decode(self, token_ids: Any, **kwargs: Any) -> Any: ...

    def convert_tokens_to_ids(self, tokens: Any) -> Any: ...


class HuggingFaceRenderer:
    """Messages to tokens by a tokenizer's own template. Special tokens come from the template alone: a message that
    spells one is encoded as text."""

    def __init__(self, tokenizer: TemplateTokenizer, **options: Any) -> None:
        """
        Args:
            tokenizer: a fast tokenizer of transformers with a ``chat_template``.
            options: passed to the template, such as ``enable_thinking=False``.
        Raises:
            ChatFormatError: there is no template, it drops messages, or it does not end an assistant's turn with a
                special token.
        """
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, options)
        self._end_of_turn = self._template.end_of_turn
        self._end_id = int(tokenizer.convert_tokens_to_ids(self._end_of_turn))
        self._appends = {
            (role, thinking): self._template.appends(role, thinking=thinking)
            for role in ("user", "tool")
            for thinking in (False, True)
        }

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        eos = self._tokenizer.eos_token_id
        return (self._end_id,) if eos is None or eos == self._end_id else (self._end_id, int(eos))

    @property
    def append_only(self) -> Mapping[tuple[str, bool], bool]:
        """(role of the new message, whether turns think) -> whether the template only appends there."""
        return dict(self._appends)

    def start(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Rendered:
        """The whole conversation, up to the assistant's header.

        Raises:
            ChatFormatError: the template refuses or drops one of the messages, or the tools.
        """
        if tools and self._template.tool_problem:
            raise ChatFormatError(f"the template cannot answer tools: {self._template.tool_problem}; use another one")
        return self._encode(self._template.pieces(messages, tools))

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
        rendered = self._encode(tail)
        if ended:
            return rendered
        return Rendered(token_ids=(self._end_id, *rendered.token_ids), roles=("template", *rendered.roles))

    def decode(self, token_ids: Sequence[int]) -> str:
        ids = list(token_ids)
        if ids and ids[-1] in self.stop_token_ids:
            ids.pop()
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def encode_turn(self, text: str) -> tuple[int, ...]:
        return (*self._ids(text, is_template=False), self._end_id)

    def _encode(self, pieces: Sequence[Piece]) -> Rendered:
        ids: list[int] = []
        roles: list[str] = []
        for text, role in pieces:
            new = self._ids(text, is_template=role == "template")
            ids += new
            roles += [role] * len(new)
        return Rendered(token_ids=tuple(ids), roles=tuple(roles))

    def _ids(self, text: str, *, is_template: bool) -> list[int]:
        if not text:
            return []
        text = valid_text(text)
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not is_template))
