"""Inside the sandbox: a process that was there before anything had run in it, and becomes the one that has our program
loaded. It is forked of the guest before the server is, so that it knows of no request, word or outcome.

Part of the guest (see server.py): standard library only.
"""

import marshal
import os
import signal
import socket
import struct

from . import system
from .process import Reborn, enter, fork, keep_only, supervise
from .system import Config

MOST_BYTES = 1 << 16


class Spare:
    """The process, seen from the server; it is used once, or never."""

    def __init__(self, config: Config) -> None:
        """Raises OSError where none can be forked."""
        self._env = {**os.environ}
        self._fixed: Config = config["env"]
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Of both only numbers are left: an object would close its number whenever it is collected.
        self._fd, other = ours.detach(), its.detach()
        self.pid = fork(lambda: _wait(config, other))
        os.close(other)

    def fits(self, request: Config) -> bool:
        """Whether a started process would have the variables that this one has."""
        return {**self._fixed, **request["env"]} == self._env

    def become(self, request: Config, fds: tuple[int, int, int, int]) -> None:
        """Make it the supervisor of a process that runs the program. Raises OSError: it is gone."""
        with socket.socket(fileno=self._fd) as control:
            told = {name: request[name] for name in ("cwd", "timeout")}
            control.sendmsg([marshal.dumps(told)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("4i", *fds))])


def _wait(config: Config, fd: int) -> None:
    """Until there is something to become."""
    keep_only((fd,))
    control = socket.socket(fileno=0)
    message, ancillary, _, _ = control.recvmsg(MOST_BYTES, socket.CMSG_SPACE(4 * 4))
    control.detach()
    if not message or not ancillary:
        os._exit(0)
    supervise(config, marshal.loads(message), struct.unpack("4i", ancillary[0][2]), _be_reborn)


def _be_reborn(config: Config, request: Config) -> None:
    """What ``exec`` and the interpreter's start would do, as far as it shows."""
    os.close(3)
    enter(config)
    os.chdir(request["cwd"])
    system.prctl(system.PR_SET_DUMPABLE, 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    raise Reborn
