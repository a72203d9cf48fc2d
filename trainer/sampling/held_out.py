"""What is held out stays out: every source of what a run learns is compared with the tasks that will measure it."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...agent.identity import Identity, identity_of, programs_of_row
from ...agent.trajectory import Trajectory
from ...envs.datasets.decontaminate import held_out_of, problem_of_row, problem_of_task
from ...envs.datasets.files import read_rows
from ...envs.datasets.statements import Statements
from ...envs.task import Task
from ...envs.trace.examples import Example
from ...envs.trace.shown_code import programs_in
from ...envs.trace.twins import keys_in, shape_of
from ...errors import TaskError
from ...model.chat.messages import Message
from ..recipe.family import SMALL_SOURCES
from .families import Family
from .left_out import Account, LeftOut

MIN_LINE = 15
"""Characters of a line of a fix, blanks left out, below which other code has it by chance."""
_NUMBER = re.compile(r"^\s*(?:[^\s:]+[:-])?\d+\s*[:|│\t -]\s*")
_SIGN = re.compile(r"^\s*[-+>]\s*")
"""What stands before a line of code where a file is shown with numbers, a search its places, or a patch."""


Found = tuple[str, str] | None
"""(reason, what it is like) where an item must not be learned."""


class HeldOut:
    """Everything that a run measures by: its families' held-out tasks, and the evaluation suites it names."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        unsaid: Container[str] = (),
        trained: Sequence[Task] = (),
        suites: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """
        Args:
            tasks: held out.
            unsaid: ids of those whose statement tells nothing.
            trained: the families' training tasks: what they say, too, is a template and tells nothing apart.
            suites: rows of evaluation suites (``recipe.decontaminate``).
        """
        rows = list(suites)
        self._tasks = {(task.family, task.id): task.id for task in tasks}
        self._suites = held_out_of(rows) if rows else None
        self._programs: dict[str, str] = {}
        self._functions: dict[str, str] = {}
        self._repositories: dict[str, str] = {}
        self._commits: dict[str, str] = {}
        self._fixes: dict[str, str] = {}
        self._fix_lines: dict[str, set[str]] = {}
        said: list[tuple[str, str]] = []
        for task in tasks:
            identity = identity_of(task)
            self._add(identity, task.id)
            if task.id not in unsaid:
                said.append((task.id, identity.statement))
        for row in rows:
            problem = problem_of_row(row)
            self._add(
                Identity(
                    statement=problem.statement,
                    repository=problem.repository,
                    commit=problem.commit,
                    fix=problem.fix,
                    **programs_of_row(row),
                ),
                problem.id,
            )
            said.append((problem.id, problem.statement))
        self._shapes = {shape_of(key) for key in (*self._programs, *self._functions)}
        self._statements = Statements(said, [problem_of_task(task).statement for task in trained])
        self._trained = {(task.family, task.id) for task in trained}

    def _add(self, identity: Identity, name: str) -> None:
        self._programs |= dict.fromkeys(identity.programs, name)
        self._functions |= dict.fromkeys(identity.functions, name)
        self._repositories |= {identity.repository: name} if identity.repository else {}
        self._commits |= {identity.commit: name} if identity.commit else {}
        if identity.fix:
            self._fixes[identity.fix] = name
            self._fix_lines[name] = {line for line in map(_plain, identity.fix.splitlines()) if len(line) >= MIN_LINE}

    def of_task(self, task: Task, *, near: bool = True) -> Found:
        """Args: near: also statements that are nearly the same, which tasks made of one template may be."""
        return self._of_identity(identity_of(task), (task.family, task.id), near=near)

    def of_example(self, example: Example) -> Found:
        """A trace: by its program, its functions, the library that it is of, or what its source says."""
        context = example.trace.context
        library = example.origin.partition("==")[0].lower().replace("_", "-") if example.kind == "library" else ""
        by_library = next(
            (name for repo, name in self._repositories.items() if repo.replace("_", "-") == library), None
        )
        if library and by_library:
            return "repository", by_library
        return self._of_program(context) or self._of_words([context])

    def of_episode(self, trajectory: Trajectory, identity: Identity | None = None) -> Found:
        """An episode: by its task, by what is known of that, and by every word that was said in it.

        Args:
            identity: of its task, where the file says it.
        """
        key = (trajectory.family, trajectory.task_id)
        if key in self._tasks:
            return "task", self._tasks[key]
        is_apart = key in self._trained  # the split has compared its statement with the held-out ones
        found = None if identity is None else self._of_identity(identity, key, near=not is_apart)
        if found:
            return found
        texts = [text for message in trajectory.every_message for text in _texts_of(message)]
        asked = [message.content for message in trajectory.every_message if message.role == "user"]
        for text in texts:
            found = self._of_program(text)
            if found:
                return found
        return self._of_words(texts) or (None if is_apart else self._of_asked(asked))

    def _of_identity(self, identity: Identity, key: tuple[str, str], *, near: bool) -> Found:
        if key in self._tasks:
            return "task", self._tasks[key]
        for reason, found in (
            ("program", next((self._programs[one] for one in identity.programs if one in self._programs), None)),
            ("program", next((self._functions[one] for one in identity.functions if one in self._functions), None)),
            ("commit", self._commits.get(identity.commit)),
            ("patch", self._fixes.get(identity.fix)),
            ("statement", self._statements.same(identity.statement)),
            ("statement", self._statements.near(identity.statement) if near else None),
        ):
            if found:
                return reason, found
        if self._suites is not None:
            dropped = self._suites.match(identity.problem(key[1]))
            if dropped is not None:
                return dropped.reason, dropped.matches
        return None

    def _of_program(self, text: str) -> Found:
        """By a held-out program that a text holds."""
        if not self._shapes or ("def " not in text and "\n" not in text.strip()):
            return None
        for piece in programs_in(text):
            for key in keys_in(piece, self._shapes):
                like = self._functions.get(key) or self._programs.get(key)
                if like:
                    return "program", like
        return None

    def _of_words(self, texts: Sequence[str]) -> Found:
        """By a held-out fix or statement that stands among other words."""
        if self._fixes:
            lines = {line for text in texts for line in _lines_shown(text)}
            like = next((name for name, wanted in self._fix_lines.items() if wanted and wanted <= lines), None)
            if like:
                return "patch", like
        like = next((found for text in texts if (found := self._statements.within(text))), None)
        return ("statement", like) if like else None

    def _of_asked(self, texts: Sequence[str]) -> Found:
        like = next((found for text in texts if (found := self._statements.near(text))), None)
        return ("statement", like) if like else None


