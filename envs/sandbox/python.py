"""Python environments of pinned requirements, built once and shown to sandboxes read-only."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import SandboxError
from .launch import base_python, base_python_binds
from .pip import HOW_TO_BUILD, ONLY_WHEELS, pinned, pip_command, resolved_wheels
from .types import Bind

logger = logging.getLogger(__name__)

BUILD_S = 900.0
SELDOM_IMPORTED = r"pygments/(lexers|styles)/(?!__init__|_mapping|python|default)"
"""pytest brings them along and imports none of them; compiling them took a third of what installing pytest did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonEnvironment:
    """An interpreter with packages.

    Attributes:
        python: path of the interpreter, inside a sandbox and outside.
        binds: what a sandbox must show for it to run.
        requirements: what was asked for.
    """

    python: str
    binds: tuple[Bind, ...]
    requirements: tuple[str, ...]


def cache_folder() -> Path:
    """$VERIGYM_CACHE, else ~/.cache/verigym, else, where the user has no home, a temporary folder; not made here.

    Raises:
        SandboxError: that last folder is another user's.
    """
    named = os.environ.get("VERIGYM_CACHE")
    if named:
        return Path(named).absolute()
    try:
        return Path.home() / ".cache" / "verigym"
    except RuntimeError:  # no HOME, and no entry in passwd
        folder = Path(tempfile.gettempdir(), f"verigym-{os.getuid()}")
        if folder.exists() and folder.lstat().st_uid != os.getuid():
            raise SandboxError(f"{folder} is another user's; set VERIGYM_CACHE to a folder of your own") from None
        return folder


def python_environment(requirements: Sequence[str]) -> PythonEnvironment:
    """A virtual environment with these requirements, from the cache or built now (needs the package index).

    It holds the requirements and what they depend on, from wheels alone, and no pip; it is built for the base
    interpreter of this process, and lies at the same path inside a sandbox. Processes that ask at once build it once.

    Args:
        requirements: ``name==version``, each; none gives the bare interpreter.
    Raises:
        TaskError: a requirement is not pinned.
        SandboxError: the environment could not be built; the message has pip's last lines.
    """
    wanted = pinned(requirements)
    base, _ = base_python()
    if not wanted:
        return PythonEnvironment(python=base, binds=base_python_binds(), requirements=())
    key = hashlib.sha256("\n".join((sys.version, base, *wanted)).encode()).hexdigest()[:20]
    folder = Path(os.path.realpath(cache_folder())) / "python" / key
    done, venv = folder / "complete.json", folder / "venv"
    if not done.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SandboxError(
                f"no folder for Python environments at {folder} ({error}); set VERIGYM_CACHE to a writable one"
            ) from None
        with _locked(folder / "lock"):
            if not done.exists():
                _build(venv, base, wanted)
                done.write_text(json.dumps({"requirements": wanted, "python": sys.version, "installed": _list(venv)}))
    binds = (*base_python_binds(), Bind(source=venv, target=str(venv)))
    return PythonEnvironment(python=str(venv / "bin" / "python"), binds=binds, requirements=wanted)


def _build(venv: Path, base: str, requirements: Sequence[str]) -> None:
    """Build in place: scripts hold the absolute path. What an interrupted build left is removed first."""
    logger.info("building a Python environment of %s", ", ".join(requirements))
    _install(venv, base, requirements)
    _compile(venv)
    for path in (venv, *venv.rglob("*")):  # the user inside is another one than ours
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def _install(venv: Path, base: str, requirements: Sequence[str]) -> None:
    """From where pip has just found the wheels, where it has: that spares a second resolution. Else, or where they
    cannot be had there (an address may need a password, which reports leave out), from the index: into a new
    environment, whose interpreter runs nothing of what the first try may have left."""
    install = [*pip_command(str(venv / "bin" / "python")), "install", "--disable-pip-version-check", "--no-input"]
    install += ["--quiet", "--no-compile", ONLY_WHEELS]
    wheels = resolved_wheels(requirements)
    _make(venv, base, requirements)
    if wheels:
        try:
            _run([*install, "--no-deps", *wheels], "pip", requirements)
            return
        except SandboxError as error:
            logger.info("the index is asked once more: %s", error)
        _make(venv, base, requirements)
    _run([*install, *requirements], "pip", requirements)


def _make(venv: Path, base: str, requirements: Sequence[str]) -> None:
    """An environment with nothing in it, in place of what is there."""
    shutil.rmtree(venv, ignore_errors=True)
    _run([base, "-I", "-m", "venv", "--without-pip", str(venv)], "python -m venv", requirements)


def _compile(venv: Path) -> None:
    """Byte code of what was installed, on two cores; a file of another Python's syntax is left as it is.

    By the base interpreter: a wheel may have brought a ``.pth`` file, or another ``bin/python``."""
    compiler = ["-I", "-S", "-m", "compileall", "-q", "-j", "2", "-x", SELDOM_IMPORTED, str(venv / "lib")]
    subprocess.run([base_python()[0], *compiler], capture_output=True, timeout=BUILD_S, check=False)


def _run(argv: Sequence[str], what: str, requirements: Sequence[str]) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_S,
            env=env,
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"{what} did not install {', '.join(requirements)} within {BUILD_S:g} s") from None
    if done.returncode != 0:
        last = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise SandboxError(
            f"{what} could not install {', '.join(requirements)} (exit status {done.returncode}); check the versions "
            f"and the connection to the package index; {HOW_TO_BUILD}. Its last lines:\n{last}"
        )


def _list(venv: Path) -> list[str]:
    """``name-version`` of everything installed."""
    return sorted(path.name.removesuffix(".dist-info") for path in venv.glob("lib/python*/site-packages/*.dist-info"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
