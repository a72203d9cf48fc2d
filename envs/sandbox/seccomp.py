"""The system calls that commands in a sandbox may not make, as a filter for the kernel.

What is refused makes namespaces or mounts, reaches other processes' memory, loads code into the kernel, or is a part
of it that has no use in a repository's tests and much history of holes. Everything else is let through: a filter that
names what is allowed breaks programs that nobody has thought of. Source of most names: Docker's default profile.
"""

import errno
import os
import struct
from collections.abc import Mapping

_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _FIRST = 0, 4, 16
"""Offsets in seccomp_data: the call's number, the architecture, the low half of the first argument."""

_NEW_NAMESPACES, _NEW_TIME = 0x7E020000, 0x80
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET; and CLONE_NEWTIME, which clone does not know."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (names of interfaces); no AF_VSOCK, AF_ALG, AF_PACKET or any other."""
_ATTACH, _SEIZE = 16, 0x4206
"""ptrace requests that take hold of a process which has not asked for it (PTRACE_TRACEME is left: debuggers use it)."""

# Name -> number on x86-64 and on arm64; -1: not there.
_REFUSED = {
    **{"setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
    **{"open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431)},
    **{"fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280)},
    **{"userfaultfd": (323, 282), "perf_event_open": (298, 241)},
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"pidfd_getfd": (438, 438), "process_madvise": (440, 440)},
    **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "acct": (163, 89)},
    **{"swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443)},
    **{"open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "syslog": (103, 116)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "iopl": (172, -1), "ioperm": (173, -1)},
    **{"lookup_dcookie": (212, 18), "nfsservctl": (180, 42), "uselib": (134, -1), "modify_ldt": (154, -1)},
}
_MISSING = {"clone3": (435, 435), "memfd_secret": (447, 447)}
"""Answered as on a kernel that lacks them, so that libraries take the older way: a filter cannot see the arguments of
clone3."""
_UNCOUNTED = {"memfd_create": (319, 279), "shmget": (29, 194)}
_CLONE, _UNSHARE, _SOCKET, _SOCKETPAIR, _PTRACE = (56, 220), (272, 97), (41, 198), (53, 199), (101, 117)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000


def filter_of(machine: str | None = None, *, counted: bool) -> bytes:
    """The filter, as the kernel takes it (``struct sock_filter``, one after the other); b"" where the machine's calls
    are not known here.

    Args:
        machine: None for this one ("x86_64", "aarch64").
        counted: whether memory that belongs to no process may be had (files in memory, System V memory); not where
            nothing bounds it.
    """
    machine = machine or os.uname().machine
    if machine not in _ARCHITECTURES:
        return b""
    arch, column = _ARCHITECTURES[machine]
    missing = _MISSING if counted else {**_MISSING, **_UNCOUNTED}
    program = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, arch), _refusal(errno.ENOSYS), (_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        program += [(_JUMP_AT_LEAST, 0, 1, _X32), _refusal(errno.ENOSYS)]
    program += _plain(_REFUSED, column, errno.EPERM) + _plain(missing, column, errno.ENOSYS)
    for call, flags in ((_CLONE, _NEW_NAMESPACES), (_UNSHARE, _NEW_NAMESPACES | _NEW_TIME)):
        program += _when(call[column], [(_JUMP_ANY_BIT, 0, 1, flags), _refusal(errno.EPERM)], _FIRST)
    for call in (_SOCKET, _SOCKETPAIR):
        known = [(_JUMP_EQUAL, len(_FAMILIES) - place, 0, family) for place, family in enumerate(_FAMILIES)]
        program += _when(call[column], [*known, _refusal(errno.EAFNOSUPPORT)], _FIRST)
    hold = [(_JUMP_EQUAL, 1, 0, _ATTACH), (_JUMP_EQUAL, 0, 1, _SEIZE), _refusal(errno.EPERM)]
    program += _when(_PTRACE[column], hold, _FIRST)
    program.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in program)


def _plain(calls: Mapping[str, tuple[int, int]], column: int, code: int) -> list[tuple[int, int, int, int]]:
    numbers = sorted(numbers[column] for numbers in calls.values() if numbers[column] >= 0)
    return [one for number in numbers for one in ((_JUMP_EQUAL, 0, 1, number), _refusal(code))]


def _when(number: int, check: list[tuple[int, int, int, int]], argument: int) -> list[tuple[int, int, int, int]]:
    """For one call: look at an argument, by a check that falls through where it is allowed; then allow it."""
    body = [(_LOAD, 0, 0, argument), *check, (_RETURN, 0, 0, _ALLOW)]
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def _refusal(code: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, _ERRNO | code
