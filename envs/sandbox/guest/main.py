"""Inside the sandbox: its first moments, from the boot line to the server's first answer.

Part of the guest (see server.py): standard library only.
"""

import marshal
import os
import sys

from . import image, system
from .process import open_expendable
from .server import Server
from .streams import widen
from .system import Config


def prepare(config: Config) -> None:
    """Make the box around us what ``config`` says; afterwards only the server's own rights are left.

    Raises:
        OSError: the machine refused a step; the message names it.
    """
    os.umask(0o022)
    if config["image"]:
        image.build_root(config)
        image.furnish(config)
    elif config["build"]:
        system.build_root(config)
    if config["furnish"]:
        system.make_folders(config)
    os.makedirs(config["scratch"], mode=0o711, exist_ok=True)
    if config["nested_user"]:
        system.become_user_inside(config["uid"], config["gid"])
    if config["contained"]:
        system.limit_capabilities((*(system.KEPT_CAPABILITIES if config["drop"] else ()), *config["kept"]))
    else:
        system.adopt_orphans()
    if config["furnish"] or config["image"]:
        system.die_with_parent()
    open_expendable()
    system.protect_server()
    os.chdir(config["workdir"])


def take(fd: int, num_bytes: int) -> bytes:
    data = b""
    while len(data) < num_bytes:
        piece = os.read(fd, num_bytes - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def main() -> None:
    """Started by the boot line in launch.py, which has read the code; the configuration comes next."""
    control_in, control_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for fd in (control_in, control_out):
        widen(fd)
    config = marshal.loads(take(control_in, int.from_bytes(take(control_in, 4), "big")))
    try:
        prepare(config)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(1)
    Server(config, control_in, control_out).serve()
