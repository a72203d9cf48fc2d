"""The API server: requests by Python's client of Kubernetes, its refusals as SandboxError with the remedy."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from socket import IPPROTO_TCP, TCP_USER_TIMEOUT
from typing import Any, NoReturn, cast

from ....errors import SandboxError
from ..settings import SandboxSettings

try:
    import aiohttp
    from kubernetes.aio.client import ApiClient, Configuration, CoreV1Api, NetworkingV1Api
    from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
    from kubernetes.aio.stream import WsApiClient
except ImportError as error:
    raise SandboxError(
        f"the sandbox kubernetes needs Python's client of Kubernetes ({error}): pip install 'verigym[kubernetes]'"
    ) from None

REQUEST_S, AGAIN_S = 30.0, 60.0
"""So long one request may take, and so long it is tried again while the server cannot be reached or is busy."""

ATTACH_S = 240.0
"""So long attaching may take, which cannot be tried again: a container whose first connection is let go sees the end of
its input."""

CONFIG_S = 300.0
"""So old credentials may be: a cloud's own last 15 minutes."""

PING_S, SILENT_S = 30.0, 300.0
"""So often a websocket is used at least, which proxies cut where it is not, and so long what is sent may lie unread. An
answer to a ping says nothing: it waits behind all that a node under load has not taken in yet."""

PROTOCOLS = "v5.channel.k8s.io, v4.channel.k8s.io"
BUSY = (429, 500, 502, 503, 504)
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
RIGHTS = "give it the Role of docs/sandboxes.md (kubectl auth can-i --list shows what it has)"

Json = dict[str, Any]


class Refused(SandboxError):
    """What the server would not do."""

    def __init__(self, what: str, status: int, reason: str, message: str) -> None:
        remedy = {401: "; log in again, see that kubectl works", 403: f"; {RIGHTS}"}.get(status, "")
        if "exceeded quota" in message:
            remedy = "; ask for more (kubectl describe quota), or lower VERIGYM_SANDBOX_MAX_CONTAINERS"
        elif "violates PodSecurity" in message:
            remedy = "; let the namespace enforce no more than baseline, or take images whose user is not root"
        elif status == 404 and "namespaces" in message:
            remedy = "; make it (kubectl create namespace), or name another in VERIGYM_SANDBOX_KUBERNETES_NAMESPACE"
        super().__init__(f"{what} was refused by Kubernetes ({status} {reason}: {message}){remedy}")
        self.status, self.reason, self.message = status, reason, message


