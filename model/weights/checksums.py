"""SHA256SUMS beside files, in the format of sha256sum: what was written is what is read."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import CheckpointError

SUMS = "SHA256SUMS"
_THREADS = 4
"""Files read at once: hashing leaves the interpreter to others, and a disk answers several readers faster than one."""


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """name -> ``digest`` of files under a folder. Raises OSError where one cannot be read."""
    names = list(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: digest(folder / name), names), strict=True))


def files_of(folder: Path) -> list[str]:
    """Names of all files under a folder, relative to it; without sums."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def write_sums(folder: Path) -> None:
    """Record what is in a folder now."""
    _write(folder, digests(folder, files_of(folder)))


def add_sum(folder: Path, name: str) -> None:
    """Record a file that was written into a folder, or written anew."""
    _write(folder, read_sums(folder) | {name: digest(folder / name)})


def record(folder: Path, sums: Mapping[str, str]) -> None:
    """Record digests that whoever wrote the files has taken."""
    _write(folder, {**read_sums(folder), **sums})


def read_sums(folder: Path) -> dict[str, str]:
    """name -> digest as recorded; {} where nothing is.

    Raises:
        CheckpointError: the file is broken.
    """
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); take another copy of {folder}") from error
    found = {}
    for line in lines:
        recorded, space, name = line.partition("  ")
        if not space or len(recorded) != 64 or not name:
            raise CheckpointError(f"{path} is broken at {line[:80]!r}; take another copy of {folder}")
        found[name] = recorded
    return found


def check_sums(folder: Path | str, *, share: tuple[int, int] = (0, 1)) -> None:
    """Read every file that is recorded, and compare.

    A folder without sums, of another tool, has nothing to compare; a file that is not there is missed by who needs it.

    Args:
        share: (i, n): only every n-th file, from the i-th on: of n processes that read a folder each checks a part.
    Raises:
        CheckpointError: a file has changed; the message names the first.
    """
    folder = Path(folder)
    recorded = sorted(read_sums(folder).items())[share[0] :: share[1]]
    compare(folder, {name: value for name, value in recorded if (folder / name).exists()})


def check_sum(folder: Path, name: str) -> None:
    """Compare one file; one that is not recorded, or not there, has nothing to compare. Raises CheckpointError."""
    recorded = read_sums(folder).get(name)
    if recorded is not None and (folder / name).exists():
        compare(folder, {name: recorded})


def compare(folder: Path, recorded: Mapping[str, str]) -> None:
    """Compare files with their digests. Raises CheckpointError."""
    try:
        found = digests(folder, recorded)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder} cannot be read ({error.strerror}); take another copy"
        ) from error
    for name, value in recorded.items():
        if found[name] != value:
            raise CheckpointError(
                f"{folder / name} has changed since it was written (SHA-256 {found[name][:12]}…, recorded "
                f"{value[:12]}…): the disk or a copy damaged it, or somebody edited it. Take another copy; where the "
                f"change was meant, remove its line from {folder / SUMS}"
            )


def _write(folder: Path, sums: Mapping[str, str]) -> None:
    partial = folder / f"{SUMS}.partial"
    partial.unlink(missing_ok=True)  # left by a crash; or a link, which would lead elsewhere
    with partial.open("x", encoding="utf-8") as out:
        out.writelines(f"{value}  {name}\n" for name, value in sorted(sums.items()))
        out.flush()
        os.fsync(out.fileno())
    partial.replace(folder / SUMS)
