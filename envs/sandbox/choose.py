"""Which sandbox this machine gets."""

import asyncio
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from ...errors import ConfigError, SandboxError
from .local import LAUNCHERS, LocalBackend, UnsafeBackend, is_there
from .types import SandboxBackend, SandboxSpec

logger = logging.getLogger(__name__)

NAMES = ("auto", "docker", "local", "unsafe")

REMEDY = (
    "install bubblewrap (apt install bubblewrap), allow user namespaces (sysctl user.max_user_namespaces=10000 and, on "
    "Ubuntu, kernel.apparmor_restrict_unprivileged_userns=0), or choose --sandbox unsafe, which runs commands as your "
    "user with no isolation: they can change your files and use the network"
)


def make_backend(name: str = "auto") -> SandboxBackend:
    """The backend of a name: "docker", "local", "unsafe", or "auto": docker where an engine answers, else local.

    The first call really starts a sandbox, a local one with each way this machine might have, and the first way that
    works is kept for the process.

    Raises:
        ConfigError: an unknown name.
        SandboxError: no way works here; the message says why, and the remedy.
    """
    if name == "unsafe":
        return UnsafeBackend()
    if name == "local":
        return _probed()
    if name == "docker":
        return _docker()
    if name == "auto":
        return _best()
    raise ConfigError(f"--sandbox {name}: unknown; choose one of {', '.join(NAMES)}")


@lru_cache(maxsize=1)
def _docker() -> SandboxBackend:
    from .docker import DockerBackend  # docker-py takes a while to import
    from .pool import DockerPool

    backend = DockerPool(DockerBackend())
    _run(_probe(backend))
    return backend


@lru_cache(maxsize=1)
def _best() -> SandboxBackend:
    try:
        return _docker()
    except SandboxError as error:
        logger.info("the local sandbox is used, because containers cannot be: %s", error)
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
