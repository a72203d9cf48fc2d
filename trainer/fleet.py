"""Engines in processes of their own, which have the trainer's weights, and are one engine to whoever asks."""

import asyncio
import hashlib
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..agent.endpoint import Endpoint
from ..agent.remote_engine import PauseMode, RemoteEngine
from ..agent.routing import PrefixRouter
from ..errors import ConfigError, PolicyError, RequestRefused, TrainingError
from ..model.chat.sampling import Completion, Sampling
from ..model.server.process import ServerProcess
from .config import EnginesConfig

logger = logging.getLogger(__name__)

OnWeightUpdate = Literal["recompute", "keep", "abort"]
KEY_ENV = "VERIGYM_ENGINES_KEY"
"""Environment variable of a key to send to the servers, where something before them asks for one."""
SECONDS_BETWEEN_TRIES = 2.0
_LOST = 1 << 30
"""The load of a server that cannot be asked."""
_PAUSES: dict[OnWeightUpdate | None, tuple[PauseMode, bool]] = {
    None: ("wait", False),
    "keep": ("keep", False),
    "recompute": ("keep", True),
    "abort": ("abort", False),
}
"""What becomes of turns in flight -> how a server is paused, and whether its keys and values are computed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the engines must hold.

    Attributes:
        concurrency: requests at once, over all of them.
        max_context: tokens of a prompt and its completion.
        request_seconds: after which an answer is given up.
        seed: of draws whose request has none.
        attention: what attention runs on.
        freezes: whether they can change weights with turns in flight; else these end first.
    """

    concurrency: int
    max_context: int
    request_seconds: float
    seed: int = 0
    attention: str = "auto"
    freezes: bool = True


@dataclass(slots=True, kw_only=True)
class _Server:
    """One of the engines.

    Attributes:
        process: that was started for it; None where it runs elsewhere.
        engine: None while it is lost.
        reads: the weights it begins with, which must stay until it has them.
    """

    place: int
    url: str = ""
    process: ServerProcess | None = None
    engine: RemoteEngine | None = None
    reads: Path | None = None
    num_inside: int = 0
    reviving: asyncio.Task[None] | None = field(default=None, repr=False)


