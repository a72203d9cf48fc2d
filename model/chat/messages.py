"""Messages and tool calls, as a conversation holds them before any token exists."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import ConfigError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as the policy sees it.

    Attributes:
        name: identifier, unique in an environment.
        description: what it does, for the model.
        parameters: a JSON schema of type "object"; the order of "properties" is the order of the arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]

    def to_openai(self) -> dict[str, Any]:
        """The ``tools`` entry of OpenAI's chat API."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool. ``id`` ties the answer to the call where the format has ids."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An image or a file beside a message's text.

    Attributes:
        media_type: such as "image/png" or "application/pdf".
        data: its bytes in base64.
        name: of a file; "" for none.
    """

    media_type: str
    data: str
    name: str = ""

    @classmethod
    def of(cls, data: bytes, media_type: str = "image/png", name: str = "") -> "Attachment":
        """From bytes."""
        return cls(media_type=media_type, data=base64.b64encode(data).decode(), name=name)

    @property
    def is_image(self) -> bool:
        return self.media_type.startswith("image/")

    @property
    def url(self) -> str:
        """As a data URL."""
        return f"data:{self.media_type};base64,{self.data}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who wrote it; "tool" is a tool's answer, whose tool is ``name``.
        content: the text without thinking and without calls.
        thinking: the reasoning an assistant wrote before its answer; None where there was none.
        calls: the tool calls of an assistant message.
        name: for role "tool", the tool that answers.
        call_id: for role "tool", the id of the call it answers.
        attachments: images and files, for models that take them.
    """

    role: Role
    content: str
    thinking: str | None = None
    calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    call_id: str | None = None
    attachments: tuple[Attachment, ...] = ()


def text_alone(messages: Sequence[Message]) -> None:
    """For formats that have no place for anything else.

    Raises:
        ConfigError: a message has an image or a file.
    """
    for message in messages:
        if message.attachments:
            kinds = ", ".join(sorted({one.media_type for one in message.attachments}))
            raise ConfigError(
                f"a message of role {message.role!r} has an attachment ({kinds}), and this model's format takes text "
                "alone; ask a server that sees it (openai:BASE_URL#MODEL), or describe it in words"
            )
