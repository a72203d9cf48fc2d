"""The quickstart's experts: the right strategies solve, the mistakes do what they are named after."""

import re
import subprocess
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from verigym.agent.experts import BLIND, COMPARING, EXPERTS, always_say, use
from verigym.envs.synthesis.small_functions import KINDS
from verigym.envs.synthesis.small_programs import small_programs
from verigym.envs.synthesis.small_repositories import NUM_FUNCTIONS
from verigym.envs.synthesis.small_sums import small_sums
from verigym.envs.synthesis.small_tasks import broken_module
from verigym.envs.task import Task
from verigym.errors import PolicyError, TaskError
from verigym.model.chat.messages import Message


@cache
def made(number, seed):
    return broken_module(number, seed=seed, held_out=False)[0]


class Repository:
    """A small repository with a bug, and what its shell answers to the experts' commands."""

    def __init__(self, number=0, seed=0):
        self.broken = made(number, seed)
        self.path = self.broken.module.path
        self.source = self.broken.source
        self.task = Task(id=f"r-{seed}-{number}", family="swe", prompt=f"Tests of {self.path} fail.")

    @property
    def is_mended(self):
        return self.source == self.broken.module.source()

    @property
    def failing(self):
        """Names of the functions whose tests fail, those of all their calls."""
        scope = {}
        exec(self.source, scope)
        functions = self.broken.module.functions
        return [one.name for one in functions if [scope[one.name](*call) for call in one.calls] != one.results()]

    def play(self, script):
        """The calls made until ``submit``."""
        said, calls = [Message(role="user", content=self.task.prompt)], []
        while len(calls) < 9:
            said.append(script(said))
            (call,) = said[-1].calls
            calls.append(call.arguments["command"].split()[0] if call.name == "bash" else call.name)
            if call.name == "submit":
                return calls
            said.append(Message(role="tool", name=call.name, content=self.bash(**call.arguments)))
        raise AssertionError(calls)

    def bash(self, command):
        """The answer of the tests, and what ``in_bash`` gives for the other commands, without its starts."""
        if command == "python check.py":
            return "\n".join(f"def {name} FAILED" for name in self.failing) or "all pass"
        *_, path = command.split()
        if path not in (self.path, "pkg/*.py"):
            return f"{command.split()[0]}: {path}: No such file or directory\n[exit code 2]"
        lines = self.source.splitlines()
        if command.startswith("cat "):
            return "\n".join(lines)
        if shown := re.match(r"sed -n '(\d+),(\d+)p'", command):
            return "\n".join(lines[int(shown[1]) - 1 : int(shown[2])])
        name = re.search(r"(def \w+)", command)[1]
        at = next(at for at, line in enumerate(lines) if line.startswith(name))
        if command.startswith("grep -hA1 "):
            return "\n".join(lines[at : at + 2])
        lines[at + 1] = "    " + re.fullmatch(r"sed -i '/def \w+/{n;s\|return \.\*\|(.*)\|}' \S+", command)[1]
        self.source = "\n".join(lines) + "\n"
        return ""

    def in_bash(self, command):
        """The answer of a bash in a folder with the file; the file is then what the command has made of it."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, self.path)
            file.parent.mkdir()
            file.write_text(self.source)
            done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
            self.source = file.read_text()
        exit_code = f"\n[exit code {done.returncode}]" if done.returncode else ""
        return (done.stdout + done.stderr).rstrip("\n") + exit_code


def test_the_commands_do_what_these_tests_take_them_to_do():
    for name, policy in {**EXPERTS_OF, "blind": BLIND["as_said_3"], "comparing": COMPARING["all"]}.items():
        here, there = Repository(), Repository()
        there.bash = lambda command, at=there: (Repository.bash if "check" in command else Repository.in_bash)(
            at, command
        )
        assert here.play(policy(here.task)) == there.play(policy(there.task)), name
        assert here.source == there.source


EXPERTS_OF = EXPERTS["small-repositories"]
NUMBERS = range(NUM_FUNCTIONS * len(KINDS))


def played(expert, numbers=NUMBERS):
    """(calls, whether its tests pass) of an expert in each of some repositories."""
    for number in numbers:
        repository = Repository(number)
        yield tuple(repository.play(expert(repository.task))), not repository.failing


def test_running_the_tests_repairs_everything():
    found = Counter(played(EXPERTS_OF["check_and_repair"]))
    assert found == {(("python", "grep", "sed", "python", "submit"), True): len(NUMBERS)}
    repository = Repository(9)
    repository.play(EXPERTS_OF["check_and_repair"](repository.task))
    assert repository.is_mended


def test_half_of_a_line_is_half_of_the_bugs():
    found = {n: mended for n, (_, mended) in zip(NUMBERS, played(EXPERTS_OF["mend_half"]))}
    kinds = {n: KINDS[n // NUM_FUNCTIONS] for n in NUMBERS}
    assert found == {n: kinds[n] in ("operand", "constant") for n in NUMBERS}


def test_a_guess_is_right_once_in_eight():
    found = Counter(played(EXPERTS_OF["guess_and_submit"], range(2 * len(NUMBERS))))
    assert {calls for calls, _ in found} == {("sed", "sed", "submit")}
    assert 1 <= found[("sed", "sed", "submit"), True] <= 16


@pytest.mark.parametrize(
    ("expert", "calls"), [("check_and_give_up", ("python", "submit")), ("stop_at_an_error", ("sed", "submit"))]
)
def test_giving_up_changes_nothing(expert, calls):
    assert set(played(EXPERTS_OF[expert], range(8))) == {(calls, False)}
    repository = Repository()
    repository.play(EXPERTS_OF[expert](repository.task))
    assert repository.source == repository.broken.source


def test_a_wrong_path_is_told():
    repository = Repository()
    script = EXPERTS_OF["stop_at_an_error"](repository.task)
    (call,) = script([Message(role="user", content=repository.task.prompt)]).calls
    assert "No such file or directory" in repository.in_bash(**call.arguments)


def rates(policies):
    return {name: sum(ok for _, ok in played(policy)) / len(NUMBERS) for name, policy in policies.items()}


def test_no_edit_that_compares_nothing_repairs_one_in_seven():
    """The yardstick of the quickstart: what a policy gets that looks neither for contradictions nor at tests."""
    found = rates(BLIND)
    assert len(found) == 5 * NUM_FUNCTIONS
    assert all(found[f"as_said_{place}"] == 1 / NUM_FUNCTIONS for place in range(NUM_FUNCTIONS))
    assert max(found.values()) == 1 / NUM_FUNCTIONS < 0.15


def test_reading_without_running_the_tests_repairs_one_in_three():
    """Which of three contradictions is the bug, nothing that can be read tells; to mend them all breaks two."""
    found = rates(COMPARING)
    assert found["all"] == 0
    assert found["first"] + found["second"] + found["last"] == 1
    assert max(found.values()) < 0.5


def test_lines_of_another_kind_are_a_failure_of_the_policy():
    repository = Repository()
    repository.bash = lambda command: "def f(a, b):\n    return a"
    with pytest.raises(PolicyError, match="reads lines as small repositories have them, not 'def f"):
        repository.play(BLIND["as_said_0"](repository.task))
    repository.bash = lambda command: "all pass"
    with pytest.raises(PolicyError, match="name no function that fails: 'all pass'"):
        repository.play(EXPERTS_OF["check_and_repair"](repository.task))


def test_a_statement_without_a_file_is_told():
    with pytest.raises(TaskError, match="names no file"):
        EXPERTS_OF["guess_and_submit"](Task(id="r", family="swe", prompt="Something fails."))


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
