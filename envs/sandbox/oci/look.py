"""What an image holds at a path, without running anything: its layers looked through as overlayfs would."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from .flavor import Flavor
from .store import ImageStore

MAX_LINKS = 40
MAX_BYTES = 1 << 20


class LayerFiles:
    """The files of an image. Links are followed inside of it, never on this machine."""

    def __init__(self, store: ImageStore, layers: Sequence[str]) -> None:
        self._flavor: Flavor = store.flavor
        self._roots = [str(store.place(layer) / "fs") for layer in reversed(layers)]  # the uppermost first
        self._owners = [store.owners(layer) for layer in reversed(layers)]

    def owner(self, path: str) -> tuple[int, int] | None:
        """(user, group) in the image of a path, links followed; None where there is nothing."""
        found = self._find(path)
        if found is None:
            return None
        number, inside = found
        return self._owners[number].get(inside, (0, 0))

    def exists(self, path: str) -> bool:
        """Whether there is anything at a path, a link that leads nowhere among it."""
        return self._find(path, follow=False) is not None

    def text(self, path: str) -> str:
        """A small text file; empty where there is none."""
        found = self._find(path)
        if found is None:
            return ""
        at = Path(self._roots[found[0]], found[1])
        if not stat.S_ISREG(at.lstat().st_mode):
            return ""
        with at.open("rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace")

    def _find(self, path: str, *, follow: bool = True) -> tuple[int, str] | None:
        """(number of the layer, path in it)."""
        ahead = [part for part in path.split("/") if part not in ("", ".")][::-1]
        walked: list[str] = []
        num_links = 0
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del walked[-1:]
                continue
            found = self._entry([*walked, part])
            if found is None:
                return None
            at = os.path.join(self._roots[found[0]], found[1])
            if stat.S_ISLNK(os.lstat(at).st_mode) and (follow or ahead):
                num_links += 1
                if num_links > MAX_LINKS:
                    return None
                target = os.readlink(at)
                walked = [] if target.startswith("/") else walked
                ahead += target.split("/")[::-1]
                continue
            if ahead and not stat.S_ISDIR(os.lstat(at).st_mode):
                return None
            walked.append(part)
        return self._entry(walked)

    def _entry(self, parts: list[str]) -> tuple[int, str] | None:
        """Of a path without links: the uppermost layer that has it and is not hidden by one above."""
        if not parts:
            return 0, ""
        seen = list(range(len(self._roots)))
        for depth in range(1, len(parts) + 1):
            inside = "/".join(parts[:depth])
            seen = self._having(seen, inside)
            if not seen:
                return None
        return seen[0], "/".join(parts)

    def _having(self, numbers: list[int], inside: str) -> list[int]:
        """Of layers whose folders above are one: those that make up what is at this path."""
        found: list[int] = []
        for number in numbers:
            at = os.path.join(self._roots[number], inside)
            try:
                status = os.lstat(at)
            except OSError:
                continue
            if stat.S_ISCHR(status.st_mode):  # gone from here on; an image has no devices
                break
            if not stat.S_ISDIR(status.st_mode):
                return found or [number]
            found.append(number)
            if self._hides(at):
                break
        return found

    def _hides(self, folder: str) -> bool:
        try:
            return os.getxattr(folder, self._flavor.opaque, follow_symlinks=False) == b"y"
        except OSError:
            return False
