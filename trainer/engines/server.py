"""One engine of a fleet: a server, and its process where that was started here."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ...agent.endpoint import Endpoint
from ...agent.remote_engine import PauseMode, RemoteEngine
from ...agent.vllm_engine import VllmEngine
from ...errors import ConfigError, PolicyError, RequestRefused
from ...model.chat.keys import API_KEY, WEIGHTS_KEY, key_in
from ...model.server.process import ServerProcess, WatchedProcess
from ..recipe.config import EnginesConfig
from .sizes import Sizes
from .vllm import VllmProcess, interpreter, vllm_options

KEY_ENV = "VERIGYM_ENGINES_KEY"
"""Environment variable of a key to send to the servers that run elsewhere, in the place of ``API_KEY``; the key of
their weights is in ``WEIGHTS_KEY``. Servers that are started here get keys of their own."""
HEALTH_SECONDS = 10.0


class EngineProcess(Protocol):
    """A server's process, wherever it runs: ``model.server.process.ServerProcess`` is one."""

    async def url(self, timeout_s: float) -> str:
        """Its root, once it answers. Raises PolicyError where it ended, or did not answer in time."""
        ...

    async def aclose(self) -> None:
        """End it. May be called twice."""
        ...


class Launch(Protocol):
    """Starts a server."""

    def __call__(
        self, place: int, weights: Path, *, log: Path, options: Sequence[str], environment: Mapping[str, str]
    ) -> EngineProcess:
        """
        Args:
            place: its number.
            weights: checkpoint to begin with.
            log: file of what it prints.
            options, environment: of its command, but for the device, which is the launcher's to choose.
        """
        ...


class OnThisMachine:
    """Starts servers here, each on the GPUs that the recipe gives it."""

    def __init__(self, config: EnginesConfig) -> None:
        self._gpus, self._each = config.gpus, config.tensor_parallel
        self._vllm = interpreter(config) if config.kind == "vllm" and not config.urls else None

    def __call__(
        self, place: int, weights: Path, *, log: Path, options: Sequence[str], environment: Mapping[str, str]
    ) -> WatchedProcess:
        """See ``Launch``."""
        gpus = self._gpus[place * self._each : (place + 1) * self._each]
        seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
        environment = {**environment, **seen}
        if self._vllm is not None:
            return VllmProcess(self._vllm, weights, log=log, options=options, environment=environment, cuda=bool(gpus))
        return ServerProcess(weights, log=log, options=[*options, *device_options(bool(gpus))], environment=environment)


def device_options(cuda: bool) -> list[str]:
    """Of a server's command. On CPUs it has one thread: the trainer and the sandboxes need the other cores."""
    return ["--device", "cuda"] if cuda else ["--device", "cpu", "--threads", "1"]


