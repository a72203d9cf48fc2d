"""The stages that there are: the modules of ``stages/``, each after the one that it names."""

import importlib
import pkgutil
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from ..recipe.recipe import Recipe
from . import stages
from .context import Run


class Stage(Protocol):
    """One part of a run, the ``STAGE`` of a module of ``stages/``.

    What it makes for those after it, it leaves in the ``Run``; what it writes is below the run's folder, and on a
    resume it finds that and makes nothing again.

    Attributes:
        after: name of the module whose stage it follows; "" for the first.
        beside: nothing but the last stage needs what it makes: where the recipe overlaps stages, those that follow
            begin at once. It takes what it needs of the weights, and awaits ``Run.turn_beside``.
    """

    after: str
    beside: bool

    def wanted(self, recipe: Recipe) -> bool:
        """Whether this recipe has it."""
        ...

    async def run(self, run: Run) -> None:
        """Do it, or find it done.

        Raises:
            Interrupted: the run is to end; what there is has been saved.
        """
        ...


@lru_cache(maxsize=1)
def known_stages() -> dict[str, Stage]:
    """Name -> stage, in the order in which a run has them.

    Raises:
        ValueError: a stage follows one that there is not.
    """
    found: dict[str, Stage] = {}
    for info in pkgutil.iter_modules(stages.__path__):
        found[info.name] = importlib.import_module(f"{stages.__name__}.{info.name}").STAGE
    ordered: dict[str, Stage] = {}

    def add_followers(name: str) -> None:
        for other in sorted(found):
            if found[other].after == name:
                ordered[other] = found[other]
                add_followers(other)

    add_followers("")
    lost = sorted(found.keys() - ordered.keys())
    if lost:
        raise ValueError(f"the stages {', '.join(lost)} follow none that there is; mend their ``after``")
    return ordered


def stages_of(recipe: Recipe) -> Sequence[Stage]:
    """What a recipe's run consists of, in order."""
    return [stage for stage in known_stages().values() if stage.wanted(recipe)]
