"""Which sandbox this machine gets."""

import argparse
import asyncio
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from ...errors import ConfigError, SandboxError
from .local import LAUNCHERS, LocalBackend, UnsafeBackend, is_there
from .types import SandboxBackend, SandboxSpec

logger = logging.getLogger(__name__)

NAMES = ("auto", "apptainer", "docker", "kubernetes", "local", "oci", "podman", "ssh", "unsafe")
PLUGINS = "verigym.sandboxes"
"""The entry-point group of backends that other packages bring."""

REMEDY = (
    "install bubblewrap (apt install bubblewrap), allow user namespaces (sysctl user.max_user_namespaces=10000 and, on "
    "Ubuntu, kernel.apparmor_restrict_unprivileged_userns=0), or choose --sandbox unsafe, which runs commands as your "
    "user with no isolation: they can change your files and use the network"
)


def names() -> tuple[str, ...]:
    """The words that ``make_backend`` knows: ours, and those of installed packages. Nothing of theirs is imported."""
    return (*NAMES, *sorted({entry.name for entry in entry_points(group=PLUGINS)} - set(NAMES)))


def sandbox_name(text: str) -> str:
    """A word of ``names``, as argparse reads it."""
    if text not in NAMES and text not in names():
        raise argparse.ArgumentTypeError(f"{text}: unknown; choose one of {', '.join(names())}")
    return text


def make_backend(name: str = "auto") -> SandboxBackend:
    """The backend of a name: one of ``NAMES``, or one that an installed package has under the entry-point group
    ``verigym.sandboxes``. "auto" is docker where an engine answers, else oci, which is local for what names no image.

    The first call really starts a sandbox, a local one with each way this machine might have, and the first way that
    works is kept for the process.

    Raises:
        ConfigError: an unknown name, or a package's that cannot be imported.
        SandboxError: no way works here; the message says why, and the remedy.
    """
    made = {"auto": _best, "docker": _docker, "local": _probed, "oci": _oci, "podman": _podman}
    made |= {"apptainer": _apptainer, "kubernetes": _kubernetes, "ssh": _ssh, "unsafe": UnsafeBackend}
    return made[name]() if name in made else _plugin(name)


@lru_cache(maxsize=1)
def _docker() -> SandboxBackend:
    from .docker import DockerBackend  # docker-py takes a while to import
    from .pool import ContainerPool

    backend = ContainerPool(DockerBackend())
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _podman() -> SandboxBackend:
    from .podman import PodmanBackend
    from .pool import ContainerPool

    backend = ContainerPool(PodmanBackend())
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _oci() -> SandboxBackend:
    from .oci.backend import OciBackend

    backend = OciBackend()
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _ssh() -> SandboxBackend:
    from .ssh import SshBackend

    backend = SshBackend()
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _apptainer() -> SandboxBackend:
    from .apptainer import ApptainerBackend

    backend = ApptainerBackend()
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _kubernetes() -> SandboxBackend:
    from .kubernetes.backend import KubernetesBackend
    from .pool import ContainerPool

    backend = KubernetesBackend()
    _run(backend.prepare())  # a box needs an image
    return ContainerPool(backend)


@lru_cache(maxsize=8)
def _plugin(name: str) -> SandboxBackend:
    found = [entry for entry in entry_points(group=PLUGINS) if entry.name == name]
    if not found:
        raise ConfigError(f"--sandbox {name}: unknown; choose one of {', '.join(names())}")
    try:
        backend = found[0].load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"the sandbox {name!r} ({found[0].value}) cannot be made ({error}); mend or uninstall its package"
        ) from error
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _best() -> SandboxBackend:
    try:
        return _docker()
    except SandboxError as error:
        logger.info("no container engine is used: %s", error)
    try:
        return _oci()
    except SandboxError as error:
        logger.info("the local sandbox is used, because images cannot be: %s", error)
        return _probed()


@lru_cache(maxsize=1)
def _probed() -> LocalBackend:
    failures = []
    for backend in candidates():
        try:
            _run(_probe(backend))
        except SandboxError as error:
            kind = "user namespace" if backend.user_namespace else "root"
            failures.append(f"{backend.launcher} ({kind}): {error}")
        else:
            return backend
    tried = "; ".join(failures) or "neither bwrap nor unshare is installed"
    raise SandboxError(f"no sandbox works on this machine ({tried}). Remedy: {REMEDY}")


def candidates() -> list[LocalBackend]:
    """Every way this machine might have, the best first: root with a user for each sandbox, then user namespaces."""
    namespaces = (False, True) if os.geteuid() == 0 else (True,)
    return [
        LocalBackend(launcher=launcher, user_namespace=user_namespace)
        for user_namespace in namespaces
        for launcher in LAUNCHERS
        if is_there(launcher)
    ]


async def _probe(backend: SandboxBackend) -> None:
    sandbox = await backend.create(SandboxSpec())
    try:
        result = await sandbox.aexec("echo ok", timeout_s=20)
        if result.output != "ok\n":
            raise SandboxError(f"a probe answered {result.output!r} (exit code {result.exit_code})")
    finally:
        await sandbox.aclose()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to its end, whether or not the calling thread has a running event loop."""
    with ThreadPoolExecutor(max_workers=1) as threads:
        threads.submit(asyncio.run, coroutine).result()
