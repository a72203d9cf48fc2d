"""How long episodes may be: no longer than the model's context, which is told before any work."""

from pathlib import Path

from ...errors import ConfigError
from .layouts import model_config
from .recipe import Recipe, teachers_of


def check_context(recipe: Recipe) -> None:
    """
    Raises:
        ConfigError: episodes may be longer than the model's context, or than a teacher's. A checkpoint that is not on
            this machine, or does not say how long its context is, is not refused.
        CheckpointError: one cannot be read.
    """
    _check_own(recipe)
    _check_teachers(recipe)


def _check_own(recipe: Recipe) -> None:
    checkpoint, most = recipe.model.checkpoint, recipe.model.max_context
    if checkpoint is not None and not checkpoint.exists():
        return
    limit = model_config(recipe).max_position_embeddings if checkpoint is None else _limit_of(checkpoint)
    if limit is not None and most > limit:
        raise ConfigError(f"model.max_context is {most} and the model's context {limit}; lower it")


def _check_teachers(recipe: Recipe) -> None:
    """Servers say themselves how much they read."""
    most = recipe.model.max_context
    for name, teacher in teachers_of(recipe).items():
        checkpoint = None if teacher.checkpoint is None else Path(teacher.checkpoint)
        limit = _limit_of(checkpoint) if checkpoint is not None and checkpoint.is_dir() else None
        if limit is not None and most > limit:
            raise ConfigError(
                f"model.max_context is {most}, and the teacher {name!r} reads {limit} tokens at once; lower it, or "
                "take another teacher"
            )


def _limit_of(checkpoint: Path) -> int | None:
    from ...model.families.find import why_not_ours

    if why_not_ours(checkpoint) is None:
        from ...model.weights.sources import load_config

        return load_config(checkpoint).max_position_embeddings
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return None  # whoever loads it says why
    return getattr(config.get_text_config(), "max_position_embeddings", None)
