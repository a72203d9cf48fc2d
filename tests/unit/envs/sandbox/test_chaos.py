"""Engines and containers that fail, tasks that attack their box, and many episodes: a typed error or a clean result,
nothing left, and the next episode fine."""

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from verigym.envs.sandbox import labels
from verigym.envs.sandbox.docker import DockerBackend, sweep
from verigym.envs.sandbox.engine import Engine
from verigym.envs.sandbox.pool import ContainerPool
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.errors import SandboxError

from . import chaos
from .chaos import DEADLINE_S, connected, held, until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session", params=["docker", pytest.param("podman", marks=pytest.mark.slow)])
def engine(request):
    """Docker's, and podman's with a store of its own."""
    if request.param == "docker":
        yield from connected(None)
        return
    with podman() as (host, start, _):
        start()
        yield from connected(host)


@contextmanager
def podman():
    """(the address, a way to start it, a way to end it) of podman's service, with a store of its own."""
    if os.geteuid() != 0 or not shutil.which("podman"):
        pytest.skip("needs root and podman")
    folder = Path(tempfile.mkdtemp(prefix="vg-", dir="/tmp"))  # a socket's path has to be short
    runtime = [f"--runtime={found}"] if (found := shutil.which("runc")) else []
    own = [f"--root={folder}/root", f"--runroot={folder}/run", *runtime]
    socket, services = folder / "podman.sock", []

    def start():
        socket.unlink(missing_ok=True)
        command = ["podman", *own, "system", "service", "--time=0", f"unix://{socket}"]
        with (folder / "log").open("ab") as log:
            services.append(subprocess.Popen(command, stdout=log, stderr=log))
        until(lambda: socket.is_socket() or services[-1].poll() is not None)

    def stop(number=signal.SIGTERM):
        services[-1].send_signal(number)
        services[-1].wait(DEADLINE_S)

    try:
        yield f"unix://{socket}", start, stop
    finally:
        if services and services[-1].poll() is None:
            stop(signal.SIGKILL)
        for place in mounts_below(folder):
            subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def ours(engine, run=None):
    wanted = f"{labels.RUN}={run or labels.run_id()}"
    return engine.api.containers(all=True, filters={"label": wanted})


async def prepare(sandbox):
    assert (await sandbox.aexec("echo begun > begun")).exit_code == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_a_container_killed_in_the_middle_of_a_command(engine, bare_image, pooled):
    spec = SandboxSpec(image=bare_image)

    async def main():
        pool = ContainerPool(DockerBackend(engines=[engine]))
        make = (lambda: pool.reuse(spec, "s", prepare)) if pooled else (lambda: pool.create(spec))
        if pooled:
            await (await make()).aclose()
        async with asyncio.timeout(DEADLINE_S):
            box = await make()
            running = asyncio.create_task(box.aexec("sleep 1000"))
            await asyncio.sleep(0.3)
            engine.api.kill(box.box.stream.container)
            with pytest.raises(SandboxError, match="ended unexpectedly"):
                await running
            with pytest.raises(SandboxError):
                await box.write_file("a", b"")
            await box.aclose()
            box = await make()
            assert (await box.aexec("echo ok")).output == "ok\n"
            await box.aclose()
        await pool.empty()

    asyncio.run(main())
    until(lambda: not ours(engine))


