"""Sandboxes of workers that are dead, removed on the machines that they were on."""

import logging
from typing import Any

from ...envs.sandbox.leftovers import sweep_machine
from .bundles import SANDBOX

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0


def sweep_after(machine: str, pid: int) -> None:
    """Have a machine remove what a process has left, once that is dead. Nobody waits for it.

    Args:
        machine: Ray's id of it; one that is gone itself has nothing to remove.
        pid: of the process there.
    """
    _asked(machine, after=pid)


def sweep_machines() -> None:
    """Have every machine that may run sandboxes remove what dead processes have left there, and wait for it."""
    import ray
    from ray.exceptions import RayError

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(SANDBOX)]
    asked = [_asked(node["NodeID"]) for node in nodes]
    done, late = ray.wait(asked, num_returns=len(asked), timeout=_SWEEP_SECONDS) if asked else ([], [])
    num_removed = 0
    for one in done:
        try:
            num_removed += ray.get(one)
        except RayError as error:
            logger.warning("a machine has not removed its leftovers: %s", (str(error).splitlines() or [""])[0])
    if late:
        logger.warning("%d machines have not removed their leftovers in %g s", len(late), _SWEEP_SECONDS)
    if num_removed:
        logger.info("%d containers of dead workers were removed", num_removed)


def _asked(machine: str, *, after: int | None = None) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node_id=machine, soft=False)
    task: Any = ray.remote(sweep_machine).options(num_cpus=0, scheduling_strategy=here, max_retries=0)
    return task.remote(after=after)
