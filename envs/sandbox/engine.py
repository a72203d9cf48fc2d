"""A container engine: calls of docker-py from asyncio, its failures as SandboxError, images brought to it."""

import asyncio
import logging
import os
import random
import socket
from collections.abc import Callable
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils import parse_repository_tag

from ...errors import SandboxError
from .background import on_thread
from .image_store import ImageStore
from .per_loop import PerLoop
from .settings import SandboxSettings

logger = logging.getLogger(__name__)

CALL_S = 120
"""So long one call of the engine may take."""

FIRST_CALL_S = 60
"""podman asks other programs for their versions then: 22 s on two cores under a load of 20."""

FIRST_WAIT_S = 1.0
"""Between the first two attempts of a pull; twice as long each time after."""

START_REMEDY = "start it, or give its address as DOCKER_HOST (VERIGYM_SANDBOX_DOCKER_HOSTS for several)"


class Engine:
    """One engine, for any number of event loops. ``aclose`` lets go of its connections."""

    def __init__(self, host: str | None, settings: SandboxSettings) -> None:
        """
        Args:
            host: the engine's address; None is that of DOCKER_HOST, else the local one.
        Raises:
            SandboxError: none answers there.
        """
        self.host = host or "the local engine or DOCKER_HOST"
        self.settings = settings
        self.num_containers = 0
        try:
            if host is None:
                self.client = docker.from_env(timeout=FIRST_CALL_S, max_pool_size=64)
            else:
                self.client = docker.DockerClient(base_url=host, timeout=FIRST_CALL_S, max_pool_size=64)
            info, version = self.client.info(), self.client.version()
            self.client.api.timeout = CALL_S
        except (DockerException, requests.RequestException, OSError) as error:
            raise SandboxError(
                f"no container engine answers at {self.host} ({_short(error)}); {START_REMEDY}"
            ) from None
        self.num_cpus: int = info["NCPU"]
        self.architecture: str = info["Architecture"]
        self.is_podman = any("podman" in str(one.get("Name")).lower() for one in version.get("Components") or ())
        self.has_quota = _has_quota(info)
        self.store = ImageStore(self.api, info, keep_free_bytes=int(settings.keep_free_gib * (1 << 30)))
        self.shares_files: bool | None = None
        """Whether it sees this machine's files; None until that was tried."""
        self._pulls = PerLoop(lambda: asyncio.Semaphore(settings.max_pulls))
        self._pulling: PerLoop[dict[str, asyncio.Task[dict[str, Any]]]] = PerLoop(dict)

    @property
    def api(self) -> Any:
        """docker-py's low-level client."""
        return self.client.api

    async def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A blocking call of docker-py, on a thread.

        Raises:
            SandboxError: the engine refused it or is gone. NotFound: docker's own, for the caller to judge.
        """
        try:
            return await on_thread(function, *args, **kwargs)
        except NotFound:
            raise
        except (DockerException, requests.RequestException, OSError) as error:
            raise SandboxError(f"{what} failed at {self.host}: {_short(error)}") from error

    async def image(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image, which it pulls where it does not have it.

        Raises:
            SandboxError: it cannot be pulled.
        """
        try:
            found = await self.call(f"looking for the image {name}", self.api.inspect_image, name)
        except NotFound:
            pass
        else:
            self.store.used(name)
            return found
        pulling = self._pulling.get()
        task = pulling.get(name)
        if task is None:
            task = pulling[name] = asyncio.ensure_future(self._pull(name))
            task.add_done_callback(lambda done: pulling.pop(name, None))
        return await asyncio.shield(task)

    async def _pull(self, name: str) -> dict[str, Any]:
        attempts, full = self.settings.pull_attempts, False
        async with self._pulls.get():
            for attempt in range(1, attempts + 1):
                try:
                    # A disk that is full in spite of the watch has at least one image less at the next attempt.
                    await on_thread(self.store.make_room, at_least=int(full))
                    logger.info("pulling %s (attempt %d)", name, attempt)
                    await on_thread(self._pull_once, name)
                    self.store.pulled(name)
                    return await self.call(f"looking for the image {name}", self.api.inspect_image, name)
                except (DockerException, requests.RequestException, OSError) as error:
                    if attempt == attempts or _final(error):
                        raise SandboxError(
                            f"the image {name} is not on {self.host} and cannot be pulled ({_short(error)}); see that "
                            "its name is right and its registry can be reached, or build it"
                        ) from None
                    full = "no space left" in str(error).lower()
                    await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
        raise AssertionError("unreachable")

    def _pull_once(self, name: str) -> None:
        repository, tag = parse_repository_tag(name)
        for line in self.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise APIError(line["error"])

    def attach(self, container: str) -> socket.socket:
        """A plain socket on a container's standard streams; to be called before it is started. Blocking."""
        answer = self.api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        try:
            plain = getattr(answer, "_sock", answer)
            if type(plain) is not socket.socket:
                raise SandboxError(
                    f"{self.host} is reached through {type(plain).__name__}, which cannot carry a session; use a unix "
                    "or tcp address, such as a socket forwarded by `ssh -L`"
                )
            copy = socket.socket(fileno=os.dup(plain.fileno()))
            copy.setblocking(False)
            return copy
        finally:
            # With its response it would wait for the garbage collector.
            getattr(answer, "_response", answer).close()

    async def aclose(self) -> None:
        await on_thread(self.client.close)


def _has_quota(info: dict[str, Any]) -> bool:
    """Whether the storage driver bounds a container's disk: overlay2 on xfs with project quotas, btrfs, zfs."""
    driver, status = info.get("Driver"), dict(info.get("DriverStatus") or ())
    if driver == "overlay2":
        return status.get("Backing Filesystem") == "xfs" and status.get("Supports d_type") == "true"
    return driver in ("btrfs", "zfs", "devicemapper")


def _final(error: Exception) -> bool:
    """Whether trying again is useless: the registry said that there is no such image, or that we may not have it."""
    text = str(error).lower()
    signs = ("not found", "does not exist", "denied", "unauthorized", "invalid reference", "manifest unknown")
    return isinstance(error, ImageNotFound) or any(sign in text for sign in signs)


def _short(error: BaseException) -> str:
    text = getattr(error, "explanation", None) or str(error)
    return " ".join(str(text).split())[:300]
