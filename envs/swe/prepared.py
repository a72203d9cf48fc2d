"""Work trees of rows with an archive, kept: the third sandbox of a row gets in one step what the first two needed a
dozen processes for. What is kept was made in a sandbox that had run nothing but our own scripts."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from ...errors import SandboxError
from ..datasets.swe import SWERow
from ..sandbox.background import on_thread_to_its_end
from ..sandbox.types import Sandbox
from .spool import Spool
from .worktree import SNAPSHOT_BYTES, run_script, run_unjudged, said_by

MOST_BYTES, MOST_IN_ALL = 64 << 20, 1 << 30
"""Of one tree, and of all that are kept by this process, on its disk of temporary files."""

_TREES = Spool()
_requests: dict[str, int] = {}
_clean: dict[str, bool] = {}
_num_bytes = 0

# Nothing there but what HEAD holds, no file that git passes over, no submodule.
_IS_CLEAN = """
    [ -z "$(git status --porcelain --ignored=traditional --untracked-files=all)" ] &&
    ! git ls-files --stage | grep -q '^160000 '
"""


async def bring(sandbox: Sandbox, row: SWERow, kind: str, prepare: Callable[[Sandbox], Awaitable[None]]) -> None:
    """Bring a fresh sandbox's ``row.root`` to where ``prepare`` brings it.

    Args:
        kind: a name for what ``prepare`` does for a row with an archive.
    Raises:
        SandboxError: the tree cannot be unpacked. What ``prepare`` raises.
    """
    key = f"{kind} {key_of(row)}"
    if key in _TREES:
        tree = await on_thread_to_its_end(_TREES.get, key)
        done = await run_unjudged(sandbox, "tar -xf - --no-same-owner", root=row.root, stdin=tree)
        if done.exit_code != 0:
            raise SandboxError(f"a work tree could not be unpacked: {said_by(done)}")
        return
    await prepare(sandbox)
    _requests[key] = _requests.get(key, 0) + 1
    if _requests[key] == 2:
        await _keep(sandbox, row, key)


async def _keep(sandbox: Sandbox, row: SWERow, key: str) -> None:
    global _num_bytes
    done = await sandbox.arun(["tar", "-cf", "-", "."], cwd=row.root, output_bytes=min(MOST_BYTES, SNAPSHOT_BYTES))
    if done.exit_code != 0 or _num_bytes + len(done.stdout) > MOST_IN_ALL:
        return  # it is larger than that; or there is no tar
    _clean[key] = (await run_script(sandbox, _IS_CLEAN, root=row.root)).exit_code == 0
    try:
        await on_thread_to_its_end(_TREES.put, key, done.stdout)
    except OSError:  # no room for it
        return
    _num_bytes += len(done.stdout)


def is_clean(row: SWERow, kind: str) -> bool:
    """Whether a tree is known to hold what its HEAD holds and no file more, ignored or not, and no submodule."""
    return _clean.get(f"{kind} {key_of(row)}", False)


def changed_ns(row: SWERow) -> int:
    """When a row's archive was last written; 0 where there is none."""
    return Path(row.archive).stat().st_mtime_ns if row.archive and Path(row.archive).exists() else 0


def key_of(row: SWERow) -> str:
    """A digest of all that a row says, and of the state of its archive."""
    return hashlib.sha256(f"{row.model_dump_json()}{changed_ns(row)}".encode()).hexdigest()
