"""What a task is, in as few words as tell it again: kept beside an episode, so that the held-out are left out."""

import ast
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..envs.datasets.decontaminate import Problem, problem_of_task
from ..envs.task import Task
from ..envs.trace.twins import function_keys, twin_key

PROGRAM_KEYS = ("program", "solution", "code", "canonical_solution")
"""Where tasks, and rows of evaluation suites, have a program: the one that is asked about, or the gold answer."""
MIN_NODES = 40
"""Of the syntax tree of a gold answer's function, below which others are like it by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    Attributes:
        statement: what is asked; "" where the environment words it.
        repository: bare name, lower case.
        commit, fix: of a repository's problem: what it stands on, and what its gold patch adds.
        programs: ``twin_key`` of each program that the task is about.
        functions: of each of their functions that tells the task.
    """

    statement: str = ""
    repository: str = ""
    commit: str = ""
    fix: str = ""
    programs: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    def problem(self, name: str) -> Problem:
        return Problem(id=name, statement=self.statement, repository=self.repository, commit=self.commit, fix=self.fix)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Identity":
        """Inverse of ``to_json``; unknown keys are ignored."""
        known: dict[str, Any] = {key: row[key] for key in cls.__dataclass_fields__ if key in row}
        for key in ("programs", "functions"):
            known[key] = tuple(known.get(key, ()))
        return cls(**known)


def identity_of(task: Task) -> Identity:
    """A task about a program is told by that: its question is a template."""
    problem = problem_of_task(task)
    return Identity(
        statement="" if isinstance(task.hidden.get("program"), str) else problem.statement,
        repository=problem.repository,
        commit=problem.commit,
        fix=problem.fix,
        **programs_of_row(task.hidden),
    )


def programs_of_row(row: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """ "programs" and "functions" of ``Identity``, of a task's hidden part or of a suite's row."""
    programs: dict[str, None] = {}
    functions: dict[str, None] = {}
    call = row.get("call")
    for key in PROGRAM_KEYS:
        source = row.get(key)
        if not isinstance(source, str):
            continue
        if key == "canonical_solution" and isinstance(row.get("prompt"), str):
            source = row["prompt"] + source  # HumanEval's is the body of the function that the prompt begins
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if len(tree.body) < 2 and not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body):
            continue  # the words of a solution can be an expression of Python
        programs[twin_key(source)] = None
        called = _names_in(call) if isinstance(call, str) else None
        for one, name in function_keys(source).items():
            if name in called if called else one.count("(") >= MIN_NODES:
                functions[one] = None
    return {"programs": tuple(programs), "functions": tuple(functions)}


def _names_in(expression: str) -> set[str]:
    try:
        return {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
