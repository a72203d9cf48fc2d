"""Scripted experts of the quickstart's families: right strategies and common mistakes, each acting in the real
environment. Which one acts is drawn by the recipe's shares, so imitating them has a ceiling that only reward lifts.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence

from ..envs.synthesis.small_functions import OFF_BY_ONE, OPERATORS
from ..envs.synthesis.small_repositories import NUM_FUNCTIONS
from ..envs.task import Task
from ..errors import PolicyError, TaskError
from ..model.chat.messages import Message, ToolCall
from .policy import Script, play

Expert = Callable[[Task], Script]


def say(content: str) -> Message:
    return Message(role="assistant", content=content)


def use(name: str, **arguments: str) -> Message:
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


# Repairing small repositories: the report names a file, three of its functions contradict their comments, and only the
# tests, which name it, tell which one is broken. It is looked at and written as its comment says.

OPERATOR_OF = {word: operator for operator, word in OPERATORS.items()}
CHECK = use("bash", command="python check.py")
Edit = tuple[str, str]
"""(name of a function, what it shall return)."""
HEAD = re.compile(r"def (?P<name>\w+)\(.*\):  # (?P<left>\w+) (?P<word>\w+) (?P<right>\w+)")
BODY = re.compile(r"    return (?P<left>\w+) (?P<operator>\S+) (?P<right>\w+)")


def check_and_repair(task: Task) -> Script:
    """Runs the tests, looks at the function that they name, writes it as its comment says, and runs them again."""
    return _after_the_tests(lambda head, body: _said(head))


def mend_half(task: Task) -> Script:
    """Runs the tests and looks too, and gives the function the comment's operands, with the operator that it has."""
    return _after_the_tests(_with_own_operator)


def check_and_give_up(task: Task) -> Script:
    """Runs the tests, and submits without a change."""
    return play([CHECK, use("submit")])


def guess_and_submit(task: Task) -> Script:
    """Looks at a function, by chance, and writes it as its comment says."""
    return _without_the_tests(task, lambda path: lines_of(path, _place(task)), lambda lines: [_edit(lines[0])])


def stop_at_an_error(task: Task) -> Script:
    """Leaves out the file's suffix where it looks at a function, by chance, is told so, and submits."""
    path = _reported_file(task).removesuffix(".py")
    return play([use("bash", command=lines_of(path, _place(task))), use("submit")])


def _place(task: Task) -> int:
    return random.Random(f"{task.id}/place").randrange(NUM_FUNCTIONS)


def _after_the_tests(rule_of: Callable[[str, str], str]) -> Script:
    def script(conversation: Sequence[Message]) -> Message:
        answers = _answers(conversation)
        if not answers:
            return CHECK
        named = re.search(r"^def (\w+) FAILED$", answers[0], re.MULTILINE)
        if named is None:
            raise PolicyError(f"the tests name no function that fails: {answers[0]!r:.200}")
        if len(answers) == 1:
            return use("bash", command=look(named[1]))
        if len(answers) == 2:
            head, body = answers[1].splitlines()
            return use("bash", command=put(named[1], rule_of(head, body)))
        return CHECK if len(answers) == 3 else use("submit")

    return script


def _without_the_tests(
    task: Task, shows: Callable[[str], str], edits_of: Callable[[Sequence[str]], Sequence[Edit]]
) -> Script:
    path = _reported_file(task)

    def script(conversation: Sequence[Message]) -> Message:
        answers = _answers(conversation)
        if not answers:
            return use("bash", command=shows(path))
        edits = edits_of(answers[0].splitlines())
        return use("bash", command=put(*edits[len(answers) - 1])) if len(answers) <= len(edits) else use("submit")

    return script


def look(function: str) -> str:
    """The command that shows a function, found by its name, which one module of a repository alone has."""
    return f"grep -hA1 'def {function}' pkg/*.py"


def lines_of(path: str, place: int) -> str:
    """The command that shows the n-th function of a file."""
    return f"sed -n '{2 * place + 1},{2 * place + 2}p' {path}"


def whole(path: str) -> str:
    """The command that shows all of a file."""
    return f"cat {path}"


def put(function: str, rule: str) -> str:
    """The command that gives a function another body."""
    return f"sed -i '/def {function}/{{n;s|return .*|return {rule}|}}' pkg/*.py"


def _said(head: str) -> str:
    """What the comment of a head says, as code."""
    parts = _parts(HEAD, head)
    return f"{parts['left']} {OPERATOR_OF[parts['word']]} {parts['right']}"


