"""What a sandbox reaches by its policy, and what it does not."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.network.attach import connected
from verigym.envs.sandbox.network.policy import NetworkPolicy
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError

PUBLIC = "93.184.216.34"
ASK = """python3 - <<'END'
import urllib.error, urllib.request
for address in {addresses}:
    try:
        print(urllib.request.urlopen(address, timeout=60).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode().strip())
    except OSError as error:
        print(type(error).__name__, error)
END"""


@pytest.fixture(
    scope="module",
    params=["local", "oci", *(pytest.param(one, marks=pytest.mark.docker) for one in ("docker", "podman"))],
)
def backend(request):
    try:
        return make_backend(request.param)
    except SandboxError as error:
        pytest.skip(f"no sandbox {request.param}: {error}")


@asynccontextmanager
async def a_server(answer=b"from the host"):
    """A web server on this machine; yields its port."""

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /moved"):
            said = b"HTTP/1.0 302 Found\r\nLocation: http://evil.org/\r\n\r\n"
        elif head.startswith(b"GET /large"):
            said = b"HTTP/1.0 200 OK\r\n\r\n" + b"0123456789" * 400_000
        else:
            said = b"HTTP/1.0 200 OK\r\n\r\n" + answer
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def a_box(backend, policy, **more):
    sandbox = await backend.create(SandboxSpec())
    try:
        async with connected(sandbox, NetworkPolicy.parse(policy), **more) as network:
            yield sandbox, network
    finally:
        await sandbox.aclose()


async def ask(sandbox, *addresses):
    return (await sandbox.aexec(ASK.format(addresses=list(addresses)), timeout_s=60)).output.splitlines()


def test_hosts_of_the_list_are_reached_by_name_and_others_are_not(backend, tmp_path, monkeypatch):
    log = tmp_path / "network.jsonl"
    monkeypatch.setenv("VERIGYM_SANDBOX_NETWORK_LOG", str(log))

    async def main():
        async with a_server() as port:

            async def resolve(host, port):
                return [PUBLIC]

            async def dial(address, _):
                assert address == PUBLIC
                return await asyncio.open_connection("127.0.0.1", port)

            policy = {"hosts": ["good.org"]}
            async with a_box(backend, policy, task_id="one", resolve=resolve, dial=dial) as (sandbox, network):
                told = await ask(
                    sandbox,
                    "http://good.org/",
                    "http://evil.org/",
                    f"http://{PUBLIC}/",
                    "http://good.org/moved",
                    f"http://127.0.0.1:{port}/",
                )
                names = await sandbox.aexec("getent hosts good.org || echo no name")
                large = await sandbox.aexec(
                    "python3 -c \"import urllib.request as u; print(len(u.urlopen('http://good.org/large').read()))\""
                )
                return told, names.output, large.output, [(one.host, one.allowed) for one in network.requests]

    told, names, large, requests = asyncio.run(main())
    assert told[0] == "from the host"
    assert told[1] == "403 evil.org:80 is not on the task's allow-list"
    assert told[2].startswith("403 ")
    assert told[3] == "403 evil.org:80 is not on the task's allow-list"
    assert "URLError" in told[4]
    assert names == "no name\n"
    assert large == "4000000\n"
    wanted = [("good.org", True), ("evil.org", False), ("", False), ("good.org", True), ("evil.org", False)]
    assert requests == [*wanted, ("good.org", True)]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(one["task_id"], one["host"], one["allowed"]) for one in lines] == [("one", *one) for one in requests]


def test_a_port_of_this_machine_is_reached_by_its_number_and_no_other(backend):
    async def main():
        async with (
            a_server() as port,
            a_server(b"another") as other,
            a_box(backend, {"ports": {"web": port}}) as (sandbox, network),
        ):
            told = await ask(sandbox, f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{other}/", "http://good.org/")
            named = await sandbox.aexec("echo $VERIGYM_HOST_WEB; env | grep -ci _proxy")
            return port, told, named.output, dict(network.env)

    port, told, named, env = asyncio.run(main())
    assert told[0] == "from the host"
    assert all("URLError" in one for one in told[1:])
    assert named == f"127.0.0.1:{port}\n0\n"
    assert env == {"VERIGYM_HOST_WEB": f"127.0.0.1:{port}"}


def test_without_a_policy_nothing_is_started(backend):
    async def main():
        async with a_box(backend, None) as (sandbox, network):
            return dict(network.env), (
                await sandbox.aexec("env | grep -ci _proxy; echo; pgrep -c python || true")
            ).output

    env, said = asyncio.run(main())
    assert env == {}
    assert said.startswith("0\n")


def test_the_way_comes_back_after_everything_inside_was_killed(backend):
    async def main():
        async with a_server() as port, a_box(backend, {"ports": {"web": port}}) as (sandbox, _):
            before = await ask(sandbox, f"http://127.0.0.1:{port}/")
            killed = await sandbox.aexec("sleep 60", timeout_s=0.5)
            for _ in range(50):
                after = await ask(sandbox, f"http://127.0.0.1:{port}/")
                if after == before:
                    break
                await asyncio.sleep(0.2)
            return before, killed.killed, after

    before, killed, after = asyncio.run(main())
    assert before == after == ["from the host"]
    assert killed == "timeout"


def test_a_port_that_is_taken_inside_is_said(backend):
    async def main():
        sandbox = await backend.create(SandboxSpec())
        try:
            await sandbox.aexec("python3 -m http.server 8123 --bind 127.0.0.1 > /dev/null 2>&1 & sleep 1.5")
            async with connected(sandbox, NetworkPolicy.parse({"ports": {"web": 8123}})):
                pass
        finally:
            await sandbox.aclose()

    with pytest.raises(SandboxError, match="in use"):
        asyncio.run(main())
