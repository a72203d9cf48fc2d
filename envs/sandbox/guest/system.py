"""Inside the sandbox: system calls Python has no name for, and the file system where no bubblewrap prepares it.

Part of the guest (see server.py): standard library only, no dataclasses, no imports that slow the start.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct

Config = dict  # what launch.guest_config made; plain, because it crosses a process boundary by marshal

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_PTRACE = 0, 5, 6, 7, 8, 19
KEPT_CAPABILITIES = (CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_PTRACE)
"""What a server that is root keeps: to become the sandbox's user in its children, to kill and to measure them."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
CLONE_NEWUSER = 0x10000000
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, argument: int) -> None:
    """Raises OSError."""
    _check(libc.prctl(option, argument, 0, 0, 0), f"prctl({option}, {argument})")


def protect_server() -> None:
    """No privileges gained by exec from here on; processes of the same user cannot trace or read this one."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_calls(program: bytes) -> None:
    """Put a filter (seccomp.py) before all further system calls of this process and of those that it starts; where the
    kernel has no filters there is none, which ``verigym doctor`` tells."""
    if program:
        code = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
        libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0)


def adopt_orphans() -> None:
    """Orphaned descendants become this process's children."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def limit_capabilities(kept: tuple[int, ...]) -> None:
    """Keep these of the capabilities the process has, and lose the others for good."""
    header = struct.pack("Ii", 0x20080522, 0)
    now = ctypes.create_string_buffer(24)
    _check(libc.capget(header, now), "capget")
    words = struct.unpack("6I", now.raw)
    permitted = words[1] | words[4] << 32
    if permitted >> CAP_SETPCAP & 1:
        for capability in range(64):
            if capability not in kept and libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                break  # past the last one this kernel knows
    left = permitted & sum(1 << capability for capability in set(kept))
    low, high = left & 0xFFFFFFFF, left >> 32
    _check(libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)), "capset")


def room(path: str) -> tuple[int, int]:
    """(bytes, files) in use on the file system of a path."""
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


def raise_loopback() -> None:
    """Switch on the network namespace's own loopback device; its only one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        fcntl.ioctl(anything, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


def build_root(config: Config) -> None:
    """Make the file system that bubblewrap would have made, in a mount namespace of our own, and enter it.

    Everything lies on one tmpfs of the disk limit; the host's root is gone at the end.

    Raises:
        OSError: a mount was refused; the message names it.
    """
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    base = "/tmp"  # any folder that exists everywhere; the tmpfs hides it only until pivot_root
    options = f"size={config['disk_bytes']},nr_inodes={config['num_inodes']},mode=0755"
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.mkdir(base + "/.host")
    exchange_root(base, base + "/.host")
    for target, link in config["links"]:
        os.symlink(target, link)
    mount_parts(config, "/.host")


def mount_parts(config: Config, host: str, *, scratch_of: int = 0) -> None:
    """What every box has mounted in its root, and the end of the host's; the network's and the host's name.

    Args:
        host: where the host's root is now; it is gone at the end.
        scratch_of: the user and group whose the server's own folder is.
    Raises:
        OSError: a mount was refused; the message names it.
    """
    for source, target in config["binds"]:
        bind(host + source, target, read_only=True)
    os.makedirs("/proc", exist_ok=True)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in config["proc_read_only"]:
        if os.path.exists(path):
            bind(path, path, read_only=True)
    _devices(host, config["shm_bytes"])
    os.makedirs(config["scratch"], exist_ok=True)
    options = f"size={config['scratch_bytes']},mode=0711,uid={scratch_of},gid={scratch_of}"
    mount("tmpfs", config["scratch"], "tmpfs", MS_NOSUID | MS_NODEV, options)
    unmount(host)
    os.rmdir(host)
    raise_loopback()
    socket.sethostname("sandbox")


def unmount(path: str) -> None:
    """Raises OSError."""
    _check(libc.umount2(path.encode(), MNT_DETACH), f"umount {path}")


def exchange_root(new: str, old: str) -> None:
    """Make a mount the root, and show the old root at a folder in it. Raises OSError."""
    _check(libc.pivot_root(new.encode(), old.encode()), "pivot_root")
    os.chdir("/")


def unshare(flags: int) -> None:
    """Namespaces of one's own. Raises OSError."""
    _check(libc.unshare(flags), f"unshare({flags:#x})")


def become_user_inside(uid: int, gid: int) -> None:
    """From root of one user namespace into a second one, where the same user bears another number and no rights."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def make_folders(config: Config) -> None:
    """The writable folders and the generated files of /etc."""
    for path in ("/tmp", "/var/tmp"):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o1777)
    for path in (config["home"], config["workdir"]):
        os.makedirs(path, exist_ok=True)
        if config["drop"]:
            os.chown(path, config["uid"], config["gid"])
    os.makedirs("/etc", exist_ok=True)
    uid, gid = config["uid"], config["gid"]
    files = {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\nagent:x:{uid}:{gid}:agent:{config['home']}:/bin/bash\n",
        "group": f"root:x:0:\nagent:x:{gid}:\n",
        "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }
    for name, text in files.items():
        with open(f"/etc/{name}", "w") as file:
            file.write(text)


def _devices(host: str, shm_bytes: int) -> None:
    os.makedirs("/dev", exist_ok=True)
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "size=64k,mode=0755")
    for name in DEVICES:
        bind(f"{host}/dev/{name}", f"/dev/{name}", read_only=False)
    for link, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink("/proc/self/fd" + target, "/dev/" + link)
    os.mkdir("/dev/pts")
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", "/dev/ptmx")
    os.mkdir("/dev/shm")
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"size={shm_bytes},mode=1777")
    mount("none", "/dev", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def bind(source: str, target: str, *, read_only: bool) -> None:
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        # A user namespace may not clear what the host's mount has set (nosuid, noexec, ...), so it is repeated.
        kept = os.statvfs(target).f_flag & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        times = os.statvfs(target).f_flag & (1024 | 2048 | 4096)  # ST_NOATIME, ST_NODIRATIME, ST_RELATIME
        flags = kept | (times & 3072) | (1 << 21 if times & 4096 else 0)
        mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | flags)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    result = libc.mount(
        source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
