"""How long episodes may be: no longer than the model's context, which is told before any work."""

from typing import TYPE_CHECKING

from ...errors import ConfigError
from .layouts import model_config
from .recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path


def check_context(recipe: Recipe) -> None:
    """
    Raises:
        ConfigError: episodes may be longer than the model's context. A checkpoint that is not on this machine, or does
            not say how long its context is, is not refused.
    """
    checkpoint, most = recipe.model.checkpoint, recipe.model.max_context
    if checkpoint is not None and not checkpoint.exists():
        return
    limit = _limit_of(recipe, checkpoint)
    if limit is not None and most > limit:
        raise ConfigError(f"model.max_context is {most} and the model's context {limit}; lower it")


def _limit_of(recipe: Recipe, checkpoint: "Path | None") -> int | None:
    from ...model.families.find import why_not_ours

    if checkpoint is None or why_not_ours(checkpoint) is None:
        return model_config(recipe).max_position_embeddings
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return None  # whoever loads it says why
    return getattr(config.get_text_config(), "max_position_embeddings", None)