class Fleet:
    """``Engine`` and ``WeightsInFlight`` over several servers with the same weights. It has no decoder of its own.

    New weights pass through a folder that the servers see. A server that is gone gives its requests to the others; one
    that was started here is started again. It lives on one event loop, until ``aclose``.
    """

    def __init__(self, config: EnginesConfig, folder: Path, sizes: Sizes, *, save: Callable[[Path], None]) -> None:
        """
        Args:
            folder: of logs, and of weights where ``config`` names no other.
            save: writes the trainer's weights of the moment as a checkpoint.
        """
        self._config, self._sizes, self._save = config, sizes, save
        self._logs = folder
        # Runs may share a folder, and one that was killed finds what it has left there.
        own = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self._weights_root = (folder / "weights" if config.weights is None else config.weights / own).absolute()
        self._weights: Path | None = None
        self._num_saved = self._num_open = self._version = 0
        self._servers = [_Server(place=place, url=url.rstrip("/")) for place, url in enumerate(config.urls)] or [
            _Server(place=place) for place in range(config.count)
        ]
        self._lost: list[RemoteEngine] = []
        self._router = PrefixRouter()
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
            PolicyError: none answers.
        """
        self._num_open += 1
        try:
            if self._num_open == 1 and self._loop is None:
                await self._begin()
            elif self._num_open == 1:
                await asyncio.to_thread(self.update_weights, 0)
            yield self
        finally:
            self._num_open -= 1

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Completion:
        """As ``RemoteEngine.generate``; what a server that is lost had in work is asked of another one."""
        while True:
            server, engine = await self._able(prompt_ids)
            server.num_inside += 1
            try:
                found = await engine.generate(prompt_ids, sampling, stop_token_ids)
            except PolicyError as error:
                if isinstance(error, RequestRefused) or await _answers(server.url):
                    raise
                self._lose(server, engine, error)
                continue
            finally:
                server.num_inside -= 1
            self._router.remember([*prompt_ids, *found.token_ids], server.place)
            return found

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
        mode = _PAUSES[on_weight_update if self._sizes.freezes else None]
        with self._publishing:
            self._weights = self._written()
            able = [(server, server.engine) for server in self._servers if server.engine is not None]
            pushes = [self._push(server.url, version, self._weights, *mode) for server, _ in able]
            failures = _apart(_all_of(pushes))
            self._version = version
            self._remove_what_nobody_reads()
        for (server, engine), failure in zip(able, failures, strict=True):
            if isinstance(failure, RequestRefused):
                raise TrainingError(f"an engine does not take the new weights: {failure}") from failure
            if failure is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._lose, server, engine, failure)

    async def aclose(self) -> None:
        """End the servers that were started here, and remove the weights that were written for all."""
        tasks = [server.reviving for server in self._servers if server.reviving is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        engines = [*self._lost, *(server.engine for server in self._servers if server.engine is not None)]
        for server in self._servers:
            server.engine = None
        await asyncio.gather(*(engine.aclose() for engine in engines))
        await asyncio.gather(*(one.process.aclose() for one in self._servers if one.process is not None))
        self._weights = None
        shutil.rmtree(self._weights_root, ignore_errors=True)

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        shutil.rmtree(self._weights_root, ignore_errors=True)
        self._weights = await asyncio.to_thread(self._written)
        try:
            await asyncio.gather(*(self._join(server) for server in self._servers))
        except BaseException:
            await self.aclose()
            raise

    async def _join(self, server: _Server) -> None:
        """Start the server, or meet one that runs, bring it to what the others have, and let it take requests."""
        pushed, engine = None, None
        if not self._config.urls:
            weights = server.reads = self._current()[1]
            pushed = (0, weights)
            server.process = self._started(server.place, weights)
            server.url = await server.process.url(self._config.start_seconds)
        try:
            while True:
                if not self._publishing.acquire(blocking=False):
                    await asyncio.sleep(0.05)
                    continue
                try:
                    current = self._current()
                    if engine is not None and pushed == current:
                        server.engine = engine
                        return
                    server.reads = current[1]
                finally:
                    self._publishing.release()
                if pushed != current:
                    await self._bring(server.url, *current)
                    pushed = current
                elif engine is None:
                    engine = await self._connect(server.url)
        except BaseException:
            if engine is not None:
                await engine.aclose()
            raise
        finally:
            server.reads = None

    def _current(self) -> tuple[int, Path]:
        assert self._weights is not None, "weights are written before any server is met"
        return self._version, self._weights

    async def _bring(self, url: str, version: int, weights: Path) -> None:
        try:
            await self._push(url, version, weights, "abort", False)
        except RequestRefused as error:
            raise ConfigError(
                f"{url} does not take new weights ({error}); start it with --allow-weight-updates, on a machine that "
                f"sees {self._weights_root}"
            ) from error

    async def _connect(self, url: str) -> RemoteEngine:
        seconds = self._sizes.request_seconds
        engine = await RemoteEngine.connect(
            url,
            None,
            api_key_env=KEY_ENV,
            concurrency=self._sizes.concurrency,
            timeout_s=seconds,
            give_up_s=seconds,
            attempts=2,
        )
        if engine.max_context < self.max_context:
            await engine.aclose()
            raise ConfigError(
                f"{url} takes {engine.max_context} tokens and the recipe's model.max_context is {self.max_context}; "
                f"start it with --max-context {self.max_context}"
            )
        return engine

    async def _push(self, url: str, version: int, weights: Path, mode: PauseMode, clear_cache: bool) -> None:
        seconds = self._config.start_seconds
        endpoint = Endpoint(url, api_key_env=KEY_ENV, timeout_s=seconds, give_up_s=seconds, attempts=2)
        try:
            told = {"path": str(weights), "version": version}
            await RemoteEngine(endpoint, "", 0, 0).update_weights(version, told, mode=mode, clear_cache=clear_cache)
        finally:
            await endpoint.aclose()

    def _written(self) -> Path:
        self._num_saved += 1
        folder = self._weights_root / f"weights-{self._num_saved:06d}"
        self._save(folder)
        return folder

    def _remove_what_nobody_reads(self) -> None:
        read = {self._weights, *(server.reads for server in self._servers)}
        for folder in self._weights_root.glob("weights-*"):
            if folder not in read:
                shutil.rmtree(folder, ignore_errors=True)

    def _started(self, place: int, weights: Path) -> ServerProcess:
        config, sizes = self._config, self._sizes
        batch = -(-sizes.concurrency // config.count)
        options = ["--name", "policy", "--allow-weight-updates", "--logprobs-mode", "processed_logprobs"]
        options += ["--max-batch", str(batch), "--max-waiting", str(sizes.concurrency)]
        options += ["--max-context", str(sizes.max_context), "--seed", str(sizes.seed), "--drain-timeout", "0"]
        options += ["--attention", sizes.attention, "--tensor-parallel", str(config.tensor_parallel)]
        gpus = config.gpus[place * config.tensor_parallel :][: config.tensor_parallel]
        if gpus:
            options += ["--device", "cuda"]
        else:  # one thread: the trainer and sandboxes need the other cores
            options += ["--device", "cpu", "--threads", "1"]
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
        log = self._logs / f"engine-{place}.log"
        return ServerProcess(weights, log=log, options=options, environment=environment)

    async def _able(self, prompt_ids: Sequence[int]) -> tuple[_Server, RemoteEngine]:
        """The server to ask; waits while all are lost."""
        deadline = asyncio.get_running_loop().time() + self._sizes.request_seconds
        while True:
            loads = [_LOST if server.engine is None else server.num_inside for server in self._servers]
            chosen = self._servers[self._router.choose(prompt_ids, loads)]
            if chosen.engine is not None:
                return chosen, chosen.engine
            if asyncio.get_running_loop().time() > deadline:
                raise PolicyError(
                    f"none of {len(self._servers)} engines has answered for {self._sizes.request_seconds:g} s; "
                    f"{self._logs} has what those that were started here said"
                )
            await asyncio.sleep(0.1)

    def _lose(self, server: _Server, engine: RemoteEngine, error: BaseException) -> None:
        """No more requests for a server until it is back."""
        if server.engine is not engine:
            return  # it is known
        logger.warning("engine %d is lost, and will be asked again when it answers: %s", server.place, error)
        server.engine = None
        self._lost.append(engine)  # others may still wait for its answers
        self._router.forget(server.place)
        server.reviving = asyncio.ensure_future(self._revive(server))

    async def _revive(self, server: _Server) -> None:
        while server.engine is None:
            if server.process is not None:
                await server.process.aclose()
            try:
                await self._join(server)
            except (PolicyError, ConfigError) as error:
                logger.warning("engine %d is not back yet: %s", server.place, error)
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)
        logger.warning("engine %d is back", server.place)


async def _answers(url: str) -> bool:
    """Whether there is a server."""
    endpoint = Endpoint(url, api_key_env=KEY_ENV, attempts=1, timeout_s=10.0)
    with suppress(PolicyError):
        await endpoint.get("/health")
        await endpoint.aclose()
        return True
    await endpoint.aclose()
    return False


async def _all_of(pushes: Sequence[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
    return await asyncio.gather(*pushes, return_exceptions=True)


def _apart(work: Coroutine[Any, Any, list[BaseException | None]]) -> list[BaseException | None]:
    """Run a coroutine on a loop of its own, from a thread that may have one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
