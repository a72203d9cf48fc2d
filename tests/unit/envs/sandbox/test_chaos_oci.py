"""What test_chaos.py does to containers, done to boxes of images without an engine."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.errors import SandboxError

from . import chaos
from .chaos import DEADLINE_S, LEFTOVERS, until

ATTACKS = chaos.ATTACKS | {"full disk": ("cat /dev/zero > /tmp/full", None, Limits(disk_mib=32))}


@pytest.fixture(scope="module")
def place(programs_image, tmp_path_factory):
    """(folder of a store, image) in which the image is."""
    folder = tmp_path_factory.mktemp("chaos")
    ImageStore(folder).add(programs_image)
    return folder, programs_image


@pytest.fixture
def backend(place):
    backend = OciBackend(store=ImageStore(place[0]))
    yield backend
    backend.close()


def sleeping(seconds):
    """Processes `sleep SECONDS` of this machine, those in boxes among them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if path.read_bytes() == f"sleep\0{seconds}\0".encode() else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_and_the_session_goes_on(backend, place, attack):
    command, killed, limits = ATTACKS[attack]

    async def main():
        async with asyncio.timeout(DEADLINE_S):
            box = await backend.create(SandboxSpec(image=place[1], limits=limits))
            result = await box.aexec(command)
            assert result.killed == killed, result
            assert (await box.aexec("rm -f /tmp/full; echo ok")).output == "ok\n"
            await box.aclose()

    asyncio.run(main())


def test_a_box_killed_in_the_middle_of_a_command(backend, place):
    async def main():
        async with asyncio.timeout(DEADLINE_S):
            box = await backend.create(SandboxSpec(image=place[1]))
            running = asyncio.create_task(box.aexec("sleep 876541"))
            while not (there := sleeping(876541)):
                await asyncio.sleep(0.02)
            os.kill(first_process(there[0]), signal.SIGKILL)
            with pytest.raises(SandboxError, match="ended unexpectedly"):
                await running
            with pytest.raises(SandboxError):
                await box.write_file("a", b"")
            await box.aclose()
            box = await backend.create(SandboxSpec(image=place[1]))
            assert (await box.aexec("echo ok")).output == "ok\n"
            await box.aclose()

    asyncio.run(main())
    until(lambda: not sleeping(876541))


def first_process(pid):
    """The process outside that is number 1 where this one is."""
    while True:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        if next(line for line in lines if line.startswith("NSpid:")).split()[-1] == "1":
            return int(pid)
        pid = next(line for line in lines if line.startswith("PPid:")).split()[1]


OWNER = """
import asyncio, sys
from pathlib import Path
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.types import SandboxSpec

async def main():
    backend = OciBackend(store=ImageStore(Path(sys.argv[1])))
    boxes = [await backend.create(SandboxSpec(image=sys.argv[2])) for _ in range(20)]
    running = [asyncio.create_task(box.aexec("(setsid sleep 876542 &); sleep 876542")) for box in boxes]
    await asyncio.sleep(1)
    print("ready", flush=True)
    await asyncio.gather(*running)

asyncio.run(main())
"""


@pytest.mark.slow
def test_nothing_is_left_of_a_killed_process_with_twenty_boxes(place):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(place[0]), place[1]], stdout=subprocess.PIPE)
    with owner.stdout:
        assert owner.stdout.readline() == b"ready\n"
        until(lambda: len(sleeping(876542)) == 40)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    until(lambda: not sleeping(876542))


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["local", "oci"])
def test_two_hundred_episodes_leave_nothing(sandbox, programs_image):
    """16 at a time, some killed, out of time or given up; what is left is looked for by the benchmark's own command."""
    image = ["--image", f"docker-archive:{programs_image}"] if sandbox == "oci" else []
    command = [sys.executable, str(LEFTOVERS), "--sandbox", sandbox, *image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 episodes, 16 at once, 20 killed from outside" in done.stdout


def test_what_an_episode_leaves_is_seen():
    spec = importlib.util.spec_from_file_location("leftovers", LEFTOVERS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    traces = module.Traces(())
    with subprocess.Popen(["sleep", str(traces.first + 7)]) as left:
        try:
            until(lambda: str(left.pid) in module.sleeping(traces.first + 7))
            assert str(left.pid) in traces.left()["processes"]
        finally:
            left.kill()
    assert str(left.pid) not in traces.left()["processes"]
