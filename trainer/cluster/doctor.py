"""``verigym doctor --ray``: what a cluster lacks for a run, found out on every machine of it."""

from collections.abc import Sequence
from pathlib import Path

from ...envs.cli.doctor import Finding, try_sandbox
from ...errors import ConfigError
from .bundles import SANDBOX, Bundle, told
from .connect import LOCAL, MachineFacts, check_machines, connected, facts_of_machines, free_machines, versions_here


def examine_cluster(address: str, folder: Path) -> list[Finding]:
    """Look at every machine of the cluster at an address.

    Args:
        folder: that the machines should share, such as the one that runs are written into.
    Raises:
        ConfigError: Ray is not installed, no cluster answers, or a machine cannot run verigym.
    """
    with connected(address, machine={"CPU": 2.0, SANDBOX: 1.0}):
        facts, free = facts_of_machines(folder), free_machines()
        findings = [_machine(one) for one in facts]
        findings += [_folder(facts, folder), _resources(free), _sandboxes(free)]
        if address != LOCAL:
            findings += _probed()
    return findings


def _machine(facts: MachineFacts) -> Finding:
    try:
        check_machines([facts], versions_here(), Path(), facts.sees)
    except ConfigError as error:
        if facts.sees is not None:
            return Finding(name=f"machine {facts.name}", ok=False, value="other versions", remedy=str(error))
    value = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return Finding(name=f"machine {facts.name}", ok=True, value=value)


def _folder(facts: list[MachineFacts], folder: Path) -> Finding:
    blind = [one.name for one in facts if one.sees is None]
    if not blind:
        return Finding(name=f"folder {folder}", ok=True, value="all machines see it")
    return Finding(
        name=f"folder {folder}",
        ok=False,
        value=f"not seen on {', '.join(blind)}",
        remedy="give runs an --out on a file system that all machines share under the same path",
    )


def _resources(free: Sequence[Bundle]) -> Finding:
    value = "; ".join(told({name: amount for name, amount in one.items() if amount}) for one in free)
    return Finding(name="free", ok=bool(free), value=value)


def _sandboxes(free: Sequence[Bundle]) -> Finding:
    amount = sum(one.get(SANDBOX, 0.0) for one in free)
    if amount:
        return Finding(name="episode workers", ok=True, value=f'{amount:g} of the resource "{SANDBOX}" are free')
    return Finding(
        name="episode workers",
        ok=False,
        value=f'no machine has any of the resource "{SANDBOX}" free',
        remedy=f"ray start ... --resources '{{\"{SANDBOX}\": 4}}' on the machines that may run sandboxes",
    )


def _probed() -> list[Finding]:
    """A sandbox on every machine that offers some."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get(SANDBOX):
            here = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            task = ray.remote(try_sandbox).options(num_cpus=0, scheduling_strategy=here, max_retries=0)
            asked[task.remote("local")] = node["NodeManagerAddress"]
    found = []
    for reference, name in asked.items():
        finding: Finding = ray.get(reference)
        found.append(
            Finding(name=f"{finding.name} on {name}", ok=finding.ok, value=finding.value, remedy=finding.remedy)
        )
    return found
