"""How the guest is started: its code, its configuration, and the command that makes the box around it."""

import marshal
import os
import resource
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import SandboxError
from .boot import boot_line, modules, sized
from .seccomp import filter_of
from .types import Bind, Limits, SandboxSpec

GUEST_FILES = (
    *("system", "image", "watching", "changes", "files", "process", "streams", "words", "grammar", "reports"),
    *("command", "memory", "bash", "known", "shell"),
    *("limits", "run", "reset", "server", "main", "nursery"),
)
"""In the order of their imports. The last one is no guest's own: it is for the process that guests are forks of."""

BOOT = boot_line("verigym_guest")

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = ("alternatives", "ca-certificates", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types")
ETC_MORE = ("pki", "protocols", "services", "ssl")

SCRATCH = "/run/verigym"
SCRATCH_BYTES = 64 << 20
HOME = "/home/agent"
SHM_BYTES = 64 << 20
FILES_PER_MIB, MIN_FILES = 512, 20_000
"""How many files fit on a disk limit: an empty one takes about 1 KiB of the kernel's memory."""

PROC_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger")
"""Without capabilities the owner root may still write there, and in a user namespace our user may be root outside."""

INSIDE_ID = 1000
"""User and group inside a user namespace; outside they are our own."""

FIRST_UID, NUM_UIDS = 0x60000000, 1 << 28
"""Users of sandboxes that root starts: one each, of a range no distribution hands out."""


@lru_cache(maxsize=1)
def guest_image() -> bytes:
    """The guest's compiled code, as the boot line reads it."""
    return _image(GUEST_FILES[:-1])


@lru_cache(maxsize=1)
def nursery_image() -> bytes:
    """The same, and what makes sandboxes of forks (``guest/nursery.py``)."""
    return _image(GUEST_FILES)


def guest_image_with(name: str, path: Path) -> bytes:
    """The guest's code with a module after it, whose ``main`` is called in place of the guest's."""
    return _image(GUEST_FILES[:-1], (name, path))


def _image(names: Sequence[str], *more: tuple[str, Path]) -> bytes:
    folder = Path(__file__).parent / "guest"
    files = [*((name, folder / f"{name}.py") for name in names), *more]
    return modules([(name, compile(path.read_bytes(), f"{name}.py", "exec")) for name, path in files])


def first_input(config: dict[str, Any]) -> bytes:
    """What the guest reads before the first frame."""
    return guest_image() + sized(marshal.dumps(config))


def guest_command(python: str) -> list[str]:
    return [python, "-I", "-S", "-E", "-c", BOOT]


def base_python() -> tuple[str, str]:
    """(path, prefix) of the interpreter under any virtual environment; both without symbolic links."""
    prefix = os.path.realpath(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (os.path.join(prefix, "bin", name), os.path.realpath(sys.executable)):
        if os.access(candidate, os.X_OK):
            return candidate, prefix
    raise SandboxError(f"no interpreter {name} under {prefix}; run verigym with a Python that has its own bin folder")


def base_python_binds() -> tuple[Bind, ...]:
    """What must be bound for the base interpreter to run; nothing where it is the system's."""
    python, prefix = base_python()
    places = (prefix, python)
    return tuple(
        Bind(source=Path(place), target=place)
        for place in places
        if not _within(place, ("/usr",)) and not (place == python and _within(python, (prefix,)))
    )


def guest_config(spec: SandboxSpec, *, drop: bool, contained: bool = True) -> dict[str, Any]:
    """The guest's settings, plain values only.

    Args:
        drop: the server is root and gives its children a user of their own.
        contained: the server is process 1 of a namespace.
    """
    limits = spec.limits
    uid = FIRST_UID + secrets.randbelow(NUM_UIDS) if drop else (INSIDE_ID if contained else os.getuid())
    gid = uid if drop else (INSIDE_ID if contained else os.getgid())
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": HOME, "LANG": "C.UTF-8", **spec.env}
    return {
        "contained": contained,
        "drop": drop,
        "build": False,
        "image": None,
        "kept": (),
        "nested_user": False,
        "furnish": contained,
        "notice_bytes": 0,
        "oom_files": (),
        "uid": uid,
        "gid": gid,
        "home": HOME,
        "workdir": spec.workdir,
        "scratch": SCRATCH,
        "root": "/",
        "env": env,
        "bash": [bash_path(), "bash"],
        "rlimits": all_rlimits(limits, count_processes=contained),
        "calls": filter_of(counted=False) if contained else b"",
        "group": "",
        "disks": ("/", "/dev/shm", SCRATCH),
        "memory_bytes": limits.memory_mib << 20,
        "disk_bytes": limits.disk_mib << 20,
        "shm_bytes": min(SHM_BYTES, limits.disk_mib << 20),
        "num_processes": limits.num_processes,
        "num_inodes": num_inodes(limits),
        "proc_read_only": PROC_READ_ONLY,
        "scratch_bytes": SCRATCH_BYTES,
    }


def num_inodes(limits: Limits) -> int:
    """How many files may be there at once."""
    return max(MIN_FILES, FILES_PER_MIB * limits.disk_mib)


def bash_path() -> str:
    """Raises SandboxError where there is no bash."""
    path = shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin")
    if path is None:
        raise SandboxError("no bash in /bin, /usr/bin or /usr/local/bin; install bash")
    return path


def bubblewrap_command(spec: SandboxSpec, config: dict[str, Any], *, user_namespace: bool) -> list[str]:
    """The bwrap command line that makes the box; the guest is process 1 in it."""
    args = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    args += ["--die-with-parent", "--as-pid-1", "--clearenv", "--hostname", "sandbox"]
    if user_namespace:
        args += ["--unshare-user", "--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID)]
    else:
        args += ["--cap-drop", "ALL"]
        for name in ("CHOWN", "KILL", "SETGID", "SETUID", "SETPCAP", "SYS_PTRACE"):
            args += ["--cap-add", f"CAP_{name}"]
    args += ["--size", str(config["disk_bytes"]), "--tmpfs", "/"]
    for target, link in system_links():
        args += ["--symlink", target, link]
    made: set[str] = set()
    for source, target in all_binds(spec):
        for parent in reversed(Path(target).parents[:-1]):
            if str(parent) not in made and not _within(str(parent), SYSTEM_FOLDERS):
                made.add(str(parent))
                args += ["--perms", "0755", "--dir", str(parent)]
        args += ["--ro-bind", source, target]
    args += ["--proc", "/proc", "--dev", "/dev"]
    for path in PROC_READ_ONLY:
        args += ["--ro-bind-try", path, path]
    args += ["--size", str(config["shm_bytes"]), "--perms", "1777", "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    # The server's own files are not on the commands' disk, which may be full.
    args += ["--perms", "0755", "--dir", "/run", "--size", str(SCRATCH_BYTES), "--perms", "0711", "--tmpfs", SCRATCH]
    return [*args, "--chdir", "/", "--", *guest_command(base_python()[0])]


def build_inside(spec: SandboxSpec, config: dict[str, Any], *, user_namespace: bool) -> None:
    """Have the guest itself build the file system."""
    config |= {"build": True, "nested_user": user_namespace, "links": system_links(), "binds": all_binds(spec)}


def unshare_command(spec: SandboxSpec, config: dict[str, Any], *, user_namespace: bool) -> list[str]:
    """The command line of util-linux's unshare; the guest itself then builds the file system."""
    build_inside(spec, config, user_namespace=user_namespace)
    args = ["unshare", "--mount", "--ipc", "--pid", "--net", "--uts", "--fork", "--kill-child=SIGKILL"]
    if user_namespace:
        args += ["--user", "--map-root-user"]
    return [*args, "--", *guest_command(base_python()[0])]


def system_links() -> list[tuple[str, str]]:
    """(target, link) of the system folders that are symbolic links on this machine."""
    return [(os.readlink(path), path) for path in SYSTEM_FOLDERS if os.path.islink(path)]


def all_binds(spec: SandboxSpec) -> list[tuple[str, str]]:
    """(source, target) of everything shown read-only, outer folders first.

    Raises:
        SandboxError: a source does not exist, or a target is not an absolute path.
    """
    pairs = {path: path for path in SYSTEM_FOLDERS if os.path.isdir(path) and not os.path.islink(path)}
    pairs |= {f"/etc/{name}": f"/etc/{name}" for name in ETC + ETC_MORE if os.path.exists(f"/etc/{name}")}
    return in_order({**pairs, **checked_binds((*base_python_binds(), *spec.binds))})


def checked_binds(binds: Iterable[Bind]) -> dict[str, str]:
    """Target -> source of each.

    Raises:
        SandboxError: a source does not exist, or a target is not an absolute path.
    """
    pairs = {}
    for bind in binds:
        target = os.path.normpath(bind.target)
        if bind.optional and not bind.source.exists():
            continue
        if not bind.source.exists():
            raise SandboxError(f"bind {bind.source} -> {bind.target}: the source does not exist")
        if not target.startswith("/") or target == "/":
            raise SandboxError(f"bind {bind.source} -> {bind.target}: the target must be an absolute path below /")
        pairs[target] = os.path.realpath(bind.source)
    return pairs


def in_order(pairs: Mapping[str, str]) -> list[tuple[str, str]]:
    """(source, target) of each, outer folders first."""
    return [(source, target) for target, source in sorted(pairs.items(), key=lambda pair: pair[0].count("/"))]


def all_rlimits(limits: Limits, *, count_processes: bool) -> list[tuple[int, int]]:
    """Limits of each process. Address space is four times the memory, because much of it is only reserved; written
    memory is bounded by RLIMIT_DATA, and all processes together by the guest's own watch."""
    chosen = [*process_rlimits(limits), (resource.RLIMIT_AS, 4 * limits.memory_mib << 20)]
    if count_processes:
        # The watch kills at the limit itself; the kernel's own count, which includes the guest's, stops a burst.
        chosen.append((resource.RLIMIT_NPROC, limits.num_processes + 32))
    return chosen


def process_rlimits(limits: Limits) -> list[tuple[int, int]]:
    """Limits of each process that hold wherever it runs."""
    return [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits.file_mib << 20),
        (resource.RLIMIT_DATA, limits.memory_mib << 20),
    ]


def _within(path: str, folders: Iterable[str] | Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)
