"""Code brought here from elsewhere, without running any of it: git repositories, sdists, archives."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ...errors import TaskError
from ..sandbox.guest.files import extract, plain_member
from ..sandbox.pip import pip_command

FETCH_S = 120.0
"""Wall-clock seconds of one call of git or pip."""

LEFT_BEHIND = shutil.ignore_patterns(
    ".git", "__pycache__", "*.pyc", ".venv", "venv", ".tox", ".nox", "node_modules", ".hypothesis", ".*_cache"
)


def clone(address: str, tree: Path) -> str:
    """Bring the last commit of a git repository, without .git; its first 12 digits.

    Raises:
        TaskError: git failed, is missing, or took longer than ``FETCH_S``.
    """
    run(["git", "clone", "--quiet", "--depth=1", "--", address, str(tree)], cwd=tree.parent)
    commit = run(["git", "rev-parse", "--short=12", "HEAD"], cwd=tree).strip()
    shutil.rmtree(tree / ".git")
    return commit


def bring_sdist(name: str, version: str, workdir: Path, tree: Path) -> None:
    """Unpack a project's sdist from the package index that pip is configured for.

    pip unpacks an sdist, then builds its metadata, which runs the project's code and may take minutes. This pip can
    start no program (``sandbox.pip``): it fails at that point, and what it unpacked is there.

    Args:
        workdir: a folder for pip's own files.
    Raises:
        TaskError: there is no such sdist, or it cannot be had within ``FETCH_S``.
    """
    scratch = workdir / "pip"
    scratch.mkdir()
    command = [*pip_command(), "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-clean"]
    command += ["--no-binary=:all:", f"--dest={scratch / 'dest'}", f"{name}=={version}"]
    status, said = _ran(command, cwd=workdir, env={"TMPDIR": str(scratch)})
    unpacked = [path for path in scratch.glob("pip-download-*/*") if any(path.iterdir())]
    if len(unpacked) != 1:
        raise TaskError(f"pip download {name}=={version} failed: {_told(said, status)}")
    shutil.copytree(unpacked[0], tree, symlinks=True, ignore=LEFT_BEHIND)


def unpack(archive: Path, dest: Path) -> None:
    """Unpack a tar archive, as tarfile's filter "data" lets it; before Python 3.11.4, which has none, files and folders
    alone. Raises OSError and tarfile.TarError."""
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(dest, filter="data")
        else:
            extract(tar, str(dest), (plain_member(one, str(dest)) for one in tar if one.isfile() or one.isdir()))


def run(command: Sequence[str], *, cwd: Path) -> str:
    """The output of a command of git.

    Raises:
        TaskError: it failed (with its last words), is missing, or took too long.
    """
    status, said = _ran(command, cwd=cwd, env={})
    if status:
        raise TaskError(f"{' '.join(command[:4])} failed: {_told(said, status)}")
    return said


def _ran(command: Sequence[str], *, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """(exit status, standard output, or standard error where the status is not 0)."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **env}
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except FileNotFoundError:
        raise TaskError(f"{command[0]} is not installed; install it and try again") from None
    except subprocess.TimeoutExpired:
        what = " ".join(command[:4]) if command[0] == "git" else "pip download"
        raise TaskError(f"{what} did not answer within {FETCH_S:.0f} s; is the network there?") from None
    return done.returncode, done.stderr if done.returncode else done.stdout


def _told(said: str, status: int) -> str:
    words = [line for line in said.splitlines() if line.strip()]
    last = words[-1] if words else f"exit code {status}"
    return next((line for line in words if line.startswith(("ERROR:", "fatal:"))), last)
