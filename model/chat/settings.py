"""How a checkpoint wants to be spoken to."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import CheckpointError

Tools = Literal["native", "text", "taught"]
"""How a chat template is given tools: as it writes them, as messages, or as messages that do not list them, for a model
that knows its tools from demonstrations."""


class RendererSettings(BaseModel):
    """Of CWM's renderer; see there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    reasoning: bool = False
    """Open each turn with a thought."""
    announce_tools: bool = True
    """List the tools in the system prompt."""


class TemplateSettings(BaseModel):
    """Of the renderer over a chat template; see ``huggingface.HuggingFaceRenderer``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tools: Tools = "native"
    """How it is given tools."""
    options: dict[str, Any] = {}
    """Passed to the template, such as {"enable_thinking": false}."""


class CheckpointSettings(BaseModel):
    """verigym.json, beside a checkpoint's config.json: how its model was trained to be spoken to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    renderer: RendererSettings = RendererSettings()
    """How messages become tokens in CWM's format."""
    template: TemplateSettings = TemplateSettings()
    """How messages become tokens by a chat template."""
    environments: dict[str, dict[str, Any]] = {}
    """Environment id -> arguments that it was trained with, such as {"system_prompt": ""}."""


def checkpoint_settings(checkpoint: Path) -> CheckpointSettings:
    """The checkpoint's verigym.json; the defaults where it has none.

    Raises:
        CheckpointError: the file is broken, or names a setting that does not exist.
    """
    path = checkpoint / "verigym.json"
    try:
        return CheckpointSettings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return CheckpointSettings()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise CheckpointError(f"{path} cannot be used ({problems}); mend it, or remove it for the defaults") from None
