"""What ``eval --ray`` and ``grade --ray`` share: what a cluster has free, for as long as the command runs."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError
from ..recipe.cluster import ClusterConfig
from .bundles import GPU, SANDBOX, engine_need, most_workers, worker_need
from .connect import check_machines, check_versions, connected, facts_of_machines, free_machines, versions_here

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Reserved room.

    Attributes:
        config: what each worker and engine takes.
        workers: of as many episode workers as ``config.workers`` says.
        engines: of an engine each.
    """

    config: ClusterConfig
    workers: "PlacementGroup"
    engines: "Sequence[PlacementGroup]" = ()


@contextmanager
def all_free_room(
    address: str, out: Path | None, *, sees: Sequence[Path] = (), engines: bool = False
) -> Iterator[Room]:
    """Inside, a worker for each free unit of the resource ``sandbox`` (with a CPU) can be placed.

    Args:
        address: of the cluster, or ``local``.
        out: a folder that all machines must see; None: there is none.
        sees: files and folders that all machines must see.
        engines: room for engines is wanted: one on each free GPU, or one on a CPU where there is no GPU.
    Raises:
        ConfigError: Ray is not installed, no cluster answers, or it cannot be used.
    """
    with connected(address, machine={"CPU": 2.0 + engines, SANDBOX: 2.0}):
        from .leftovers import sweep_machines
        from .placing import release, reserve

        facts = facts_of_machines(out or Path.cwd(), sees=sees)
        if out is None:
            check_versions(facts, versions_here())
        else:
            check_machines(facts, versions_here(), out, None)
        config, num_engines = _sized(engines)
        needs = [worker_need(config), *[engine_need(config, 1)] * num_engines]
        groups = reserve(needs, config.wait_seconds, f"verigym-{secrets.token_hex(8)}")
        try:
            yield Room(config=config, workers=groups[0], engines=groups[1:])
        finally:
            release(groups)
            sweep_machines()


def _sized(engines: bool) -> tuple[ClusterConfig, int]:
    """(what the cluster has room for, the number of engines in it). Raises ConfigError where that is nothing."""
    machines = free_machines()
    num_gpus = int(sum(one.get(GPU, 0.0) for one in machines))
    num_engines = max(1, num_gpus) if engines else 0
    config = ClusterConfig(rank_gpus=1 if num_gpus else 0)
    count = most_workers(machines, config, [engine_need(config, 1)] * num_engines)
    if not count:
        also = " beside an engine" if engines else ""
        raise ConfigError(
            f"no machine of the cluster has a CPU and a unit of the resource {SANDBOX!r} free{also}; ray start ... "
            f"--resources '{{\"{SANDBOX}\": 4}}' on those that may run sandboxes"
        )
    return config.model_copy(update={"workers": count}), num_engines
