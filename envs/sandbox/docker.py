"""Sandboxes in containers of a Docker engine.

The guest of the local sandbox is the first process of the container and its init: it starts and kills everything
else, reaps what is orphaned, and ends with its input, which is the attached socket of this process. So a container
ends, and the engine removes it, when its owner does, however that happens.
"""

import asyncio
import logging
import os
import resource
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException, NotFound
from docker.types import LogConfig, Mount, Ulimit

from ...errors import SandboxError
from . import host_image, labels, launch
from .background import on_thread
from .container_config import MEMORY_FOR_GUEST, SCRATCH, guest_config
from .container_files import read_facts
from .container_reset import Resetter
from .container_session import ContainerSandbox
from .disk_watch import DiskWatch
from .docker_look import Differences, written
from .engine import Engine
from .image_facts import ROOT_CAPABILITIES, ImageFacts, tar_of
from .per_loop import PerLoop
from .room import Room
from .runtime import INSIDE, python_argv, runtime_archive, runtime_folder
from .settings import SandboxSettings
from .stream import ContainerStream
from .types import SandboxSpec

logger = logging.getLogger(__name__)

START_S = 60.0
PROCESSES_FOR_GUEST = 64


class DockerBackend:
    """Containers without network, capabilities, swap or new privileges, under the engine's default seccomp filter,
    bounded in memory, processes, processor time and disk.

    An image's programs are not needed: Python and bash are brought along. Commands run as the image's user; where
    that is root, as the owner of the working folder; where there is no such folder, as user 1000. The guest is of the
    same user: commands cannot trace or stop it (it is the container's first process), but could lower its resource
    limits, which makes the sandbox fail (SandboxError), never succeed.

    A task without an image sees this machine's system folders, read-only, as in the local sandbox.
    """

    name = "docker"

    def __init__(self, *, settings: SandboxSettings | None = None, engines: list[Engine] | None = None) -> None:
        """
        Args:
            settings: None reads the environment.
            engines: to use these, already connected.
        Raises:
            SandboxError: an engine does not answer.
        """
        self.settings = settings or SandboxSettings()
        self.engines = engines or [Engine(host, self.settings) for host in self.settings.docker_hosts or (None,)]
        for engine in self.engines:
            sweep(engine)
        self._facts: dict[tuple[str, str, str, bool], ImageFacts] = {}
        self._looking: PerLoop[dict[tuple[str, str, str, bool], asyncio.Lock]] = PerLoop(
            lambda: defaultdict(asyncio.Lock)
        )
        self.room = Room()

    async def create(self, spec: SandboxSpec) -> ContainerSandbox:
        engine = await self.room.wait_for(self._emptiest)
        try:
            return await self._create(engine, spec)
        except BaseException:
            await self._give_back(engine)
            raise

    async def aclose(self) -> None:
        """Let go of the engines' connections. Sandboxes still open are not closed."""
        for engine in self.engines:
            await engine.aclose()

    async def _create(self, engine: Engine, spec: SandboxSpec) -> ContainerSandbox:
        facts = await self.facts(engine, spec)
        config = guest_config(spec, facts, has_quota=engine.has_quota)
        container = await self._make(engine, spec, facts, config)
        stream = await ContainerStream.open(engine, container, launch.first_input(config), timeout_s=START_S)
        measure = partial(written, engine, container)
        watch = None if engine.has_quota else DiskWatch(measure, stream, spec.limits)
        resetter = Resetter(Differences(engine, container), stream, (spec.workdir, facts.home))
        give_back = partial(self._give_back, engine)
        return ContainerSandbox(stream, spec, watch=watch, resetter=resetter, give_back=give_back)

    async def facts(self, engine: Engine, spec: SandboxSpec) -> ImageFacts:
        """What the spec's image is; looked at once. Raises SandboxError."""
        name = spec.image or await engine.call("making an image", host_image.ensure, engine.client)
        found = await engine.image(name)
        if found.get("Architecture") not in (None, "", *_names_of(os.uname().machine)):
            raise SandboxError(
                f"the image {name} is for {found['Architecture']}, this machine is {os.uname().machine}; the guest "
                "needs an image of the machine's own architecture"
            )
        key = (engine.host, found["Id"], spec.workdir, spec.root)
        async with self._looking.get()[key]:
            if key not in self._facts:
                arguments = (engine, found, spec.workdir, labels.labels(), spec.root)
                try:
                    self._facts[key] = await engine.call("looking into an image", read_facts, *arguments)
                except NotFound as error:
                    raise SandboxError(f"an image vanished while it was looked into: {error}") from None
        return self._facts[key]

    async def _make(self, engine: Engine, spec: SandboxSpec, facts: ImageFacts, config: dict[str, Any]) -> str:
        """A container that is not started. Raises SandboxError."""
        shared = engine.shares_files is not False
        binds = spec.binds if spec.image is not None else ()
        binds = [bind for bind in binds if not bind.optional or (shared and bind.source.exists())]
        mounts = [(str(bind.source.resolve()), os.path.normpath(bind.target)) for bind in binds]
        for source, target in mounts:
            if not Path(source).exists():
                raise SandboxError(f"bind {source} -> {target}: the source does not exist")
        if spec.image is None:
            mounts = launch.all_binds(spec)
        if mounts and not shared:
            raise SandboxError(f"{engine.host} does not see this machine's files, and the task needs {mounts[0][0]}")
        if shared:
            mounts.append((str(await on_thread(runtime_folder)), INSIDE))
        settings = container_settings(engine, spec, facts, mounts, self.settings.runtime)
        try:
            made = await engine.call("making a container", engine.api.create_container_from_config, settings)
        except NotFound as error:
            raise SandboxError(f"making a container failed at {engine.host}: {error.explanation}") from None
        except SandboxError as error:
            if engine.shares_files is None and "bind source path does not exist" in str(error):
                engine.shares_files = False
                return await self._make(engine, spec, facts, config)
            if engine.has_quota and "storage-opt" in str(error):
                engine.has_quota = False
                return await self._make(engine, spec, facts, config)
            raise
        container = made["Id"]
        engine.shares_files = shared
        try:
            furniture = tar_of(facts.furniture) if facts.furniture else b""
            for archive in (furniture, b"" if shared else await on_thread(runtime_archive)):
                if archive:
                    await engine.call("filling a container", engine.api.put_archive, container, "/", archive)
        except BaseException:
            await engine.call("removing a container", engine.api.remove_container, container, force=True, v=True)
            raise
        return container

    def _emptiest(self) -> Engine | None:
        """The engine with the fewest containers, of which it gets one more; None where all are full."""
        engine = min(self.engines, key=lambda engine: engine.num_containers)
        if engine.num_containers >= self.settings.max_containers:
            return None
        engine.num_containers += 1
        return engine

    async def _give_back(self, engine: Engine) -> None:
        engine.num_containers -= 1
        await self.room.look_again()


