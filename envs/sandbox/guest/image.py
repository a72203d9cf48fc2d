"""Inside the sandbox: the root of a box that has an image, its layers below a disk of its own.

Part of the guest (see server.py): standard library only.
"""

import os
import sys

from . import system
from .system import Config

BASE = "/tmp"
"""Any folder that exists everywhere; mounts hide it only until the root is exchanged."""


def build_root(config: Config) -> None:
    """Mount the image's layers, with a tmpfs of the disk limit above them, and enter that.

    Raises:
        OSError: a mount was refused; the message names it.
    """
    image, first_id = config["image"], config["image"]["first_id"]
    sys.path[:] = []  # from here on a path may be a file of the image, and this process has rights
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    os.chdir(image["layers"])  # what is named by a path from here nobody needs the right to reach
    options = f"size={config['disk_bytes']},nr_inodes={config['num_inodes']},mode=0755"
    system.mount("tmpfs", BASE, "tmpfs", system.MS_NOSUID | system.MS_NODEV, options)
    for name in ("upper", "work"):
        os.mkdir(f"{BASE}/{name}", 0o755)
        os.chown(f"{BASE}/{name}", first_id or 0, first_id or 0)
    image["upper"] = os.open(f"{BASE}/upper", os.O_RDONLY | os.O_DIRECTORY)  # by it a fork finds what was written
    options = f"lowerdir={image['lower']},upperdir={BASE}/upper,workdir={BASE}/work"
    options += ",userxattr" if first_id is None else ""
    system.mount("overlay", BASE, "overlay", system.MS_NOSUID | system.MS_NODEV, options)
    host = "/.host-" + os.urandom(8).hex()  # the image holds no link to it
    os.mkdir(BASE + host)
    system.exchange_root(BASE, BASE + host)
    system.unmount(host + BASE)
    system.mount_parts(config, host, scratch_of=first_id or 0)
    if first_id is not None:
        _own_mount_points(config, first_id)
        become_root_of(first_id, image["num_ids"])


def furnish(config: Config) -> None:
    """Make the folders and files that the image lacks. Raises OSError."""
    alone = config["image"]["first_id"] is None
    for name, uid, gid, mode, text in config["image"]["furniture"]:
        path = "/" + name
        if text is None:
            os.makedirs(path, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.lexists(path):
                os.unlink(path)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW), "w") as file:
                file.write(text)
        if not alone:
            os.chown(path, uid, gid)
        os.chmod(path, mode)
    for path in config["image"]["sealed"]:
        if os.path.isdir(path) and not os.path.islink(path):
            system.bind(path, path, read_only=True)


def become_root_of(first: int, number: int) -> None:
    """Enter a user namespace whose users are others outside, and be root there; what is mounted stays the outer
    root's. Raises OSError."""
    asked, ask = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.close(ask)
            os.read(asked, 1)
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{os.getppid()}/{name}", "w") as file:
                    file.write(f"0 {first} {number}")
            os._exit(0)
        finally:
            os._exit(1)
    os.close(asked)
    system.unshare(system.CLONE_NEWUSER)
    os.write(ask, b"x")
    os.close(ask)
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError(f"a user namespace of {number} users was refused")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    system.prctl(system.PR_SET_DUMPABLE, 1)  # until it is protected: its files in /proc are its own


def _own_mount_points(config: Config, first_id: int) -> None:
    """Give the image's root what was made for mounts: whatever is the outer root's was not in the image."""
    here = os.lstat("/").st_dev
    for path in (*(target for _, target in config["binds"]), "/proc", "/dev", config["scratch"]):
        while path != "/":
            found = os.lstat(path)
            if found.st_dev == here and found.st_uid == 0:
                os.chown(path, first_id, first_id, follow_symlinks=False)
            path = os.path.dirname(path)
