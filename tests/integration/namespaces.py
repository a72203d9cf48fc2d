"""Three hosts of a network of their own, as namespaces of this machine, and a cable between them that is cut.

    python -m tests.integration.namespaces --out namespaces.json

Needs root and iproute2. A recipe with two ranks, two engines and two episode workers is run over the hosts, and the
cable of one is cut while it learns: that host is dead from then on, another one has come, and the losses are those of
one process.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .chaos import compared, left_with, recipe_text, rows_in
from .small_recipe import train

SWITCH, NET = "vg-switch", "10.77.77"
SEEN = (
    "import ray, sys, time; ray.init(address=sys.argv[1], logging_level='ERROR')\n"
    "while sys.argv[2] not in [n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']]: time.sleep(1)\n"
)
RAY = Path(sys.executable).with_name("ray")


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


class Host:
    """A namespace with an address on the bridge, and a Ray node in it."""

    def __init__(self, number: int) -> None:
        self.number, self.name, self.address = number, f"vg-{number}", f"{NET}.{number}"
        self.cable = f"vg-cable-{number}"

    @contextmanager
    def up(self) -> Iterator["Host"]:
        ip("netns", "add", self.name)
        try:
            ip("link", "add", self.cable, "netns", SWITCH, "type", "veth", "peer", "name", "eth0", "netns", self.name)
            ip("-n", SWITCH, "link", "set", self.cable, "master", "bridge", "up")
            ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", self.name, "link", "set", device, "up")
            yield self
        finally:
            ip("netns", "del", self.name, check=False)

    def cut(self) -> None:
        """Its cable, for good."""
        ip("-n", SWITCH, "link", "set", self.cable, "down")

    def started(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """A process on it."""
        inside = ["ip", "netns", "exec", self.name, *command]
        with log.open("ab") as output:
            return subprocess.Popen(inside, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    @contextmanager
    def node(self, head: str, root: Path) -> Iterator[None]:
        """A Ray node that others see; its processes end with it."""
        options = ["--node-ip-address", self.address, "--num-cpus", "3", "--resources", '{"sandbox": 1}', "--block"]
        options += ["--object-store-memory", str(80 << 20), "--disable-usage-stats"]
        ours = head.startswith(f"{self.address}:")
        where = ["--head", "--port", head.rpartition(":")[2], "--include-dashboard", "false"]
        command = [str(RAY), "start", *(where if ours else ["--address", head]), *options]
        process = None
        try:
            for _ in range(5):  # Ray gives a node half a minute, which a busy machine may not keep
                process = self.started(command, root / f"{self.name}.log")
                if self._is_seen(process, head, root / f"{self.name}.log"):
                    break
                end_all_in(self.name)
            else:
                raise TimeoutError(f"a node does not start; see {self.name}.log")
            yield
        finally:
            if process is not None:
                process.terminate()  # Ray ends what it has started when it is asked to
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
            end_all_in(self.name)

    def _is_seen(self, process: subprocess.Popen[bytes], head: str, log: Path) -> bool:
        """Wait until the cluster has this node; False where its process ends first."""
        while process.poll() is None:
            asking = self.started([sys.executable, "-c", SEEN, head, self.address], log)
            try:
                if asking.wait(60) == 0:
                    return True
            except subprocess.TimeoutExpired:
                asking.kill()
        return False


def end_all_in(namespace: str) -> None:
    """Kill what still runs in a namespace."""
    told = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in told.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


@contextmanager
def switch() -> Iterator[None]:
    """What the cables end in: a bridge, apart from this machine's own rules about what is passed on."""
    ip("netns", "add", SWITCH)
    try:
        ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        ip("-n", SWITCH, "link", "set", "bridge", "up")
        yield
    finally:
        ip("netns", "del", SWITCH, check=False)


def disturbed(root: Path, recipe: Path, out: Path, cut_at: int) -> dict[str, Any]:
    """Run the recipe over three hosts, cut the third's cable after so many steps, and let a fourth come."""
    hosts = [Host(number) for number in (1, 2, 3, 4)]
    head = f"{hosts[0].address}:6399"
    with switch(), ExitStack() as inside:
        for host in hosts:
            inside.enter_context(host.up())
        for host in hosts[:3]:
            inside.enter_context(host.node(head, root))
        command = [sys.executable, "-m", "verigym", "train", str(recipe), "--out", str(out), "--ray", head]
        began = time.monotonic()
        running = hosts[0].started(command, root / "run.log")
        told: dict[str, Any] = {}
        try:
            while running.poll() is None and time.monotonic() - began < 1800:
                if not told and rows_in(out) >= cut_at:
                    hosts[2].cut()
                    told = {"cut_at_step": rows_in(out), "cut_at_seconds": time.monotonic() - began}
                    print(told, flush=True)
                    inside.enter_context(hosts[3].node(head, root))
                time.sleep(0.2)
        finally:
            if running.poll() is None:
                running.kill()
        assert told, (root / "run.log").read_text()[-4000:]
        left = left_with(out, 90.0)
        return told | {"status": running.returncode, "seconds": time.monotonic() - began, "left": left}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--cut-at", type=int, default=4, help="steps after which the cable is cut")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is taken away then, too
    with tempfile.TemporaryDirectory(prefix="verigym-hosts-") as folder:
        root = Path(folder)
        text = recipe_text(args.steps)
        (root / "cluster.toml").write_text(text)
        (root / "alone.toml").write_text(text.partition("\n[engines]")[0])
        train((), root / "alone.toml", root / "alone")
        try:
            found = disturbed(root, root / "cluster.toml", root / "run", args.cut_at)
        finally:
            for log in root.glob("*.log"):
                args.out.with_suffix(f".{log.name}").write_bytes(log.read_bytes())
        found |= compared(root / "alone", root / "run")
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
