"""Which bugs were tried, and what came of each: beside a rows file, so that an interrupted run can go on."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..runs.files import written_whole
from ..task import write_jsonl
from .baseline import Baseline
from .mutate import Candidate
from .sources import Source


class Ledger:
    """``OUT.done``: the settings, what the clean tree's tests said, then a line for each bug, in the order of trying.

    It holds the rows too and is what counts: the rows file is written from it. A line is added when the archive of its
    row is in place. A line that was not written whole, and all lines from the first whose archive is gone, are cut off.

    Attributes:
        baseline: what the clean tree's tests said when the file was begun; None where nothing was begun.
        out: the rows file.
        rows: of the bugs that became tasks, in order.
        tried: keys of all bugs tried.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        """
        Raises:
            ConfigError: ``out`` was made with other settings, or by something else.
        """
        self.out, self._settings = out, dict(settings)
        self._path = out.with_name(f"{out.name}.done")
        self.baseline: Baseline | None = None
        self.rows: list[dict[str, Any]] = []
        self.tried: set[str] = set()
        if self._path.exists():
            self._read()
        elif out.exists() and out.stat().st_size:
            raise ConfigError(f"{out} is there and no run that can go on made it; remove it, or give another --out")

    def begin(self, baseline: Baseline) -> None:
        """Note what the clean tree's tests said."""
        self.baseline = baseline
        with written_whole(self._path) as file:
            file.write(json.dumps({"settings": self._settings, "baseline": baseline.to_json()}) + "\n")

    def add(self, key: str, row: dict[str, Any] | None, reason: str = "") -> None:
        """Note what came of a bug, or why nothing did, and write its row; the row's archive is in place."""
        self._append(self._path, {"bug": key, "row": row, "reason": reason})
        self.tried.add(key)
        if row is not None:
            self.rows.append(row)
            self._append(self.out, row)

    def write_rows(self, most: int) -> list[dict[str, Any]]:
        """Write the first rows, at most so many, as the rows file; they are returned."""
        write_jsonl(self.out, self.rows[:most])
        return self.rows[:most]

    def _append(self, path: Path, value: Mapping[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        lines = self._path.read_bytes().split(b"\n")
        try:
            head = json.loads(lines[0])
            before, baseline = head["settings"], Baseline.from_json(head["baseline"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{self._path} cannot be read; remove it and {self.out.name}, or give another --out"
            ) from None
        changed = [name for name, value in self._settings.items() if before.get(name) != value]
        if changed:
            told = "; ".join(f"{name} was {before.get(name)} and is {self._settings[name]}" for name in changed)
            raise ConfigError(
                f"{self.out} was made with other settings: {told}. Give the same ones, or another --out, or remove it "
                f"and {self._path.name}"
            )
        self.baseline = baseline
        kept = lines[:1]
        for line in lines[1:-1]:  # what stands after the last line break was not written whole
            entry = json.loads(line)
            row = entry["row"]
            if row is not None and not (self.out.parent / row["archive"]).is_file():
                break
            kept.append(line)
            self.tried.add(entry["bug"])
            self.rows += [row] if row is not None else []
        if kept != lines[:-1] or lines[-1]:
            with written_whole(self._path) as file:
                file.write("".join(line.decode() + "\n" for line in kept))


def reasons_of(out: Path) -> Counter[str]:
    """Why bugs became no task -> how many, of a rows file."""
    entries = map(json.loads, out.with_name(f"{out.name}.done").read_text(encoding="utf-8").splitlines()[1:])
    return Counter(entry["reason"] for entry in entries if entry.get("reason"))


def key_of(candidate: Candidate) -> str:
    """What tells a bug from all others of its source."""
    mutation = candidate.mutation
    return f"{candidate.path}:{mutation.start}-{mutation.end}:{mutation.replacement}"


def settings_of(
    source: Source, *, seed: int, suite_s: float, operators: Mapping[str, Any], confirm: bool
) -> dict[str, Any]:
    """All that the rows depend on, by the names of the command's options; how many there are to be is not among it."""
    return {
        "SOURCE": f"{source.name}=={source.version}",
        "its files": _digest(source.root),
        "--with": list(source.requirements),
        "--seed": seed,
        "--suite-budget": suite_s,
        "Python": source.python,
        "operators": sorted(operators),
        "confirmed": confirm,
    }


def _digest(root: Path) -> str:
    """Of the names and contents of a tree."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
