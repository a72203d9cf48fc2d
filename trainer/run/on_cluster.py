"""A recipe's run under a controller of a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..recipe.recipe import Recipe
from .context import Run
from .train import train


def control(recipe: Recipe, out: Path, resume: bool, places: Any, stop: Any) -> int:
    """``cluster.controller.Control``: run a recipe whose ranks, engines and episode workers are in their places."""

    @contextmanager
    def listening(run: Run) -> Iterator[None]:
        stop.listen(run.interrupt)
        try:
            yield
        finally:
            stop.listen(None)

    torch.set_num_threads(1)
    return train(recipe, out, resume=resume, team=places.ranks, places=places, interruptible=listening)
