"""Nothing of ours is left of sandboxes that ended, however they did."""

import asyncio
import os
import threading

from ....errors import SandboxError
from ..types import SandboxBackend, SandboxSpec

AT_ONCE = 6
SPARE = 5
"""Fewer than sandboxes of a round: connections to an engine and threads are kept, and how many depends on timing."""


async def check_leaks(backend: SandboxBackend) -> None:
    """Sandboxes that end in order, at a crash inside, in the middle of a command and while a caller gives up leave no
    descriptor, thread or task."""
    tasks = asyncio.all_tasks()
    await _round(backend)
    before = _held()
    for _ in range(3):
        await _round(backend)
    after = _held()
    for what, number in after.items():
        if number > before[what] + SPARE:
            raise AssertionError(f"{number} {what} after 18 sandboxes, {before[what]} before")
    if left := asyncio.all_tasks() - tasks:
        raise AssertionError(f"tasks are left: {left}")


async def _round(backend: SandboxBackend) -> None:
    await asyncio.gather(*(_use(backend, number) for number in range(AT_ONCE)))


async def _use(backend: SandboxBackend, number: int) -> None:
    sandbox = await backend.create(SandboxSpec())
    job = asyncio.create_task(sandbox.aexec("kill -9 $$" if number % 3 == 0 else "sleep 1000 & sleep 1000"))
    await asyncio.sleep(0.05)
    if number % 3 == 1:
        job.cancel()
    if number % 3 == 0:
        await job
    await sandbox.aclose()
    await asyncio.gather(job, return_exceptions=True)
    try:
        await sandbox.aexec("echo ok")
    except SandboxError:
        return
    raise AssertionError("a closed sandbox ran a command")


def _held() -> dict[str, int]:
    return {"descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}
