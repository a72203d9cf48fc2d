"""Episodes that crash, run out of time or are given up, many at once; then what of their boxes is left.

    python benchmarks/sandbox/leftovers.py --sandbox NAME [--image IMAGE] [--episodes N] [--at-once K]

Prints a line for each kind of thing and ends with 1 where anything is left. What boxes have of this machine is noted
while they live: processes (each episode leaves a `sleep` of its own number behind), their namespaces and control
groups, and of an engine containers, with their mounts and volumes. Files are those of TMPDIR and VERIGYM_CACHE, which
are folders of this run's own; descriptors, threads and memory are this process's. What other work does on the machine
meanwhile is not counted. Boxes of other machines (ssh) and of another process (a remote engine) are seen by their
containers alone.
"""

import argparse
import asyncio
import ctypes
import gc
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

WARM_UP, WAIT_S = 32, 60.0
PR_SET_CHILD_SUBREAPER = 36
KINDS = (
    "processes",
    "namespaces",
    "control groups",
    "mounts",
    "containers",
    "pods",
    "volumes",
    "files",
    "descriptors",
    "threads",
)


class Traces:
    """What boxes have of this machine, noted while they live and looked for afterwards."""

    def __init__(self, engines):
        self.engines, self.first = engines, random.randrange(10**8, 9 * 10**8)
        self.namespaces, self.groups, self.containers = set(), set(), {}
        self.own_namespaces, self.own_groups = namespaces_of("self"), groups_of("self")
        self.mounts, self.kept = mounts(), set()

    def note(self, number):
        """Of the processes that an episode has started; returns the first process of its box, or None."""
        first = None
        for pid in sleeping(self.first + number):
            self.namespaces |= namespaces_of(pid) - self.own_namespaces
            self.groups |= groups_of(pid) - self.own_groups
            first = first or first_process(pid)
        return first

    def note_containers(self):
        """Of containers that bear this run's label: their mounts and volumes."""
        from docker.errors import DockerException

        for engine in self.engines:
            for name in labelled(engine):
                try:
                    facts = engine.api.inspect_container(name)
                except DockerException:
                    continue  # it is gone
                volumes = [one["Name"] for one in facts.get("Mounts") or () if one.get("Type") == "volume"]
                merged = (facts.get("GraphDriver") or {}).get("Data") or {}
                places = {merged.get("MergedDir"), (facts.get("NetworkSettings") or {}).get("SandboxKey")} - {None, ""}
                self.containers[name] = (places, volumes)

    def left(self):
        """{kind: what of it is still there}."""
        processes = self.processes() - self.kept
        places = {place for some, _ in self.containers.values() for place in some}
        new = {line for line in mounts() - self.mounts if not of_engines(line) or any(one in line for one in places)}
        known = {volume for _, some in self.containers.values() for volume in some}
        there = {one["Name"] for engine in self.engines for one in engine.api.volumes()["Volumes"] or ()}
        return {
            "processes": processes,
            "namespaces": {name for pid in processes for name in namespaces_of(pid) - self.own_namespaces}
            | {line for line in new if " nsfs " in line},
            "control groups": {group for group in self.groups if Path(group).is_dir()},
            "mounts": new,
            "containers": {name for engine in self.engines for name in labelled(engine)},
            "volumes": known & there,
        }

    def processes(self):
        """Of episodes, of their containers, and all that this process or one of its own has started."""
        names, me = [name.encode() for name in self.containers], os.getpid()
        return {
            pid
            for pid, words in command_lines()
            if self._is_ours(words) or any(name in words for name in names) or descends(pid, me)
        }

    def _is_ours(self, words):
        found = re.fullmatch(rb"sleep\0(\d+)\0", words)
        return found is not None and 0 <= int(found[1]) - self.first < 10**6


def labelled(engine):
    from verigym.envs.sandbox import labels

    return [one["Id"] for one in engine.api.containers(all=True, filters={"label": f"{labels.RUN}={labels.run_id()}"})]


async def pods(backend):
    """Names of this run's, where boxes are pods."""
    from verigym.envs.sandbox.settings import SandboxSettings

    if getattr(backend, "backend", backend).name != "kubernetes":
        return set()
    from verigym.envs.sandbox.kubernetes import cluster, manifest

    client = await cluster.Cluster(SandboxSettings()).client()
    try:
        selected = f"{manifest.RUN}={manifest.run_word()}"
        found = await client.ask("looking for pods", "list_namespaced_pod", label_selector=selected)
    finally:
        await client.aclose()
    return {pod["metadata"]["name"] for pod in found["items"]}


