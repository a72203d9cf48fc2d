"""Reaching a Ray cluster, and what must be true of all its machines before anything is started."""

import os
import platform
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .bundles import GPU, Bundle, told

LOCAL = "local"
_NEEDED = ("CPU", "GPU", "sandbox")
_PROBE_SECONDS = 120.0
_LOCAL_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """A machine of a cluster, as a process on it sees it.

    Attributes:
        name: for people: its address.
        versions: of Python and the packages that must be the same everywhere.
        sees: what the probe of the shared folder holds there; None where it does not see it.
        lacks: files and folders that it does not see.
    """

    name: str
    versions: dict[str, str]
    sees: str | None
    lacks: tuple[str, ...] = ()


def import_ray() -> Any:
    """Raises ConfigError where Ray is not installed, with the extra that has it."""
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "Ray is not installed, which places a run on a cluster; install the extra: pip install 'verigym[cluster]'"
        ) from None
    return ray


@contextmanager
def connected(address: str, *, machine: Bundle) -> Iterator[None]:
    """Inside, this process speaks to the cluster at an address; ``local`` starts one on this machine for as long.

    Args:
        machine: what the machine of a local cluster offers.
    Raises:
        ConfigError: Ray is not installed, no cluster answers, or this machine has fewer GPUs than it is to offer.
    """
    ray = import_ray()
    if address == LOCAL:
        _check_gpus(int(machine.get(GPU, 0)))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for its statistics to be sent
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": "ERROR"}
    if address == LOCAL:
        resources = dict(machine)
        options |= {"num_cpus": int(-(-resources.pop("CPU", 1) // 1)), "include_dashboard": False}
        gpus = resources.pop(GPU, None)
        options |= {"resources": resources} | ({} if gpus is None else {"num_gpus": int(gpus)})
    _init(ray, address, options)
    try:
        yield
    finally:
        ray.shutdown()


def _check_gpus(wanted: int) -> None:
    """Ray takes a machine's word for its GPUs; who lies to it learns so from torch, in the midst of a start."""
    if not wanted:
        return
    import torch

    if (found := torch.cuda.device_count()) < wanted:
        raise ConfigError(
            f"the run wants {wanted} GPUs of this machine, which has {found}; run it on CPUs with --set "
            "cluster.rank_gpus=0, take fewer ranks and engines, or a cluster's address"
        )


def _init(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Raises ConfigError where there is no cluster."""
    for left in reversed(range(_LOCAL_TRIES)):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:  # a node that does not start in time raises no narrower class
            # Ray gives a new node half a minute, which a machine that is busy with other work may not keep.
            if left and address == LOCAL and "timed out during startup" in str(error):
                ray.shutdown()
                continue
            told_ = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"no Ray cluster at {address} ({told_}); start one (ray start --head), or take --ray local"
            ) from error


def free_machines() -> list[Bundle]:
    """What each living machine of the cluster has free."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        {key: float(free.get(node["NodeID"], {}).get(key, 0.0)) for key in _NEEDED}
        for node in ray.nodes()
        if node["Alive"]
    ]


def facts_of_machines(folder: Path, *, sees: Sequence[Path] = ()) -> list[MachineFacts]:
    """Ask every living machine for its versions, and whether it sees a folder.

    Args:
        folder: that all should write to; it is made where it is missing.
        sees: files and folders that all should read.
    Raises:
        ConfigError: one does not answer.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{secrets.token_hex(8)}"
    probe.write_text(probe.name, encoding="utf-8")
    paths = [str(path.absolute()) for path in sees]
    try:
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                here = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
                task = ray.remote(_facts_here).options(num_cpus=0, scheduling_strategy=here, max_retries=0)
                asked[task.remote(node["NodeManagerAddress"], str(probe.absolute()), paths)] = node[
                    "NodeManagerAddress"
                ]
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS)
        if late:
            names = ", ".join(asked[one] for one in late)
            raise ConfigError(f"{names} did not answer in {_PROBE_SECONDS:g} s; remove it from the cluster, or mend it")
        return list(ray.get(done))
    except RayError as error:
        told_ = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"a machine of the cluster cannot run verigym ({told_}); install the same version on all machines"
        ) from error
    finally:
        probe.unlink(missing_ok=True)


def check_machines(facts: Sequence[MachineFacts], own: dict[str, str], folder: Path, expected: str | None) -> None:
    """``check_versions``, and whether all see a folder and what else they were asked for.

    Args:
        own: versions of this process.
        expected: what each machine must have read in the shared folder; None does not ask for one.
    Raises:
        ConfigError: a machine has other versions than this one, or does not see the folder, or lacks something.
    """
    check_versions(facts, own)
    blind = [machine.name for machine in facts if machine.sees is None or (expected and machine.sees != expected)]
    if blind:
        raise ConfigError(
            f"{', '.join(blind)} do not see the run's folder {folder}; give an --out on a file system that all "
            "machines share under the same path"
        )
    lacking = next((machine for machine in facts if machine.lacks), None)
    if lacking is not None:
        raise ConfigError(
            f"{lacking.name} does not see {', '.join(lacking.lacks)}; put it on a file system that all machines share "
            "under the same path"
        )


def check_versions(facts: Sequence[MachineFacts], own: dict[str, str]) -> None:
    """Raises ConfigError where a machine has other versions than this process."""
    for machine in facts:
        for name, value in own.items():
            if machine.versions.get(name) != value:
                raise ConfigError(
                    f"{machine.name} has {name} {machine.versions.get(name)} and this machine {value}; install the "
                    "same versions on all machines"
                )


def versions_here() -> dict[str, str]:
    """Of Python and the packages that must be the same on all machines."""
    names = ("verigym", "torch", "ray", "numpy")
    return {"Python": platform.python_version(), **{name: version(name) for name in names}}


def _facts_here(name: str, probe: str, paths: Sequence[str]) -> MachineFacts:
    path = Path(probe)
    return MachineFacts(
        name=name,
        versions=versions_here(),
        sees=path.read_text(encoding="utf-8") if path.is_file() else None,
        lacks=tuple(path for path in paths if not Path(path).exists()),
    )


def told_machines(machines: Sequence[Bundle]) -> str:
    """What is free, for people."""
    return "; ".join(told({key: value for key, value in one.items() if value}) for one in machines) or "no machine"
