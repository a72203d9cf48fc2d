"""The image of a Harbor task: named, built before, or built now where an engine answers."""

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import SandboxError
from ..datasets.harbor import image_of
from ..datasets.harbor_config import HarborConfig
from ..sandbox.background import on_thread_to_its_end
from ..sandbox.oci.backend import OciBackend
from ..sandbox.per_loop import PerLoop
from ..sandbox.types import SandboxBackend

logger = logging.getLogger(__name__)

_COLOURS = re.compile("\x1b\\[[0-9;]*m")

_building: PerLoop[dict[str, asyncio.Lock]] = PerLoop(lambda: defaultdict(asyncio.Lock))


async def ensure_image(folder: Path, config: HarborConfig, backend: SandboxBackend) -> str:
    """The name of a task's image, which the backend has.

    Raises:
        SandboxError: it has to be pulled or built, and cannot be.
    """
    name = image_of(folder, config)
    if config.environment.docker_image:
        try:
            await _settings_of(backend, name)
        except SandboxError as error:
            raise SandboxError(f"{error}{_or_built(folder)}") from None
        return name
    engines = _engines(backend)
    if engines is None:
        if isinstance(backend, OciBackend) and not backend.has(name):
            raise SandboxError(_bring(folder, name))
        return name
    async with _building.get()[name]:
        for engine in engines:
            await on_thread_to_its_end(build_image, engine.client, folder, name, config.environment.build_timeout_sec)
    return name


def pull_image(client: Any, folder: Path, name: str) -> None:
    """Pull the image that a task names where the engine does not have it. Blocking.

    Raises:
        SandboxError: it cannot be pulled.
    """
    from docker.errors import DockerException, ImageNotFound

    try:
        try:
            client.images.get(name)
        except ImageNotFound:
            client.images.pull(name)
    except DockerException as error:
        told = " ".join(str(error).split())[-300:]
        raise SandboxError(f"{name} cannot be pulled: {told}{_or_built(folder)}") from None


def build_image(client: Any, folder: Path, name: str, timeout_s: float = 600.0) -> bool:
    """Build a task's Dockerfile where the engine does not have its image. Blocking. Returns whether it was built.

    Raises:
        SandboxError: it cannot be built.
    """
    from docker.errors import BuildError, DockerException, ImageNotFound

    from ..sandbox.settings import SandboxSettings

    try:
        client.images.get(name)
        return False
    except ImageNotFound:
        pass
    except DockerException as error:
        raise SandboxError(f"{folder}: the engine does not answer: {error}") from None
    logger.info("building %s of %s", name, folder)
    network = SandboxSettings().build_network
    try:
        client.images.build(
            path=str(folder / "environment"),
            tag=name,
            rm=True,
            forcerm=True,
            timeout=int(timeout_s),
            network_mode=network,
        )
    except BuildError as error:
        said = "".join(str(line.get("stream") or line.get("error") or "") for line in error.build_log)
        said = _COLOURS.sub("", said)
        raise SandboxError(f"{folder}/environment/Dockerfile: {' '.join(said.split())[-400:]}; {_hint(name)}") from None
    except (DockerException, OSError) as error:
        told = " ".join(str(error).split())[-400:]
        raise SandboxError(f"{folder}/environment/Dockerfile: {told}; {_hint(name)}") from None
    return True


async def workdir_of(backend: SandboxBackend, image: str, config: HarborConfig) -> str:
    """Where commands start: what the task says, else the image."""
    if config.environment.workdir:
        return config.environment.workdir
    return (await _settings_of(backend, image)).get("WorkingDir") or "/"


async def _settings_of(backend: SandboxBackend, image: str) -> Mapping[str, Any]:
    """What an image says of itself; it is pulled where it is not there. Raises SandboxError where it cannot be."""
    if isinstance(backend, OciBackend):
        return (await backend.image(image)).settings
    engines = _engines(backend)
    return ((await engines[0].image(image)).get("Config") or {}) if engines else {}


def _engines(backend: SandboxBackend) -> list[Any] | None:
    """The container engines of a backend; None where it has none."""
    return getattr(getattr(backend, "backend", backend), "engines", None)


def _hint(name: str) -> str:
    return f"see that its base image and its packages can be reached, or bring it: docker tag YOURS {name}"


def _or_built(folder: Path) -> str:
    """What more can be done where a named image cannot be had."""
    if not (folder / "environment" / "Dockerfile").is_file():
        return ""
    return f"; or build it under that name: verigym tasks build-images harbor:{folder} --force-build --out images.tar"


def _bring(folder: Path, name: str) -> str:
    return (
        f"{folder}/environment/Dockerfile has to be built, and nothing here builds it: where there is an engine run "
        f"`verigym tasks build-images harbor:{folder} --out images.tar`, and here `verigym images add images.tar`; or "
        f"name an image of your own, `verigym images add FILE --name {name}`"
    )
