"""The quickstart's experts: the right strategies solve, the mistakes do what they are named after."""

import difflib
import random
import re

import pytest

from verigym.agent.experts import EXPERTS, always_say, use
from verigym.envs.synthesis.mutations import mutations
from verigym.envs.synthesis.operators import OPERATORS
from verigym.envs.synthesis.small_programs import small_programs
from verigym.envs.synthesis.small_repositories import write_small_repository
from verigym.envs.synthesis.small_sums import small_sums
from verigym.envs.task import Task
from verigym.envs.tools.files import replace_lines, view_lines
from verigym.envs.tools.spec import ToolError
from verigym.errors import PolicyError, TaskError
from verigym.model.chat.messages import Message


class Repository:
    """A small repository with one of its two operators changed, and the tools that experts use on it."""

    def __init__(self, folder, seed, broken):
        write_small_repository(folder, seed=seed, held_out=False, num_modules=4)
        paths = sorted(path for path in (folder / "pkg").iterdir() if path.name != "__init__.py")
        self.right = {f"pkg/{path.name}": path.read_text() for path in paths}
        path, text = random.Random(seed).choice(list(self.right.items()))
        name = re.search(r"def (\w+)\(", text)[1]
        bugs = mutations(text, {"arithmetic_operator": OPERATORS["arithmetic_operator"]})
        self.files = {**self.right, path: bugs[broken].apply(text)}
        patch = difflib.unified_diff(self.files[path].splitlines(), text.splitlines(), "a/x", "b/x", lineterm="")
        self.task = Task(
            id="r",
            family="swe",
            prompt=f"`{name}(1, 2, 3)` gives 4, expected 5.",
            hidden={"patch": "\n".join(patch) + "\n"},
        )

    def play(self, script):
        """The calls made until ``submit``."""
        said, calls = [Message(role="user", content=self.task.prompt)], []
        while len(calls) < 9:
            said.append(script(said))
            (call,) = said[-1].calls
            calls.append(call.name)
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
        name = re.fullmatch(r'grep -rn "def (\w+)" pkg', command)[1]
        for path, text in self.files.items():
            for number, line in enumerate(text.splitlines(), start=1):
                if f"def {name}" in line:
                    return f"{path}:{number}:{line}"
        return ""

    def view(self, path):
        if path not in self.files:
            raise ToolError(f"{path}: no such file")
        return view_lines(self.files[path], path)

    def edit(self, path, search, replace):
        self.files[path] = replace_lines(self.files[path], search, replace, path)
        return f"edited {path}"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("broken", [0, 1])
def test_reading_repairs_what_is_broken(tmp_path, seed, broken):
    repository = Repository(tmp_path, seed, broken)
    assert repository.files != repository.right
    calls = repository.play(EXPERTS["small-repositories"]["read_and_repair"](repository.task))
    assert calls == ["bash", "view", "edit", "submit"]
    assert repository.files == repository.right


def test_flipping_the_first_operator_helps_sometimes(tmp_path):
    """What imitation mixes in: it repairs only a bug that sits there, and breaks the rest further."""
    solved = []
    for seed in range(12):
        repository = Repository(tmp_path / str(seed), seed, seed % 2)
        before = dict(repository.files)
        calls = repository.play(EXPERTS["small-repositories"]["flip_first_operator"](repository.task))
        assert calls == ["bash", "view", "edit", "submit"]
        assert repository.files != before
        solved.append(repository.files == repository.right)
    assert 0 < sum(solved) < len(solved)


def test_giving_up_changes_nothing(tmp_path):
    repository = Repository(tmp_path, 0, 0)
    before = dict(repository.files)
    calls = repository.play(EXPERTS["small-repositories"]["give_up"](repository.task))
    assert (calls, repository.files) == (["bash", "view", "submit"], before)


def test_an_error_is_where_it_stops(tmp_path):
    """It is always told of a mistake, of one kind or the other, and repairs nothing."""
    seen = set()
    for seed in range(8):
        repository = Repository(tmp_path / str(seed), seed, seed % 2)
        before = dict(repository.files)
        calls = repository.play(EXPERTS["small-repositories"]["stop_at_an_error"](repository.task))
        assert repository.files == before
        seen.add(tuple(calls))
    assert seen == {("bash", "view", "submit"), ("bash", "view", "edit", "submit")}


def test_a_file_without_the_function_is_a_failure_of_the_policy(tmp_path):
    repository = Repository(tmp_path, 0, 0)
    repository.view = lambda path: "1: something else"
    with pytest.raises(PolicyError, match="found no function"):
        repository.play(EXPERTS["small-repositories"]["read_and_repair"](repository.task))


def test_a_statement_without_a_call_is_told():
    with pytest.raises(TaskError, match="names no call"):
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
