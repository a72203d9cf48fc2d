"""Containers that are hardened, fail with one clear error, and are gone when their owner is."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest

from verigym.envs.sandbox import labels
from verigym.envs.sandbox.docker import DockerBackend, sweep
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.errors import SandboxError

pytestmark = pytest.mark.docker

OWNER = """
import asyncio
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.types import SandboxSpec

async def main():
    backend = DockerBackend()
    boxes = await asyncio.gather(*(backend.create(SandboxSpec()) for _ in range(3)))
    print("ready", flush=True)
    await boxes[0].aexec("(setsid sleep 10000 &); sleep 10000")

asyncio.run(main())
"""


def ours(engine, run):
    return engine.api.containers(all=True, filters={"label": f"{labels.RUN}={run}"})


def test_a_container_is_hardened(engine):
    async def main():
        box = await DockerBackend(engines=[engine]).create(SandboxSpec())
        try:
            return engine.api.inspect_container(box.stream.container)
        finally:
            await box.aclose()

    found = asyncio.run(main())
    host = found["HostConfig"]
    assert (host["NetworkMode"], host["CapDrop"], host["CapAdd"], host["Privileged"]) == ("none", ["ALL"], None, False)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]  # and so the engine's default seccomp filter
    assert host["Memory"] == host["MemorySwap"] == (2048 + 64) << 20
    assert host["PidsLimit"] == 256 + 64
    assert host["NanoCpus"] > 0
    assert host["AutoRemove"]
    assert found["Config"]["User"] == "1000:1000"
    assert labels.OWNER in found["Config"]["Labels"]


BEYOND_MEMORY = {
    "memory files": "import os, time\nfd = os.memfd_create('x')\nfor n in range(600): os.write(fd, b'x' * (1 << 20))",
    "memory files of many": "import os\nfor n in range(8):\n    if os.fork() == 0: break\nfd = os.memfd_create('x')\n"
    "for n in range(600): os.write(fd, b'x' * (1 << 20))",
    "socket buffers": """import socket
kept = []
while True:
    for one in socket.socketpair():
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        kept.append(one)
        try:
            while True: one.send(b'x' * 65536)
        except BlockingIOError: pass""",
}


@pytest.mark.parametrize("kind", BEYOND_MEMORY)
def test_memory_that_no_process_maps_ends_who_took_it_and_not_the_container(engine, kind):
    """The kernel ends the fattest; what holds memory in files and buffers is thin, and goes before the guest."""

    async def main():
        box = await DockerBackend(engines=[engine]).create(SandboxSpec(limits=Limits(memory_mib=256)))
        try:
            await box.write_file("/tmp/taken.py", BEYOND_MEMORY[kind].encode())
            result = await box.arun(["python3", "/tmp/taken.py"], timeout_s=60)
            scores = await box.aexec("cat /proc/self/oom_score_adj")
            return result.exit_code, scores.output, (await box.aexec("echo ok")).output
        finally:
            await box.aclose()

    code, score, after = asyncio.run(main())
    assert code != 0
    assert (score, after) == ("500\n", "ok\n")


def test_a_container_killed_from_outside_is_an_infrastructure_failure(engine):
    async def main():
        backend = DockerBackend(engines=[engine])
        box = await backend.create(SandboxSpec())
        running = asyncio.create_task(box.aexec("sleep 1000"))
        await asyncio.sleep(0.2)
        engine.api.kill(box.stream.container)
        with pytest.raises(SandboxError, match="ended unexpectedly"):
            await asyncio.wait_for(running, 60)
        await box.aclose()
        assert engine.num_containers == 0
        box = await backend.create(SandboxSpec())
        assert (await box.aexec("echo ok")).output == "ok\n"
        await box.aclose()

    asyncio.run(main())


def test_an_image_that_is_missing_is_said(engine):
    backend = DockerBackend(engines=[engine], settings=SandboxSettings(pull_attempts=1))
    engine.settings = backend.settings
    with pytest.raises(SandboxError, match=r"verigym/no-such-image:1 is not on .* and cannot be pulled"):
        asyncio.run(backend.create(SandboxSpec(image="verigym/no-such-image:1")))
    assert engine.num_containers == 0


def test_nothing_is_left_of_a_killed_owner(engine, monkeypatch):
    monkeypatch.setenv("VERIGYM_RUN", "test-killed-owner")
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == b"ready\n"
        assert len(ours(engine, "test-killed-owner")) == 3
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    end = time.monotonic() + 60
    while ours(engine, "test-killed-owner"):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_sweep_removes_what_the_dead_left_and_nothing_else(engine, bare_image):
    dead = {labels.OWNER: json.dumps({**labels.owner(), "start": "1"}), labels.RUN: "test-sweep"}
    for owner in (dead, {**labels.labels(), labels.RUN: "test-sweep"}):
        engine.api.create_container(bare_image, command=["sleep", "1000"], labels=owner)
    try:
        assert sweep(engine) >= 1
        (left,) = ours(engine, "test-sweep")
        assert left["Labels"][labels.OWNER] == labels.labels()[labels.OWNER]
    finally:
        for found in ours(engine, "test-sweep"):
            engine.api.remove_container(found["Id"], force=True)
