"""Several engines with the same weights, as one to whoever asks: in the fleet that owns them, and far from it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from ...agent.asking import asking
from ...agent.remote_engine import RemoteEngine
from ...agent.routing import PrefixRouter
from ...errors import PolicyError, RequestRefused
from ...model.chat.sampling import Completion, Sampling

_LOST = 1 << 30
"""The load of a server that cannot be asked."""


class Asked(Protocol):
    """A server as a pool asks it.

    Attributes:
        place: its number.
        engine: what it is asked through; None while it is lost. Another object is another incarnation.
        num_inside: requests that it has in work.
    """

    place: int
    engine: RemoteEngine | None
    num_inside: int

    async def answers(self) -> bool:
        """Whether it is there."""
        ...


S = TypeVar("S", bound=Asked)


class EnginePool(Generic[S]):
    """Asks the server that has computed most of a prompt, and another one where it is lost."""

    def __init__(
        self,
        servers: Sequence[S],
        *,
        request_seconds: float,
        lose: Callable[[S, RemoteEngine, BaseException], None],
        remedy: str,
    ) -> None:
        """
        Args:
            request_seconds: after which nobody waits any more for a server to come back.
            lose: told of a server that is gone; it takes away the server's engine.
            remedy: what to look at where all are gone.
        """
        self.servers = servers
        self._request_seconds, self._lose, self._remedy = request_seconds, lose, remedy
        self._router = PrefixRouter()

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """As ``RemoteEngine.generate``; what a server that is lost had in work is asked of another one.

        An answer of an incarnation that was given up while it was waited for is not taken: another server is asked.
        """
        with asking(f"one of {len(self.servers)} engines"):
            return await self._generate(prompt_ids, sampling, stop_token_ids)

    async def _generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        while True:
            server, engine = await self._able(prompt_ids)
            server.num_inside += 1
            try:
                found = await engine.generate(prompt_ids, sampling, stop_token_ids)
            except PolicyError as error:
                if server.engine is not engine:
                    continue  # it is known to be lost
                if isinstance(error, RequestRefused) or await server.answers():
                    raise
                self._lose(server, engine, error)
                continue
            finally:
                server.num_inside -= 1
            if server.engine is not engine:
                continue
            self._router.remember(prompt_ids, server.place, found.token_ids)
            return found

    def forget(self, place: int) -> None:
        """A server has lost what it had computed."""
        self._router.forget(place)

    async def _able(self, prompt_ids: Sequence[int]) -> tuple[S, RemoteEngine]:
        """The server to ask; waits while all are lost."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._request_seconds
        while True:
            loads = [_LOST if server.engine is None else server.num_inside for server in self.servers]
            chosen = self.servers[self._router.choose(prompt_ids, loads)]
            if chosen.engine is not None:
                return chosen, chosen.engine
            if loop.time() > deadline:
                raise PolicyError(
                    f"none of {len(self.servers)} engines has answered for {self._request_seconds:g} s; {self._remedy}"
                )
            await asyncio.sleep(0.1)