def _texts_of(message: Message) -> list[str]:
    """What was said, and every text that a call was given."""
    texts = [message.content, message.thinking or ""]
    waiting = [dict(call.arguments) for call in message.calls]
    values: list[Any] = list(waiting)
    while values:
        value = values.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            values += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            values += value
    return [text for text in texts if text]


def _lines_shown(text: str) -> Iterator[str]:
    """Lines of code, whichever way a file or a patch is shown; short ones are everywhere."""
    for line in text.splitlines():
        without = _NUMBER.sub("", line)
        for one in {line, _SIGN.sub("", line), without, _SIGN.sub("", without)}:
            plain = _plain(one)
            if len(plain) >= MIN_LINE:
                yield plain


def _plain(line: str) -> str:
    return " ".join(line.split())


def suites_of(paths: Iterable[Path]) -> list[Mapping[str, Any]]:
    """The rows of files of evaluation suites."""
    return [row.value for path in paths for row in read_rows(path)]


def _asked_alike(family: Family) -> set[str]:
    """Held-out tasks of an environment's own, or of small repositories, whose statement a training task has too, word
    for word: what a policy finds tells them apart, and commit and fix of a repository; the statement tells none."""
    if family.config.tasks not in ("environment", "small-repositories"):
        return set()
    asked = {identity_of(task).statement for task in family.train}
    return {task.id for task in family.held_out if identity_of(task).statement in asked}


def held_out_of_run(families: Sequence[Family], suites: Sequence[Path]) -> HeldOut:
    """What a run measures by: its families' held-out tasks, and evaluation suites."""
    return HeldOut(
        [task for family in families for task in family.held_out],
        unsaid={task_id for family in families for task_id in _asked_alike(family)},
        trained=[task for family in families for task in family.train],
        suites=suites_of(suites),
    )


def keep_apart(families: Sequence[Family], suites: Sequence[Path], account: Account) -> list[Family]:
    """The families without training tasks that are, or are like, a held-out task of any of them.

    Tasks that a recipe makes itself are of few templates, and their makers keep the splits apart: their statements are
    compared word for word alone.

    Args:
        account: is told what was left out.
    Raises:
        TaskError: a family would have no task left to train on.
    """
    held_out = held_out_of_run(families, suites)
    apart = []
    for family in families:
        near = family.config.tasks not in SMALL_SOURCES
        found = [(task, held_out.of_task(task, near=near)) for task in family.train]
        kept = tuple(task for task, like in found if like is None)
        name = f"tasks of {family.config.name}"
        account.rows += [
            LeftOut(source=name, item=task.id, reason=like[0], like=like[1]) for task, like in found if like is not None
        ]
        if found and not kept:
            raise TaskError(
                f"every training task of family {family.config.name!r} is, or is like, one that is held out "
                f"({found[0][0].id!r} is like {(found[0][1] or ('', ''))[1]!r}); give other tasks"
            )
        apart.append(replace(family, train=kept))
    return apart


def without_held_out(
    demonstrations: Sequence[tuple[str, Trajectory]], held_out: HeldOut, account: Account
) -> list[tuple[str, Trajectory]]:
    """(family, episode) for each demonstration that holds nothing of what is held out."""
    kept = []
    for name, episode in demonstrations:
        like = held_out.of_episode(episode)
        if like is None:
            kept.append((name, episode))
        else:
            account.rows.append(LeftOut(source="demonstrations", item=episode.task_id, reason=like[0], like=like[1]))
    return kept
