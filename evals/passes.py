"""The passes of a run looked at: every resolved episode of the family swe, with flags for a person."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..agent.passes import Flag, look_at
from ..agent.tree import message_from_json
from ..envs.datasets.files import read_rows
from ..envs.datasets.swe import row_of
from ..envs.task import Task
from ..errors import ConfigError, TaskError
from ..model.chat.messages import Message
from .metrics import wilson_interval
from .store import write_lines
from .verdict import Verdict

PASSES = "passes.jsonl"
Key = tuple[str, int]
_NONE_KEPT: tuple[bool, Sequence[Flag]] = False, ()


def look_at_passes(folder: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    """Look at every resolved episode of a run, and write ``passes.jsonl`` beside its verdicts: a row for each with
    "task_id", "index", "conversation" (whether it was kept) and "flags".

    Args:
        folder: of ``verigym eval --out``; without ``--save-trajectories`` only its patches can be looked at.
    Returns:
        "resolved", "conversations" (of how many the conversation was kept), "flagged", "share" (flagged of resolved;
        None where none is) with "interval" (Wilson, 95 %), "kinds" (kind -> episodes) and "first" (up to 20 rows of
        those flagged).
    Raises:
        ConfigError: the folder holds no verdicts. TaskError: a file of it is broken.
    """
    path = folder / "verdicts.jsonl"
    if not path.is_file():
        raise ConfigError(f"{folder} holds no verdicts.jsonl; give the --out DIR of verigym eval")
    verdicts = [Verdict.from_json(row.value) for row in read_rows(path)]
    rows = {task.id: row_of(task) for task in tasks if task.family == "swe"}
    resolved = {one.key: _NONE_KEPT for one in verdicts if one.passed and one.task_id in rows}
    patches = {key: patch for key, patch in _patches(folder) if key in resolved}
    for key, messages in _conversations(folder, resolved.keys()):  # one after another: all of them may not fit
        resolved[key] = True, look_at(messages, patches.get(key, ""), rows[key[0]])
    found = []
    for key, (kept, flags) in resolved.items():
        flags = flags if kept else look_at((), patches.get(key, ""), rows[key[0]])
        row = {"task_id": key[0], "index": key[1], "conversation": kept}
        found.append({**row, "flags": [asdict(flag) for flag in flags]})
    write_lines(folder / PASSES, found)
    return _summary(found)


def _summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    flagged = [row for row in found if row["flags"]]
    kinds = Counter(kind for row in flagged for kind in {flag["kind"] for flag in row["flags"]})
    return {
        "resolved": len(found),
        "conversations": sum(row["conversation"] for row in found),
        "flagged": len(flagged),
        "share": len(flagged) / len(found) if found else None,
        "interval": list(wilson_interval(len(flagged), len(found))) if found else None,
        "kinds": dict(kinds.most_common()),
        "first": flagged[:20],
    }


def _patches(folder: Path) -> Iterator[tuple[Key, str]]:
    path = folder / "preds.jsonl"
    for row in read_rows(path) if path.is_file() else ():
        if "instance_id" in row.value and "index" in row.value:
            yield (str(row.value["instance_id"]), int(row.value["index"])), row.value.get("model_patch") or ""


def _conversations(folder: Path, wanted: Set[Key]) -> Iterator[tuple[Key, tuple[Message, ...]]]:
    path = folder / "trajectories.jsonl"
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                key = (row["task_id"], row["index"])
                if key in wanted:
                    yield key, tuple(message_from_json(message) for message in row["messages"])
            except (ValueError, KeyError, TypeError) as error:
                raise TaskError(f"{path}, line {number}, is no episode ({error}); run verigym eval again") from None


def told_passes(summary: Mapping[str, Any]) -> str:
    """The summary in lines for people; "" where nothing resolved."""
    if not summary["resolved"]:
        return ""
    low, high = summary["interval"]
    kept = summary["conversations"]
    lines = [
        f"passes looked at: {summary['flagged']} of {summary['resolved']} flagged ({summary['share']:.1%}, "
        f"{low:.1%} to {high:.1%})"
        + ("" if kept == summary["resolved"] else f"; {kept} with their conversation (--save-trajectories keeps it)")
    ]
    for row in summary["first"]:
        flag: Mapping[str, Any] = row["flags"][0]
        turn = f"turn {flag['turn']}" if flag["turn"] else "patch"
        shown = " ".join(str(flag["shown"]).split())[:100]
        lines.append(f"  {row['task_id']}, sample {row['index']}, {turn}: {flag['kind']}: {shown}")
    return "\n".join(lines)
