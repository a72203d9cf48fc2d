"""Purged histories of images, kept: to take 50,000 commits apart takes seconds of a processor.

    FOLDER/KEY/shown/TIP/pack/pack-….{pack,idx}   all objects of the commit TIP and its past; KEY of image and base
    FOLDER/KEY/users/…                            the processes that have shown it to a sandbox
    FOLDER/KEY/base-STAMP                         the record of the work tree that patches are compared with

A sandbox of the row sees FOLDER/KEY/shown, read-only, and nothing of other rows. Which commit its image was left at, it
finds itself, and takes what is kept of that commit or purges anew (``history.py``): a name may have got another image.
What is kept was made in a sandbox that had run nothing but our own scripts. What a live process has shown stays: a
repository reads it for as long as the sandbox lives.
"""

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import re
import shutil
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ..datasets.swe import SWERow
from ..runs.files import bytes_written_whole
from ..sandbox import labels
from ..sandbox.background import on_thread_to_its_end
from ..sandbox.per_loop import PerLoop
from ..sandbox.python import cache_folder
from ..sandbox.types import Bind, Sandbox
from .worktree import GIT_ENV

logger = logging.getLogger(__name__)

PLACE = "/.verigym-past"
LEAST_BYTES, MOST_BYTES, MOST_IN_ALL = 16 << 20, 512 << 20, 8 << 30
"""Of one pack, and of all that are kept in the cache."""

_PACKED = re.compile(r"pack/pack-\w+\.(pack|idx)")

# All that git itself would look at before it takes a file for unchanged.
_STAMP = """
    export LC_ALL=C
    git rev-parse HEAD && find . -path ./.git -prune -o -printf '%p %y %m %s %T@ %l\\0' | sort -z
"""

_turns: PerLoop[dict[str, asyncio.Lock]] = PerLoop(lambda: defaultdict(asyncio.Lock))
_opened: set[str] = set()


def past_of(row: SWERow) -> tuple[Bind, ...]:
    """What a sandbox of the row is shown; nothing where nothing is kept. Blocking."""
    folder = _folder(row)
    label = labels.labels()[labels.OWNER]
    try:
        (folder / "users" / hashlib.sha256(label.encode()).hexdigest()[:16]).write_text(label)
        os.utime(folder)
    except OSError:
        return ()
    return (Bind(source=folder / "shown", target=PLACE, optional=True),)


@asynccontextmanager
async def first_alone(row: SWERow) -> AsyncIterator[None]:
    """Let the first opening of a row in this process come before the others, which then find what it has kept."""
    key = _folder(row).name
    if key in _opened:
        yield
        return
    async with _turns.get()[key]:
        yield
        _opened.add(key)


async def keep(sandbox: Sandbox, row: SWERow, tip: str) -> None:
    """Keep the pack of a repository that was just purged to a commit, where it is large and not kept yet. A disk
    without room for it is no failure.

    Raises:
        SandboxError: the sandbox failed.
    """
    folder = _folder(row)
    if (folder / "shown" / tip).exists():
        return
    script = (
        'cd .git/objects && [ "$(du -sk pack | cut -f1)" -ge "$1" ] && exec tar -cf - pack/pack-*.pack pack/pack-*.idx'
    )
    command = ["sh", "-c", script, "sh", str(LEAST_BYTES >> 10)]
    packed = await sandbox.arun(command, cwd=row.root, output_bytes=MOST_BYTES)
    if packed.exit_code == 0 and packed.stdout:
        try:
            await on_thread_to_its_end(_put, folder, tip, packed.stdout)
        except (OSError, tarfile.TarError) as error:
            logger.info("the past of %s is not kept: %s", row.image, error)


async def stamp_of(sandbox: Sandbox, row: SWERow) -> str:
    """A digest of the names, kinds, modes, sizes, times and links of a work tree, which two images of one name do not
    have in common; "" where it cannot be had.

    Raises:
        SandboxError: the sandbox failed.
    """
    found = await sandbox.arun(["sh", "-c", _STAMP], cwd=row.root, env=GIT_ENV, output_bytes=MOST_BYTES)
    return hashlib.sha256(found.stdout).hexdigest() if found.exit_code == 0 and not found.stderr else ""


def base_in(row: SWERow, stamp: str) -> bytes | None:
    """The record that is kept of a row's work tree with this stamp. Blocking."""
    try:
        return (_folder(row) / f"base-{stamp}").read_bytes() if stamp else None
    except OSError:
        return None


def keep_base(row: SWERow, stamp: str, base: bytes) -> None:
    """Keep a record where something of the row is kept. Blocking."""
    path = _folder(row) / f"base-{stamp}"
    if stamp and path.parent.exists() and not path.exists():
        with contextlib.suppress(OSError), bytes_written_whole(path) as file:
            file.write(base)


def _folder(row: SWERow) -> Path:
    key = hashlib.sha256(f"1\0{row.image}\0{row.root}\0{row.base_commit}".encode()).hexdigest()[:32]
    return cache_folder() / "pasts" / key


def _put(folder: Path, tip: str, archive: bytes) -> None:
    if not _make_room(folder.parent, len(archive)):
        return
    making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        (making / "users").mkdir()
        (making / "shown" / tip / "pack").mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            for member in packed:
                content = packed.extractfile(member) if _PACKED.fullmatch(member.name) else None
                if content is not None:
                    (making / "shown" / tip / member.name).write_bytes(content.read())
        for path in (making, *making.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if folder.exists() and not _is_used(folder):  # of the image that had the name before
            shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # another process was first
            making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _make_room(pasts: Path, num_bytes: int) -> bool:
    """Remove what was used longest ago, and by no live process, until there is room; whether there is."""
    pasts.mkdir(parents=True, exist_ok=True)
    found = []
    for folder in pasts.iterdir():
        with contextlib.suppress(OSError):  # another process removes it
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append((folder.stat().st_mtime, size, folder))
    left = num_bytes + sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if left > MOST_IN_ALL and not _is_used(folder):
            shutil.rmtree(folder, ignore_errors=True)
            left -= size
    return left <= MOST_IN_ALL


def _is_used(folder: Path) -> bool:
    return any(not labels.is_dead(path.read_text()) for path in (folder / "users").glob("*"))
