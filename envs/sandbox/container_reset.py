"""A container brought back to how it once was, and the proof that it is.

Three parties agree on it. The guest compares every file of the folders that tasks write to by inode and change time,
which nothing inside can set; removes what is new; kills every process. What is lost or changed is brought from a copy
taken at that time, which lies outside. Every other path that differs from the image must be one that differed then: the
container's own layer says so, or the engine. Git is not asked: its index can be made to lie.
"""

import asyncio
import io
import marshal
import os
import posixpath
import tarfile
import tempfile
import threading
from typing import Any

import requests
from docker.errors import DockerException, NotFound

from ...errors import SandboxError
from .background import on_thread
from .engine import Engine
from .stream import ContainerStream

RESET_S = 60.0
PACK_BYTES = 256 << 20
"""Most bytes of the folders that are looked at: a container that holds more is used once."""

FOLDERS = ("/tmp", "/var/tmp", "/dev")
"""Besides the working folder and the home."""

FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""The container's own, which the engine does not list."""


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

    def __init__(self, engine: Engine, stream: ContainerStream, folders: tuple[str, ...]) -> None:
        """
        Args:
            folders: the working folder and the home; what is outside of them may not change.
        """
        self._engine, self._stream = engine, stream
        folders = tuple(path for path in map(posixpath.normpath, folders) if path != "/")
        self._folders = _outermost((*folders, *FOLDERS))
        self._other: dict[str, tuple[int, ...]] = {}
        self._upper: str | None = None

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

    async def _changes(self) -> dict[str, tuple[int, ...]]:
        """Paths outside our folders that differ from the image, and how."""
        found = await on_thread(self._layer)
        if found is None:
            found = await self._engine_changes()
        return {path: how for path, how in found.items() if not _above(path, self._folders)}

    def _layer(self) -> dict[str, tuple[int, ...]] | None:
        """The container's own layer, where it is on this machine and we may read it. The engine reports the same, but
        some compare every file of the image for that."""
        if self._upper is None:
            try:
                driver = self._engine.api.inspect_container(self._stream.container)["GraphDriver"]
            except (DockerException, requests.RequestException, OSError):
                return None
            self._upper = driver["Data"].get("UpperDir", "") if driver["Name"] == "overlay2" else ""
        if not self._upper or not os.access(self._upper, os.R_OK | os.X_OK):
            return None
        found: dict[str, tuple[int, ...]] = {}
        waiting = [""]
        while waiting:
            with os.scandir(self._upper + waiting.pop()) as entries:
                for entry in entries:
                    path = entry.path[len(self._upper) :]
                    if _below(path, self._folders):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                        found[path] = (status.st_mode, status.st_uid, status.st_gid)
                    else:
                        found[path] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_ctime_ns)
        return found

    async def _engine_changes(self) -> dict[str, tuple[int, ...]]:
        try:
            found = await self._engine.call("comparing a container", self._engine.api.diff, self._stream.container)
        except NotFound:
            raise SandboxError("a container vanished") from None
        return {entry["Path"]: (entry["Kind"],) for entry in found or () if not _below(entry["Path"], self._folders)}


def _outermost(folders: tuple[str, ...]) -> tuple[str, ...]:
    ordered = sorted(set(folders))
    return tuple(one for one in ordered if not any(one != other and one.startswith(other + "/") for other in ordered))


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _above(path: str, folders: tuple[str, ...]) -> bool:
    """A folder that holds one of ours differs with it."""
    return any(folder.startswith(path.rstrip("/") + "/") for folder in folders)
