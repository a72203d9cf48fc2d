"""What dead processes of this machine have left of their sandboxes: containers, pods, control groups, folders."""

import asyncio
import logging
import time
from collections.abc import Iterator

from ...errors import SandboxError
from . import control_group, labels
from .settings import SandboxSettings

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05


def sweep_machine(*, after: int | None = None, seconds: float = 30.0) -> int:
    """Remove what processes of this machine have left that are dead. Blocking.

    The kernel ends the local sandboxes of a process with it; an engine knows nothing of its clients' deaths.

    Args:
        after: a process whose end is waited for, before anything is looked at.
        seconds: how long it is waited for.
    Returns:
        How many containers and pods were removed.
    """
    deadline = time.monotonic() + seconds
    while after is not None and labels.start_of(after) is not None and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    control_group.sweep()
    _sweep_forks()
    return sum(_sweep_containers(host) for host in _hosts(SandboxSettings())) + _sweep_pods()


def _hosts(settings: SandboxSettings) -> Iterator[str | None]:
    """Engines that this machine may have made containers in; None: the one that is found without an address."""
    from .podman import podman_host

    yield from settings.docker_hosts or (None,)
    try:
        yield podman_host(settings)
    except SandboxError:
        return


def _sweep_containers(host: str | None) -> int:
    from .docker import sweep
    from .engine import Engine

    try:
        engine = Engine(host, SandboxSettings())
    except SandboxError as error:
        logger.debug("nothing is swept there: %s", error)
        return 0
    try:
        return sweep(engine)
    except SandboxError as error:
        logger.warning("%s", error)
        return 0
    finally:
        engine.client.close()


def _sweep_pods() -> int:
    """Of the clusters that this machine has made pods in."""
    from .kubernetes_places import noted

    num_removed = 0
    for settings in noted():
        try:
            from .kubernetes.backend import sweep_namespace

            num_removed += asyncio.run(sweep_namespace(settings))
        except SandboxError as error:
            logger.warning("%s", error)
    return num_removed


def _sweep_forks() -> None:
    from .oci.fork import sweep
    from .oci.store import ImageStore

    sweep(ImageStore().folder / "forks")
