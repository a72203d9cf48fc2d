"""Scripted experts of the quickstart's families: right strategies and common mistakes, each acting in the real
environment. Which one acts is drawn by the recipe's shares, so imitating them has a ceiling that only reward lifts.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from ..envs.task import Task
from ..errors import PolicyError, TaskError
from ..model.chat.messages import Message, ToolCall
from .policy import Script, play

Expert = Callable[[Task], Script]

FLIPPED = {"+": "-", "-": "+", "*": "//", "//": "*"}
OPERATOR = re.compile(r" (//|[-+*]) ")


def say(content: str) -> Message:
    return Message(role="assistant", content=content)


def use(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


# Repairing small repositories: find the function the report names, read it, edit one line, submit.


def read_and_repair(task: Task) -> Script:
    """Finds the line that contradicts its comment and puts it right."""
    return _repair(task, lambda body: _gold_edit(task))


def stop_at_an_error(task: Task) -> Script:
    """Gives the line to edit without its comment, or the path without its suffix; is told so, and submits."""
    search, replace = _gold_edit(task)
    if len(search) % 2:
        return _repair(task, lambda body: (_without_comment(search), _without_comment(replace)))
    return _repair(task, lambda body: None, path_of=lambda path: path.removesuffix(".py"))


def flip_first_operator(task: Task) -> Script:
    """Flips the first operator of the function, wherever the bug is."""
    return _repair(task, _flip_first)


def give_up(task: Task) -> Script:
    """Looks, and submits without a change."""
    return _repair(task, lambda body: None)


def _repair(
    task: Task,
    choose_edit: Callable[[Sequence[str]], tuple[str, str] | None],
    path_of: Callable[[str], str] = lambda path: path,
) -> Script:
    """Find, view, edit if ``choose_edit`` says so, submit; after an error submit at once."""
    name = _reported_function(task)

    def script(conversation: Sequence[Message]) -> Message:
        answers = [message.content for message in conversation if message.role == "tool"]
        if not answers:
            return use("bash", command=f'grep -rn "def {name}" pkg')
        path = path_of(answers[0].partition(":")[0])
        if len(answers) == 1:
            return use("view", path=path)
        edit = None if answers[-1].startswith("error: ") else choose_edit(_body(answers[1], name))
        if edit is None or len(answers) == 3:
            return use("submit")
        return use("edit", path=path, search=edit[0], replace=edit[1])

    return script


def _reported_function(task: Task) -> str:
    found = re.search(r"\b([a-z]+_[a-z]+)\b", task.prompt)
    if found is None:
        raise TaskError(f"task {task.id!r}: its statement names no call; these experts repair small repositories only")
    return found[1]


def _gold_edit(task: Task) -> tuple[str, str]:
    patch: str = task.hidden["patch"]
    removed = re.findall(r"^-(?!--)(.*)$", patch, re.M)
    added = re.findall(r"^\+(?!\+\+)(.*)$", patch, re.M)
    return "\n".join(removed), "\n".join(added)


def _body(view: str, name: str) -> list[str]:
    """Lines of one function in what ``view`` answered ("N: text")."""
    lines = [line.partition(": ")[2] for line in view.splitlines()]
    start = next((i for i, line in enumerate(lines) if line.startswith(f"def {name}(")), None)
    if start is None:
        raise PolicyError(f"the expert found no function {name!r} in what it read: {view[:200]!r}")
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("def ")), len(lines))
    return lines[start + 1 : end]


def _without_comment(line: str) -> str:
    return line.partition("  #")[0]


def _flip_first(body: Sequence[str]) -> tuple[str, str] | None:
    for line in body:
        if found := OPERATOR.search(line):
            return line, line[: found.start(1)] + FLIPPED[found[1]] + line[found.end(1) :]
    return None


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
        "read_and_repair": read_and_repair,
        "stop_at_an_error": stop_at_an_error,
        "flip_first_operator": flip_first_operator,
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
