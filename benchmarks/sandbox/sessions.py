"""A command in a running container, a start, a reset, and 32 episodes at once: verigym beside other ways.

    python benchmarks/sandbox/sessions.py ROWS [--rex PYTHON] [--oci] [--podman] [--repeat R] [--out FILE]

ROWS is a file whose first row has an image that this engine holds (verigym tasks build-images). PYTHON is that of a
virtual environment with swe-rex (python -m venv rex && rex/bin/pip install swe-rex==1.4.0 aiohttp); for its part an
image with it inside is built. With --oci the image is unpacked for the sandbox without an engine, with --podman it is
loaded into podman, whose socket must answer. Every way takes its turn in every round, so all meet the same machine.

    command   `echo hi` in a session that is there
    start     from nothing to the answer of the first command
    lent      the same, where the pool has a container that was used before and is waiting
    reset     from a work tree with changed, new and removed files to the answer of the next user's first command
    fork      a second sandbox with the files and the shell's state of a first one that has changed some (oci)
    episodes  32 of one task, 16 at once: start, five commands, end; the time until all have ended. verigym's pool
              begins with what the measurement of a reset has left: one container
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import docker

from verigym.envs.datasets.swe import row_of
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.image_import import save_images
from verigym.envs.sandbox.images import ensure_base_image
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.podman import PodmanBackend
from verigym.envs.sandbox.pool import ContainerPool
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.envs.swe.checkout import environment_of, open_workspace, placed, shell_env
from verigym.envs.synthesis.build_images import environment_image
from verigym.envs.synthesis.engine_images import python_of

COMMANDS, EPISODES, AT_ONCE = 50, 32, 16
DIRTY = "echo x > new; echo '# more' >> setup.cfg; rm -f README.md; git add -A 2>/dev/null; (sleep 1000 &)"
REX = "swe-rex==1.4.0"


class Ours:
    """verigym's pool."""

    def __init__(self, row, env):
        self.pool, self.row, self.env = ContainerPool(DockerBackend()), row, env

    async def command(self, number):
        box = await self.pool.create(SandboxSpec(image=self.row.image, workdir=self.row.root))
        await box.aexec("true")
        taken = []
        for _ in range(number):
            began = time.perf_counter()
            assert (await box.aexec("echo hi")).output == "hi\n"
            taken.append(time.perf_counter() - began)
        await box.aclose()
        return taken

    async def start(self):
        began = time.perf_counter()
        box = await self.pool.create(SandboxSpec(image=self.row.image, workdir=self.row.root))
        await box.aexec("echo hi")
        taken = time.perf_counter() - began
        await box.aclose()
        return taken

    async def workspace(self):
        return await open_workspace(self.pool, self.row, limits=Limits(), env=self.env)

    async def reset(self):
        for _ in range(2):  # containers are kept from the second request on
            box = await self.workspace()
            await box.aexec(DIRTY)
            began = time.perf_counter()
            await box.aclose()
        box = await self.workspace()
        assert (await box.aexec("git status --porcelain")).output == ""
        taken = time.perf_counter() - began
        await box.aclose()
        return taken

    async def lent(self):
        """After ``reset`` there is one that waits."""
        began = time.perf_counter()
        box = await self.workspace()
        await box.aexec("echo hi")
        taken = time.perf_counter() - began
        await box.aclose()
        return taken

    async def episode(self):
        box = await self.workspace()
        for _ in range(5):
            await box.aexec("echo hi")
        await box.aclose()

    async def aclose(self):
        await self.pool.aclose()


class Podman(Ours):
    """The same pool over podman's socket."""

    def __init__(self, row, env):
        self.pool, self.row, self.env = ContainerPool(PodmanBackend()), row, env


class Oci(Ours):
    """Images without an engine: nothing is kept, a reset is a new sandbox."""

    def __init__(self, row, env):
        self.pool, self.row, self.env = OciBackend(), row, env

    async def fork(self):
        box = await self.workspace()
        await box.aexec(DIRTY.partition("; (sleep")[0])
        began = time.perf_counter()
        fork = await box.fork()
        await fork.aexec("echo hi")
        taken = time.perf_counter() - began
        await fork.aclose()
        await box.aclose()
        return taken

    async def aclose(self):
        self.pool.close()


