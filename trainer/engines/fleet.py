"""Engines in processes of their own, which have the trainer's weights, and are one engine to whoever asks."""

import asyncio
import hashlib
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from ...agent.remote_engine import PauseMode, RemoteEngine
from ...errors import ConfigError, PolicyError, RequestRefused, TrainingError
from ...model.chat.sampling import Completion, Sampling
from ...model.server.process import StartFailed
from ...model.weights.delta import DELTA
from ..recipe.config import EnginesConfig
from .pool import EnginePool
from .server import FleetServer, Launch, OnThisMachine
from .sizes import Sizes

logger = logging.getLogger(__name__)

OnWeightUpdate = Literal["recompute", "keep", "abort"]
SECONDS_BETWEEN_TRIES = 2.0
TRIES_AT_FIRST = 5
"""To start a server with which a fleet begins, where it is killed each time."""
_PAUSES: dict[OnWeightUpdate | None, tuple[PauseMode, bool]] = {
    None: ("wait", False),
    "keep": ("keep", False),
    "recompute": ("keep", True),
    "abort": ("abort", False),
}
"""What becomes of turns in flight -> how a server is paused, and whether its keys and values are computed again."""


class Fleet:
    """``Engine`` and ``WeightsInFlight`` over several servers with the same weights. It has no decoder of its own.

    New weights pass through a folder that the servers see. A server that is gone gives its requests to the others; one
    that was started here is started again. It lives on one event loop, until ``aclose``.
    """

    def __init__(
        self,
        config: EnginesConfig,
        folder: Path,
        sizes: Sizes,
        *,
        save: Callable[[Path, bool], None],
        launch: Launch | None = None,
        full_every: int = 1,
    ) -> None:
        """
        Args:
            folder: of logs, and of weights where ``config`` names no other.
            save: (folder, whole): writes the trainer's weights of the moment as a checkpoint, or, unless they must be
                whole, what has changed since the one before.
            launch: starts a server; None: on this machine.
            full_every: publishes after which weights are written whole again.
        """
        self._sizes, self._save, self._logs = sizes, save, folder
        self._full_every = full_every
        # Runs may share a folder, and one that was killed finds what it has left there.
        own = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self._weights_root = (folder / "weights" if config.weights is None else config.weights / own).absolute()
        self._weights: Path | None = None
        self._whole: Path | None = None
        self._since: list[Path] = []  # published since the last whole weights, these first
        self._num_saved = self._num_open = self._version = 0
        launch = launch or OnThisMachine(config)
        count = config.count or len(config.urls)
        self.servers = [FleetServer(place, config, sizes, folder, launch) for place in range(count)]
        self._lost: list[RemoteEngine] = []
        self._pool = EnginePool(
            self.servers,
            request_seconds=sizes.request_seconds,
            lose=self._lose,
            remedy=f"{folder} has what those that were started here said",
        )
        self.on_change: Callable[[], None] | None = None
        """Called on its loop whenever another set of servers can be asked."""
        self._publishing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def policy_version(self) -> int:
        return self._version

    @property
    def max_context(self) -> int:
        return self._sizes.max_context

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Fleet"]:
        """Inside, the servers have the trainer's weights as version 0. Inside of another ``open``, which is told of all
        changes, they are left as they are.

        Raises:
            ConfigError: a server cannot be used like this.
            PolicyError: one does not answer, or could not start.
        """
        self._num_open += 1
        try:
            if self._loop is None:
                await self._begin()
            elif self._num_open == 1:
                await asyncio.to_thread(self.update_weights, 0)
            yield self
        finally:
            self._num_open -= 1

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """See ``EnginePool.generate``."""
        return await self._pool.generate(prompt_ids, sampling, stop_token_ids)

    def update_weights(
        self,
        version: int,
        load: Callable[[Any], None] | None = None,
        *,
        on_weight_update: OnWeightUpdate | None = None,
    ) -> None:
        """Have all servers read the trainer's weights of the moment. It blocks, and may be called on any thread.

        Args:
            version: of the weights from now on.
            load: for engines with a decoder of their own; not called.
            on_weight_update: what becomes of turns in flight, see ``Generator.update_weights``; None: they end first.
        Raises:
            CheckpointError: the weights could not be written.
            TrainingError: a server refuses them.
        """
        mode, clear_cache = _PAUSES[on_weight_update if self._sizes.freezes else None]
        with self._publishing:
            self._weights = weights = self._written()
            able = [(server, server.engine) for server in self.servers if server.engine is not None]
            failures = _apart(server.push(version, weights, mode=mode, clear_cache=clear_cache) for server, _ in able)
            if any(isinstance(failure, RequestRefused) for failure in failures) and weights != self._whole:
                # Whatever is wrong with what it had: whole weights are right whatever they take the place of.
                self._weights = weights = self._written(whole=True)
                failures = _apart(
                    server.push(version, weights, mode=mode, clear_cache=clear_cache) for server, _ in able
                )
            self._version = version
            self._remove_what_nobody_reads()
        for (server, engine), failure in zip(able, failures, strict=True):
            if isinstance(failure, RequestRefused):
                raise TrainingError(f"an engine does not take the new weights: {failure}") from failure
            if failure is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._lose, server, engine, failure)

    async def aclose(self) -> None:
        """End the servers that were started here, and remove the weights that were written for all."""
        tasks = [server.reviving for server in self.servers if server.reviving is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        engines = [*self._lost, *(server.engine for server in self.servers if server.engine is not None)]
        for server in self.servers:
            server.engine = None
        await asyncio.gather(*(engine.aclose() for engine in engines))
        await asyncio.gather(*(server.stop() for server in self.servers))
        self._weights = None
        shutil.rmtree(self._weights_root, ignore_errors=True)

    # Weights.

    def _written(self, *, whole: bool = False) -> Path:
        self._num_saved += 1
        folder = self._weights_root / f"weights-{self._num_saved:06d}"
        self._save(folder, whole or len(self._since) >= self._full_every)
        if (folder / DELTA).exists():
            self._since.append(folder)
        else:
            self._whole, self._since = folder, [folder]
        return folder

    def _remove_what_nobody_reads(self) -> None:
        # A server that reads changes reads what they are changes of too.
        if any(server.reads is not None and server.reads not in self._since for server in self.servers):
            return
        for folder in self._weights_root.glob("weights-*"):
            if folder not in self._since:
                shutil.rmtree(folder, ignore_errors=True)

    def _current(self) -> tuple[int, Path]:
        assert self._weights is not None, "weights are written before any server is met"
        return self._version, self._weights

    # Servers that come and go.

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        shutil.rmtree(self._weights_root, ignore_errors=True)
        self._weights = await asyncio.to_thread(self._written)
        try:
            await asyncio.gather(*(self._join_at_first(server) for server in self.servers))
        except BaseException:
            await self.aclose()
            raise

    async def _join_at_first(self, server: FleetServer) -> None:
        """``_join`` at the fleet's start, which fails where the server cannot start, but not where it was killed."""
        for left in reversed(range(TRIES_AT_FIRST)):
            try:
                await self._join(server)
                return
            except StartFailed:
                raise
            except PolicyError as error:
                if not left or not server.is_ours:
                    raise
                logger.warning("engine %d is gone before it was asked; it is started again: %s", server.place, error)
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)

    async def _join(self, server: FleetServer) -> None:
        """Start the server, or meet one that runs, bring it to what the others have, and let it take requests."""
        has, engine = None, None
        try:
            if server.is_ours:
                server.reads = self._whole
                assert server.reads is not None, "weights are written before any server is started"
                has = (0, server.reads)
                await server.start(server.reads)
            while True:
                if not self._publishing.acquire(blocking=False):
                    await asyncio.sleep(0.05)
                    continue
                try:
                    current = self._current()
                    if engine is not None and has == current:
                        server.engine = engine
                        self._tell()
                        return
                    server.reads = current[1]
                finally:
                    self._publishing.release()
                if has != current:
                    await server.bring(*current)
                    has = current
                elif engine is None:
                    engine = await server.connect()
        except BaseException:
            if engine is not None:
                await engine.aclose()
            raise
        finally:
            server.reads = None

    def _lose(self, server: FleetServer, engine: RemoteEngine, error: BaseException) -> None:
        """No more requests for a server until it is back."""
        if server.engine is not engine:
            return  # it is known
        logger.warning("engine %d is lost, and will be asked again when it answers: %s", server.place, error)
        server.engine = None
        self._lost.append(engine)  # others may still wait for its answers
        self._pool.forget(server.place)
        self._tell()
        server.reviving = asyncio.ensure_future(self._revive(server))

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change()

    async def watch(self, seconds: float) -> None:
        """Look every so many seconds whether the servers answer, for as long as it is awaited: where others ask them,
        nobody here would see one go. One that twice does not answer is lost."""
        silent: dict[int, RemoteEngine] = {}
        while True:
            await asyncio.sleep(seconds)
            for server in self.servers:
                engine = server.engine
                if engine is None or await server.answers():
                    silent.pop(server.place, None)
                elif silent.get(server.place) is engine:
                    self._lose(server, engine, PolicyError(f"{server.url} does not answer"))
                else:
                    silent[server.place] = engine

    async def _revive(self, server: FleetServer) -> None:
        while server.engine is None:
            try:
                await self._join(server)
            except (PolicyError, ConfigError) as error:
                logger.warning("engine %d is not back yet: %s", server.place, error)
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)
        logger.warning("engine %d is back", server.place)


def _apart(work: Iterable[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    """Run coroutines together on a loop of their own, from a thread that may have one; what each of them raised."""

    async def all_of_it() -> list[BaseException | None]:
        return await asyncio.gather(*work, return_exceptions=True)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, all_of_it()).result()
