"""The controller as an actor: the recipe's loop, on a CPU of the cluster."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..recipe.recipe import Recipe


class Stop:
    """A wish to end that may come before, or while, somebody listens for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wished = False
        self._listener: Callable[[], None] | None = None

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call this when the wish comes; at once, where it has come. None: nobody listens any more."""
        with self._lock:
            self._listener = listener
            wished = self._wished
        if wished and listener is not None:
            listener()

    def wish(self) -> None:
        """End after the step in progress, with what there is saved."""
        with self._lock:
            self._wished = True
            listener = self._listener
        if listener is not None:
            listener()


Control = Callable[[Recipe, Path, bool, Any, Stop], int]
"""(recipe, folder, whether to go on with what is there, places, stop) -> exit status: runs a recipe on places."""


class Controller:
    """Runs a recipe; whatever it has started ends with it."""

    def __init__(self) -> None:
        self._stop = Stop()

    def run(self, control: Control, recipe: Recipe, out: Path, resume: bool, room: str) -> int:
        """The exit status of the run.

        Args:
            room: see ``ClusterPlaces``.
        Raises:
            RanksLost: a rank is gone; another controller goes on from the last checkpoint.
            VerigymError: the run cannot go on.
        """
        from .places import ClusterPlaces

        places = ClusterPlaces(recipe, out, room)
        try:
            return control(recipe, out, resume, places, self._stop)
        finally:
            places.close()

    def interrupt(self) -> None:
        """See ``Stop.wish``."""
        self._stop.wish()