class Exec:
    """A container of docker-py; each command is an exec of the engine."""

    def __init__(self, row, env):
        self.row, self.client = row, docker.from_env(max_pool_size=64)

    def new(self):
        return self.client.containers.run(
            self.row.image, ["sleep", "3600"], detach=True, network_mode="none", init=True, working_dir=self.row.root
        )

    def run(self, box):
        done = box.exec_run(["bash", "-c", "echo hi"])
        assert done.output == b"hi\n"

    async def command(self, number):
        return await asyncio.to_thread(self._command, number)

    def _command(self, number):
        box, taken = self.new(), []
        self.run(box)
        for _ in range(number):
            began = time.perf_counter()
            self.run(box)
            taken.append(time.perf_counter() - began)
        box.remove(force=True)
        return taken

    async def start(self):
        return await asyncio.to_thread(self._start)

    def _start(self):
        began = time.perf_counter()
        box = self.new()
        self.run(box)
        taken = time.perf_counter() - began
        box.remove(force=True)
        return taken

    async def reset(self):
        return await asyncio.to_thread(self._reset)

    def _reset(self):
        """The old container goes and a new one comes."""
        box = self.new()
        box.exec_run(["bash", "-c", DIRTY])
        began = time.perf_counter()
        box.remove(force=True)
        box = self.new()
        self.run(box)
        taken = time.perf_counter() - began
        box.remove(force=True)
        return taken

    async def episode(self):
        await asyncio.to_thread(self._episode)

    def _episode(self):
        box = self.new()
        for _ in range(5):
            self.run(box)
        box.remove(force=True)

    async def aclose(self):
        self.client.close()


class CommandLine(Exec):
    """The same by the program `docker exec`."""

    def run(self, box):
        done = subprocess.run(["docker", "exec", box.id, "bash", "-c", "echo hi"], capture_output=True, check=True)
        assert done.stdout == b"hi\n"


def rex(python, image):
    """Of SWE-ReX: ([seconds of a command], seconds of a start)."""
    worker = Path(__file__).with_name("rex_worker.py")
    done = subprocess.run([python, worker, image, str(COMMANDS)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"swe-rex failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["command"], found["start"]


async def measure(args, row, env, rex_image):
    taken = {}

    def note(what, who, seconds):
        taken.setdefault(what, {}).setdefault(who, []).extend(seconds)

    for round_number in range(args.repeat):
        ways = [("verigym", Ours), ("docker exec", CommandLine), ("docker-py exec", Exec)]
        ways += [("verigym oci", Oci)] * args.oci + [("verigym podman", Podman)] * args.podman
        for name, kind in ways:
            one = kind(row, env)
            note("command", name, await one.command(COMMANDS))
            note("start", name, [await one.start()])
            if name != "docker exec":
                note("reset", name, [await one.reset()])
                if isinstance(one, Oci):
                    note("fork", name, [await one.fork()])
                elif isinstance(one, Ours):
                    note("lent", name, [await one.lent()])
                slots = asyncio.Semaphore(AT_ONCE)

                async def episode(one=one, slots=slots):
                    async with slots:
                        await one.episode()

                began = time.perf_counter()
                await asyncio.gather(*(episode() for _ in range(EPISODES)))
                note("episodes", name, [time.perf_counter() - began])
            await one.aclose()
        if rex_image:
            commands, start = rex(args.rex, rex_image)
            note("command", "swe-rex", commands)
            note("start", "swe-rex", [start])
        print(f"round {round_number + 1} of {args.repeat}", file=sys.stderr)
    return taken


def bring(client, row, args):
    """The row's image to where it is not."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        save_images(client.api, [row.image], archive)
        if args.oci:
            ImageStore().add(str(archive))
        if args.podman:
            subprocess.run(["podman", "load", "-q", "-i", archive], check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--rex", metavar="PYTHON")
    parser.add_argument("--oci", action="store_true")
    parser.add_argument("--podman", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    client = docker.from_env()
    row = next(row_of(task) for task in read_any_tasks(args.rows) if row_of(task).image)
    if args.oci or args.podman:
        bring(client, row, args)
    rex_image = None
    if args.rex:
        base = ensure_base_image(client)
        rex_image = environment_image(client, base, [REX], python_of(client, base), Path("build"))

    async def run():
        backend = ContainerPool(DockerBackend())
        held = placed(row, backend)
        env = shell_env(held, await environment_of(held))
        await backend.aclose()
        return await measure(args, held, env, rex_image)

    load = os.getloadavg()
    taken = asyncio.run(run())
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {load[0]:.1f} to {os.getloadavg()[0]:.1f}",
        "versions": {
            "docker": version("docker"),
            "engine": client.version()["Version"],
            "swe-rex": REX if args.rex else None,
        },
        "shapes": {"commands": COMMANDS, "episodes": EPISODES, "at_once": AT_ONCE, "image": row.image},
        "seconds": {
            what: {
                who: {"median": statistics.median(found), "low": min(found), "high": max(found), "n": len(found)}
                for who, found in ways.items()
            }
            for what, ways in taken.items()
        },
    }
    print(facts["machine"])
    for what, ways in facts["seconds"].items():
        ours = ways["verigym"]["median"] if "verigym" in ways else 0
        for who, found in ways.items():
            ratio = "" if who == "verigym" or not ours else f"{found['median'] / ours:8.1f} x ours"
            spread = f"{found['low'] * 1000:.1f} to {found['high'] * 1000:.1f}"
            print(f"{what:9} {who:15} median {found['median'] * 1000:9.1f} ms ({spread}, n {found['n']}){ratio}")
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
