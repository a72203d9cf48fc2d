"""A sandbox gets what a policy lets it reach, and what it asked for is kept."""

import json
import logging
import os
import shlex
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict

from ....errors import ConfigError
from ..settings import SandboxSettings
from ..types import CommandResult, Process, ProcessResult, Sandbox, SandboxBackend
from .forward import forwarded, to_port
from .policy import NetworkPolicy
from .proxy import Dial, NetworkRequest, Proxy, Resolve, connect, look_up

logger = logging.getLogger(__name__)

MOST_KEPT = 1000


class Network:
    """What a sandbox can reach now.

    Attributes:
        env: variables by which programs find it.
        requests: what the proxy was asked for, the last ``MOST_KEPT``.
        num_requests: how many there were.
    """

    def __init__(self, env: Mapping[str, str], requests: "deque[NetworkRequest]") -> None:
        self.env, self.requests, self.num_requests = env, requests, 0


def granted(
    policy: NetworkPolicy,
    backend: SandboxBackend,
    task_id: str,
    *,
    hosts: Iterable[str] = (),
    ports: Iterable[str] = (),
) -> NetworkPolicy:
    """What a task gets of what it asks for; the rest is told in the log.

    Raises:
        ConfigError: the backend does not keep a sandbox from the network in the first place.
    """
    given, denied = policy.of(hosts, ports)
    if denied:
        logger.warning("%s asks for %s, which is not allowed here; it goes without", task_id, ", ".join(denied))
    if given and backend.name == "unsafe":
        raise ConfigError("the sandbox unsafe is on this machine's network; an allow-list needs one that is not")
    return given


@asynccontextmanager
async def connected(
    sandbox: Sandbox, policy: NetworkPolicy, *, task_id: str = "", resolve: Resolve = look_up, dial: Dial = connect
) -> AsyncIterator[Network]:
    """A sandbox with what a policy allows, as long as the block; nothing is started where it allows nothing.

    Hosts are reached through the proxy that ``http_proxy`` and its like name, ports of this machine under their own
    number on the sandbox's 127.0.0.1 (``VERIGYM_HOST_NAME``). The shell has these variables; ``Network.env`` is for
    processes beside it.

    Raises:
        SandboxError: no process of ours can be started in the sandbox, or a port is taken there.
    """
    network = Network({}, deque(maxlen=MOST_KEPT))
    if not policy:
        yield network
        return
    log = SandboxSettings().network_log

    def note(request: NetworkRequest) -> None:
        network.requests.append(request)
        network.num_requests += 1
        line = json.dumps({"time": round(time.time(), 3), "task_id": task_id, **asdict(request)})
        logger.info("network: %s", line)
        if log is not None:
            with open(log, "a", encoding="utf-8", opener=_appending) as file:
                file.write(line + "\n")

    routes = [(port, to_port(port)) for port in policy.ports.values()]
    if policy.hosts:
        routes.append((0, Proxy(policy, note, resolve=resolve, dial=dial)))
    async with forwarded(sandbox, routes) as ports:
        env = {f"VERIGYM_HOST_{name.upper()}": f"127.0.0.1:{port}" for name, port in policy.ports.items()}
        if policy.hosts:
            env |= proxy_variables(f"http://127.0.0.1:{ports[-1]}")
        network.env = env
        await sandbox.aexec("\n".join(f"export {name}={shlex.quote(value)}" for name, value in env.items()))
        yield network


async def networked(sandbox: Sandbox, policy: NetworkPolicy, *, task_id: str) -> Sandbox:
    """A sandbox that is closed together with what it can reach (``connected``); itself where that is nothing.

    Raises:
        SandboxError: as ``connected``; the sandbox is closed then.
    """
    if not policy:
        return sandbox
    stack = AsyncExitStack()
    try:
        network = await stack.enter_async_context(connected(sandbox, policy, task_id=task_id))
    except BaseException:
        await sandbox.aclose()
        raise
    return _NetworkedSandbox(sandbox, network, stack)


class _NetworkedSandbox:
    """A sandbox of which processes beside the shell have the network's variables too."""

    def __init__(self, inner: Sandbox, network: Network, stack: AsyncExitStack) -> None:
        self._inner, self.network, self._stack = inner, network, stack

    async def aexec(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        return await self._inner.aexec(command, timeout_s=timeout_s)

    async def arun(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        output_bytes: int = 16 << 20,
    ) -> ProcessResult:
        env = {**self.network.env, **(env or {})}
        return await self._inner.arun(
            argv, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s, output_bytes=output_bytes
        )

    async def astart(
        self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        return await self._inner.astart(argv, cwd=cwd, env={**self.network.env, **(env or {})})

    async def read_file(self, path: str, *, most_bytes: int | None = None) -> bytes:
        return await self._inner.read_file(path, most_bytes=most_bytes)

    async def write_file(self, path: str, data: bytes, *, mode: int | None = 0o644, new: bool = False) -> None:
        await self._inner.write_file(path, data, mode=mode, new=new)

    async def put_archive(self, archive: bytes, dest: str) -> None:
        await self._inner.put_archive(archive, dest)

    async def aclose(self) -> None:
        await self._stack.aclose()  # before the sandbox, which may be lent to somebody else
        await self._inner.aclose()


def proxy_variables(address: str) -> dict[str, str]:
    """Variables by which curl, pip, git, apt and most libraries find a proxy, in both spellings."""
    lower = {"http_proxy": address, "https_proxy": address, "no_proxy": "127.0.0.1,localhost"}
    return {**lower, **{name.upper(): value for name, value in lower.items()}}


def _appending(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_APPEND, 0o600)
