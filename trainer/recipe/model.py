"""What a recipe says of the model. Reading it imports no torch."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .config import LoRAConfig, Settings


class ModelConfig(Settings):
    """The model to train."""

    preset: Literal["cwm-tiny", "cwm-32b", "cwm-32b-slice", "qwen3-32b", "llama-3.3-70b"] = "cwm-tiny"
    """Architecture of a model that starts from random weights (cwm-tiny), what a checkpoint must be, and what
    ``verigym plan`` plans with where the checkpoint is not on this machine."""
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] | None = None
    """What each layer attends to, in place of the preset's; one a layer. Another number of them changes the depth."""
    sliding_window: int | None = Field(default=None, ge=1)
    """Keys a token of a sliding layer sees, itself included, in place of the preset's."""
    checkpoint: Path | None = None
    """A folder with a checkpoint to start from instead of random weights: CWM's, or any causal language model of
    transformers. Its tokenizer is used as it is, and its chat template unless ``chat_template`` names another."""
    chat_template: str | None = None
    """In place of the checkpoint's own, or where it has none, as a base model: "chatml", "plain" (questions and
    answers) or a Jinja file. It goes with every checkpoint that is written."""
    tools: Literal["native", "text", "taught"] = "native"
    """How the chat template of ``checkpoint`` is given tools: as it writes them; if it knows none, as messages; or as
    messages that do not list them, which imitation has to teach ("taught"): as many tokens less in every episode. Not
    set: as the checkpoint's verigym.json says."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of the chat template, such as {enable_thinking = false}."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that ``checkpoint`` is read into. Bfloat16 needs ``lora``: it loses small updates."""
    lora: LoRAConfig | None = None
    """Train low-rank adapters, and leave the checkpoint's weights as they are; false is none."""
    vocab_size: int = Field(default=1024, ge=300)
    """Entries of the byte-level BPE that is trained on the demonstrations; unused with a checkpoint."""
    max_context: int = Field(default=768, ge=64)
    """Tokens an episode may have in the engine."""
    attention: Literal["auto", "triton", "sdpa", "reference"] = "auto"
    """What attention runs on, in training and in the engine: our kernels, torch's, or plain and slow; "auto" takes the
    kernels on CUDA. What cannot run here is refused before the first step."""

    @field_validator("lora", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return None if value is False else value  # TOML has no null

    @model_validator(mode="after")
    def _is_a_base(self) -> Self:
        if not self.preset.startswith("cwm-") and self.checkpoint is None:
            raise ValueError(f"{self.preset} has its weights and tokenizer from a checkpoint; set model.checkpoint")
        if self.lora is not None and self.checkpoint is None:
            raise ValueError("lora adapts a trained model, and there is none; set model.checkpoint")
        if self.chat_template is not None and self.checkpoint is None:
            raise ValueError("chat_template is of a checkpoint's tokenizer, and there is none; set model.checkpoint")
        if self.dtype != "float32" and self.lora is None:
            raise ValueError("bfloat16 weights lose small updates; set model.lora, or model.dtype = 'float32'")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the preset, as ``model.config.preset`` takes it."""
        changes: dict[str, Any] = {}
        if self.layer_types is not None:
            changes |= {"layer_types": self.layer_types, "num_layers": len(self.layer_types)}
        if self.sliding_window is not None:
            changes["sliding_window"] = self.sliding_window
        return changes
