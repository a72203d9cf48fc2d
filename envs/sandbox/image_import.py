"""A root file system's archive made an image of an engine, under its whole name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ...errors import SandboxError
from ..runs.files import bytes_written_whole


def import_image(api: Any, data: bytes | IO[bytes], name: str, *, changes: Sequence[str] = ()) -> None:
    """Have an engine make the image. Blocking.

    Args:
        api: docker-py's low-level client.
        name: "repository:tag".
        changes: lines of a Dockerfile, such as "ENV LANG=C.UTF-8".
    Raises:
        docker's errors. SandboxError: the engine does not say what it made.
    """
    from docker.errors import ImageNotFound

    repository, _, tag = name.rpartition(":")
    said = api.import_image_from_data(data, repository=repository, tag=tag, changes=list(changes) or None)
    try:
        api.inspect_image(name)
    except ImageNotFound:  # podman leaves the tag out
        if not api.tag(_made(said), repository, tag, force=True):
            raise SandboxError(f"the engine did not name an image {name}: {said!r}") from None


def save_images(api: Any, names: Sequence[str], path: Path) -> None:
    """Write images as ``docker save`` does, whole or not at all; layers that several have once. Blocking.

    Raises:
        SandboxError: the engine refuses.
    """
    from docker.errors import DockerException

    wanted = list(dict.fromkeys(names))
    url = api._url("/images/get")  # docker-py saves one at a time
    try:
        answer = api.get(url, params={"names": wanted}, stream=True)
        api._raise_for_status(answer)
        with answer, bytes_written_whole(path) as out:
            for piece in answer.iter_content(1 << 20):
                out.write(piece)
    except DockerException as error:
        raise SandboxError(f"{', '.join(wanted)[:200]} could not be written to {path}: {error}") from None


def _made(said: str | bytes) -> str:
    """The id in an engine's answer: one JSON object a line, Docker's "status" or podman's "Id"."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    for line in reversed(text.split("\n")):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        found = told.get("Id") or told.get("id") or told.get("status") if isinstance(told, dict) else None
        if found:
            return str(found)
    raise SandboxError(f"the engine does not say which image it made: {text[:200]!r}")
