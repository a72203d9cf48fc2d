"""What a pod has written, which no engine tells: the guest looks itself, as the user whose commands it runs."""

import ast
from typing import Any

from ....errors import SandboxError
from ..container_reset import Changes
from ..frames import Frames

LOOK_S = 120.0
MOST_BYTES = 16 << 20
TOO_MUCH = 1 << 62


async def moment(stream: Frames) -> int:
    """Now, on the pod's node. Raises SandboxError."""
    found = await _told(stream, ("moment",))
    if found is None:
        raise SandboxError("the guest's clock cannot be read")
    return found


async def written(stream: Frames, since: int, count_files: bool) -> tuple[int, int]:
    """(bytes, files) that were written since then. Where the look was ended from inside it is too much; of a pod that
    is gone nothing."""
    try:
        return await _told(stream, ("written", since)) or (TOO_MUCH, TOO_MUCH)
    except SandboxError:
        return 0, 0


async def changed(stream: Frames, since: int, folders: tuple[str, ...]) -> Changes:
    """Paths outside of some folders that were changed since then, and how. Raises SandboxError."""
    found = await _told(stream, ("changed", since, folders))
    if found is None:
        raise SandboxError("a pod cannot be looked at")
    return found


async def _told(stream: Frames, call: tuple[Any, ...]) -> Any:
    request = {"do": "run", "call": call, "timeout": LOOK_S, "output_bytes": MOST_BYTES}
    header, body = await stream.ask(request, b"", timeout_s=2 * LOOK_S)
    if header["exit_code"] != 0:
        return None
    return ast.literal_eval(body[: header["sizes"][0]].decode())
