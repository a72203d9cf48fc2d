"""An image's files looked at through a container that is never started."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .engine import Engine
from .image_facts import ImageFacts, facts_of

PROBE_LABEL = "verigym.probe"


def read_facts(
    engine: Engine, found: dict[str, Any], workdir: str, labels: dict[str, str], root: bool = False
) -> ImageFacts:
    """Look into an image through a container that is never started. Blocking; raises docker's errors."""
    api = engine.api
    probe = api.create_container(found["Id"], command=["/"], labels={**labels, PROBE_LABEL: "1"})["Id"]
    try:
        return facts_of(_ContainerFiles(api, probe), found["Id"], found.get("Config") or {}, workdir, root=root)
    finally:
        api.remove_container(probe, force=True, v=True)


class _ContainerFiles:
    """The files of a container that was not started."""

    def __init__(self, api: Any, container: str) -> None:
        self._api, self._container = api, container

    def owner(self, path: str) -> tuple[int, int] | None:
        first = self._first(f"{path}/.")  # so links are followed to a folder
        return None if first is None else (first.uid, first.gid)

    def exists(self, path: str) -> bool:
        return self._first(path) is not None

    def text(self, path: str) -> str:
        with _archive(self._api, self._container, path) as archive:
            first = archive.next() if archive is not None else None
            file = archive.extractfile(first) if archive is not None and first is not None else None
            return file.read().decode(errors="replace") if file is not None else ""

    def _first(self, path: str) -> tarfile.TarInfo | None:
        with _archive(self._api, self._container, path) as archive:
            return archive.next() if archive is not None else None


@contextmanager
def _archive(api: Any, container: str, path: str) -> Iterator[tarfile.TarFile | None]:
    """The tar archive that the engine makes of a path, read only as far as is needed; docker-py has no such call."""
    url = api._url("/containers/{0}/archive", container)
    with api.get(url, params={"path": path}, stream=True, headers={"Accept-Encoding": "identity"}) as answer:
        if answer.status_code == 404:
            yield None
        else:
            api._raise_for_status(answer)
            with tarfile.open(fileobj=answer.raw, mode="r|") as archive:
                yield archive