class FleetServer:
    """A server as the fleet knows it.

    Attributes:
        place: its number.
        url: its root; "" before it is started.
        key: that it asks of every client; None: it asks for none.
        process: that was started for it; None where it runs already.
        engine: what it is asked through; None while it is lost.
        num_inside: requests that it has in work.
        reads: the weights that it is being brought to, which must stay until it has them.
        reviving: what brings it back.
    """

    def __init__(self, place: int, config: EnginesConfig, sizes: Sizes, logs: Path, launch: Launch) -> None:
        self.place, self._config, self._sizes, self._launch = place, config, sizes, launch
        self._log = logs / f"engine-{place}.log"
        self.url = config.urls[place].rstrip("/") if config.urls else ""
        self.key = secrets.token_urlsafe(32) if self.is_ours else key_in((KEY_ENV, API_KEY))
        self._weights_key = secrets.token_urlsafe(32) if self.is_ours else key_in((WEIGHTS_KEY, KEY_ENV))
        self.process: EngineProcess | None = None
        self.engine: RemoteEngine | None = None
        self.num_inside = 0
        self.reads: Path | None = None
        self.reviving: asyncio.Task[None] | None = None

    @property
    def _is_vllm(self) -> bool:
        return self._config.kind == "vllm"

    @property
    def _class(self) -> type[RemoteEngine]:
        return VllmEngine if self._is_vllm else RemoteEngine

    def _own(self) -> dict[str, Any]:
        return {"padding": self._sizes.padding, "extended": self.is_ours} if self._is_vllm else {}

    @property
    def is_ours(self) -> bool:
        """Whether it is started, and ended, here."""
        return not self._config.urls

    async def start(self, weights: Path) -> None:
        """Start a process with these weights as version 0, in the place of the one before. Raises PolicyError."""
        await self.stop()
        self.process = self._launch(
            self.place, weights, log=self._log, options=self._options(), environment=self._environment()
        )
        self.url = await self.process.url(self._config.start_seconds)

    async def stop(self) -> None:
        """End the process, where there is one."""
        if self.process is not None:
            await self.process.aclose()

    async def connect(self) -> RemoteEngine:
        """What asks it. Raises PolicyError where it does not answer, ConfigError where its answers cannot be used."""
        seconds = self._sizes.request_seconds
        try:
            engine = await self._class.connect(
                self.url,
                None,
                own=self._own(),
                api_key_env=(),
                api_key=self.key,
                concurrency=self._sizes.concurrency,
                timeout_s=seconds,
                give_up_s=seconds,
                attempts=2,
            )
        except RequestRefused as error:
            if not self._is_vllm:
                raise
            raise ConfigError(
                f"{self.url} does not tell the version of its tokens ({error}); start it with --enable-scale-out"
            ) from error
        wanted = self._sizes.max_context
        if engine.max_context < wanted:
            await engine.aclose()
            raise ConfigError(
                f"{self.url} takes {engine.max_context} tokens and the recipe's model.max_context is {wanted}; start "
                f"it with {'--max-model-len' if self._is_vllm else '--max-context'} {wanted}"
            )
        return engine

    async def push(self, version: int, weights: Path, *, mode: PauseMode = "abort", clear_cache: bool = False) -> None:
        """Have it read weights; on any loop. Raises RequestRefused where it will not, PolicyError where it is gone."""
        seconds = self._config.start_seconds
        endpoint = self._endpoint(timeout_s=seconds, give_up_s=seconds, attempts=2)
        told = {"path": str(weights), "version": version}
        try:
            engine = self._class(endpoint, "", 0, 0, self._weights_key, **self._own())
            await engine.update_weights(version, told, mode=mode, clear_cache=clear_cache)
        finally:
            await endpoint.aclose()

    async def bring(self, version: int, weights: Path) -> None:
        """``push`` to a server that has nothing to do yet.

        Raises:
            ConfigError: it will not take them, with what it lacks.
            PolicyError: it is gone.
        """
        try:
            await self.push(version, weights)
        except RequestRefused as error:
            start = "VLLM_SERVER_DEV_MODE=1" if self._is_vllm else "--allow-weight-updates"
            key = "" if self._is_vllm else f", and give its key here in {WEIGHTS_KEY}"
            raise ConfigError(
                f"{self.url} does not take new weights ({error}); start it with {start}, on a machine that sees "
                f"{weights.parent}{key}"
            ) from error

    async def answers(self) -> bool:
        """Whether it is there."""
        endpoint = self._endpoint(attempts=1, timeout_s=HEALTH_SECONDS)
        try:
            with suppress(PolicyError):
                await endpoint.get(self._class.health)
                return True
            return False
        finally:
            await endpoint.aclose()

    def _endpoint(self, **options: Any) -> Endpoint:
        return Endpoint(self.url, api_key_env=(), api_key=self.key, **options)

    def _options(self) -> list[str]:
        config, sizes = self._config, self._sizes
        batch = -(-sizes.concurrency // config.count)
        if self._is_vllm:
            return vllm_options(config, sizes, batch)
        options = ["--name", "policy", "--allow-weight-updates", "--logprobs-mode", "processed_logprobs"]
        options += ["--max-batch", str(batch), "--max-waiting", str(sizes.concurrency)]
        options += ["--max-context", str(sizes.max_context), "--seed", str(sizes.seed), "--drain-timeout", "0"]
        options += ["--attention", sizes.attention, "--tensor-parallel", str(config.tensor_parallel)]
        return options

    def _environment(self) -> dict[str, str]:
        if self._is_vllm:
            return {"VLLM_API_KEY": self.key or ""}
        return {API_KEY: self.key or "", WEIGHTS_KEY: self._weights_key or ""}
