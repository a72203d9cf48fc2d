"""Keeping evaluation problems out of training rows: by repository, and by problem."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .swe_sources import canonical_row

SHINGLE_WORDS = 8
MIN_OVERLAP = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A row left out, and why ("repository", "instance", "commit", "patch", "statement")."""

    instance_id: str
    reason: str
    matches: str


def decontaminate(
    rows: Iterable[Mapping[str, Any]], evaluation: Iterable[Mapping[str, Any]], *, by_repository: bool = True
) -> tuple[list[Mapping[str, Any]], list[Dropped]]:
    """Training rows without those that an evaluation set could be learnt from.

    Args:
        rows: of any known set (``swe_sources``); given back as they were.
        evaluation: rows of the evaluation sets.
        by_repository: drop every row of a repository that the evaluation uses. Without it rows are compared by
            problem alone: the instance, the base commit, the lines that the fix adds, or a statement of which half of
            all runs of eight words stand in an evaluation's.
    Returns:
        (rows kept, rows dropped), each in the order given.
    """
    held = [canonical_row(row) for row in evaluation]
    repositories = {_repository(row): row["instance_id"] for row in held if _repository(row)}
    instances = {str(row["instance_id"]).lower(): row["instance_id"] for row in held}
    commits = {row["base_commit"]: row["instance_id"] for row in held if row.get("base_commit")}
    fixes = {fix: row["instance_id"] for row in held if (fix := _added(row.get("patch") or ""))}
    shingles: dict[tuple[str, ...], str] = {}
    for row in held:
        shingles |= dict.fromkeys(_shingles(row.get("problem_statement") or ""), str(row["instance_id"]))
    kept: list[Mapping[str, Any]] = []
    dropped: list[Dropped] = []
    for raw in rows:
        row = canonical_row(raw)
        name = str(row.get("instance_id", ""))
        found = (
            ("repository", repositories.get(_repository(row)) if by_repository else None),
            ("instance", instances.get(name.lower())),
            ("commit", commits.get(row.get("base_commit") or None)),  # type: ignore[arg-type]
            ("patch", fixes.get(_added(row.get("patch") or ""))),
            ("statement", _like(_shingles(row.get("problem_statement") or ""), shingles)),
        )
        reason, matches = next(((why, match) for why, match in found if match), ("", ""))
        if reason:
            dropped.append(Dropped(instance_id=name, reason=reason, matches=str(matches)))
        else:
            kept.append(raw)
    return kept, dropped


def _repository(row: Mapping[str, Any]) -> str:
    """ "owner/name" in lower case; SWE-smith writes "swesmith/owner__name.commit", R2E-Gym the bare name."""
    repo = str(row.get("repo") or "").lower()
    if match := re.fullmatch(r"swesmith/(.+?)__(.+)\.[0-9a-f]{6,40}", repo):
        repo = f"{match[1]}/{match[2]}"
    return repo.rpartition("/")[2]


def _added(patch: str) -> str:
    """What a patch adds, blanks left out; "" where that is too little to tell two fixes apart."""
    lines = [line[1:].split() for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++")]
    text = "\n".join(" ".join(words) for words in lines if words)
    return text if len(text) >= 40 else ""


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + SHINGLE_WORDS]) for n in range(len(words) - SHINGLE_WORDS + 1)}


def _like(mine: Sequence[tuple[str, ...]] | set[tuple[str, ...]], theirs: Mapping[tuple[str, ...], str]) -> str | None:
    matches = [theirs[shingle] for shingle in mine if shingle in theirs]
    return matches[0] if mine and len(matches) >= MIN_OVERLAP * len(mine) else None
