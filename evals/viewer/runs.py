"""Runs on the disk: which there are under some folders, what each is, and whether it goes on. Nothing is written."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...envs.runs.lock import holder_of

Kind = Literal["training", "evaluation", "grading", "episodes"]
DEPTH = 4
"""How far below a given folder runs are looked for."""
SIGNS = ("metrics.jsonl", "verdicts.jsonl", "trajectories.jsonl", "progress.json", "report.json")
"""Files by whose times a run shows that it lives, in its folder and in those of its stages."""
SAMPLED = ("distill", "rl")
"""Stages that learn from episodes; the others from documents."""
STAGES = ("midtrain", "sft", "start", "distill", "rl", "control")


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run's folder (or a file of episodes).

    Attributes:
        id: of its path; the same in every process.
        name: the path below the folder in which it was found.
    """

    id: str
    path: Path
    name: str
    kind: Kind


def find_runs(folders: Sequence[Path]) -> list[FoundRun]:
    """Every run at and below the folders, each once; what lies inside a training run is part of it."""
    found: dict[Path, FoundRun] = {}
    for folder in folders:
        base = folder.resolve()
        for path, kind in _walk(base, DEPTH):
            name = path.name if path == base else path.relative_to(base).as_posix()
            found.setdefault(path, FoundRun(id_of(path), path, name, kind))
    return list(found.values())


def id_of(path: Path) -> str:
    """Ten hexadecimal digits of a resolved path."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:10]


def kind_of(path: Path) -> Kind | None:
    """What a folder or file holds; None: no run."""
    if path.is_file():
        return "episodes" if path.suffix == ".jsonl" else None
    if (path / "recipe.json").is_file():
        return "training"
    if (path / "settings.json").is_file() or (path / "verdicts.jsonl").is_file():
        settings = read_json(path / "settings.json") or read_json(path / "report.json") or {}
        return "grading" if {"predictions_sha256", "predictions"} & settings.keys() else "evaluation"
    return "episodes" if (path / "trajectories.jsonl").is_file() else None


def evaluations_in(run: FoundRun) -> list[FoundRun]:
    """The evaluations of a training run, named as its stages and families."""
    root = run.path / "evals"
    return [
        FoundRun(id_of(path), path, f"{run.name}/{path.relative_to(run.path).as_posix()}", kind)
        for path, kind in _walk(root, 3)
        if kind == "evaluation"
    ]


def _walk(path: Path, depth: int) -> Iterator[tuple[Path, Kind]]:
    kind = kind_of(path)
    if kind is not None:
        yield path, kind
        return
    if depth == 0:
        return
    try:
        entries = sorted(entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in entries:
        if not name.startswith("."):
            yield from _walk(path / name, depth - 1)


def state_of(run: FoundRun) -> dict[str, Any]:
    """ "state": "running", "paused", "died" (its process is gone), "ended", "stopped" (without a report) or "elsewhere"
    (on another machine); "sign": seconds since 1970 of the last one of life; "command" of who holds it."""
    sign = _last_sign(run)
    if run.path.is_file():
        return {"state": "ended", "sign": sign, "command": None}
    holder = holder_of(run.path)
    if holder is not None:
        alive = holder["alive"]
        state = "elsewhere" if alive is None else "running" if alive else "died"
        progress = read_json(run.path / "progress.json") or {}
        if state == "running" and progress.get("state") == "paused":
            state = "paused"
        return {"state": state, "sign": sign, "command": holder.get("command")}
    done = (run.path / "report.json").is_file()
    return {"state": "ended" if done else "stopped", "sign": sign, "command": None}


def stages_of(run: FoundRun) -> list[str]:
    """Stages of a training run that have metrics, in their order."""
    names = {path.parent.name for path in run.path.glob("*/metrics.jsonl")}
    return [*(name for name in STAGES if name in names), *sorted(names - set(STAGES))]


def about(run: FoundRun) -> dict[str, Any]:
    """What the list of runs says of one, but for its figures."""
    found: dict[str, Any] = {"id": run.id, "name": run.name, "path": str(run.path), "kind": run.kind, **state_of(run)}
    if run.kind == "training":
        recipe = read_json(run.path / "recipe.json") or {}
        found |= {
            "recipe": recipe.get("name", ""),
            "of": ", ".join(family.get("name", "") for family in recipe.get("families", ())),
            "steps": {name: (recipe.get(name) or {}).get("steps") for name in SAMPLED},
            "stages": stages_of(run),
        }
    else:
        settings = read_json(run.path / "settings.json") or {} if run.path.is_dir() else {}
        found |= {"recipe": settings.get("suite", ""), "of": settings.get("policy", ""), "stages": []}
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none, or while it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _last_sign(run: FoundRun) -> float:
    if run.path.is_file():
        return run.path.stat().st_mtime
    folders = [run.path, *(run.path / stage for stage in stages_of(run))] if run.kind == "training" else [run.path]
    times = [0.0]
    for folder in folders:
        for name in SIGNS:
            try:
                times.append((folder / name).stat().st_mtime)
            except OSError:
                continue
    return max(times) or time.time()
