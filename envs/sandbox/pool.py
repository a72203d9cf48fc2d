"""Containers that are used again: reset between two users, thrown away where the reset is not complete.

Only what asks for a state (``reuse``) gets one that was used before: episodes do, grading never does. From the second
request for a state on its containers are kept, so that a task that comes once costs nothing more. A new container
that was closed without being used waits as it is, and is still new for the next one.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ...errors import SandboxError
from .container_reset import Copy
from .container_session import ContainerSandbox
from .per_loop import PerLoop
from .room import Room
from .session import GuestProcess, GuestSandbox
from .settings import SandboxSettings
from .types import Sandbox, SandboxSpec

T = TypeVar("T")
Prepare = Callable[[Sandbox], Awaitable[None]]

NEW = ""
"""The state of a container that nothing has run in."""

MAX_STATES = 64
"""Most states of which a copy is kept on disk."""

IDLE_S = 600.0
"""So long a container waits to be used again."""


@dataclass(slots=True)
class _State:
    """What containers of one spec and one preparation begin with."""

    num_asked: int = 0
    num_containers: int = 0  # in use, being made or waiting
    copying: bool = False
    copied: PerLoop[asyncio.Lock] = field(default_factory=lambda: PerLoop(asyncio.Lock))
    copy: Copy | None = None
    too_large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    box: ContainerSandbox
    state: str
    since: float


@dataclass(slots=True)
class _Loop:
    """What one event loop has: containers that wait, the longest first, and the task that removes them in the end."""

    waiting: list[_Waiting] = field(default_factory=list)
    keeper: asyncio.Task[None] | None = None
    ended: bool = False


class ContainerBackend(Protocol):
    """What makes containers, each with a way to reset it."""

    name: str
    settings: SandboxSettings
    room: Room

    async def create(self, spec: SandboxSpec) -> ContainerSandbox: ...

    async def aclose(self) -> None: ...


class ContainerPool:
    """A backend that keeps containers of states that are asked for again."""

    def __init__(self, backend: ContainerBackend) -> None:
        self.backend, self.name = backend, backend.name
        backend.room.make_room = self._close_oldest
        self._loops = PerLoop(_Loop)
        self._states: OrderedDict[str, _State] = OrderedDict()

    async def create(self, spec: SandboxSpec) -> "PooledSandbox":
        """A container that nothing has run in. Raises SandboxError."""
        key = _key(spec, NEW)
        box = await self._find(key) or await self.backend.create(spec)

        async def end(used: bool) -> None:
            if used or box.stream.lost is not None or not self.backend.settings.max_idle:
                await box.aclose()
            else:
                await self._wait(box, key)

        return PooledSandbox(box, end)

    async def reuse(self, spec: SandboxSpec, state: str, prepare: Prepare) -> Sandbox:
        """A container in the state that ``prepare`` brings a new one to: a new one, or one that was used and is back
        in it.

        Args:
            state: a name for what ``prepare`` does to a container of this spec.
        Raises:
            SandboxError: there is none. What ``prepare`` raises.
        """
        key = _key(spec, state)
        found = await self._find(key)
        if found is not None:
            return self._lent(found, key)
        kind = self._state(key)
        box, kept = None, False
        try:
            box = await self.backend.create(spec)
            await prepare(box)
            kept = await self._keep(box, kind)
        except BaseException:
            if box is not None:
                await box.aclose()
            raise
        finally:
            kind.num_containers -= not kept
        return self._lent(box, key) if kept else box

    async def aclose(self) -> None:
        """Remove what waits on this loop, and let go of the engines' connections."""
        await self.empty()
        await self.backend.aclose()

    async def empty(self) -> None:
        """Remove what waits on this loop, and the copies that nothing needs then."""
        here = self._loops.get()
        if here.keeper is not None:
            here.keeper.cancel()
            await asyncio.wait([here.keeper])
        here.keeper, here.ended = None, False
        self._forget_states(most=0)

    def _state(self, key: str) -> _State:
        kind = self._states.setdefault(key, _State())
        self._states.move_to_end(key)
        kind.num_asked += 1
        kind.num_containers += 1
        self._forget_states(most=MAX_STATES)
        return kind

    def _forget_states(self, *, most: int) -> None:
        unused = [key for key, kind in list(self._states.items()) if not kind.num_containers]
        for key in unused[: max(0, len(self._states) - most)]:
            kind = self._states.pop(key)
            if kind.copy is not None:
                kind.copy.close()

    async def _keep(self, box: ContainerSandbox, kind: _State) -> bool:
        """Whether a prepared container can be reset later."""
        if kind.num_asked < 2 or not self.backend.settings.max_idle:
            return False
        async with kind.copied.get():  # of episodes that begin together each waits for the one copy
            if kind.copy is None and not kind.too_large and not kind.copying:
                kind.copying = True
                try:
                    kind.copy = await box.resetter.copy()
                    kind.too_large = kind.copy is None
                finally:
                    kind.copying = False
        if kind.copy is None:  # too large, or another loop is at it
            return False
        await box.resetter.look()
        return True

    def _lent(self, box: ContainerSandbox, key: str) -> "PooledSandbox":
        async def end(used: bool) -> None:
            copy = self._states[key].copy
            clean = False
            try:
                clean = box.stream.lost is None and copy is not None and await box.resetter.reset(copy)
            finally:
                if not clean:
                    await self._close(box, key)
            if clean:
                await self._wait(box, key)

        return PooledSandbox(box, end)

    async def _wait(self, box: ContainerSandbox, key: str) -> None:
        """Let a container wait for the next who asks for its state."""
        here = self._loops.get()
        here.waiting.append(_Waiting(box=box, state=key, since=time.monotonic()))
        while len(here.waiting) > (0 if here.ended else self.backend.settings.max_idle):
            await self._close_oldest()
        await self.backend.room.look_again()

    async def _find(self, key: str) -> ContainerSandbox | None:
        """One that waits, of this state; the last one that came."""
        here = self._loops.get()
        waiting = here.waiting
        if here.keeper is None:
            here.keeper = asyncio.create_task(self._watch_idle(here), name="verigym-containers")
        while one := next((one for one in reversed(waiting) if one.state == key), None):
            waiting.remove(one)
            if one.box.stream.lost is None:
                return one.box
            await self._close(one.box, key)
        return None

    async def _close(self, box: ContainerSandbox, key: str) -> None:
        if key in self._states:  # not new
            self._states[key].num_containers -= 1
        await box.aclose()

    async def _close_oldest(self) -> bool:
        """Remove the one that has waited longest on this loop; whether there was one."""
        waiting = self._loops.get().waiting
        if not waiting:
            return False
        one = waiting.pop(0)
        await self._close(one.box, one.state)
        return True

    async def _watch_idle(self, here: _Loop) -> None:
        """Remove what waits for long; everything, when the loop ends and cancels its tasks."""
        try:
            while True:
                await asyncio.sleep(IDLE_S / 4)
                while here.waiting and here.waiting[0].since + IDLE_S <= time.monotonic():
                    await self._close_oldest()
        finally:
            here.ended = True  # what comes back from now on is removed at once
            while await self._close_oldest():
                pass


class PooledSandbox(GuestSandbox):
    """A container for one user; closing gives it back."""

    def __init__(self, box: ContainerSandbox, end: Callable[[bool], Awaitable[None]]) -> None:
        """
        Args:
            end: takes the container back; is told whether it was used.
        """
        super().__init__(box.stream, box._spec)
        self._shell = box._shell  # one command at a time, whoever asks
        self.box, self._give_back, self._used = box, end, False
        self._closing: asyncio.Future[None] | None = None

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._give_back(self._used))
        await asyncio.shield(self._closing)

    async def _ask(self, request: dict[str, Any], stdin: bytes, *, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        return await self._use(lambda: self.box._ask(request, stdin, timeout_s=timeout_s))

    async def _open(self, request: dict[str, Any]) -> GuestProcess:
        return await self._use(lambda: self.box._open(request))

    async def _use(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that ends, or begins, after the sandbox was closed has no result: it is someone else's by then."""
        self._used = True
        if self._closing is None:
            result = await call()
            if self._closing is None:
                return result
        raise SandboxError("the sandbox was closed")


def _key(spec: SandboxSpec, state: str) -> str:
    return repr((state, spec.image, spec.workdir, spec.binds, sorted(spec.env.items()), spec.limits, spec.root))
