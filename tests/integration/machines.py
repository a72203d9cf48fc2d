"""Three Ray nodes on this machine, and what runs on them."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

CLUSTER = """
[engines]
count = 2

[cluster]
ranks = 2
rank_gpus = 0
workers = 2
restarts = {restarts}
"""
"""Of a recipe, for the nodes of ``Machines``."""


class Machines:
    """A head and two more nodes, started one after another, each with the resource "sandbox"."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._options: dict[str, Any] = {"num_cpus": 3, "object_store_memory": 80 << 20, "resources": {"sandbox": 1}}
        head = {**self._options, "include_dashboard": False}
        self._cluster: Any = patient(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.nodes = [self._another() for _ in range(2)]

    def _another(self) -> Any:
        return patient(lambda: self._cluster.add_node(**self._options))

    @property
    def address(self) -> str:
        return self._cluster.address

    def replace(self, node: Any) -> None:
        """A machine goes, and another comes."""
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes[self.nodes.index(node)] = self._another()

    def processes(self, title: str) -> list[int]:
        """Ids of the processes of this cluster's actors with that class, or of what they have started."""
        nodes = [self._cluster.head_node, *self.nodes]
        raylets = {info.process.pid for node in nodes for infos in node.all_processes.values() for info in infos}
        return [pid for pid, name in titles() if title in name and raylets & set(ancestors(pid))]

    def kill(self, what: str) -> bool:
        """Whether there was one to kill: "machine" is the last node, anything else a title."""
        if what == "machine":
            self.replace(self.nodes[-1])
            return True
        pids = self.processes(what)
        if pids:
            os.kill(pids[0], signal.SIGKILL)
        return bool(pids)

    def close(self) -> None:
        self._cluster.shutdown()


def patient(start: Callable[[], T]) -> T:
    """What it starts; Ray gives a node half a minute, which is not enough on a machine that is busy with others."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:  # Ray raises no narrower one
            if "timed out during startup" not in str(error):
                raise
    return start()


def titles() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            return
        yield pid


def with_variable(text: str) -> list[int]:
    """Ids of the processes that have a variable with that text in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
