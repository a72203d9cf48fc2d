"""The working folder of the process, which all episodes and the run itself share."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class _Folder:
    """Where the process was before the hooks that run now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_hooks = 0
        self._path = ""
        self.num_changes = 0

    def enter(self) -> None:
        with self._lock:
            if not self._num_hooks:
                self._path = _here()
            self._num_hooks += 1

    def leave(self, hook: str) -> None:
        with self._lock:
            self._num_hooks -= 1
            left = _here()
            if left == self._path or not self._path:
                return
            self.num_changes += 1
            try:
                os.chdir(self._path)
            except OSError:  # it is gone
                return
        logger.error(
            "%s, or a hook beside it, changed the working folder of the process, which all share, to %s; it is changed "
            "back to %s. Use whole paths",
            hook,
            left or "one that is gone",
            self._path,
        )


def _here() -> str:
    """ "" where the folder is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


_FOLDER = _Folder()


def num_changes() -> int:
    """How often hooks of this process have changed its folder."""
    return _FOLDER.num_changes


@contextmanager
def folder_kept(hook: str) -> Iterator[None]:
    """Inside, a hook runs. Where it leaves the process in another folder, that is told and undone: a run that writes to
    ``runs/one`` goes on writing there."""
    _FOLDER.enter()
    try:
        yield
    finally:
        _FOLDER.leave(hook)
