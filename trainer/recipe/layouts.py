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


def is_sharded(recipe: Recipe, num_ranks: int) -> bool:
    """Whether the model is trained as shards: over several ranks, or on one with a layout of its own."""
    return num_ranks > 1 or recipe.layout != LayoutConfig()


def check_layout(recipe: Recipe, layout: "Layout") -> None:
    """Refuse what cannot be split, before any work.

    Raises:
        ConfigError: heads, channels, the width or the vocabulary cannot be split so, or the context is too long.
    """
    from ...model.config import preset
    from ...model.families.find import why_not_ours

    checkpoint = recipe.model.checkpoint
    if recipe.model.lora is not None:
        raise ConfigError("adapters (model.lora) are trained in one process; start one, and remove layout")
    if checkpoint is not None and checkpoint.exists() and (reason := why_not_ours(checkpoint)):
        raise ConfigError(
            f"ranks split our own decoder, which {checkpoint} does not run on ({reason}); start one process, "
            "and remove layout"
        )
    config = model_config(recipe)
    if recipe.model.checkpoint is None:
        config = preset(recipe.model.preset, vocab_size=recipe.model.vocab_size, **recipe.model.changes)
    layout.check(config, recipe.model.max_context)