def command_lines():
    """(process, its words) of this machine, those in boxes among them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.parent.name, path.read_bytes()
        except OSError:
            continue


def sleeping(seconds):
    wanted = f"sleep\0{seconds}\0".encode()
    return [pid for pid, words in command_lines() if words == wanted]


def namespaces_of(pid):
    found = set()
    for path in Path(f"/proc/{pid}/ns").glob("*"):
        try:
            found.add(os.readlink(path))
        except OSError:
            continue  # it has ended, or is another user's
    return found


def groups_of(pid):
    """Folders of its control groups."""
    found = set()
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        found |= {
            str(folder) + path
            for folder in (Path("/sys/fs/cgroup", name), Path("/sys/fs/cgroup/unified"))
            if path != "/"
        }
    return {group for group in found if Path(group).is_dir()}


def first_process(pid):
    """The process outside that is number 1 where this one is; None where it cannot be told."""
    try:
        while True:
            facts = dict(
                line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
            )
            inside = facts["NSpid"].split()
            if len(inside) < 2 or pid == "0":
                return None
            if inside[-1] == "1":
                return int(pid)
            pid = facts["PPid"]
    except (OSError, KeyError):
        return None


def descends(pid, parent):
    """Whether a process is below another one."""
    try:
        while pid not in ("0", "1"):
            state, pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z":
                return False  # it has ended; only who asks for its status is not there
            if pid == str(parent):
                return True
    except OSError:
        pass
    return False


def mounts():
    """Lines of this process's mounts, without the numbers that differ for one that is made again."""
    return {line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def of_engines(line):
    """Whether a mount is some engine's, which has other clients too."""
    return any(word in line for word in ("/docker/", "/containers/", "/netns/", "/overlay "))


def threads():
    """Of this process, but for the pool of tools, which has at most a fixed number."""
    return {f"{one.name} {one.ident}" for one in threading.enumerate() if not one.name.startswith("verigym-tool")}


def files_below(folder):
    return {str(path) for path in folder.rglob("*")}


async def episode(backend, spec, traces, number):
    """One of five ends: as it should, killed from outside, out of time, given up, with a job that is left."""
    from verigym.errors import SandboxError

    box = await backend.create(spec)
    killed = False
    try:
        mine = traces.first + number
        await box.aexec(f"cd /tmp; echo {number} > mine; export N={number}; (setsid sleep {mine} &) ; sleep {mine} &")
        first = traces.note(number)
        if number % 10 == 3 and first is not None:
            killed = True
            os.kill(first, signal.SIGKILL)
        if number % 10 == 6:
            assert (await box.aexec(f"sleep {mine}", timeout_s=0.2)).killed == "timeout"
        if number % 10 == 8:
            job = asyncio.create_task(box.aexec(f"sleep {mine}"))
            await asyncio.sleep(0.05)
            job.cancel()
        try:
            told = (await box.aexec("cat /tmp/mine; echo $N")).output
        except SandboxError:
            assert killed, "a box ended that nobody killed"
        else:
            assert (told, killed) == (f"{number}\n{number}\n", False)
    finally:
        await box.aclose()
    return killed


async def episodes(backend, spec, traces, numbers, at_once):
    slots = asyncio.Semaphore(at_once)

    async def one(number):
        async with slots:
            return await episode(backend, spec, traces, number)

    async def watch():
        while True:
            await asyncio.to_thread(traces.note_containers)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    killed = sum(await asyncio.gather(*map(one, numbers)))
    watching.cancel()
    if hasattr(backend, "empty"):
        await backend.empty()
    return killed


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandbox", default="local")
    parser.add_argument("--image", help="of the boxes (default: this machine's own system folders; oci needs one)")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="verigym-leftovers-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = str(Path(folder, "tmp"))
        os.environ["VERIGYM_CACHE"] = str(Path(folder, "cache"))
        Path(tempfile.tempdir).mkdir()
        return measure(args, Path(folder))


def measure(args, folder):
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.sandbox.types import SandboxSpec

    if args.sandbox == "oci" and args.image is None:
        sys.exit("--sandbox oci needs --image docker-archive:FILE, oci-archive:FILE or oci:FOLDER")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # a box's orphans are this process's, and seen
    backend = make_backend(args.sandbox)
    traces = Traces(getattr(getattr(backend, "backend", backend), "engines", ()))
    spec = SandboxSpec(image=args.image)
    asyncio.run(episodes(backend, spec, traces, range(WARM_UP), args.at_once))  # what stays is there now
    gc.collect()
    traces.kept = traces.processes()  # what starts boxes waits for the next ones
    descriptors, others = len(os.listdir("/proc/self/fd")), threads()
    files, began = files_below(folder), time.monotonic()
    killed = asyncio.run(episodes(backend, spec, traces, range(WARM_UP, WARM_UP + args.episodes), args.at_once))
    seconds = time.monotonic() - began
    gc.collect()
    # An engine's client keeps a connection a thread of ours; there are no more of them than episodes at once.
    most = descriptors + (args.at_once if traces.engines else 0)
    end = time.monotonic() + WAIT_S
    while True:
        left = traces.left()
        left["pods"] = asyncio.run(pods(backend))
        left["files"] = files_below(folder) - files
        left["descriptors"] = set(sorted(os.listdir("/proc/self/fd"))[most:])
        left["threads"] = threads() - others
        if not any(left.values()) or time.monotonic() > end:
            break
        time.sleep(0.2)
    done = f"{args.episodes} episodes, {args.at_once} at once, {killed} killed from outside"
    print(f"{args.sandbox}: {done}, {seconds:.0f} s")
    seen = {"namespaces": traces.namespaces, "control groups": traces.groups, "containers": traces.containers}
    for kind in KINDS:
        some = sorted(map(str, left[kind]))
        noted = f" of {len(seen[kind])}" if kind in seen else ""
        print(f"{kind:16} {len(some)}{noted} left" + (f": {'; '.join(some[:3])[:300]}" if some else ""))
    return 1 if any(left.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
