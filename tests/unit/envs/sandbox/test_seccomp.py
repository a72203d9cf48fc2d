"""System calls that commands may not make, tried from inside; and what must go on working."""

import asyncio
import struct
import subprocess
import sys

import pytest

from verigym.envs.sandbox.local import LocalBackend
from verigym.envs.sandbox.seccomp import filter_of
from verigym.envs.sandbox.types import SandboxSpec

WAYS = [("bwrap", False), ("unshare", False), ("bwrap", True), ("unshare", True)]
CALL = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
found = libc.syscall(*(int(word) for word in sys.argv[1:]))
print(errno.errorcode[ctypes.get_errno()] if found == -1 else "ok")
"""
# Numbers on x86-64; the arguments would be taken, or refused as EFAULT, EBADF or EINVAL, without the filter.
REFUSED = {
    "unshare a user": ("272 268435456", "EPERM"),
    "unshare mounts": ("272 131072", "EPERM"),
    "unshare time": ("272 128", "EPERM"),
    "clone into a user namespace": ("56 268435473 0 0 0 0", "EPERM"),
    "clone3": ("435 0 0", "ENOSYS"),
    "setns": ("308 0 0", "EPERM"),
    "mount": ("165 0 0 0 0 0", "EPERM"),
    "fsopen": ("430 0 0", "EPERM"),
    "open_tree": ("428 -100 0 1", "EPERM"),
    "keyctl": ("250 0 -3 0", "EPERM"),
    "add_key": ("248 0 0 0 0 -3", "EPERM"),
    "bpf": ("321 0 0 0", "EPERM"),
    "userfaultfd": ("323 1", "EPERM"),
    "perf_event_open": ("298 0 0 -1 -1 0", "EPERM"),
    "io_uring_setup": ("425 8 0", "EPERM"),
    "process_vm_readv": ("310 1 0 0 0 0 0", "EPERM"),
    "process_vm_writev": ("311 1 0 0 0 0 0", "EPERM"),
    "pidfd_getfd": ("438 0 0 0", "EPERM"),
    "ptrace a stranger": ("101 16 1 0 0", "EPERM"),
    "seize a stranger": ("101 16902 1 0 0", "EPERM"),
    "vsock": ("41 40 1 0", "EAFNOSUPPORT"),
    "crypto sockets": ("41 38 5 0", "EAFNOSUPPORT"),
    "raw packets": ("41 17 3 0", "EAFNOSUPPORT"),
    "a pair of vsocks": ("53 40 1 0 0", "EAFNOSUPPORT"),
    "memfd_secret": ("447 0", "ENOSYS"),
    "the calls of x32": ("1073741863", "ENOSYS"),
}
WORKS = {
    "threads": "import threading; t = threading.Thread(target=print, args=('ok',)); t.start(); t.join()",
    "processes": "import subprocess; print(subprocess.run(['echo', 'ok'], capture_output=True, text=True).stdout)",
    "pools": "import multiprocessing as m; p = m.get_context('fork').Pool(2); print(*p.map(str, ['ok']))",
    "sockets": "import socket as s; [s.socket(f, s.SOCK_STREAM) for f in (s.AF_UNIX, s.AF_INET)]; print('ok')",
    "names of interfaces": "import socket; print('ok' if socket.if_nameindex() else '')",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(0)); print('ok')",
    "shared memory": "import mmap; mmap.mmap(-1, 9); from multiprocessing import Lock; Lock(); print('ok')",
}


async def _asked(way, commands):
    launcher, user_namespace = way
    sandbox = await LocalBackend(launcher=launcher, user_namespace=user_namespace).create(SandboxSpec())
    try:
        await sandbox.write_file("/tmp/call.py", CALL.encode())
        return {name: (await sandbox.aexec(command, timeout_s=60)).output.strip() for name, command in commands.items()}
    finally:
        await sandbox.aclose()


@pytest.mark.skipif(sys.platform != "linux" or struct.calcsize("P") != 8, reason="numbers of calls are x86-64's")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_refused(way):
    commands = {name: f"python3 /tmp/call.py {words}" for name, (words, _) in REFUSED.items()}
    assert asyncio.run(_asked(way, commands)) == {name: told for name, (_, told) in REFUSED.items()}


def test_what_goes_on_working():
    commands = {name: f'python3 -c "{code}"' for name, code in WORKS.items()}
    commands["a tracer of its own child"] = (
        "type strace > /dev/null 2>&1 || { echo ok; exit; }; strace -qq -e none echo ok"
    )
    assert asyncio.run(_asked(WAYS[0], commands)) == dict.fromkeys(commands, "ok")


def test_single_processes_are_filtered_as_the_shell_is():
    async def main():
        sandbox = await LocalBackend().create(SandboxSpec())
        try:
            run = await sandbox.arun(["grep", "Seccomp:", "/proc/self/status"])
            assert run.stdout.split() == [b"Seccomp:", b"2"]
        finally:
            await sandbox.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_stays_inside(machine):
    program = filter_of(machine, counted=False)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    for place, (code, yes, no, _) in enumerate(steps):
        if code & 7 == 5:
            assert place + 1 + max(yes, no) < len(steps)
    assert steps[-1][0] & 7 == 6
    assert len(steps) <= 4096


def test_a_machine_that_is_not_known_has_no_filter():
    assert filter_of("riscv64", counted=True) == b""


def test_files_in_memory_are_there_where_they_are_counted():
    """The same filter on this process's own child, as a container has it."""
    code = """
import os
from verigym.envs.sandbox.guest import system
from verigym.envs.sandbox.seccomp import filter_of
system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
system.limit_calls(filter_of(counted=True))
print(os.memfd_create("x") > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