ATTACKS = chaos.ATTACKS | {
    "full disk": (
        "i=0; while [ $i -lt 40 ]; do head -c 4000000 /dev/zero > /tmp/f$i; i=$((i+1)); done; sleep 60",
        "disk",
        Limits(disk_mib=32),
    ),
    "1 GB of output": ("head -c 1000000000 /dev/zero", None, Limits()),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_and_the_session_goes_on(engine, base_image, attack):
    command, killed, limits = ATTACKS[attack]

    async def main():
        pool = ContainerPool(DockerBackend(engines=[engine]))
        spec = SandboxSpec(image=base_image, limits=limits)
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(3):  # fresh, to be kept, kept
                box = await pool.reuse(spec, "s", prepare)
                assert (await box.aexec("cat begun; ls /tmp")).output == "begun\n"
                result = await box.aexec(command)
                assert result.killed == killed, result
                assert len(result.output) < 40_000
                assert (await box.aexec("echo ok")).output == "ok\n"
                await box.aclose()
        await pool.empty()
        assert engine.num_containers == 0

    engine.num_containers = 0
    asyncio.run(main())
    until(lambda: not ours(engine))


OWNER = """
import asyncio, sys
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.types import SandboxSpec

async def main():
    backend = DockerBackend()
    boxes = [await backend.create(SandboxSpec(image=sys.argv[1])) for _ in range(int(sys.argv[2]))]
    running = [asyncio.create_task(box.aexec("(setsid sleep 10000 &); sleep 10000")) for box in boxes]
    print("ready", flush=True)
    await asyncio.gather(*running)

asyncio.run(main())
"""


@pytest.mark.slow
def test_nothing_is_left_of_a_killed_process_with_twenty_containers(engine, bare_image, monkeypatch):
    monkeypatch.setenv("VERIGYM_RUN", "test-chaos-killed")
    if engine.is_podman:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
    owner = subprocess.Popen([sys.executable, "-c", OWNER, bare_image, "20"], stdout=subprocess.PIPE)
    with owner.stdout:
        assert owner.stdout.readline() == b"ready\n"
        assert len(ours(engine, "test-chaos-killed")) == 20
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    sweep(engine)
    until(lambda: not ours(engine, "test-chaos-killed"))


def mounts_below(folder):
    with open("/proc/mounts") as file:
        return sorted((line.split()[1] for line in file if line.split()[1].startswith(f"{folder}/")), reverse=True)


@contextmanager
def second_engine(image, source):
    """(its address, a way to start it, a way to end it) of an engine of this test's own, with one image."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("an engine of its own needs root and dockerd")
    folder = Path(tempfile.mkdtemp(prefix="vg-", dir="/tmp"))  # a socket's path has to be short
    host = f"unix://{folder}/docker.sock"
    own = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid", f"--host={host}"]
    daemons = []

    def start():
        # Its containerd died with it, and counts as alive until someone reaps it, which in a container may be never.
        (folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        with (folder / "log").open("ab") as log:
            # A network of its own: without a bridge of its own it would take away the other engine's.
            command = ["unshare", "--net", "dockerd", *own, "--bridge=none", "--iptables=false"]
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                return docker.DockerClient(base_url=host)
            except docker.errors.DockerException:
                if daemons[-1].poll() is not None:
                    pytest.skip(f"a second engine does not start here: {(folder / 'log').read_text()[-300:]}")
                assert time.monotonic() < end
                time.sleep(0.2)

    def stop(number=signal.SIGTERM):
        daemons[-1].send_signal(number)
        daemons[-1].wait(DEADLINE_S)

    try:
        client = start()
        client.images.load(b"".join(source.get_image(image)))
        yield host, client, start, stop
    finally:
        if daemons[-1].poll() is None:
            stop()
        for place in mounts_below(folder):
            subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_an_engine_restarted_in_the_middle_of_an_episode(engine, bare_image):
    """Ended in order, and killed: what it leaves then is swept at the next start."""
    if engine.is_podman:
        pytest.skip("podman's containers are no children of its service")
    with second_engine(bare_image, engine.api) as (host, client, start, stop):

        async def episode(mine, how):
            pool = ContainerPool(DockerBackend(engines=[mine]))
            box = await pool.create(SandboxSpec(image=bare_image))
            running = asyncio.create_task(box.aexec("sleep 1000"))
            await asyncio.sleep(0.3)
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.to_thread(stop, how)
                if how == signal.SIGTERM:
                    with pytest.raises(SandboxError, match="ended unexpectedly"):
                        await running
                else:  # the container goes on without its engine, and the connection is gone
                    with pytest.raises(SandboxError):
                        await running
                with pytest.raises(SandboxError, match=r"failed at|ended unexpectedly"):
                    await pool.create(SandboxSpec(image=bare_image))
                await box.aclose()
                await asyncio.to_thread(start)
                assert mine.num_containers == 0
                box = await pool.create(SandboxSpec(image=bare_image))
                assert (await box.aexec("echo ok")).output == "ok\n"
                await box.aclose()
                await pool.empty()

        for how in (signal.SIGTERM, signal.SIGKILL):
            mine = Engine(host, SandboxSettings())
            asyncio.run(episode(mine, how))
            until(lambda: not client.api.containers(all=True))
            mine.client.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_podmans_service_restarted_in_the_middle_of_an_episode(how):
    """Its containers are no children of it; their guests end with the connection, and they are removed later."""

    async def episode(mine, start, stop):
        pool = ContainerPool(DockerBackend(engines=[mine]))
        box = await pool.create(SandboxSpec())
        running = asyncio.create_task(box.aexec("sleep 1000"))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.to_thread(stop, how)
            with pytest.raises(SandboxError, match="ended unexpectedly"):
                await running
            with pytest.raises(SandboxError, match="failed at"):
                await pool.create(SandboxSpec())
            await box.aclose()
            await asyncio.to_thread(start)
            box = await pool.create(SandboxSpec())
            assert (await box.aexec("echo ok")).output == "ok\n"
            await box.aclose()
            await pool.empty()

    with podman() as (host, start, stop):
        start()
        mine = Engine(host, SandboxSettings())
        asyncio.run(episode(mine, start, stop))
        until(lambda: not mine.api.containers(all=True))
        assert mine.num_containers == 0
        mine.client.close()


def volumes(engine):
    return {one["Name"] for one in engine.api.volumes()["Volumes"] or ()}


def memory_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


@pytest.mark.slow
def test_two_hundred_episodes_leave_nothing(engine, repo_image):
    """16 at a time, of four states, some of which end in a crash, a timeout or with a caller that gives up."""
    engine.num_containers = 0
    spec = SandboxSpec(image=repo_image, workdir="/testbed")

    async def episode(pool, number):
        box = await (pool.create(spec) if number % 5 == 0 else pool.reuse(spec, str(number % 4), prepare))
        try:
            assert (await box.aexec("git status --porcelain")).output == ("" if number % 5 == 0 else "?? begun\n")
            await box.aexec(f"echo {number} >> calc.py; echo x > new; export N={number}; (sleep 1000 &)")
            if number % 10 == 3:
                engine.api.kill(getattr(box, "box", box).stream.container)
            if number % 10 == 6:
                assert (await box.aexec("sleep 1000", timeout_s=0.2)).killed == "timeout"
            if number % 10 == 8:
                job = asyncio.create_task(box.aexec("sleep 1000"))
                await asyncio.sleep(0.05)
                job.cancel()
            if number % 10 != 3:
                assert (await box.aexec("tail -1 calc.py; echo $N")).output == f"{number}\n{number}\n"
        finally:
            await box.aclose()

    async def some(numbers):
        pool = ContainerPool(DockerBackend(engines=[engine]))
        slots = asyncio.Semaphore(16)

        async def one(number):
            async with slots:
                await episode(pool, number)

        await asyncio.gather(*map(one, numbers))
        await pool.empty()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(some(range(40)))  # threads, connections and modules that stay are there now
    gc.collect()
    before, before_volumes, memory = held(), volumes(engine), memory_mib()
    asyncio.run(some(range(200)))
    gc.collect()
    after = held()
    assert engine.num_containers == 0
    until(lambda: not ours(engine))
    assert volumes(engine) <= before_volumes
    assert after["threads"] <= before["threads"] + 16, "a pool has as many as were wanted at once"
    assert after["descriptors"] <= before["descriptors"] + 16, "connections to the engine are kept, one a thread"
    assert memory_mib() - memory < 50
