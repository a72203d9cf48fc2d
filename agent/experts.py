"""Scripted experts of the quickstart's families: right strategies and common mistakes, each acting in the real
environment. Which one acts is drawn by the recipe's shares, so imitating them has a ceiling that only reward lifts.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ..envs.synthesis.small_repositories import NUM_LINES, as_said
from ..envs.task import Task
from ..errors import PolicyError, TaskError
from ..model.chat.messages import Message, ToolCall
from .policy import Script, play

Expert = Callable[[Task], Script]


def say(content: str) -> Message:
    return Message(role="assistant", content=content)


def use(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


# Repairing small repositories: read the file that the report names, change a line, submit. Two lines of the file
# contradict their comments, and one of those comments is wrong; which one, only the tests tell.

CHECK = use("bash", command="python check.py")
UNDO = use("bash", command="git checkout pkg")
PASSED = "all pass"
Edit = tuple[int, str]
"""(number of a line, the line in its place)."""


def check_and_retry(task: Task) -> Script:
    """Makes one of the contradictory lines agree with its comment and runs the tests; where they fail it takes that
    back and does the same with the other line."""
    return _repair(task, lambda lines: _contradictions(task, lines), checks="retry")


def check_and_stop(task: Task) -> Script:
    """Makes one of the contradictory lines agree with its comment, runs the tests, and submits whatever they say."""
    return _repair(task, lambda lines: _contradictions(task, lines), checks="once")


def read_and_submit(task: Task) -> Script:
    """Makes one of the contradictory lines agree with its comment, and does not look whether that helps."""
    return _repair(task, lambda lines: _contradictions(task, lines))


def give_up(task: Task) -> Script:
    """Looks, and submits without a change."""
    return _repair(task, lambda lines: [])


def stop_at_an_error(task: Task) -> Script:
    """Leaves out the file's suffix where it looks, or where it changes; is told so, and submits."""
    if _heads(task):
        return _repair(task, lambda lines: [], views=lambda path: path.removesuffix(".py"))
    return _repair(task, lambda lines: _contradictions(task, lines), changes=lambda path: path.removesuffix(".py"))


def _repair(
    task: Task,
    edits_of: Callable[[Sequence[str]], Sequence[Edit]],
    checks: Literal["never", "once", "retry"] = "never",
    views: Callable[[str], str] = lambda path: path,
    changes: Callable[[str], str] = lambda path: path,
) -> Script:
    """View, change a line, check as often as ``checks`` says, submit; after an error submit at once."""
    path = _reported_file(task)

    def script(conversation: Sequence[Message]) -> Message:
        answers = [message.content for message in conversation if message.role == "tool"]
        if not answers:
            return use("view", path=views(path))
        if answers[-1].startswith(("error: ", "sed: ")) or answers[-1] == PASSED:
            return use("submit")
        edits = [use("bash", command=put(changes(path), *edit)) for edit in edits_of(_lines(answers[0]))]
        steps = {"never": edits[:1], "once": [*edits[:1], CHECK], "retry": [*edits[:1], CHECK, UNDO, *edits[1:], CHECK]}
        done = len(answers) - 1
        return steps[checks][done] if edits and done < len(steps[checks]) else use("submit")

    return script


def put(path: str, number: int, line: str) -> str:
    """The command that replaces a line of a file."""
    return f"sed -i '{number}c\\{line}' {path}"


def _reported_file(task: Task) -> str:
    found = re.match(r"(pkg/\w+\.py): ", task.prompt)
    if found is None:
        raise TaskError(f"task {task.id!r}: its statement names no file; these experts repair small repositories only")
    return found[1]


def _lines(view: str) -> list[str]:
    """Lines of a file in what ``view`` answered ("N: text")."""
    return [line.partition(": ")[2] for line in view.splitlines()]


