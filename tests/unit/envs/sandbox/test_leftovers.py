"""What a process has left that was killed: nothing, once its machine has been swept."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from verigym.envs.sandbox import labels
from verigym.envs.sandbox.leftovers import sweep_machine

OWNER = """
import asyncio
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.types import SandboxSpec

async def main():
    backend = DockerBackend()
    boxes = await asyncio.gather(*(backend.create(SandboxSpec()) for _ in range(2)))
    print("ready", flush=True)
    await boxes[0].aexec("sleep 10000")

asyncio.run(main())
"""


@pytest.fixture
def no_engine(monkeypatch):
    """No engine is asked."""
    monkeypatch.setenv("VERIGYM_SANDBOX_DOCKER_HOSTS", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("CONTAINER_HOST", "unix:///nowhere/podman.sock")


def test_folders_of_dead_processes_go_and_others_stay(tmp_path, monkeypatch, no_engine):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    forks = tmp_path / "oci" / "forks"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    alive = forks / f"{os.getpid()}-{labels.start_of(os.getpid())}-0"
    for folder in (alive, forks / f"{gone.pid}-1-0", forks / f"{os.getpid()}-1-3"):
        (folder / "fs").mkdir(parents=True)
    assert sweep_machine() == 0
    assert list(forks.iterdir()) == [alive]


def test_it_waits_for_a_process_to_end(tmp_path, monkeypatch, no_engine):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path))
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    folder = tmp_path / "oci" / "forks" / f"{running.pid}-{labels.start_of(running.pid)}-0"
    folder.mkdir(parents=True)
    sweep_machine(after=running.pid, seconds=0.2)  # it does not end in time
    assert folder.exists()
    timer = threading.Timer(0.2, lambda: (running.kill(), running.wait()))
    timer.start()
    sweep_machine(after=running.pid)
    timer.join()
    assert not folder.exists()


@pytest.mark.docker
def test_containers_of_a_killed_process_are_removed(engine, bare_image):
    env = {**os.environ, "VERIGYM_RUN": "test-leftovers", "VERIGYM_SANDBOX_POOL": "0"}
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=env) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        wanted = {"label": f"{labels.RUN}=test-leftovers"}
        assert len(engine.api.containers(all=True, filters=wanted)) == 2
        owner.send_signal(signal.SIGKILL)
        assert sweep_machine(after=owner.pid) >= 0
        owner.wait()
    sweep_machine()
    assert not engine.api.containers(all=True, filters=wanted)
