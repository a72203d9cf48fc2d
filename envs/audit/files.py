"""Files of a row's repository in a sandbox: patched, and read."""

from ...errors import TaskError
from ...model.chat.encoding import from_bytes, to_bytes
from ..datasets.swe import SWERow
from ..sandbox.types import Sandbox
from ..swe.worktree import run_script, said_by

MOST_FILE = 2 << 20
"""Bytes of a source file that is varied."""


async def apply(sandbox: Sandbox, row: SWERow, patch: str, name: str, *options: str) -> None:
    """Apply a patch of the row, called ``name``, with further options of ``git apply``.

    Raises:
        TaskError: it does not apply. SandboxError: the sandbox failed.
    """
    if not patch.strip():
        return
    text = patch if patch.endswith("\n") else patch + "\n"
    script = f"git apply --whitespace=nowarn {' '.join(options)} - 2>&1"
    result = await run_script(sandbox, script, root=row.root, stdin=to_bytes(text))
    if result.exit_code != 0:
        raise TaskError(f"{row.instance_id}: {name} does not apply to the base commit: {said_by(result)[:300]}")


async def read(sandbox: Sandbox, row: SWERow, path: str) -> str | None:
    """A file's text; None where there is none.

    Raises:
        TaskError: it is too large. SandboxError: the sandbox failed.
    """
    try:
        data = await sandbox.read_file(f"{row.root}/{path}", most_bytes=MOST_FILE + 1)
    except (FileNotFoundError, IsADirectoryError):
        return None
    if len(data) > MOST_FILE:
        raise TaskError(f"{row.instance_id}: {path} has more than {MOST_FILE >> 20} MiB; it is not varied")
    return from_bytes(data)
