"""Sandboxes in containers of podman, through its Docker-compatible socket, as root or rootless."""

import os
from pathlib import Path

from ...errors import SandboxError
from .docker import DockerBackend
from .engine import Engine
from .settings import SandboxSettings

ROOT_SOCKET = "/run/podman/podman.sock"
START = (
    "start it: systemctl --user start podman.socket (as root without --user), or "
    "podman system service --time=0 unix://SOCKET &"
)


class PodmanBackend(DockerBackend):
    """The Docker backend, told to podman: the same guest, limits and hardening."""

    name = "podman"

    def __init__(self, *, settings: SandboxSettings | None = None, engines: list[Engine] | None = None) -> None:
        """
        Args:
            settings, engines: as for ``DockerBackend``.
        Raises:
            SandboxError: podman's socket is not there, or does not answer.
        """
        settings = settings or SandboxSettings()
        super().__init__(settings=settings, engines=engines or [Engine(podman_host(settings), settings)])


def podman_host(settings: SandboxSettings) -> str:
    """The address of podman's socket: the one set, CONTAINER_HOST, or where podman puts it for this user.

    Raises:
        SandboxError: there is none.
    """
    named = settings.podman_host or os.environ.get("CONTAINER_HOST")
    if named:
        return named
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    places = [*([ROOT_SOCKET] if os.geteuid() == 0 else []), f"{runtime}/podman/podman.sock"]
    for place in places:
        if Path(place).is_socket():
            return f"unix://{place}"
    raise SandboxError(
        f"podman's socket is not at {' or '.join(places)}; {START}, or set CONTAINER_HOST to its address"
    )
