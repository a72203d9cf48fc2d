"""A stand-in for the API server of a cluster with one node: pods, watches, logs, policies, exec and attach by
websockets, over real HTTP, for those who have the rights. It refuses what it does not know, as a real one does."""

import asyncio
import json
import secrets
import socket
import struct
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from aiohttp import WSMsgType, web

from .kubernetes_node import LABEL, Node, now
from .kubernetes_rules import check_pod, check_policy

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""The best first, as a server chooses."""

HISTORY = 200
"""Events that are kept for watches that begin later."""


class ApiServer:
    """Runs in a thread of its own; ``stop`` and ``start`` are a server that goes away and comes back, while its node
    goes on.

    Attributes:
        role: rules as a Role has them: what whoever has the token may do.
        quota: most pods of a namespace that have not ended.
        protocols: of websockets that it speaks.
        broken: {request: status} of requests that fail, by "verb resource".
        requests: what was asked, by "verb resource".
    """

    def __init__(self, engine, folder, *, namespaces=("boxes",)):
        self.namespaces, self.token, self.role = namespaces, secrets.token_hex(8), None
        self.pods, self.policies = {}, {}
        self.quota, self.protocols, self.broken, self.requests = None, PROTOCOLS, {}, []
        self._version, self._events, self._watches = 100, [], []
        self._tasks, self._deleting, self._sockets = {}, [], set()
        self.loop = asyncio.new_event_loop()
        # As many threads as there may be containers: each is waited for on one.
        self.loop.set_default_executor(ThreadPoolExecutor(max_workers=256))
        threading.Thread(target=self.loop.run_forever, name="kubernetes", daemon=True).start()
        self.node = Node(engine)
        self.port, self._runner = None, None
        self.start()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(self._kubeconfig()))

    # What a test does to it.

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(120)

    def start(self):
        self.do(self._start())

    def stop(self):
        self.do(self._stop())

    def close(self):
        self.stop()
        for pod in list(self.pods.values()):
            self.do(self._delete(pod, 0))
        self.loop.call_soon_threadsafe(self.loop.stop)

    def containers(self):
        return self.node.api.containers(all=True, filters={"label": f"{LABEL}={self.node.name}"})

    def cut(self):
        """Every websocket, without a word."""

        async def cut():
            for one in list(self._sockets):
                one.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

        self.do(cut())

    def evict(self, pod):
        """As a kubelet does that has no disk left."""

        async def evict():
            message = "Pod ephemeral local storage usage exceeds the total limit of containers 1280Mi."
            pod["status"] |= {"reason": "Evicted", "message": message, "ends_as": "Failed"}
            await self.node.kill(pod)

        self.do(evict())

    async def _start(self):
        app = web.Application(client_max_size=1 << 22, middlewares=[self._guard])
        pods = "/api/v1/namespaces/{namespace}/pods"
        policies = "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
        app.add_routes(
            [
                web.post(pods, self._create_pod),
                web.get(pods, self._list_pods),
                web.get(pods + "/{name}", self._read_pod),
                web.delete(pods + "/{name}", self._delete_pod),
                web.get(pods + "/{name}/log", self._log),
                web.get(pods + "/{name}/attach", self._attach),
                web.get(pods + "/{name}/exec", self._exec),
                web.post(policies, self._create_policy),
                web.get(policies + "/{name}", self._read_policy),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port or 0, reuse_address=True)
        await site.start()
        self.port = self.node.port = self._runner.addresses[0][1]

    async def _stop(self):
        for one in list(self._sockets):
            one.abort()
        await self._runner.cleanup()

    def _kubeconfig(self):
        cluster = {"server": f"http://127.0.0.1:{self.port}"}
        context = {"cluster": "here", "user": "me", "namespace": self.namespaces[0]}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": self.token}}],
            "contexts": [{"name": "here", "context": context}],
            "current-context": "here",
        }

    # Who may do what.

    @web.middleware
    async def _guard(self, request, handler):
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        namespace, rest = request.match_info.get("namespace"), request.path.split("/")
        kind = "networkpolicies" if "networkpolicies" in rest else "pods"
        sub = rest[-1] if rest[-1] in ("log", "attach", "exec") else ""
        resource = f"{kind}/{sub}" if sub else kind
        verb = {"POST": "create", "DELETE": "delete"}.get(request.method, "get")
        if verb == "get" and "name" not in request.match_info:
            verb = "watch" if request.query.get("watch") in ("true", "True", "1") else "list"
        # Since 1.35 a websocket wants both: it is a GET that does what a POST does.
        for one in (verb, "create") if sub in ("attach", "exec") else (verb,):
            self.requests.append(f"{one} {resource}")
            if (code := self.broken.get(f"{one} {resource}")) is not None:
                return _status(code, "InternalError", "it was told to fail")
            if not self._may(one, kind, resource):
                who = f'User "me" cannot {one} resource "{resource}" in API group "" in the namespace "{namespace}"'
                return _status(403, "Forbidden", f"{resource} is forbidden: {who}")
        if namespace not in self.namespaces and request.method == "POST":
            return _status(404, "NotFound", f'namespaces "{namespace}" not found')
        return await handler(request)

    def _may(self, verb, kind, resource):
        group = "networking.k8s.io" if kind == "networkpolicies" else ""
        return self.role is None or any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"] for rule in self.role
        )

    # Pods.

    async def _create_pod(self, request):
        namespace, body = request.match_info["namespace"], await request.json()
        try:
            check_pod(body)
        except (ValueError, KeyError) as error:
            return _status(422, "Invalid", f"Pod is invalid: {error}")
        name = body["metadata"]["name"]
        if (namespace, name) in self.pods:
            return _status(409, "AlreadyExists", f'pods "{name}" already exists')
        used = sum(pod["status"]["phase"] in ("Pending", "Running") for pod in self.pods.values())
        if self.quota is not None and used >= self.quota:
            told = f"exceeded quota: pods, requested: pods=1, used: pods={used}, limited: pods={self.quota}"
            return _status(403, "Forbidden", f'pods "{name}" is forbidden: {told}')
        pod = self.pods[namespace, name] = json.loads(json.dumps(body))
        pod["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
        pod["status"] = {"phase": "Pending"}
        self._changed("ADDED", pod)
        task = asyncio.create_task(self.node.run(pod, lambda: self._changed("MODIFIED", pod)))
        self._tasks[pod["metadata"]["uid"]] = task
        return web.json_response(pod, status=201)

    async def _list_pods(self, request):
        fields = dict(one.split("=", 1) for one in request.query.get("fieldSelector", "").split(",") if one)
        labels = dict(one.split("=", 1) for one in request.query.get("labelSelector", "").split(",") if one)

        def fits(pod):
            meta = pod["metadata"]
            named = all(meta[name.removeprefix("metadata.")] == value for name, value in fields.items())
            labelled = all((meta.get("labels") or {}).get(name) == value for name, value in labels.items())
            return named and labelled and meta["namespace"] == request.match_info["namespace"]

        if request.query.get("watch") in ("true", "True", "1"):
            return await self._watch(request, fits)
        items = [pod for pod in self.pods.values() if fits(pod)]
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})

    async def _watch(self, request, fits):
        since = int(request.query.get("resourceVersion", self._version))
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        if self._events and since < self._events[0][0] - 1:
            gone = json.loads(_status(410, "Expired", f"too old resource version: {since}").text)
            await answer.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return answer
        queue = asyncio.Queue()
        for event in self._events:
            if event[0] > since:
                queue.put_nowait(event)
        self._watches.append(queue)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", 1800))):
                while True:
                    _, kind, text = await queue.get()
                    pod = json.loads(text)
                    if fits(pod):
                        await answer.write(json.dumps({"type": kind, "object": pod}).encode() + b"\n")
        except TimeoutError:
            return answer
        finally:
            self._watches.remove(queue)

    def _changed(self, kind, pod):
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        event = (self._version, kind, json.dumps(pod))
        self._events = [*self._events, event][-HISTORY:]
        for queue in self._watches:
            queue.put_nowait(event)

    def _pod(self, request):
        return self.pods.get((request.match_info["namespace"], request.match_info["name"]))

    async def _read_pod(self, request):
        pod = self._pod(request)
        return _no_pod(request) if pod is None else web.json_response(pod)

    async def _delete_pod(self, request):
        pod = self._pod(request)
        if pod is None:
            return _no_pod(request)
        options = await request.json() if request.can_read_body else {}
        grace = request.query.get("gracePeriodSeconds", (options or {}).get("gracePeriodSeconds", 30))
        self._deleting.append(asyncio.create_task(self._delete(pod, float(grace))))
        return web.json_response(pod)

    async def _delete(self, pod, grace):
        if pod["metadata"].get("deletionTimestamp"):
            return
        pod["metadata"]["deletionTimestamp"] = now()
        self._changed("MODIFIED", pod)
        task = self._tasks.pop(pod["metadata"]["uid"])
        await asyncio.wait([task], timeout=grace)
        await self.node.kill(pod)
        await asyncio.wait([task], timeout=5)
        task.cancel()
        await asyncio.wait([task])
        await self.node.remove(pod)
        del self.pods[pod["metadata"]["namespace"], pod["metadata"]["name"]]
        self._changed("DELETED", pod)

    async def _log(self, request):
        pod = self._pod(request)
        container = pod and self.node.container(pod, request.query.get("container", "sandbox"))
        if container is None:
            return _no_pod(request)
        return web.Response(text=(await self.node.call(self.node.api.logs, container)).decode(errors="replace"))

    # Policies.

    async def _create_policy(self, request):
        body = await request.json()
        try:
            check_policy(body)
        except (ValueError, KeyError) as error:
            return _status(422, "Invalid", f"NetworkPolicy is invalid: {error}")
        key = request.match_info["namespace"], body["metadata"]["name"]
        if key in self.policies:
            return _status(409, "AlreadyExists", f'networkpolicies.networking.k8s.io "{key[1]}" already exists')
        self.policies[key] = body
        return web.json_response(body, status=201)

    async def _read_policy(self, request):
        found = self.policies.get((request.match_info["namespace"], request.match_info["name"]))
        return _status(404, "NotFound", "networkpolicies not found") if found is None else web.json_response(found)

    # Streams.

    async def _attach(self, request):
        pod, name = self._pod(request), request.query.get("container", "sandbox")
        container = pod and self.node.container(pod, name)
        if container is None:
            return _no_pod(request)
        statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"]["containerStatuses"]]
        if not any(one["name"] == name and "running" in one["state"] for one in statuses):
            return _status(400, "BadRequest", f"container {name} is not running")
        wanted = {word: 1 for word in ("stdin", "stdout", "stderr") if request.query.get(word, "").lower() == "true"}
        answer = await self.node.call(self.node.api.attach_socket, container, params={**wanted, "stream": 1})

        async def status():
            return {"metadata": {}, "status": "Success"}

        return await self._stream(request, answer, status)

    async def _exec(self, request):
        pod = self._pod(request)
        container = pod and self.node.container(pod, request.query.get("container", "sandbox"))
        if container is None:
            return _no_pod(request)
        api, stdin = self.node.api, request.query.get("stdin") == "true"
        made = await self.node.call(api.exec_create, container, request.query.getall("command"), stdin=stdin)
        answer = await self.node.call(api.exec_start, made["Id"], socket=True)

        async def status():
            code = (await self.node.call(api.exec_inspect, made["Id"]))["ExitCode"]
            if code == 0:
                return {"metadata": {}, "status": "Success"}
            told = f"command terminated with non-zero exit code: exit status {code}"
            causes = [{"reason": "ExitCode", "message": str(code)}]
            refused = {"status": "Failure", "reason": "NonZeroExitCode", "message": told}
            return {"metadata": {}, **refused, "details": {"causes": causes}}

        return await self._stream(request, answer, status)

    async def _stream(self, request, answer, status):
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        spoken = [one for one in self.protocols if one in offered]
        if not spoken:
            return _status(400, "BadRequest", f"unable to upgrade: none of {offered} is spoken here")
        carrier = web.WebSocketResponse(protocols=spoken[:1], max_msg_size=32 << 20)
        await carrier.prepare(request)
        self._sockets.add(request.transport)
        plain = getattr(answer, "_sock", answer).dup()
        getattr(answer, "_response", answer).close()  # with its connection: while that is open, input has no end
        plain.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=plain)
        out = asyncio.create_task(self._out(reader, carrier, status))
        try:
            async for message in carrier:
                if message.type != WSMsgType.BINARY:
                    continue
                if message.data[0] == 0:
                    writer.write(message.data[1:])
                    await writer.drain()
                elif message.data[0] == 255 and carrier.ws_protocol == PROTOCOLS[0]:
                    writer.write_eof()
        except OSError:
            pass
        finally:
            self._sockets.discard(request.transport)
            out.cancel()
            writer.close()
        return carrier

    async def _out(self, reader, carrier, status):
        """Docker's frames as messages of channels, and at the end how it ended on the channel of errors."""
        for channel in (1, 2, 3):
            await carrier.send_bytes(bytes((channel,)))  # some servers say so that a channel is open
        try:
            while True:
                kind, size = struct.unpack(">BxxxI", await reader.readexactly(8))
                while size:
                    piece = await reader.read(min(size, 1 << 15))
                    if not piece:
                        return
                    await carrier.send_bytes(bytes((kind,)) + piece)
                    size -= len(piece)
        except asyncio.IncompleteReadError:
            await carrier.send_bytes(b"\x03" + json.dumps(await status()).encode())
            await carrier.close()


def _status(code, reason, message):
    told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return web.json_response({**told, "message": message, "reason": reason, "code": code}, status=code)


def _no_pod(request):
    return _status(404, "NotFound", f'pods "{request.match_info["name"]}" not found')