def _contradictions(task: Task, lines: Sequence[str]) -> list[Edit]:
    """The lines that contradict their comments, as these say; in an order that nothing of the task tells."""
    found = [(number, said) for number, line in enumerate(lines, start=1) if (said := as_said(line) or line) != line]
    if not found:
        raise PolicyError(f"the expert found no line that contradicts its comment in {list(lines)!r:.200}")
    return found if _heads(task) else found[::-1]


def _heads(task: Task) -> bool:
    """A coin, thrown once a task."""
    return random.Random(f"{task.id}/coin").random() < 0.5


# Policies that look neither for contradictions nor at tests: the same edit in every repository.


def change(pattern: str, replacement: Callable[[re.Match[str]], str], place: int) -> Expert:
    """Replaces what matches in the code of a file's lines, at one place of those where it does: 0 the first, -1 the
    last."""

    def edits_of(lines: Sequence[str]) -> list[Edit]:
        found = [
            (number, line[: one.start()] + replacement(one) + line[one.end() :])
            for number, line in enumerate(lines, start=1)
            for one in re.finditer(pattern, line)
            if "  #" in line[one.end() :]
        ]
        return [found[place]] if -len(found) <= place < len(found) else []

    return lambda task: _repair(task, edits_of)


def obey(place: int) -> Expert:
    """Makes the line with the n-th comment agree with it, whatever stands there."""

    def edits_of(lines: Sequence[str]) -> list[Edit]:
        found = [(number, said) for number, line in enumerate(lines, start=1) if (said := as_said(line)) is not None]
        return found[place:][:1]

    return lambda task: _repair(task, edits_of)


FLIPPED = {" + ": " - ", " - ": " + ", " * ": " + ", "min(": "max(", "max(": "min("}
TRIVIAL: Mapping[str, Expert] = {
    **{f"flip_{n}": change(r" [-+*] |min\(|max\(", lambda one: FLIPPED[one[0]], n) for n in (0, 1, 2, -2, -1)},
    **{f"raise_{n}": change(r"\b\d+\b", lambda one: str(int(one[0]) + 1), n) for n in (0, 1, -1)},
    **{f"lower_{n}": change(r"\b\d+\b", lambda one: str(int(one[0]) - 1), n) for n in (0, 1, -1)},
    **{f"obey_{n}": obey(n) for n in range(NUM_LINES)},
}
"""What can be done to a small repository without comparing anything in it."""


# Programs and sums: the right solution, or one of the mistakes stated with the task.


def write_solution(task: Task) -> Script:
    return play([say(_fenced(task.hidden["solution"]))])


def write_mistake(number: int) -> Expert:
    return lambda task: play([say(_fenced(task.hidden["mistakes"][number]))])


def calculate_solution(task: Task) -> Script:
    return _calculate(task.hidden["solution"])


def calculate_mistake(number: int) -> Expert:
    return lambda task: _calculate(task.hidden["mistakes"][number])


def _fenced(program: str) -> str:
    return f"```python\n{program}```"


def _calculate(expression: str) -> Script:
    def script(conversation: Sequence[Message]) -> Message:
        answers = [message.content for message in conversation if message.role == "tool"]
        if not answers:
            return use("python", code=f"print({expression})")
        return say(f"\\boxed{{{answers[0].strip()}}}")

    return script


def always_say(content: str) -> Expert:
    """The best policy that reads nothing: one answer to every task."""
    return lambda task: play([say(content)])


EXPERTS: Mapping[str, Mapping[str, Expert]] = {
    "small-repositories": {
        "check_and_retry": check_and_retry,
        "check_and_stop": check_and_stop,
        "read_and_submit": read_and_submit,
        "stop_at_an_error": stop_at_an_error,
        "give_up": give_up,
    },
    "small-programs": {
        "solve": write_solution,
        "wrong_side_of_the_bound": write_mistake(0),
        "forget_the_condition": write_mistake(1),
    },
    "small-sums": {
        "solve": calculate_solution,
        "stop_after_one_step": calculate_mistake(0),
        "mistake_the_order": calculate_mistake(1),
    },
}
"""Experts by the source of the tasks and by name; a recipe states each one's share."""
