"""What a recipe's layout means for so many ranks, and whether its model can be split like that."""

from typing import TYPE_CHECKING

from ...errors import ConfigError
from .config import LayoutConfig
from .recipe import Recipe

if TYPE_CHECKING:
    from ...model.config import DecoderConfig
    from ...model.parallel.layout import Layout


def layout_of(config: LayoutConfig, num_ranks: int, *, unit: str = "processes", remedy: str = "") -> "Layout":
    """The layout of ``num_ranks`` ranks; those that are left over shard the parameters.

    Args:
        unit: what a rank is called in the error.
        remedy: how to have another number of them; the default says how to start processes.
    Raises:
        ConfigError: they cannot be split like that.
    """
    from ...model.parallel.layout import Layout

    split = config.replicate * config.context * config.tensor
    if num_ranks < 1 or num_ranks % split:
        remedy = remedy or (
            f"start as many, such as `torchrun --nproc-per-node {split} -m verigym train ...`, or lower the layout"
        )
        raise ConfigError(
            f"{num_ranks} {unit} cannot be split into groups of {split} (replicate x context x tensor); {remedy}"
        )
    return Layout(shard=num_ranks // split, **config.model_dump())


def model_config(recipe: Recipe) -> "DecoderConfig":
    """The checkpoint's own shape where it is on this machine, else the preset's.

    Raises:
        ConfigError: there is no checkpoint, and no preset to take its place.
    """
    from ...model.config import preset
    from ...model.weights.sources import load_config

    checkpoint = recipe.model.checkpoint
    if checkpoint is not None and checkpoint.exists():
        return load_config(checkpoint)
    if checkpoint is not None and "preset" not in recipe.model.model_fields_set:
        raise ConfigError(f"there is no checkpoint at {checkpoint}, and no model.preset to plan with; set model.preset")
    return preset(recipe.model.preset, **recipe.model.changes)


def why_theirs(recipe: Recipe) -> str | None:
    """Why the model runs in transformers' own code; None where our decoder runs it, or nobody knows."""
    from ...model.families.find import why_not_ours

    checkpoint = recipe.model.checkpoint
    return why_not_ours(checkpoint) if checkpoint is not None and checkpoint.exists() else None


def is_sharded(recipe: Recipe, num_ranks: int) -> bool:
    """Whether the model is trained as shards: over several ranks, or on one with a layout of its own."""
    return num_ranks > 1 or recipe.layout != LayoutConfig()


def check_layout(recipe: Recipe, layout: "Layout") -> None:
    """Refuse what cannot be split, before any work.

    Raises:
        ConfigError: heads, channels, the width or the vocabulary cannot be split so, the context is too long, or
            a model of transformers is split by more than its parameters.
    """
    from ...model.config import preset

    if (reason := why_theirs(recipe)) is not None:
        if layout.tensor > 1 or layout.context > 1:
            raise ConfigError(
                f"layout.tensor and layout.context split our own decoder, which {recipe.model.checkpoint} does not run "
                f"on ({reason}); remove them: the ranks shard the parameters then"
            )
        return
    config = model_config(recipe)
    if recipe.model.checkpoint is None:
        config = preset(recipe.model.preset, vocab_size=recipe.model.vocab_size, **recipe.model.changes)
    layout.check(config, recipe.model.max_context)