def sweep(engine: Engine) -> int:
    """Remove the containers that dead processes of this machine have left. Blocking. Returns how many.

    Raises:
        SandboxError: the engine failed.
    """
    num_removed = 0
    try:
        for found in engine.api.containers(all=True, filters={"label": labels.OWNER}):
            if labels.is_dead(found["Labels"][labels.OWNER]):
                try:
                    engine.api.remove_container(found["Id"], force=True, v=True)
                    num_removed += 1
                except APIError as error:  # it is going already
                    logger.info("container %s: %s", found["Id"][:12], error)
    except (DockerException, requests.RequestException, OSError) as error:
        raise SandboxError(f"leftovers could not be looked for at {engine.host}: {error}") from None
    return num_removed


def container_settings(
    engine: Engine, spec: SandboxSpec, facts: ImageFacts, mounts: list[tuple[str, str]], runtime: str | None
) -> dict[str, Any]:
    """What the engine is told of a container, in its own words."""
    limits = spec.limits
    memory = (limits.memory_mib << 20) + MEMORY_FOR_GUEST
    cpus = min(limits.cpus, engine.num_cpus)
    host = engine.api.create_host_config(
        auto_remove=True,
        network_mode="none",
        ipc_mode="private",
        cap_drop=["ALL"],
        cap_add=list(ROOT_CAPABILITIES) if spec.root else None,
        security_opt=["no-new-privileges:true"],
        pids_limit=limits.num_processes + PROCESSES_FOR_GUEST,
        mem_limit=memory,
        memswap_limit=memory,
        nano_cpus=int(cpus * 1e9) or None,
        shm_size=min(launch.SHM_BYTES, limits.disk_mib << 20),
        storage_opt={"size": f"{limits.disk_mib}m"} if engine.has_quota else None,
        tmpfs={SCRATCH: f"size={launch.SCRATCH_BYTES},mode=1777,noexec"},
        mounts=[Mount(target, source, type="bind", read_only=True) for source, target in mounts],
        log_config=LogConfig(type="none"),
        ulimits=_own_limits() if engine.is_podman else None,
        runtime=runtime,
    )
    config = engine.api.create_container_config(
        image=facts.id,
        command=python_argv(),
        user=facts.user,
        working_dir="/",
        hostname="sandbox",
        stdin_open=True,
        labels=labels.labels(),
        host_config=host,
        stop_signal="SIGKILL",
    )
    # The first process is the guest whatever the image says, and ends when its owner's connection does.
    return config | {"Entrypoint": [], "Healthcheck": {"Test": ["NONE"]}, "StdinOnce": True, "AttachStdin": True}


def _own_limits() -> list[Ulimit]:
    """Our own, which a service of podman's without the right to raise limits can give; its default may be more. Its
    own number of processes it lowers to as many as there can be."""
    there_can_be = int(Path("/proc/sys/kernel/pid_max").read_text())
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes = [
        there_can_be if one < 0 else min(one, there_can_be) for one in resource.getrlimit(resource.RLIMIT_NPROC)
    ]
    both = {"nofile": files, "nproc": processes}
    return [Ulimit(name=name, soft=soft, hard=hard) for name, (soft, hard) in both.items()]


def _names_of(machine: str) -> tuple[str, ...]:
    return {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64")}.get(machine, (machine,))
