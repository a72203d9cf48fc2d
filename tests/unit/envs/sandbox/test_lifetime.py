"""Nothing outlives a sandbox: no process, descriptor, task or folder, whatever ends it."""

import asyncio
import gc
import glob
import os
import signal
import subprocess
import sys
import time

import pytest

from verigym.envs.sandbox.channel import Channel
from verigym.envs.sandbox.local import LocalBackend, UnsafeBackend
from verigym.envs.sandbox.nursery import Nursery
from verigym.envs.sandbox.types import Bind, SandboxSpec
from verigym.errors import SandboxError

SLEEP = 10_000_000 + os.getpid()  # seconds no other process sleeps

OWNER = """
import asyncio, sys
from verigym.envs.sandbox.local import LocalBackend, UnsafeBackend
from verigym.envs.sandbox.nursery import Nursery
from verigym.envs.sandbox.types import SandboxSpec

async def main():
    sandbox = await {backend}().create(SandboxSpec())
    await sandbox.aexec("sleep {number} &")
    print("ready", flush=True)
    await sandbox.aexec("(setsid sleep {number} &); sleep {number}")

asyncio.run(main())
"""


def command_lines(pattern):
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if pattern in line:
            found.append(line)
    return found


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.02)


@pytest.mark.parametrize("backend", ["LocalBackend", "UnsafeBackend"])
def test_everything_dies_when_its_owner_is_killed(backend):
    number = f"{SLEEP}1"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(backend=backend, number=number)], stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"ready\n"
        wait_until(lambda: len(command_lines(f"sleep {number}")) >= 3)
        owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not command_lines(f"sleep {number}"))
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


@pytest.mark.parametrize("make", [LocalBackend, UnsafeBackend])
def test_no_descriptor_task_process_or_folder_is_left(make, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def use(number):
        sandbox = await make().create(SandboxSpec())
        if number % 3 == 0:
            await sandbox.aclose()
            return
        job = asyncio.create_task(sandbox.aexec(f"sleep {SLEEP}2 & sleep {SLEEP}2"))
        await asyncio.sleep(0.02)
        if number % 3 == 1:
            job.cancel()
        await sandbox.aclose()
        await asyncio.gather(job, return_exceptions=True)

    async def main():
        await use(0)
        gc.collect()  # what other tests have left may be closed at any time
        before = len(os.listdir("/proc/self/fd"))
        for start in range(0, 12, 4):
            await asyncio.gather(*map(use, range(start, start + 4)))
        assert len(os.listdir("/proc/self/fd")) <= before
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    wait_until(lambda: not command_lines(f"sleep {SLEEP}2"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.02, 0.04])
def test_a_cancelled_start_leaves_nothing(seconds, tmp_path):
    marked = SandboxSpec(binds=(Bind(source=tmp_path, target="/opt/mark"),))

    async def main():
        async with asyncio.timeout(30):
            start = asyncio.create_task(LocalBackend().create(marked))
            await asyncio.sleep(seconds)
            start.cancel()
            done = await asyncio.gather(start, return_exceptions=True)
            if not isinstance(done[0], BaseException):
                await done[0].aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    wait_until(lambda: not command_lines(str(tmp_path)))


def test_a_guest_that_dies_is_an_infrastructure_failure_that_says_why():
    async def main():
        with pytest.raises(SandboxError, match="out of luck"):
            await Channel.open(["/bin/sh", "-c", "echo out of luck >&2; exit 1"], b"", timeout_s=10)
        with pytest.raises(SandboxError, match="did not start within"):
            await Channel.open(["/bin/sleep", f"{SLEEP}4"], b"", timeout_s=0.1)
        with pytest.raises(SandboxError, match="cannot run"):
            await Channel.open(["/no/such/program"], b"", timeout_s=1)
        sandbox = await LocalBackend().create(SandboxSpec())
        running = asyncio.create_task(sandbox.aexec(f"sleep {SLEEP}3"))
        await asyncio.sleep(0.05)
        signal.pidfd_send_signal(sandbox._channel._keeper, signal.SIGKILL)
        with pytest.raises(SandboxError, match="ended unexpectedly"):
            await running
        with pytest.raises(SandboxError, match="ended unexpectedly"):
            await sandbox.aexec("echo ok")
        await sandbox.aclose()

    asyncio.run(main())
    wait_until(lambda: not command_lines(f"sleep {SLEEP}3"))


def test_sandboxes_end_with_the_process_that_forks_them_and_the_next_has_another(monkeypatch):
    own = Nursery()
    monkeypatch.setattr("verigym.envs.sandbox.nursery.nursery", lambda: own)

    async def main():
        backend = LocalBackend(launcher="fork")
        sandbox = await backend.create(SandboxSpec())
        await sandbox.aexec(f"sleep {SLEEP}5 & true")
        first = own._process
        first.kill()
        with pytest.raises(SandboxError, match="ended unexpectedly"):
            await sandbox.aexec(f"sleep {SLEEP}5")
        await sandbox.aclose()
        first.wait()
        again = await backend.create(SandboxSpec())
        assert (await again.aexec("echo ok")).output == "ok\n"
        assert own._process is not first
        await again.aclose()
        own._end()

    asyncio.run(main())
    wait_until(lambda: not command_lines(f"sleep {SLEEP}5"))


def test_an_image_is_refused():
    with pytest.raises(SandboxError, match="has no images"):
        asyncio.run(LocalBackend().create(SandboxSpec(image="debian:12")))
