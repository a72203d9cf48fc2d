"""Sandboxes on this machine: in namespaces (``LocalBackend``), or, if that is wished, without (``UnsafeBackend``)."""

import logging
import marshal
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...errors import SandboxError
from . import control_group, launch
from .background import on_thread
from .boot import sized
from .channel import Channel
from .nursery import Nestling, is_possible
from .seccomp import filter_of
from .session import GuestSandbox
from .types import Bind, SandboxSpec

logger = logging.getLogger(__name__)

START_S = 30.0

Launcher = Literal["fork", "bwrap", "unshare"]


LAUNCHERS: tuple[Launcher, ...] = ("fork", "bwrap", "unshare")


def is_there(launcher: Launcher) -> bool:
    """Whether this system has a way of making sandboxes; whether it works is another matter."""
    return is_possible() if launcher == "fork" else shutil.which(launcher) is not None


class LocalBackend:
    """Linux namespaces: of a fork of a process that has the guest loaded (``nursery.py``), or through bubblewrap, or
    through util-linux's ``unshare``.

    Inside there is no network but a loopback of its own, no process of the host, no home and no current folder;
    the system folders, an interpreter and the spec's binds are read-only; everything else is one tmpfs of the disk
    limit (/dev/shm has 64 MiB more). The box dies with this process, also where that is killed with -9.

    Started by root, the server inside stays root with the rights to start and kill the sandbox's processes, which
    run as a user of their own (one a sandbox) without capabilities. Started by anyone else, a user namespace is
    used, and commands have the server's user: they cannot trace or stop it, but could lower its resource limits,
    which makes the sandbox fail (SandboxError), never succeed.

    Where this machine lets us have a control group (``control_group.py``), memory is what the kernel counts for all of
    them. Elsewhere it is what their processes have: files in memory and System V memory cannot be made then, and the
    buffers of sockets and pipes are not bounded.
    """

    name = "local"

    def __init__(self, *, launcher: Launcher | None = None, user_namespace: bool | None = None) -> None:
        """
        Args:
            launcher: None takes "fork" where the system has it, else bwrap where it is installed, else unshare.
            user_namespace: None: where we are not root.
        Raises:
            SandboxError: neither is installed.
        """
        found = launcher or next((name for name in LAUNCHERS if is_there(name)), None)
        if found is None:
            raise SandboxError("neither bwrap nor unshare is installed; install bubblewrap or util-linux")
        self.launcher = found
        self.user_namespace = os.geteuid() != 0 if user_namespace is None else user_namespace

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        if spec.image is not None:
            raise SandboxError(
                f"the local sandbox has no images, and the task asks for {spec.image!r}; leave it out, or "
                "take --sandbox oci"
            )
        return await open_bounded(spec, launch.guest_config(spec, drop=not self.user_namespace), self._open)

    async def _open(
        self, spec: SandboxSpec, config: dict[str, Any], group: control_group.ControlGroup | None
    ) -> Channel | Nestling:
        if self.launcher == "fork":
            launch.build_inside(spec, config, user_namespace=self.user_namespace)
            order = {"group": group.members() if group is not None else "", "new_user": self.user_namespace}
            return await Nestling.open(order, sized(marshal.dumps(config)), timeout_s=START_S)
        command = launch.bubblewrap_command if self.launcher == "bwrap" else launch.unshare_command
        argv = command(spec, config, user_namespace=self.user_namespace)
        argv[0] = shutil.which(argv[0]) or argv[0]
        argv = argv if group is None else group.joining(argv)
        return await Channel.open(argv, launch.first_input(config), timeout_s=START_S)


Made = Callable[..., GuestSandbox]
Open = Callable[
    [SandboxSpec, dict[str, Any], control_group.ControlGroup | None], Coroutine[Any, Any, Channel | Nestling]
]


async def open_bounded(
    spec: SandboxSpec, config: dict[str, Any], opened: Open, made: Made = GuestSandbox
) -> GuestSandbox:
    """A box in a control group of its own, where this machine lets us have one.

    Args:
        config: the guest's.
        opened: (spec with what is to be shown, config, group or None) -> the guest's channel.
        made: (channel, spec, end=...) -> the sandbox.
    """
    extra = config["shm_bytes"] + config["scratch_bytes"]
    group = await on_thread(control_group.make, spec.limits, extra)
    shown = spec
    if group is not None:
        files = {f"{control_group.SEEN_AT}/{name}": Path(path) for name, path in group.files().items()}
        shown = replace(spec, binds=(*spec.binds, *(Bind(source=at, target=name) for name, at in files.items())))
        config |= {"calls": filter_of(counted=True), "group": control_group.SEEN_AT, "oom_files": tuple(files)}
    try:
        channel = await opened(shown, config, group)
    except BaseException:
        if group is not None:
            await on_thread(group.close)
        raise
    if group is None:
        return made(channel, spec, end=None)

    async def end() -> None:
        await channel.aclose()
        await on_thread(group.close)

    return made(channel, spec, end=end)


class UnsafeBackend:
    """No sandbox at all: commands run as the user of this process, on this machine.

    Given up: they can read, change and delete whatever the user can, use the network, see and kill the user's
    processes, fill the disk, and outlive a kill -9 of the guest. Kept: deadlines, the watch on memory and the number
    of processes, capped output, and an environment of their own. The working folder and HOME lie in a temporary
    folder; the file methods and ``cwd`` take the spec's working folder for it, the text of commands does not.
    """

    name = "unsafe"

    def __init__(self) -> None:
        logger.warning(
            "unsafe sandbox: commands run as your user with no isolation; they can change your files, use the network, "
            "and see and kill your processes"
        )

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        for bind in spec.binds:
            if os.path.realpath(bind.source) != os.path.realpath(bind.target):
                raise SandboxError(
                    f"the unsafe sandbox cannot show {bind.source} at {bind.target}; use --sandbox local"
                )
        root = tempfile.mkdtemp(prefix="verigym-unsafe-")
        workdir = root + "/work"
        config = launch.guest_config(spec, drop=False, contained=False)
        config |= {"root": root, "workdir": workdir, "home": root + "/home", "scratch": root + "/run"}
        for folder in ("work", "home", "run", "tmp"):
            os.mkdir(f"{root}/{folder}")
        config["env"] = {**config["env"], "HOME": root + "/home", "TMPDIR": root + "/tmp", **spec.env}

        def locate(path: str) -> str:
            below = os.path.relpath(path, spec.workdir)
            return path if below.startswith("..") else os.path.normpath(os.path.join(workdir, below))

        argv = launch.guest_command(launch.base_python()[0])
        try:
            channel = await Channel.open(argv, launch.first_input(config), timeout_s=START_S)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise

        async def end() -> None:
            channel.end_input()  # the guest kills what runs, and removes the folder
            await channel.wait_gone(START_S)
            await on_thread(shutil.rmtree, root, ignore_errors=True)

        return GuestSandbox(channel, spec, end=end, locate=locate)
