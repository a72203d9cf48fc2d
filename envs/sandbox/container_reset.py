"""A container brought back to how it once was, and the proof that it is.

Three parties agree on it. The guest compares every file of the folders that tasks write to by inode and change time,
which nothing inside can set; removes what is new; kills every process. What is lost or changed is brought from a copy
taken at that time, which lies outside. Every other path that differs from the image must be one that differed then: the
container's own layer says so, the engine, or the guest. Git is not asked: its index can be made to lie.
"""

import asyncio
import io
import marshal
import posixpath
import tarfile
import tempfile
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import SandboxError
from .background import on_thread
from .frames import Frames

RESET_S = 60.0
PACK_BYTES = 256 << 20
"""Most bytes of the folders that are looked at: a container that holds more is used once."""

FOLDERS = ("/tmp", "/var/tmp", "/dev")
"""Besides the working folder and the home."""

FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""The container's own, which the engine does not list."""

Changes = dict[str, tuple[Any, ...]]
"""Path -> what tells one change of it from another."""


class Copy:
    """The files that containers of one kind began with, by absolute path; on disk, in a file without a name."""

    def __init__(self, archive: bytes) -> None:
        self._file = tempfile.TemporaryFile(prefix="verigym-copy-")  # noqa: SIM115 - lives as long as the copy
        self._file.write(archive)
        self._file.seek(0)
        self._archive = tarfile.open(fileobj=self._file)  # noqa: SIM115
        self._members = {f"/{member.name.strip('/')}": member for member in self._archive}
        self._reading = threading.Lock()

    def part(self, paths: list[str]) -> bytes | None:
        """An archive of some of them; None where one of them is not there. Blocking."""
        buffer = io.BytesIO()
        with self._reading, tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as part:
            for path in paths:
                member = self._members.get(path)
                if member is None:
                    return None
                part.addfile(member, self._archive.extractfile(member) if member.isfile() else None)
        return buffer.getvalue()

    def close(self) -> None:
        with self._reading:
            self._archive.close()
            self._file.close()


class Resetter:
    """Resets one container. ``look`` comes first, ``reset`` any number of times."""

    def __init__(
        self,
        differences: Callable[[tuple[str, ...]], Awaitable[Changes]],
        stream: Frames,
        folders: tuple[str, ...],
    ) -> None:
        """
        Args:
            differences: paths of the container that differ from the image; is told the folders that are left out.
            folders: the working folder and the home; what is outside of them may not change.
        """
        self._differences, self._stream = differences, stream
        folders = tuple(path for path in map(posixpath.normpath, folders) if path != "/")
        self._folders = _outermost((*folders, *FOLDERS))
        self._other: Changes = {}

    async def look(self) -> None:
        """Look at what is there now; a reset returns to it. Raises SandboxError."""
        self._other = await self._changes()
        header, _ = await self._ask("snapshot", marshal.dumps((self._folders, self._files)))
        if not header["ok"]:
            raise SandboxError(f"a container cannot be looked at: {header['why']}")

    async def copy(self) -> Copy | None:
        """The files of the folders as they are now; None where they are more than 256 MiB, or cannot be read."""
        request = {"do": "run", "call": ("pack", self._folders, self._files), "timeout": RESET_S}
        header, body = await self._stream.ask(request | {"output_bytes": PACK_BYTES}, b"", timeout_s=2 * RESET_S)
        if header["exit_code"] != 0:
            return None
        return await on_thread(Copy, body[: header["sizes"][0]])

    async def reset(self, copy: Copy) -> bool:
        """Bring it back; whether that is complete. A container of which it is not must not be used again."""
        try:
            return await self._reset(copy)
        except (SandboxError, OSError):
            return False

    async def _reset(self, copy: Copy) -> bool:
        header, lost = await self._ask("clean", b"")
        if not header["ok"]:
            return False
        if lost:
            part = await on_thread(copy.part, lost.decode(errors="surrogateescape").split("\0"))
            if part is None:
                return False
            request = {"do": "run", "call": ("restore",), "timeout": RESET_S, "output_bytes": 4096}
            header, _ = await self._stream.ask(request, part, timeout_s=2 * RESET_S)
            if header["exit_code"] != 0:
                return False
        (accepted, _), changes = await asyncio.gather(self._ask("accept", lost), self._changes())
        return accepted["ok"] and changes == self._other

    @property
    def _files(self) -> tuple[str, ...]:
        return (*FILES, *self._other)

    async def _ask(self, do: str, body: bytes) -> tuple[dict[str, Any], bytes]:
        return await self._stream.ask({"do": do}, body, timeout_s=RESET_S)

    async def _changes(self) -> Changes:
        """Paths outside our folders that differ from the image, and how."""
        found = await self._differences(self._folders)
        return {path: how for path, how in found.items() if not _above(path, self._folders)}


def _outermost(folders: tuple[str, ...]) -> tuple[str, ...]:
    ordered = sorted(set(folders))
    return tuple(one for one in ordered if not any(one != other and one.startswith(other + "/") for other in ordered))


def below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _above(path: str, folders: tuple[str, ...]) -> bool:
    """A folder that holds one of ours differs with it."""
    return any(folder.startswith(path.rstrip("/") + "/") for folder in folders)
