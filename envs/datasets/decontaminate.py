"""Keeping evaluation problems out of training rows and tasks: by repository, and by problem."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import TaskError
from ..task import Task
from .row_format import said_by_the_user
from .statements import MIN_OVERLAP, shingles_of, words_of
from .statements import SHINGLE_WORDS as SHINGLE_WORDS
from .swe_sources import canonical_row

STATEMENT_KEYS = (
    "problem_statement",
    "problem",
    "question",
    "question_content",
    "description",
    "prompt",
    "text",
    "code",
)
"""Where sets of problems, for training or evaluation, have what they ask; the first that a row has."""
ID_KEYS = ("instance_id", "unique_id", "task_id", "question_id", "problem_id", "id", "name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is compared of a row or a task. "" where it has none.

    Attributes:
        statement: what is asked.
        repository: bare name, lower case.
        commit, fix: of a repository's problem: what it stands on, and what its gold patch adds.
    """

    id: str
    statement: str
    repository: str = ""
    commit: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A problem left out, and why ("repository", "instance", "commit", "patch", "statement")."""

    instance_id: str
    reason: str
    matches: str


class HeldOutProblems:
    """The problems of evaluation sets, to compare training problems with."""

    def __init__(self, problems: Iterable[Problem], *, by_repository: bool = True) -> None:
        """
        Args:
            by_repository: drop every problem of a repository that the evaluation uses. Without it problems are
                compared alone: the instance, the base commit, the lines that the fix adds, or the statement.
        """
        self._repositories: dict[str, str] = {}
        self._instances: dict[str, str] = {}
        self._commits: dict[str, str] = {}
        self._fixes: dict[str, str] = {}
        self._sizes: list[int] = []
        self._names: list[str] = []
        self._shingles: dict[tuple[str, ...], list[int]] = {}
        for one in problems:
            if one.repository and by_repository:
                self._repositories[one.repository] = one.id
            if one.repository or one.commit:  # ids of other sets are numbers, and mean nothing in another set
                self._instances[one.id.lower()] = one.id
            self._commits |= {one.commit: one.id} if one.commit else {}
            self._fixes |= {one.fix: one.id} if one.fix else {}
            mine = shingles_of(words_of(one.statement))
            for shingle in mine:
                self._shingles.setdefault(shingle, []).append(len(self._sizes))
            self._sizes.append(len(mine))
            self._names.append(one.id)

    def match(self, problem: Problem) -> Dropped | None:
        """Why a training problem must be left out; None: it need not.

        Statements are alike where half of the runs of eight words of the shorter one stand in the other. One with fewer
        words is like another with the same words alone.
        """
        found = (
            ("repository", self._repositories.get(problem.repository)),
            ("instance", self._instances.get(problem.id.lower())),
            ("commit", self._commits.get(problem.commit)),
            ("patch", self._fixes.get(problem.fix)),
            ("statement", self._like(problem.statement)),
        )
        reason, matches = next(((why, match) for why, match in found if match), ("", ""))
        return Dropped(instance_id=problem.id, reason=reason, matches=matches) if reason else None

    def _like(self, statement: str) -> str | None:
        mine = shingles_of(words_of(statement))
        shared = Counter(number for shingle in mine for number in self._shingles.get(shingle, ()))
        for number, count in shared.most_common():
            if count >= MIN_OVERLAP * min(len(mine), self._sizes[number]):
                return self._names[number]
        return None


def decontaminate(
    rows: Iterable[Mapping[str, Any]], evaluation: Iterable[Mapping[str, Any]], *, by_repository: bool = True
) -> tuple[list[Mapping[str, Any]], list[Dropped]]:
    """Training rows without those that an evaluation set could be learnt from.

    Args:
        rows: of any known set; given back as they were.
        evaluation: rows of the evaluation sets, of any of these.
        by_repository: see ``HeldOutProblems``.
    Returns:
        (rows kept, rows dropped), each in the order given.
    Raises:
        TaskError: a row of the evaluation states no problem: nothing could be compared with it.
    """
    held = held_out_of(evaluation, by_repository=by_repository)
    kept: list[Mapping[str, Any]] = []
    dropped: list[Dropped] = []
    for raw in rows:
        found = held.match(problem_of_row(raw))
        if found is None:
            kept.append(raw)
        else:
            dropped.append(found)
    return kept, dropped


def decontaminate_tasks(tasks: Sequence[Task], held: HeldOutProblems) -> tuple[list[Task], list[Dropped]]:
    """(tasks kept, tasks dropped), each in the order given; as ``decontaminate``."""
    matches = [held.match(problem_of_task(task)) for task in tasks]
    kept = [task for task, found in zip(tasks, matches, strict=True) if found is None]
    return kept, [found for found in matches if found is not None]


def held_out_of(rows: Iterable[Mapping[str, Any]], *, by_repository: bool = True) -> HeldOutProblems:
    """The problems of rows of evaluation sets.

    Raises:
        TaskError: a row states no problem: nothing could be compared with it.
    """
    problems = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row.get("inputs"), list) and not _statement(row):
            continue  # HumanEval+ of 2023 has its further inputs in rows of their own
        problem = problem_of_row(row)
        if not (problem.statement or problem.repository or problem.commit):
            raise TaskError(
                f"row {number} of the evaluation sets has none of {', '.join(STATEMENT_KEYS)} (its keys: "
                f"{', '.join(sorted(map(str, row)))}); give the suites' own files"
            )
        problems.append(problem if problem.id else replace(problem, id=f"row {number}"))
    return HeldOutProblems(problems, by_repository=by_repository)


def problem_of_row(raw: Mapping[str, Any]) -> Problem:
    """What is compared of a row of any known set, or of a task's row."""
    row = canonical_row(raw)
    name = next((str(row[key]) for key in ID_KEYS if row.get(key) not in (None, "")), "")
    hidden = row.get("hidden")
    if isinstance(hidden, Mapping) and isinstance(hidden.get("problem_statement"), str):
        row = {**hidden, "prompt": row.get("prompt")}  # a task of SWE-bench's row
    return Problem(
        id=name,
        statement=_statement(row),
        repository=_repository(row),
        commit=str(row.get("base_commit") or ""),
        fix=_added(str(row.get("patch") or "")),
    )


def problem_of_task(task: Task) -> Problem:
    """What is compared of a task."""
    return problem_of_row({"id": task.id, "prompt": task.prompt, "hidden": task.hidden})


def _statement(row: Mapping[str, Any]) -> str:
    for key in STATEMENT_KEYS:
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if key == "prompt" and isinstance(value, list):
            try:
                return said_by_the_user(value)
            except TaskError:
                continue
    return ""


def _repository(row: Mapping[str, Any]) -> str:
    """The bare name in lower case; SWE-smith writes "swesmith/owner__name.commit", R2E-Gym the bare name."""
    repo = str(row.get("repo") or "").lower()
    if match := re.fullmatch(r"swesmith/(.+?)__(.+)\.[0-9a-f]{6,40}", repo):
        repo = f"{match[1]}/{match[2]}"
    return repo.rpartition("/")[2]


def _added(patch: str) -> str:
    """What a patch adds, blanks left out; "" where that is too little to tell two fixes apart."""
    lines = [line[1:].split() for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++")]
    text = "\n".join(" ".join(words) for words in lines if words)
    return text if len(text) >= 40 else ""
