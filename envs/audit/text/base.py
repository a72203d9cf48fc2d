"""What a repository holds at base, asked by name: in a row's archive, or in a clone."""

import os
import subprocess
import tarfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from ....errors import TaskError
from ...datasets.swe import SWERow
from .demands import Standing
from .wording import NAME

ASKED_AT_ONCE = 64
"""Most names of one question to git."""


def standing_in(row: SWERow, *, folder: Path, clones: Path | None) -> Standing | None:
    """What looks into the base of a row: its archive, where it is at hand, else a clone in ``clones`` that has the
    commit (``OWNER__NAME``, ``NAME``, each with or without ``.git``); None where neither is there.

    Raises:
        TaskError: an archive cannot be read.
    """
    if row.archive and (folder / row.archive).is_file():
        held = _names_in(str((folder / row.archive).resolve()))
        return lambda wanted: {name for name in wanted if name in held}
    for clone in _clones_of(row, clones) if clones else ():
        if _git(clone, "cat-file", "-e", f"{row.base_commit}^{{commit}}").returncode == 0:
            return _asks(clone, row.base_commit)
    return None


@lru_cache(maxsize=4)
def _names_in(archive: str) -> frozenset[str]:
    found: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith((".py", ".pyi", ".pyx", ".txt", ".rst", ".md", ".cfg")):
                    content = tar.extractfile(member)
                    assert content is not None
                    found.update(NAME.findall(content.read().decode(errors="replace")))
    except (OSError, tarfile.TarError) as error:
        raise TaskError(f"the archive {archive} cannot be read ({error}); load the rows again") from None
    return frozenset(found)


def _clones_of(row: SWERow, clones: Path) -> list[Path]:
    owner, _, name = row.repo.partition("/")
    stems = (f"{owner}__{name}", f"{owner}+{name}", name) if name else (owner,)
    places = [clones / f"{stem}{end}" for stem in stems if stem for end in ("", ".git")]
    return [place for place in places if place.is_dir()]


def _asks(clone: Path, commit: str) -> Callable[[set[str]], set[str]]:
    def stands(wanted: set[str]) -> set[str]:
        found: set[str] = set()
        names = sorted(wanted)
        for start in range(0, len(names), ASKED_AT_ONCE):
            some = names[start : start + ASKED_AT_ONCE]
            words = [argument for name in some for argument in ("-e", name)]
            told = _git(clone, "grep", "-h", "-o", "-w", "-F", "-I", *words, commit)
            found |= set(told.stdout.decode(errors="replace").split()) & wanted
        return found

    return stands


def _git(clone: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ.get("PATH", os.defpath)}
    try:
        return subprocess.run(["git", "-C", str(clone), *arguments], env=quiet, capture_output=True, check=False)
    except FileNotFoundError:
        raise TaskError("git is not installed; --clones needs it (apt-get install git)") from None
