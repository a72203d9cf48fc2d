"""One episode as the page shows it: its conversation, score, evidence and times, and how to run it again."""

import glob
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .flags import flags_of
from .rows import NAMES
from .runs import FoundRun, read_json

_NOT_SHOWN = ("has_messages", "seconds", "detail", "path", "offset", "length")
FIELDS = tuple(name for name in NAMES if name not in _NOT_SHOWN)


def episode_of(run: FoundRun, row: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """
    Args:
        row: of the index.
        line: of the run's file; of an evaluation without trajectories that is a verdict, and has no conversation.
    """
    return {
        **{name: row[name] for name in FIELDS},
        "detail": line.get("detail", ""),
        "breakdown": line.get("breakdown") or {},
        "timings": line.get("timings") or {},
        "evidence": line.get("evidence") or {},
        "messages": line.get("messages"),
        "branches": line.get("branches") or _branches(line.get("tree") or ()),
        "again": again(run, row),
        "flags": (flags_of(run.path) or {}).get((row["task"], row["sample"]), []) if run.kind == "evaluation" else [],
    }


def _branches(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """The conversation as a tree, where it has more than one branch."""
    parents = [node["parent"] for node in nodes]
    if len(parents) - len(set(parents) - {-1}) < 2:
        return None
    return [{"parent": node["parent"], "messages": node["messages"]} for node in nodes]


def again(run: FoundRun, row: Mapping[str, Any]) -> str | None:
    """The command that plays an episode of the task again, under the newest weights; None where the run does not tell
    its environment."""
    if run.kind == "training":
        return _of_training(run, str(row["task"]))
    settings = (read_json(run.path / "settings.json") or {}) if run.path.is_dir() else {}
    suite, policy = str(settings.get("suite", "")), str(settings.get("policy", ""))
    if "/" not in suite or not policy:  # a suite is no environment's id
        return None
    return shlex.join(["verigym", "rollout", suite, "--task", str(row["task"]), "--policy", policy])


def _of_training(run: FoundRun, task: str) -> str | None:
    recipe = read_json(run.path / "recipe.json") or {}
    needle = json.dumps(task).encode("ascii")
    for family in recipe.get("families", ()):
        for path in sorted((run.path / "tasks").glob(f"{glob.escape(str(family.get('name')))}.[ht]*.jsonl")):
            if b'id": ' + needle in path.read_bytes():  # "id", or a row of SWE-bench's "instance_id"
                words = ["verigym", "rollout", str(family.get("env")), "--data", str(path), "--task", task]
                checkpoint = _newest_weights(run)
                return shlex.join([*words, *(["--policy", f"engine:{checkpoint}"] if checkpoint else [])])
    return None


def _newest_weights(run: FoundRun) -> Path | None:
    names = ("rl/checkpoint", "rl/best", "sft/checkpoint", "midtrain/checkpoint")
    return next((run.path / name for name in names if (run.path / name).is_dir()), None)


def commands_of(run: FoundRun) -> dict[str, str]:
    """What to type to go on with a run, or to steer it while it works."""
    if run.kind == "training":
        return {"go on with it": shlex.join(["verigym", "train", str(run.path), "--resume"])}
    if run.kind == "evaluation":
        actions = {"pause it": "pause", "let it go on": "resume", "try failed samples again": "retry"}
        return {told: shlex.join(["verigym", "ctl", action, str(run.path)]) for told, action in actions.items()}
    return {}