class Cluster:
    """Where the API server is, and as whom we come."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._read_at, self._configuration, self.namespace = 0.0, Configuration(), ""

    async def client(self) -> "Client":
        """Connections of one box, on the running loop. Raises SandboxError: no cluster is known here."""
        if not self.namespace or time.monotonic() > self._read_at + CONFIG_S:
            self._configuration, self.namespace = await self._read()
            self._read_at = time.monotonic()
        return Client(self._configuration, self.namespace)

    async def _read(self) -> tuple[Configuration, str]:
        named, configuration = self._settings.kubernetes_namespace, Configuration()
        file = self._settings.kubernetes_config or os.environ.get("KUBECONFIG")
        try:
            if not file and IN_POD.exists() and not self._settings.kubernetes_context:
                load_incluster_config(client_configuration=configuration)
                return configuration, named or IN_POD.read_text().strip()
            loader = await load_kube_config(
                config_file=str(file or "~/.kube/config"),
                context=self._settings.kubernetes_context,
                client_configuration=configuration,
                persist_config=False,
            )
            context = loader.current_context["context"]
        except (ConfigException, OSError, KeyError, ValueError) as error:
            raise SandboxError(
                f"no cluster is known here ({error}); see that kubectl works, or name a kubeconfig in "
                "VERIGYM_SANDBOX_KUBERNETES_CONFIG and its context in VERIGYM_SANDBOX_KUBERNETES_CONTEXT"
            ) from None
        return configuration, named or context.get("namespace") or "default"


class Client:
    """Requests in one namespace. To be closed on the loop that it was made on."""

    def __init__(self, configuration: Configuration, namespace: str) -> None:
        self.namespace, self._configuration = namespace, configuration
        self._api = ApiClient(configuration)

    async def aclose(self) -> None:
        await self._api.close()

    async def ask(self, what: str, request: str, *, policies: bool = False, **arguments: Any) -> Json | str:
        """A request by the name that the client has for it, tried again while the server is away.

        Args:
            what: is being done, for messages.
            policies: it is of the API of networks.
        Raises:
            Refused: by the server. SandboxError: it cannot be reached, or stays busy.
        """
        api = NetworkingV1Api(self._api) if policies else CoreV1Api(self._api)
        call = getattr(api, f"{request}_without_preload_content")
        until, wait = time.monotonic() + AGAIN_S, 0.5
        while True:
            try:
                answer = await call(namespace=self.namespace, _request_timeout=REQUEST_S, **arguments)
                body = await answer.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                trouble = str(error) or type(error).__name__
            else:
                if answer.status < 400:
                    return json.loads(body) if answer.content_type == "application/json" else body.decode()
                trouble = f"{answer.status} {body.decode(errors='replace')[:200]}"
                if answer.status not in BUSY:
                    _refuse(what, answer.status, body)
            if time.monotonic() > until:
                host = self._configuration.host
                raise SandboxError(f"{what}: the API server {host} does not answer ({trouble}); see that kubectl works")
            await asyncio.sleep(wait)
            wait = min(2 * wait, 8.0)

    async def follow(self, pod: str, seconds: float) -> AsyncIterator[Json | None]:
        """A pod as it is now and whenever it changes; None where it is gone. Ends after a while, or when the connection
        does. Raises SandboxError."""
        selected: Json = {"field_selector": f"metadata.name={pod}"}
        listed = await self.ask("looking for a pod", "list_namespaced_pod", **selected)
        assert isinstance(listed, dict)
        yield next(iter(listed["items"]), None)
        call = CoreV1Api(self._api).list_namespaced_pod_without_preload_content
        since = listed["metadata"]["resourceVersion"]
        try:
            answer = await call(
                namespace=self.namespace,
                watch=True,
                resource_version=since,
                timeout_seconds=max(1, int(seconds)),
                _request_timeout=seconds + REQUEST_S,
                **selected,
            )
            async with answer:
                while answer.status == 200 and (line := await answer.content.readline()):
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # too old a version, mostly: whoever follows begins anew
                        return
                    yield None if event["type"] == "DELETED" else event["object"]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            await asyncio.sleep(0.5)

    async def attach(self, pod: str, container: str) -> "Socket":
        """The standard streams of a container that runs. Raises SandboxError."""
        client = WsApiClient(self._configuration)
        try:
            opening = await CoreV1Api(client).connect_get_namespaced_pod_attach_without_preload_content(
                name=pod,
                namespace=self.namespace,
                container=container,
                stdin=True,
                stdout=True,
                stderr=True,
                tty=False,
                _headers={"sec-websocket-protocol": PROTOCOLS},
            )
            async with asyncio.timeout(ATTACH_S):
                return Socket(client, await cast("Awaitable[Any]", opening))
        except BaseException as error:
            await client.close()
            if isinstance(error, aiohttp.WSServerHandshakeError):
                remedy = {
                    401: "log in again",
                    403: f"verbs get and create of pods/attach: {RIGHTS}",
                }.get(error.status, "a proxy before the API server must let websockets through")
                raise SandboxError(f"attaching to pod {pod} was refused ({error.status}); {remedy}") from None
            if isinstance(error, (aiohttp.ClientError, OSError, TimeoutError)):
                raise SandboxError(f"attaching to pod {pod} failed: {str(error) or 'no answer'}") from None
            raise


class Socket:
    """A websocket that carries the standard streams of a container: each message begins with the number of its
    channel."""

    STDIN, STDOUT, STDERR, ERROR = range(4)

    def __init__(self, client: WsApiClient, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._client, self._socket = client, socket
        plain = socket.get_extra_info("socket")
        if plain is not None:  # else it has ended already
            plain.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, int(SILENT_S * 1000))
        self._pinging = asyncio.create_task(self._ping())

    async def _ping(self) -> None:
        try:
            while True:
                await asyncio.sleep(PING_S)
                await self._socket.ping()
        except OSError:
            pass  # the reader meets the end as well

    async def send(self, data: bytes | memoryview) -> None:
        """To the standard input. Raises OSError where the connection is gone."""
        await self._socket.send_bytes(bytes((self.STDIN,)) + data)

    async def messages(self) -> AsyncIterator[tuple[int, bytes]]:
        """(channel, data) until the connection ends."""
        try:
            async for message in self._socket:
                data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
                if len(data) > 1 and message.type != aiohttp.WSMsgType.ERROR:  # an empty one opens a channel
                    yield data[0], data[1:]
        except (aiohttp.ClientError, OSError):
            return

    async def aclose(self) -> None:
        self._pinging.cancel()
        try:
            async with asyncio.timeout(2.0):
                await self._socket.close()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        finally:
            await self._client.close()


def _refuse(what: str, status: int, body: bytes) -> NoReturn:
    """Raise what a Status object of the server says."""
    try:
        told = json.loads(body)
        reason, message = told.get("reason", ""), told.get("message", "")
    except (ValueError, AttributeError):
        reason, message = "", body.decode(errors="replace")[:300]
    raise Refused(what, status, reason, message)