def _edit(head: str) -> Edit:
    return _parts(HEAD, head)["name"], _said(head)


def _with_own_operator(head: str, body: str) -> str:
    said = _parts(HEAD, head)
    return f"{said['left']} {_parts(BODY, body)['operator']} {said['right']}"


def _parts(pattern: re.Pattern[str], line: str) -> dict[str, str]:
    found = pattern.fullmatch(line)
    if found is None:
        raise PolicyError(f"the expert reads lines as small repositories have them, not {line!r:.200}")
    return found.groupdict()


def _answers(conversation: Sequence[Message]) -> list[str]:
    """What tools answered."""
    return [message.content for message in conversation if message.role == "tool"]


def _reported_file(task: Task) -> str:
    found = re.fullmatch(r"Tests of (pkg/\w+\.py) fail\.", task.prompt)
    if found is None:
        raise TaskError(f"task {task.id!r}: its statement names no file; these experts repair small repositories only")
    return found[1]


# Policies that read and do not run the tests. Those that do not compare a function with its comment do the same in
# every repository, and are the yardstick; those that compare find three functions, one of them broken.


def blind(place: int, of: Callable[[Mapping[str, str], Mapping[str, str]], str]) -> Expert:
    """Gives the n-th function another body.

    Args:
        of: parts of the head and of the body -> what the function shall return.
    """

    def edits_of(lines: Sequence[str]) -> list[Edit]:
        head, body = _parts(HEAD, lines[2 * place]), _parts(BODY, lines[2 * place + 1])
        return [(head["name"], of(head, body))]

    return lambda task: _without_the_tests(task, whole, edits_of)


def _as_said(head: Mapping[str, str], body: Mapping[str, str]) -> str:
    return f"{head['left']} {OPERATOR_OF[head['word']]} {head['right']}"


def _other_operator(head: Mapping[str, str], body: Mapping[str, str]) -> str:
    other = {"+": "-", "-": "+", "*": "//", "//": "*", "%": "//"}.get(body["operator"], "+")
    return f"{body['left']} {other} {body['right']}"


def _off_by_one(head: Mapping[str, str], body: Mapping[str, str]) -> str:
    return f"{body['left']} {OFF_BY_ONE.get(body['operator'], body['operator'])} {body['right']}"


def _operator_said(head: Mapping[str, str], body: Mapping[str, str]) -> str:
    return f"{body['left']} {OPERATOR_OF[head['word']]} {body['right']}"


def _operand_said(head: Mapping[str, str], body: Mapping[str, str]) -> str:
    return f"{body['left']} {body['operator']} {head['right']}"


BLIND: Mapping[str, Expert] = {
    f"{of.__name__.strip('_')}_{place}": blind(place, of)
    for of in (_as_said, _other_operator, _off_by_one, _operator_said, _operand_said)
    for place in range(NUM_FUNCTIONS)
}
"""What can be done to a small repository without comparing anything in it."""


def comparing(chosen: Callable[[Sequence[Edit]], Sequence[Edit]]) -> Expert:
    """Writes some of the functions that contradict their comments as those say."""

    def edits_of(lines: Sequence[str]) -> Sequence[Edit]:
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return chosen([_edit(head) for head, body in pairs if body != f"    return {_said(head)}"])

    return lambda task: _without_the_tests(task, whole, edits_of)


COMPARING: Mapping[str, Expert] = {
    "first": comparing(lambda edits: edits[:1]),
    "second": comparing(lambda edits: edits[1:2]),
    "last": comparing(lambda edits: edits[-1:]),
    "all": comparing(lambda edits: edits),
}
"""What reading finds."""


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
        answers = _answers(conversation)
        if not answers:
            return use("python", code=f"print({expression})")
        return say(f"\\boxed{{{answers[0].strip()}}}")

    return script


def always_say(content: str) -> Expert:
    """The best policy that reads nothing: one answer to every task."""
    return lambda task: play([say(content)])


EXPERTS: Mapping[str, Mapping[str, Expert]] = {
    "small-repositories": {
        "check_and_repair": check_and_repair,
        "mend_half": mend_half,
        "check_and_give_up": check_and_give_up,
        "guess_and_submit": guess_and_submit,
        "stop_at_an_error": stop_at_an_error,
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
    "small-repairs": {"solve": write_solution, "change_nothing": write_mistake(0)},
    "word-problems": {"solve": calculate_solution, "stop_after_one_step": calculate_mistake(0)},
}
"""Experts by the source of the tasks and by name; a recipe states each one's share."""
