"""What a container of an engine has written, and what differs in it from its image."""

import os

import requests
from docker.errors import DockerException, NotFound

from ...errors import SandboxError
from .background import on_thread
from .container_reset import Changes, below
from .engine import Engine


async def written(engine: Engine, container: str, count_files: bool) -> tuple[int, int]:
    """(bytes, files) that a container wrote; files only where they are to be counted, which engines do slowly. Of a
    container that is gone nothing."""
    try:
        found = await engine.call("measuring a container", engine.api.containers, filters={"id": container}, size=True)
        size = (found[0].get("SizeRw") or 0) if found else 0
        if not count_files:
            return size, 0
        return size, len(await engine.call("measuring a container", engine.api.diff, container) or ())
    except (SandboxError, NotFound):
        return 0, 0


class Differences:
    """Paths of a container that differ from its image, and how; paths of folders that tasks write to are left out."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine, self._container = engine, container
        self._upper: str | None = None

    async def __call__(self, folders: tuple[str, ...]) -> Changes:
        """Raises SandboxError."""
        found = await on_thread(self._layer, folders)
        return await self._of_engine(folders) if found is None else found

    def _layer(self, folders: tuple[str, ...]) -> Changes | None:
        """The container's own layer, where it is on this machine and we may read it. The engine reports the same, but
        some compare every file of the image for that."""
        if self._upper is None:
            try:
                driver = self._engine.api.inspect_container(self._container)["GraphDriver"]
            except (DockerException, requests.RequestException, OSError):
                return None
            self._upper = driver["Data"].get("UpperDir", "") if driver["Name"] == "overlay2" else ""
        if not self._upper or not os.access(self._upper, os.R_OK | os.X_OK):
            return None
        found: Changes = {}
        waiting = [""]
        while waiting:
            with os.scandir(self._upper + waiting.pop()) as entries:
                for entry in entries:
                    path = entry.path[len(self._upper) :]
                    if below(path, folders):
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                        found[path] = (status.st_mode, status.st_uid, status.st_gid)
                    else:
                        found[path] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_ctime_ns)
        return found

    async def _of_engine(self, folders: tuple[str, ...]) -> Changes:
        try:
            found = await self._engine.call("comparing a container", self._engine.api.diff, self._container)
        except NotFound:
            raise SandboxError("a container vanished") from None
        return {entry["Path"]: (entry["Kind"],) for entry in found or () if not below(entry["Path"], folders)}
