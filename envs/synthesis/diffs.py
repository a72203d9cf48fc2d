"""The differences of files, as git writes them."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...errors import TaskError


def git_diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The diff that git makes between two states of some files.

    Args:
        before, after: path -> text, of the same paths.
    Raises:
        TaskError: git failed.
    """
    with tempfile.TemporaryDirectory(prefix="verigym-diff-") as scratch:
        folder = Path(scratch)
        write_files(folder / "a", before)
        write_files(folder / "b", after)
        options = ("--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "--no-textconv")
        return _git(folder, "diff", *options, "a", "b", differs=1)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts as UTF-8, line ends as they are; a folder that is not there is made.

    Args:
        files: path, relative to the folder -> text.
    """
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())


def _git(folder: Path, *arguments: str, differs: int = 0) -> str:
    """Output of git; ``differs`` is an exit status that is no failure either."""
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ.get("PATH", os.defpath)}
    command = ["git", "-C", str(folder), "-c", "core.autocrlf=false", "-c", "core.quotepath=false", *arguments]
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, check=False)
    except FileNotFoundError:
        raise TaskError("git is not installed; making tasks needs it (apt-get install git)") from None
    if done.returncode not in (0, differs):
        raise TaskError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
