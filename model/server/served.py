"""The model behind a server, by its name."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..chat.protocols import Parser, Renderer
from ..chat.text import TokenNames
from ..engine.open import OpenModel
from ..web.errors import ApiError, refused

LogprobsMode = Literal["raw_logprobs", "processed_logprobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model with a name, and how it answers.

    Attributes:
        name: what clients call it.
        model: the engine, the tokenizer, the chat format.
        logprobs_mode: which distribution log-probabilities are of: the model's own at temperature 1, or the one that
            tokens are drawn from.
        created: seconds since 1970.
    """

    name: str
    model: OpenModel
    logprobs_mode: LogprobsMode = "raw_logprobs"
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def raw(self) -> bool:
        """Whether log-probabilities are of the model's own distribution."""
        return self.logprobs_mode == "raw_logprobs"

    def check_name(self, name: str) -> None:
        """Raises ApiError (404) where a client asks for another model."""
        if name != self.name:
            raise ApiError(
                404, f"there is no model {name[:100]!r} here; this server has {self.name!r}", code="model_not_found"
            )

    def room(self, prompt_ids: Sequence[int], param: str, *, least: int = 1) -> int:
        """Tokens that fit after a prompt. Raises ApiError (400) where it is fewer than ``least``."""
        room = self.model.engine.max_context - len(prompt_ids)
        if room < least:
            raise refused(
                f"This model's maximum context length is {self.model.engine.max_context} tokens and the prompt has "
                f"{len(prompt_ids)}; shorten it",
                param=param,
                code="context_length_exceeded",
            )
        return room

    def names(self, *, as_ids: bool | None) -> TokenNames:
        """How tokens are told to a client."""
        return TokenNames(self.model.decode, as_ids=bool(as_ids))

    def chat(self, template_options: Mapping[str, Any]) -> tuple[Renderer, Parser]:
        """The chat format, its template given these options. Raises ApiError (400) where there is none."""
        if self.model.renderer is None or self.model.parser is None:
            told = f"this model cannot chat: {self.model.chat_problem}; use /v1/completions"
            raise refused(told, param="model")
        renderer = self.model.renderer
        if not template_options:
            return renderer, self.model.parser
        with_options = getattr(renderer, "with_options", None)
        if with_options is None:
            told = "this model speaks a format of its own, without a chat template; leave chat_template_kwargs out"
            raise refused(told, param="chat_template_kwargs")
        renderer = with_options(template_options)
        return renderer, renderer.parser

    def to_json(self) -> dict[str, object]:
        """The entry of ``/v1/models``."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "verigym",
            "max_model_len": self.model.engine.max_context,
        }
