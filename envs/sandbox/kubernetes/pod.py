"""One pod: made, followed until its containers run, asked why it ended, deleted."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ....errors import SandboxError
from .bring import Load
from .cluster import Client, Refused
from .status import BRINGER, MAIN, over, running, waits_for, why_ended, why_not

logger = logging.getLogger(__name__)

T = TypeVar("T")
Json = dict[str, Any]

END_S, WHY_S = 60.0, 8.0
"""So long a pod may take to be gone, and its node to tell why it ended."""

QUOTA_WAIT_S = 2.0


class Pod:
    """A pod of ours, by name."""

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self._ending = False

    async def make(self, manifest: Json, start_s: float, wait_for_quota: Callable[[], bool]) -> None:
        """Have it made.

        Args:
            wait_for_quota: whether a quota that is used up will get room by itself.
        Raises:
            SandboxError: it was refused.
        """
        until = time.monotonic() + start_s
        while True:
            try:
                await self.client.ask("making a pod", "create_namespaced_pod", body=manifest)
                return
            except Refused as refused:
                if refused.status == 409:  # made by an attempt whose answer was lost
                    return
                if "exceeded quota" not in refused.message or not wait_for_quota() or time.monotonic() > until:
                    raise
            await asyncio.sleep(QUOTA_WAIT_S)

    async def fill(self, load: Load, start_s: float) -> None:
        """Wait for its first container, bring it everything, and wait for the box; each may take ``start_s``.

        Raises:
            SandboxError: one of them did not come about.
        """
        await self._until(lambda pod: running(pod, BRINGER) or None, start_s)
        socket = await self.client.attach(self.name, BRINGER)
        said, cut = bytearray(), True

        async def hear() -> None:
            nonlocal cut
            async for channel, data in socket.messages():
                if channel == socket.ERROR:  # how it ended, which is the last that is said
                    cut = False
                else:
                    said.extend(data[:1000])

        def told() -> str:
            return said.decode(errors="replace").strip() or ("the connection to it was cut" if cut else "")

        hearing = asyncio.create_task(hear())
        try:
            async with asyncio.timeout(start_s):
                view = memoryview(load.archive)
                while view:
                    await socket.send(view[: 1 << 18])
                    view = view[1 << 18 :]
                await asyncio.wait([hearing])
        except (OSError, TimeoutError) as error:
            why = f"it took more than {start_s:g} s" if isinstance(error, TimeoutError) else told() or str(error)
            raise SandboxError(f"pod {self.name} did not take what the guest needs: {why}") from None
        finally:
            hearing.cancel()
            await socket.aclose()
        try:
            await self._until(lambda pod: running(pod, MAIN) or None, start_s)
        except SandboxError as error:
            raise SandboxError(f"{error}{f': {why}' if (why := told()) else ''}") from None

    async def output(self, seconds: float) -> str:
        """What its container has printed when it has ended. Raises SandboxError."""
        await self._until(lambda pod: over(pod) or None, seconds)
        said = await self.client.ask("reading a log", "read_namespaced_pod_log", name=self.name, container=MAIN)
        return str(said)

    async def why_ended(self) -> str | None:
        """Why it does not run any more, when its node has told so; None where it runs, for all that is known."""
        found: Json | None = None
        try:
            async with asyncio.timeout(WHY_S):
                async for found in self.client.follow(self.name, WHY_S):
                    if (why := why_ended(found)) is not None:
                        return why
        except TimeoutError:
            pass
        except SandboxError as error:
            return str(error)
        return None

    async def delete(self) -> None:
        """Have it deleted, and wait until it is gone. What cannot be deleted ends by itself, and is deleted by a later
        start."""
        try:
            async with asyncio.timeout(END_S):
                await delete(self.client, self.name)
                while True:
                    async for pod in self.client.follow(self.name, END_S):
                        if pod is None:
                            return
        except (SandboxError, TimeoutError) as error:
            logger.warning("pod %s was not deleted: %s", self.name, str(error) or f"not gone after {END_S:g} s")

    async def _until(self, told: Callable[[Json], T | None], seconds: float) -> T:
        """What a look at the pod says as soon as it says something. Raises SandboxError: it never will."""
        until, last = time.monotonic() + seconds, None
        while (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    async for pod in self.client.follow(self.name, left):
                        if pod is None:
                            raise SandboxError(f"pod {self.name} did not start: {why_ended(None)}")
                        if (trouble := why_not(pod)) is not None:
                            raise SandboxError(f"pod {self.name} did not start: {trouble}")
                        if (found := told(pod)) is not None:
                            return found
                        last = pod
            except TimeoutError:
                break
        waited = waits_for(last) if last is not None else "the API server"
        raise SandboxError(f"pod {self.name} did not start within {seconds:g} s; it waits for {waited}")


async def delete(client: Client, name: str) -> None:
    """Have a pod deleted; one that is gone is none. Raises SandboxError."""
    try:
        await client.ask("deleting a pod", "delete_namespaced_pod", name=name, grace_period_seconds=1)
    except Refused as refused:
        if refused.status != 404:
            raise
