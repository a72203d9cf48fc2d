"""From a line of a run's files to a row of the index: episodes of a training, trajectories and verdicts of an
evaluation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .runs import FoundRun

Flavor = Literal["episode", "trajectory", "verdict"]
NAMES = (
    "key",
    "stage",
    "step",
    "sample",
    "grp",
    "task",
    "family",
    "ending",
    "passed",
    "reward",
    "advantage",
    "turns",
    "format_errors",
    "sampled",
    "tokens",
    "has_tokens",
    "has_messages",
    "seconds",
    "time",
    "version",
    "label",
    "detail",
    "path",
    "offset",
    "length",
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, offset INTEGER, mark TEXT);
CREATE TABLE IF NOT EXISTS episodes (
  id INTEGER PRIMARY KEY, key TEXT UNIQUE, stage TEXT, step INTEGER, sample INTEGER, grp TEXT, task TEXT, family TEXT,
  ending TEXT, passed INTEGER, reward REAL, advantage REAL, turns INTEGER, format_errors INTEGER, sampled INTEGER,
  tokens INTEGER, has_tokens INTEGER, has_messages INTEGER, seconds REAL, time REAL, version INTEGER, label TEXT,
  detail TEXT, path TEXT, offset INTEGER, length INTEGER);
CREATE INDEX IF NOT EXISTS by_group ON episodes (stage, step, grp);
CREATE INDEX IF NOT EXISTS by_task ON episodes (task);
CREATE INDEX IF NOT EXISTS by_path ON episodes (path);
CREATE INDEX IF NOT EXISTS by_step ON episodes (step);
CREATE INDEX IF NOT EXISTS by_facet ON episodes (stage, family, ending, passed);
"""
_OF_FILES = ("path", "offset", "length", "has_tokens", "has_messages", "tokens")
_ALL = ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])
CONFLICT: Mapping[Flavor, str] = {
    "episode": _ALL,
    "trajectory": ", ".join(f"{name} = excluded.{name}" for name in NAMES[1:] if name != "label"),
    # A verdict knows the labels of its task, and not where its episode stands.
    "verdict": ", ".join(
        f"{name} = excluded.{name}" for name in NAMES[1:] if name not in (*_OF_FILES, "grp", "advantage")
    ),
}
MAX_DETAIL = 500


@dataclass(frozen=True, slots=True)
class Source:
    """A file of episodes."""

    path: Path
    stage: str
    flavor: Flavor


def sources_of(run: FoundRun) -> list[Source]:
    """The files of a run's episodes, in the order in which they are read."""
    if run.path.is_file():
        return [Source(run.path, "", "trajectory")]
    if run.kind == "training":
        folders = sorted(run.path.glob("*/episodes"))
        return [
            Source(path, folder.parent.name, "episode")
            for folder in folders
            for path in sorted(folder.glob("*.jsonl"))
            if path.stem.isdigit()
        ]
    named: tuple[tuple[str, Flavor], ...] = (("trajectories.jsonl", "trajectory"), ("verdicts.jsonl", "verdict"))
    return [Source(run.path / name, "", flavor) for name, flavor in named if (run.path / name).is_file()]


def row_of_line(source: Source, offset: int, line: bytes) -> dict[str, Any] | None:
    """The index's row of a line; None where it is none."""
    try:
        row = _head(line) if source.flavor == "episode" else json.loads(line)
        made = _MAKERS[source.flavor](source, row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    made |= {"stage": source.stage, "path": str(source.path), "offset": offset, "length": len(line)}
    made["detail"] = str(made.get("detail") or "")[:MAX_DETAIL].encode("utf-8", "replace").decode("utf-8")
    for name in ("key", "grp", "task", "family", "ending", "label"):
        made[name] = str(made.get(name) or "").encode("utf-8", "backslashreplace").decode("utf-8")
    return made


def _head(line: bytes) -> dict[str, Any]:
    """An episode's row without its conversation, which stands last: the mark cannot be inside a text, whose quotation
    marks are escaped."""
    cut = line.find(b', "evidence": ')
    row = json.loads(line if cut < 0 else line[:cut] + b"}")
    row["has_messages"] = not line.rstrip().endswith(b'"messages": null}')
    return row


def _of_episode(source: Source, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_of_any(row),
        "key": f"{source.stage}:{row['step']}:{row['index']}",
        "step": row["step"],
        "sample": row["index"],
        "grp": row["group_id"],
        "advantage": row.get("advantage"),
        "sampled": row.get("num_sampled"),
        "tokens": row.get("num_tokens"),
        "has_tokens": bool(row.get("tokens")),
        "has_messages": row["has_messages"],
        "time": row.get("time"),
        "version": (row.get("version") or [None])[0],
    }


def _of_trajectory(source: Source, row: Mapping[str, Any]) -> dict[str, Any]:
    nodes, segments = row.get("tree") or (), row.get("segments") or ()
    lengths = [len(one["token_ids"]) for one in (*nodes, *segments)]
    sampled = [len(node["token_ids"]) * bool(node["trained"]) for node in nodes]
    sampled += [sum(segment["loss_mask"]) for segment in segments]
    sample = row.get("index", row.get("sample", 0))
    return {
        **_of_any(row),
        "key": f"{sample}:{row['task_id']}",
        "sample": sample,
        "grp": row.get("group_id") or row["task_id"],
        "sampled": sum(sampled) if lengths else None,
        "tokens": sum(lengths) if lengths else None,
        "has_tokens": any(lengths),
        "has_messages": bool(row.get("messages")),
    }


def _of_verdict(source: Source, row: Mapping[str, Any]) -> dict[str, Any]:
    task = row.get("task", row["task_id"])
    labels = row.get("labels") or {}
    return {
        **_of_any({**row, "task_id": task, "reward": row.get("score")}),
        "key": f"{row['index']}:{task}",
        "sample": row["index"],
        "grp": str(task),
        "sampled": row.get("num_tokens"),
        "has_tokens": False,
        "has_messages": False,
        "seconds": row.get("seconds"),
        "label": labels.get("repo") or labels.get("difficulty") or labels.get("level") or labels.get("operator") or "",
    }


def _of_any(row: Mapping[str, Any]) -> dict[str, Any]:
    passed = row.get("passed")
    return {
        "task": row["task_id"],
        "family": row.get("family"),
        "ending": row.get("ending"),
        "passed": None if passed is None else int(passed),
        "reward": row.get("reward"),
        "turns": row.get("num_turns"),
        "format_errors": row.get("num_format_errors"),
        "seconds": (row.get("timings") or {}).get("total"),
        "detail": row.get("detail"),
    }


_MAKERS = {"episode": _of_episode, "trajectory": _of_trajectory, "verdict": _of_verdict}
