"""Images that were pulled: which are used, and which go when an engine's disk fills up.

Only what verigym itself pulled is ever removed. What that is, and when each was last used, is noted in the cache as
one empty file an image and engine, so that a later run knows it too.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from docker.errors import APIError, ImageNotFound

from .python import cache_folder

logger = logging.getLogger(__name__)


class ImageStore:
    """The pulled images of one engine. Its methods block; those that ask the engine raise docker's errors."""

    def __init__(self, api: Any, info: dict[str, Any], *, keep_free_bytes: int) -> None:
        """
        Args:
            api: docker-py's low-level client.
            info: what the engine said of itself.
            keep_free_bytes: of the engine's disk; 0 watches nothing.
        """
        self._api, self._keep_free = api, keep_free_bytes
        self._folder = cache_folder() / "pulled" / quote(str(info.get("ID") or "engine"), safe="")
        # Another machine's folder may bear the same name here.
        here = info.get("Name") == os.uname().nodename and os.path.isdir(info.get("DockerRootDir") or "")
        self._disk: str | None = info["DockerRootDir"] if here else None

    def pulled(self, name: str) -> None:
        """Note an image that was pulled now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._note(name).touch()

    def used(self, name: str) -> None:
        """Note that an image is used now; nothing where it was not pulled."""
        try:
            os.utime(self._note(name))
        except FileNotFoundError:
            pass

    def make_room(self, *, at_least: int = 0) -> int:
        """Remove pulled images that no container uses, the one unused for longest first, until the disk has room.

        Args:
            at_least: so many go even where there seems to be room.
        Returns:
            How many were removed.
        """
        num_removed = 0
        for name in self._oldest_first():
            if num_removed >= at_least and not self._is_full():
                break
            try:
                self._api.remove_image(name)
            except ImageNotFound:
                pass  # someone else removed it
            except APIError as error:
                logger.info("image %s stays: %s", name, error.explanation)
                continue
            else:
                logger.info("removed image %s, which was not used for longest", name)
                num_removed += 1
            self._note(name).unlink(missing_ok=True)
        return num_removed

    def _is_full(self) -> bool:
        return self._disk is not None and shutil.disk_usage(self._disk).free < self._keep_free

    def _oldest_first(self) -> list[str]:
        notes = [(note.stat().st_mtime_ns, unquote(note.name)) for note in self._folder.glob("*")]
        return [name for _, name in sorted(notes)]

    def _note(self, name: str) -> Path:
        return self._folder / quote(name, safe="")
