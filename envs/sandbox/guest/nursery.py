"""Outside of sandboxes: a process that has the guest loaded and makes sandboxes of forks of itself.

Started as the guest is (``launch.py``), by the owner of the sandboxes and with its rights. It runs none but our own
code, reads nothing that comes out of a sandbox, and keeps nothing of one: a fork becomes the keeper of a box, whose own
fork is process 1 in it and the guest. Part of the guest (see server.py): standard library only.
"""

import encodings.ascii
import encodings.latin_1  # noqa: F401 - image there is nothing to import
import gc
import gzip  # noqa: F401
import marshal
import os
import select
import shutil  # noqa: F401
import signal
import socket
import struct
import sys
import tarfile  # noqa: F401
import warnings  # noqa: F401

from . import system
from .main import main as become_guest
from .main import take
from .process import keep_only

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    *(0x00020000, 0x02000000, 0x04000000, 0x08000000),
    *(0x20000000, 0x40000000),
)
BOX = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
LOOK_S = 1.0


def main() -> None:
    """Make a box for each order, until the owner's end of the socket is closed or the owner is gone."""
    control, owner = socket.socket(fileno=os.dup(0)), os.getppid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    gc.collect()
    gc.freeze()  # collections pass over what every box shares
    waiting = select.poll()
    waiting.register(control.fileno(), select.POLLIN)
    while True:
        if waiting.poll(LOOK_S * 1000):
            _serve(control)
        elif os.getppid() != owner:  # another process that it forked may keep the socket open
            os._exit(0)
        _reap()


def _serve(control: socket.socket) -> None:
    """Take one order, with the three descriptors of the guest, and answer with a descriptor of the keeper."""
    first, ancillary, _, _ = control.recvmsg(4, socket.CMSG_SPACE(3 * 4))
    if not first:
        os._exit(0)
    fds = struct.unpack("3i", ancillary[0][2])
    size = first + take(control.fileno(), 4 - len(first))
    order = marshal.loads(take(control.fileno(), int.from_bytes(size, "big")))
    nursery = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        try:
            keep_only(fds)
            _keep(nursery, order)
        except OSError as error:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
        finally:
            os._exit(1)
    for fd in fds:
        os.close(fd)
    held = os.pidfd_open(keeper)
    control.sendmsg([b"k"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", held))])
    os.close(held)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _keep(nursery: int, order: dict) -> None:
    """Make namespaces, and in them process 1, the guest; end when it ends, and be its end. Raises OSError."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)  # this process goes along when process 1 exchanges the root
    if order["group"]:
        with open(order["group"], "w") as file:
            file.write(str(os.getpid()))
    if order["new_user"]:
        system.become_user_inside(0, 0)
    system.die_with_parent()  # after that, which would undo it
    if os.getppid() != nursery:
        os._exit(1)
    system.unshare(BOX)
    try:
        system.unshare(CLONE_NEWCGROUP)
    except OSError:
        pass  # a kernel without
    alive, own = os.pipe()
    guest = os.fork()
    if guest == 0:
        os.close(own)
        system.die_with_parent()
        ended = select.poll()
        ended.register(alive, select.POLLIN)
        if ended.poll(0):  # the keeper died before this process asked to die with it
            os._exit(1)
        os.close(alive)
        os.close(null)
        become_guest()
    os.close(alive)
    for number in range(3):
        os.dup2(null, number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os._exit(max(0, os.waitstatus_to_exitcode(os.waitpid(guest, 0)[1])))
