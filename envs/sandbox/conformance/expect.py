"""What the checks are written with: sandboxes of their own, and comparisons that say what differed."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from ....errors import SandboxError
from ..launch import base_python, base_python_binds
from ..types import Limits, Sandbox, SandboxBackend, SandboxSpec

Check = Callable[[SandboxBackend], Awaitable[None]]


@asynccontextmanager
async def opened(backend: SandboxBackend, **limits: Any) -> AsyncIterator[Sandbox]:
    """A sandbox with the base interpreter inside, closed at the end."""
    sandbox = await backend.create(SandboxSpec(binds=base_python_binds(), limits=Limits(**limits)))
    try:
        yield sandbox
    finally:
        await sandbox.aclose()


async def python_of(sandbox: Sandbox) -> str:
    """An interpreter that runs inside: ours, or the image's.

    Raises:
        SandboxError: there is none.
    """
    for python in (base_python()[0], "python3"):
        if (await sandbox.arun([python, "-c", ""])).exit_code == 0:
            return python
    raise SandboxError("this check needs Python inside, and the image has none")


def new_mark() -> int:
    """Seconds no other process on the machine sleeps: unsafe sandboxes see them all."""
    return 10_000_000 + secrets.randbelow(1_000_000)


def same(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, expected {wanted!r}")


async def gives(sandbox: Sandbox, command: str, output: str | None, *, code: int = 0, after: str = "") -> None:
    result = await sandbox.aexec(command, timeout_s=30)
    if result.exit_code != code or (output is not None and result.output != output):
        where = f" after {after!r}" if after else ""
        raise AssertionError(f"{command!r}{where} gave {result}, expected output {output!r} and exit code {code}")


async def none_alive(sandbox: Sandbox, pattern: str) -> None:
    """No process whose command line matches; the pattern is split so that the search does not find itself."""
    look = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[{pattern[0]}]{pattern[1:]}[0-9]*'"
    await gives(sandbox, look, "", code=1)


async def fails(kind: type[BaseException], call: Awaitable[Any]) -> None:
    try:
        got = await call
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected, this was returned: {got!r}")
