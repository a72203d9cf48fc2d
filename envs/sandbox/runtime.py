"""What the guest runs on in a container of any image: this machine's Python and bash with all they need.

A folder with the interpreter, the part of its standard library that the guest imports, bash, the shared libraries of
both and the dynamic loader. The loader is named on the command line with its own library path, so nothing of the
image is used: neither its libc nor a Python nor a shell. The image must be of this machine's architecture.
"""

import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from ...errors import SandboxError
from .launch import BOOT, base_python, bash_path
from .python import cache_folder

INSIDE = "/.verigym"
"""Where a container has it, read-only."""

MODULES = (
    *("ast", "collections.abc", "ctypes", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8"),
    *("errno", "fcntl"),
    *(
        "gzip",
        "marshal",
        "os",
        "re",
        "resource",
        "select",
        "shutil",
        "signal",
        "socket",
        "stat",
        "struct",
        "sys",
        "tarfile",
    ),
    *("time", "typing", "warnings", "zlib"),
)
"""What the guest imports, at its start or later."""

LIST_MODULES = (
    f"import sys, {', '.join(MODULES)}\n"
    + """\
from importlib.machinery import PathFinder
for name, module in list(sys.modules.items()):
    if getattr(module, "__file__", None): print(module.__file__)
    folders = getattr(sys.modules.get(name.rpartition(".")[0]), "__path__", None)
    # A module may put another in its place, as collections.abc does since 3.13: its file is needed all the same.
    if folders and (spec := PathFinder.find_spec(name, folders)): print(spec.origin)
"""
)
"""What prints the files of these modules and of all that they import."""


def python_argv() -> list[str]:
    """The guest's command line inside a container."""
    return [*runtime_python(), "-I", "-S", "-E", "-c", BOOT]


def runtime_python() -> list[str]:
    """What runs Python inside a container of any image; it has the modules that the guest needs."""
    return _loaded(f"bin/{Path(base_python()[0]).name}")


def bash_argv() -> list[str]:
    """bash inside a container of an image that has none."""
    return _loaded("bin/bash")


def _loaded(program: str) -> list[str]:
    return [f"{INSIDE}/lib/loader", "--library-path", f"{INSIDE}/lib", f"{INSIDE}/{program}"]


@lru_cache(maxsize=1)
def runtime_folder() -> Path:
    """The folder on this machine, from the cache or made now.

    Raises:
        SandboxError: this machine has no dynamic loader, libraries or modules that could be brought along.
    """
    python, prefix = base_python()
    bash = bash_path()
    stamps = [f"{path} {os.stat(path).st_size} {os.stat(path).st_mtime_ns}" for path in (python, bash)]
    key = hashlib.sha256("\n".join((sys.version, prefix, LIST_MODULES, *stamps)).encode()).hexdigest()[:16]
    folder = Path(os.path.realpath(cache_folder())) / "runtime" / key
    made, done = folder / "runtime", folder / "complete"
    if not done.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not done.exists():
                    shutil.rmtree(made, ignore_errors=True)
                    _fill(made, python, bash)
                    done.touch()
        except OSError as error:
            raise SandboxError(f"the guest's runtime could not be made at {folder}: {error}") from None
    return made


@lru_cache(maxsize=1)
def runtime_archive() -> bytes:
    """The folder as a tar archive, for engines that cannot see this machine's files; it unpacks at ``/``, and has no
    zeros after its end (``image_facts.tar_of``)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(runtime_folder(), arcname=INSIDE.lstrip("/"), filter=_of_root)
    return buffer.getvalue()[: archive.offset]


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _fill(made: Path, python: str, bash: str) -> None:
    modules = _output([python, "-I", "-S", "-c", LIST_MODULES]).splitlines()
    library = os.path.dirname(os.path.realpath(next(path for path in modules if path.endswith("/os.py"))))
    extensions = [path for path in modules if ".so" in os.path.basename(path)]
    (made / "bin").mkdir(parents=True)
    (made / "lib").mkdir()
    shutil.copy(python, made / "bin" / Path(python).name)
    shutil.copy(bash, made / "bin" / "bash")
    inside = made / "lib" / os.path.basename(library)
    for path in modules:
        real = os.path.realpath(path)
        if not real.startswith(library + "/"):
            raise SandboxError(f"the guest's runtime cannot be made: module {path} lies outside {library}")
        target = inside / os.path.relpath(real, library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real, target)
    (inside / "lib-dynload").mkdir(exist_ok=True)  # by it Python knows its folder
    loader, libraries = _libraries([python, bash, *extensions])
    for name, path in libraries.items():
        shutil.copy(path, made / "lib" / name)
    shutil.copy(loader, made / "lib" / "loader")
    for path in (made, *made.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name in ("bin", "lib") else 0o644)
    _output([python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(inside)])


def _libraries(programs: Iterable[str]) -> tuple[str, dict[str, str]]:
    """(dynamic loader, {name: path} of every shared library) of programs and extension modules."""
    loader, found = None, {}
    for program in programs:
        for line in _output(["ldd", program]).splitlines():
            if match := re.match(r"\s*(\S+) => (/\S+) \(0x", line):
                found[match[1]] = match[2]
            elif match := re.match(r"\s*(/\S+) \(0x", line):
                loader = loader or match[1]
            elif "not found" in line:
                raise SandboxError(f"the guest's runtime cannot be made: {program} lacks {line.strip()}")
    if loader is None:
        raise SandboxError(f"the guest's runtime cannot be made: ldd names no loader of {base_python()[0]}")
    return loader, found


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env={"PATH": os.environ["PATH"]})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"the guest's runtime cannot be made: {argv[0]}: {error}") from None
    if done.returncode != 0:
        raise SandboxError(f"the guest's runtime cannot be made: {argv[0]} said {done.stderr.strip()[-300:]}")
    return done.stdout
