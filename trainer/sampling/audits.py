"""How often a task is drawn, by the class that an audit gave it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...envs.audit.ledger import read_certificates
from ...envs.task import Task
from ...errors import ConfigError
from ..recipe.audited import AuditConfig


def task_weights(config: AuditConfig, tasks: Sequence[Task], *, family: str, rows: str) -> dict[str, float]:
    """Task id -> weight in [0, 1], of those whose weight is below 1.

    Args:
        rows: what the tasks were read from: where the recipe names no certificates, they are looked for beside it.
    Raises:
        ConfigError: no task has a certificate, or no task has a weight above 0. TaskError: the file holds none.
    """
    path = config.certificates or Path(rows).with_suffix(".audit.jsonl")
    certificates = read_certificates(path)
    kinds = {task.id: certificates[task.id].kind for task in tasks if task.id in certificates}
    if not kinds:
        raise ConfigError(
            f"family {family!r}: {path} has a certificate of none of its {len(tasks)} tasks; audit the "
            "rows that the family trains on, or remove families.audit"
        )
    weights = {task: config.weight_of(kind) for task, kind in kinds.items()}
    if all(weights.get(task.id, 1.0) == 0 for task in tasks):
        told = ", ".join(f"{count} {kind}" for kind, count in Counter(kinds.values()).most_common())
        raise ConfigError(f"family {family!r}: families.audit drops every task ({told}); give a class a weight above 0")
    return {task: weight for task, weight in weights.items() if weight < 1}


def told_weights(weights: Mapping[str, float], num_tasks: int) -> str:
    """What ``task_weights`` did, in words; ``num_tasks``: of the family, without those that have weight 0."""
    dropped = sum(weight == 0 for weight in weights.values())
    parts = [f"{dropped} tasks are left out"] if dropped else []
    rarer = Counter(weight for weight in weights.values() if weight > 0)
    parts += [f"{count} are drawn in {weight:.0%} of the epochs" for weight, count in sorted(rarer.items())]
    return ", ".join([*parts, f"{num_tasks - rarer.total()} as ever"])
