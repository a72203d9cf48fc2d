"""Images of a container engine: whether one is there, what Python it has, and building one from text and files."""

import io
import logging
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import SandboxError

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

LABEL = "verigym.image"
"""Of every image that is built here."""


def python_of(client: "DockerClient", base: str) -> str:
    """The version of an image's python3, "3.11". Raises SandboxError."""
    from docker.errors import DockerException

    command = ["python3", "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
    try:
        said = client.containers.run(base, command, network_mode="none", remove=True, labels={LABEL: "probe"})
    except DockerException as error:
        told = " ".join(str(error).split())[:300]
        raise SandboxError(
            f"the base image {base} cannot be used, it needs python3 with venv and git: {told}"
        ) from None
    return said.decode().strip()


def exists(client: "DockerClient", name: str) -> bool:
    """Whether an image of this name is there. Raises SandboxError where the engine does not answer."""
    from docker.errors import DockerException, ImageNotFound

    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    except DockerException as error:
        raise SandboxError(f"the engine does not answer: {error}") from None
    return True


def build(client: "DockerClient", name: str, dockerfile: str, files: Mapping[str, bytes | Path], notes: Path) -> None:
    """Build an image from text and files, with no network, and leave its Dockerfile in ``notes``.

    Args:
        files: name in the build's context -> its bytes, or where they lie.
    Raises:
        SandboxError: it could not be built; the message has the last words of the build.
    """
    from docker.errors import BuildError, DockerException

    notes.mkdir(parents=True, exist_ok=True)
    (notes / f"{name.replace('/', '_').replace(':', '-')}.Dockerfile").write_text(dockerfile, encoding="utf-8")
    with tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as tar:
            for path, data in {"Dockerfile": dockerfile.encode(), **files}.items():
                _add(tar, path, data)
        context.seek(0)
        options: dict[str, Any] = {"custom_context": True, "network_mode": "none", "rm": True, "forcerm": True}
        try:
            client.images.build(fileobj=context, tag=name, **options)
        except BuildError as error:
            said = "".join(str(line.get("stream") or line.get("error") or "") for line in error.build_log)
            raise SandboxError(f"{name} could not be built: {' '.join(said.split())[-500:]}") from None
        except DockerException as error:
            raise SandboxError(f"{name} could not be built: {error}") from None
    logger.info("built %s", name)


def _add(tar: tarfile.TarFile, path: str, data: bytes | Path) -> None:
    if isinstance(data, Path):
        tar.add(data, arcname=path, filter=_anonymous)
        return
    entry = tarfile.TarInfo(path)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
