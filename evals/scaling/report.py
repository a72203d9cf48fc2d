"""What selection is worth: the chosen sample beside a random one and the best one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..metrics import interval_of
from ..verdict import Verdict


def scaling_report(verdicts: Sequence[Verdict], chosen: Mapping[str, int]) -> dict[str, Any]:
    """Oracle, random and selected scores over the tasks that have a choice.

    Args:
        verdicts: of k samples a task.
        chosen: task id -> index of the sample that was selected.
    Returns:
        "k" (most samples of a task), "n" (tasks), "oracle" (any sample passes), "random" (mean over samples),
        "selected", "interval" (95 %, of selected). A choice that could not be graded counts as not passed.
    """
    by_task: dict[str, dict[int, bool]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.passed is not None:
            by_task[verdict.task_id][verdict.index] = verdict.passed
    tasks = [task_id for task_id in by_task if task_id in chosen]
    if not tasks:
        return {"k": 0, "n": 0, "oracle": None, "random": None, "selected": None, "interval": None}
    selected = [float(by_task[task_id].get(chosen[task_id], False)) for task_id in tasks]
    return {
        "k": max(len(by_task[task_id]) for task_id in tasks),
        "n": len(tasks),
        "oracle": float(np.mean([any(by_task[task_id].values()) for task_id in tasks])),
        "random": float(np.mean([np.mean(list(by_task[task_id].values())) for task_id in tasks])),
        "selected": float(np.mean(selected)),
        "interval": list(interval_of(selected)),
    }


def told_scaling(scaling: Mapping[str, Any]) -> str:
    """The report in one line."""
    if not scaling["n"]:
        return "no task had a sample to choose"
    low, high = scaling["interval"]
    return (
        f"best of {scaling['k']}: selected {scaling['selected']:.3f} ({low:.3f} to {high:.3f}), "
        f"random {scaling['random']:.3f}, oracle {scaling['oracle']:.3f}, {scaling['n']} tasks"
    )
