"""The gateway's server: on the loopback device, in the event loop that runs the episodes, as long as one is open."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from ...envs.sandbox.per_loop import PerLoop
from ...model.chat.sampling import Sampling
from ..policy import Policy
from .app import build_app
from .session import Session

CLOSE_S = 5.0
KEPT_S = 3600
"""A connection is kept so long between two requests: an agent's tools take their time, and a client that asks just when
its connection is closed fails."""


class Gateway:
    """Any number of episodes behind one port. Made by ``serving`` or ``shared_gateway``."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self.app = build_app(self._sessions.get)
        self.port = 0

    @asynccontextmanager
    async def open(self, policy: Policy, sampling: Sampling, **options: Any) -> AsyncIterator[Session]:
        """An episode's session; at the end its turns in work are ended, and its key opens nothing any more.

        Args:
            policy, sampling, options: of ``Session``.
        """
        session = Session(policy, sampling, **options)
        async with self.admit(session):
            yield session

    @asynccontextmanager
    async def admit(self, session: Session) -> AsyncIterator[None]:
        """Let a session's requests in until the end of the block, which ends it."""
        self._sessions[session.id] = session
        try:
            yield
        finally:
            del self._sessions[session.id]
            await session.aclose()

    def root(self, session: Session) -> str:
        """An episode's address, as Anthropic's clients take it; OpenAI's take it with "/v1" behind."""
        return f"http://127.0.0.1:{self.port}/{session.id}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Gateway"]:
        """Answer on a free port of 127.0.0.1 until the end of the block."""
        # With the protocol named, asyncio sends at once what is written; else answers wait 40 ms for each other.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            config = uvicorn.Config(
                self.app, log_config=None, access_log=False, lifespan="off", ws="none", proxy_headers=False,
                date_header=False, server_header=False, timeout_graceful_shutdown=int(CLOSE_S),
                timeout_keep_alive=KEPT_S,
            )  # fmt: skip
            server = _Server(config)
            task = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                while not server.started and not task.done():
                    await asyncio.sleep(0.002)
                if task.done():
                    await task
                yield self
            finally:
                server.should_exit = True
                await asyncio.gather(task, return_exceptions=True)


class _Server(uvicorn.Server):
    """Signals are the program's, which ends its episodes and so this."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Shared:
    def __init__(self) -> None:
        self.lock, self.users = asyncio.Lock(), 0
        self.gateway: Gateway | None = None
        self.serving: Any = None


_SHARED = PerLoop(_Shared)


@asynccontextmanager
async def shared_gateway() -> AsyncIterator[Gateway]:
    """The gateway of this event loop: its first user starts it, its last one ends it."""
    shared = _SHARED.get()
    async with shared.lock:
        gateway = shared.gateway or Gateway()
        if shared.gateway is None:
            shared.serving = gateway.serving()
            await shared.serving.__aenter__()
            shared.gateway = gateway
        shared.users += 1
    try:
        yield gateway
    finally:
        await asyncio.shield(_leave(shared))


async def _leave(shared: _Shared) -> None:
    async with shared.lock:
        shared.users -= 1
        if not shared.users:
            shared.gateway, serving = None, shared.serving
            await serving.__aexit__(None, None, None)
