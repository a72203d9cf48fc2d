"""The quickstart's experts: the right strategies solve, the mistakes do what they are named after."""

import re
from collections import Counter

import pytest

from verigym.agent.experts import EXPERTS, TRIVIAL, always_say, use
from verigym.envs.synthesis.small_programs import small_programs
from verigym.envs.synthesis.small_repositories import NUM_LINES
from verigym.envs.synthesis.small_sums import small_sums
from verigym.envs.synthesis.small_tasks import broken_module
from verigym.envs.task import Task
from verigym.envs.tools.files import view_lines
from verigym.envs.tools.spec import ToolError
from verigym.errors import PolicyError, TaskError
from verigym.model.chat.messages import Message


class Repository:
    """A small repository with a bug, and the tools that experts use on it."""

    def __init__(self, number=0, seed=0):
        self.broken, _ = broken_module(number, seed=seed, held_out=False)
        module = self.broken.module
        self.base = {module.path: self.broken.source}
        self.files = dict(self.base)
        self.task = Task(
            id=f"r-{seed}-{number}", family="swe", prompt=f"{module.path}: {module.function} fails its tests."
        )

    @property
    def is_mended(self):
        return self.files == {self.broken.module.path: self.broken.right_source}

    def play(self, script):
        """The calls made until ``submit``."""
        said, calls = [Message(role="user", content=self.task.prompt)], []
        while len(calls) < 9:
            said.append(script(said))
            (call,) = said[-1].calls
            calls.append(call.arguments["command"].split()[0] if call.name == "bash" else call.name)
            if call.name == "submit":
                return calls
            said.append(Message(role="tool", name=call.name, content=self.answer(call)))
        raise AssertionError(calls)

    def answer(self, call):
        try:
            return getattr(self, call.name)(**call.arguments)
        except ToolError as error:
            return f"error: {error}"

    def bash(self, command):
        module = self.broken.module
        if command == "python check.py":
            scope = {}
            exec(self.files[module.path], scope)
            (values, value), *_ = module.calls
            return "all pass" if scope[module.function](*values) == value else f"{module.name} fails: AssertionError"
        if command == "git checkout pkg":
            self.files = dict(self.base)
            return "Updated 1 path from the index"
        number, old, new, path = re.fullmatch(r"sed -i '(\d+)s/([^/]+)/([^/]+)/' (\S+)", command).groups()
        if path not in self.files:
            return f"sed: can't read {path}: No such file or directory\n[exit code 2]"
        lines = self.files[path].split("\n")
        lines[int(number) - 1] = lines[int(number) - 1].replace(old, new, 1)
        self.files[path] = "\n".join(lines)
        return ""

    def view(self, path):
        if path not in self.files:
            raise ToolError(f"{path}: no such file")
        return view_lines(self.files[path], path)


NUMBERS = range(32)


def played(expert):
    """(calls, whether the repository is mended) of an expert in each of some repositories."""
    for number in NUMBERS:
        repository = Repository(number)
        yield tuple(repository.play(expert(repository.task))), repository.is_mended


def test_running_the_tests_repairs_what_is_broken():
    found = Counter(played(EXPERTS["small-repositories"]["check_and_retry"]))
    first = ("view", "sed", "python")
    assert set(found) == {((*first, "submit"), True), ((*first, "git", "sed", "python", "submit"), True)}
    assert min(found.values()) > 5


@pytest.mark.parametrize(
    ("expert", "calls"),
    [("read_and_submit", ("view", "sed", "submit")), ("check_and_stop", ("view", "sed", "python", "submit"))],
)
def test_without_heeding_the_tests_half_are_repaired(expert, calls):
    found = Counter(played(EXPERTS["small-repositories"][expert]))
    assert set(found) == {(calls, True), (calls, False)}
    assert min(found.values()) > 5


def test_no_edit_that_compares_nothing_repairs_one_in_seven():
    """The yardstick of the quickstart: what a policy gets that looks neither for contradictions nor at tests."""
    rates = {name: sum(mended for _, mended in played(expert)) / len(NUMBERS) for name, expert in TRIVIAL.items()}
    assert all(
        rates[f"{said}_said_{n}"] == 1 / NUM_LINES / 2 for n in range(NUM_LINES) for said in ("operator", "operand")
    )
    assert max(rates.values()) <= 0.15
    assert len(rates) == 5 * NUM_LINES


def test_giving_up_changes_nothing():
    repository = Repository()
    calls = repository.play(EXPERTS["small-repositories"]["give_up"](repository.task))
    assert (calls, repository.files) == (["view", "submit"], repository.base)


def test_an_error_is_where_it_stops():
    """It is always told of a mistake, of one kind or the other, and repairs nothing."""
    found = set(played(EXPERTS["small-repositories"]["stop_at_an_error"]))
    assert found == {(("view", "submit"), False), (("view", "sed", "submit"), False)}


def test_a_file_without_a_contradiction_is_a_failure_of_the_policy():
    repository = Repository()
    repository.view = lambda path: "1: something else"
    with pytest.raises(PolicyError, match="found no line that contradicts"):
        repository.play(EXPERTS["small-repositories"]["read_and_submit"](repository.task))


def test_a_statement_without_a_file_is_told():
    with pytest.raises(TaskError, match="names no file"):
        EXPERTS["small-repositories"]["give_up"](Task(id="r", family="swe", prompt="Something fails."))


def test_programs():
    for task in small_programs(num=40, seed=1, held_out=False):
        passed = {}
        for name, expert in EXPERTS["small-programs"].items():
            message = expert(task)([Message(role="user", content=task.prompt)])
            program = re.fullmatch(r"```python\n(.*)```", message.content, re.S)[1]
            passed[name] = all(output_of(program, test["input"]) == test["output"] for test in task.hidden["tests"])
        assert passed == {"solve": True, "wrong_side_of_the_bound": False, "forget_the_condition": False}, task.id


def output_of(program, text):
    printed = []
    exec(program, {"input": lambda: text.rstrip("\n"), "print": lambda value: printed.append(f"{value}\n")})
    return "".join(printed)


def test_sums():
    for task in small_sums(num=40, seed=1, held_out=False):
        for name, right in (("solve", True), ("mistake_the_order", False)):
            script = EXPERTS["small-sums"][name](task)
            said = [Message(role="user", content=task.prompt)]
            (call,) = script(said).calls
            assert call.name == "python"
            value = eval(re.fullmatch(r"print\((.*)\)", call.arguments["code"])[1])
            said += [use("python"), Message(role="tool", name="python", content=str(value))]
            answer = script(said)
            assert (answer.content, answer.calls) == (f"\\boxed{{{value}}}", ())
            assert (str(value) == task.hidden["answer"]) is right, task.prompt


def test_always_the_same():
    task = Task(id="x", family="math", prompt="?")
    assert always_say("7")(task)([]).content == "7"
