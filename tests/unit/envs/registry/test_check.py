"""``verigym envs``: what the checks find, and a new package that holds them all."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import gymnasium
import pytest

from verigym.__main__ import main
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.registry import check
from verigym.envs.registry.check import check_environment
from verigym.envs.registry.template import write_template
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError, SandboxError
from verigym.model.chat.messages import Message, ToolSpec


class Fine(ToolEnv):
    """Say the word."""

    def load(self):
        return [Task(id=f"w{n}", family="fine", prompt=f"Word {n}?", hidden={"word": f"word{n}"}) for n in range(3)]

    @tool
    def hint(self, size: int) -> str:
        """Hints.

        Args:
            size: of it.
        """
        return "word"[:size]

    def score(self, task, submission):
        return submission == task.hidden["word"]

    def gold(self, task):
        return [Message(role="assistant", content=task.hidden["word"])]


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(check, "NUM_EPISODES", 6)


def found(env, tasks=None):
    findings = asyncio.run(check_environment(env, env().load() if tasks is None else tasks))
    assert [one.name for one in findings] == list(check.CHECKS)
    return {one.name: one for one in findings}


@pytest.fixture(autouse=True, scope="module")
def little_to_collect():
    """What other tests have left in this process is no garbage of these, and takes half of their time to look at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_nothing_is_wrong_with_a_fine_one():
    findings = found(Fine)
    assert {one.passed for one in findings.values()} == {True}
    assert findings["tools"].told == "1 with a schema: hint"
    assert "ms a step" in findings["speed"].told


STUCK = """
import time

from verigym.envs.core import ToolEnv
from verigym.envs.task import Task


class Stuck(ToolEnv):
    def load(self):
        return [Task(id="t", family="stuck", prompt="?")]

    def score(self, task, submission):
        time.sleep(3)
        return True
"""


def test_a_module_of_the_working_folder_is_found(tmp_path, monkeypatch, capsys):
    code = STUCK.replace("time.sleep(3)", "print('no JSON')").replace("Stuck", "Beside")
    (tmp_path / "beside_me.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    assert main(["rollout", "beside_me:Beside", "--policy", "empty", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0
    sys.modules.pop("beside_me")


def test_a_hook_that_hangs_is_told_and_the_rest_not_made(tmp_path, monkeypatch, capsys):
    (tmp_path / "stuck_env.py").write_text(STUCK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stuck_env", raising=False)
    assert main(["envs", "check", "stuck_env:Stuck", "--hook-timeout", "1"]) == 1
    told = capsys.readouterr().out
    assert "Stuck.score failed in task 't': it did not return within hook_timeout_s = 1 s" in told
    assert "stuck_env.py:13 in score" in told
    assert "speed            not made: Stuck.score hangs" in told


KEPT = []
DONE = threading.Event()


def opens(self, task):
    KEPT.append(tempfile.NamedTemporaryFile())  # noqa: SIM115


def starts(self, task):
    thread = threading.Thread(target=DONE.wait, args=(60,), daemon=True)
    thread.start()


class Shared(Fine):
    """Keeps its word in the class, where every episode writes it."""

    def start(self, task):
        type(self).word = task.hidden["word"]

    async def reply(self, task, message):
        from verigym.envs.core import Submission

        await asyncio.sleep(0.01)
        return Submission(value=type(self).word)


SECRET = Task(id="a", family="f", prompt="say", hidden={"word": "open-sesame!"})


def specs(**parameters):
    return property(lambda self: (ToolSpec(name="hint", description="Hints.", parameters=parameters),))


WRONG = {
    "tools": (
        "requires ['size'], which it does not have",
        {
            "tool_specs": specs(type="object", properties={}, required=["size"]),
        },
    ),
    "tasks": ("ids occur twice", {"load": lambda self: [*Fine.load(self), *Fine.load(self)]}),
    "gold": (
        "gold of task 'w0' does not pass, it scores 0",
        {"gold": lambda self, task: [Message(role="assistant", content="x")]},
    ),
    "empty": ("doing nothing in task 'w0' scores 1", {"score": lambda self, *_: True}),
    "secrets": (
        "hidden['word'] stands in",
        {"load": lambda self: [SECRET], "prompt": lambda self, task: f"say {task.hidden['word']}"},
    ),
    "the same again": ("answered in two ways", {"prompt": lambda self, task: f"{random.random()}"}),
    "at once": ("went otherwise among 16", dict(vars(Shared))),
    "speed": (
        "changed the working folder",
        {"start": lambda self, task: os.chdir(os.path.dirname(os.getcwd()) or "/")},
    ),
    "leaks": ("open files", {"start": opens}),
    "garbage": ("EnvironmentBug", {"hint": None, "reply": lambda self, task, message: message.encode()}),
}


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"type": "array", "properties": {}}, "is of no object"),
        ({"type": "object"}, "is of no object"),
        ({"type": "object", "properties": {"a": {"default": {1}}}}, "is not JSON"),
    ],
)
def test_a_schema_that_is_none_is_found(parameters, told):
    one = found(type("Wrong", (Fine,), {"tool_specs": specs(**parameters)}))["tools"]
    assert (one.passed, told in one.told) == (False, True)


@pytest.mark.parametrize(
    ("gold", "told"),
    [
        (lambda *_: "the word", "Wrong.gold failed in task 'w0': it returned a str; Messages of the assistant"),
        (lambda *_: [], "a list without anything"),
        (lambda *_: [Message(role="user", content="?")], "Messages of the assistant are expected"),
        (lambda *_: {}["word"], "Wrong.gold failed in task 'w0': KeyError: 'word'"),
    ],
)
def test_a_gold_episode_that_is_none_is_said_once(gold, told):
    findings = found(type("Wrong", (Fine,), {"gold": gold}))
    assert (findings["gold"].passed, told in findings["gold"].told) == (False, True)
    assert [name for name, one in findings.items() if not one.passed] == ["gold"]


GARBAGE = {
    "NoneLoad": ("class NoneLoad(Base):\n    def load(self): return None", "load failed in task '': it returned None"),
    "Rows": ("class Rows(Base):\n    def load(self): return [{'id': 'x'}]", "a sequence of verigym.envs.task.Task"),
    "Raises": (
        "class Raises(Base):\n    def load(self): raise KeyError('f')",
        "Raises.load failed in task '': KeyError",
    ),
    "NoInit": ("class NoInit(Base):\n    def __init__(self): pass", "call super().__init__(**kwargs) in it"),
    "Other": ("class Other:\n    pass", "is the class Other, not a subclass of verigym.envs.core.ToolEnv"),
    "Value": ("Value = 3", "is a int, not a subclass"),
    "Missing": ("", "has no class 'Missing'; its environments: Base"),
    "Init": (
        "class Init(Base):\n    def __init__(self, **k): raise KeyError('f')",
        "Init cannot be made: KeyError: 'f'",
    ),
    "Broken": ("class Broken(Base):\n    x = 1 / 0", "cannot be imported: ZeroDivisionError: division by zero at "),
    "Taken": (
        "class Taken(Base):\n    @tool\n    def reset(self, x: int) -> str:\n        'Again.'",
        "the tool 'reset' of Taken takes the place of ToolEnv.reset",
    ),
    "Bounds": ("class Bounds(Base):\n    reward_bounds = (1.0, 0.0)", "are (1.0, 0.0); two finite numbers"),
    "Endless": ("class Endless(Base):\n    reward_bounds = (0.0, float('inf'))", "two finite numbers"),
    "Soon": ("class Soon(Base):\n    hook_timeout_s = 'soon'", "hook_timeout_s of Soon is 'soon'"),
    "Locked": (
        "class Locked(Base):\n    @tool\n    def odd(self, x: Lock) -> str:\n        'Odd.'",
        "tool 'odd': a parameter's type has no JSON schema",
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_environment_is_said_in_one_line(name, tmp_path, monkeypatch, capsys):
    code, told = GARBAGE[name]
    head = "from threading import Semaphore as Lock\nfrom verigym.envs.core import ToolEnv\n"
    head += "from verigym.envs.tools.spec import tool\n\n\nclass Base(ToolEnv):\n    pass\n\n\n"
    (tmp_path / f"garbage_{name.lower()}.py").write_text(head + code + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["envs", "check", f"garbage_{name.lower()}:{name}"]) != 0
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name):
    told, changes = WRONG[name]
    changes = {key: value for key, value in changes.items() if key not in ("__dict__", "__weakref__")}
    one = found(type("Wrong", (Fine,), changes))[name]
    assert one.passed is False, one
    assert told in one.told
    KEPT.clear()


def test_costs_that_add_up_beyond_the_bounds_are_found():
    def costly(self, task, message):
        self.reward(-0.01, "talk")
        return "go on"

    changes = {"reply": costly, "reward_bounds": (-0.2, 1.0), "gold": ToolEnv.gold}
    one = found(type("Costly", (Fine,), changes))["empty"]
    assert (one.passed, "outside [-0.2, 1]" in one.told) == (False, True)


def test_gold_may_stay_below_bounds_that_turns_fill_and_below_no_others():
    def reply(self, task, message):
        self.reward(0.1, "spoke")
        return Submission(value=message)

    shaped = found(type("Shaped", (Fine,), {"reply": reply, "reward_bounds": (0.0, 2.0)}))["gold"]
    assert (shaped.passed, shaped.told) == (True, "passes with 1.1 or more of 2, some of it by turns, in 3 tasks")
    loose = found(type("Loose", (Fine,), {"reward_bounds": (0.0, 2.0)}))["gold"]
    assert (loose.passed, "passes with 1 of 2; score it 2, or state in reward_bounds" in loose.told) == (False, True)


def test_threads_that_stay_are_found():
    one = found(type("Wrong", (Fine,), {"start": starts}))["leaks"]
    DONE.set()
    assert (one.passed, "threads" in one.told) == (False, True)


def test_what_cannot_be_made_says_so():
    def gone(self, task):
        raise SandboxError("no room")

    findings = found(type("Roomless", (Fine,), {"start": gone}))
    assert (findings["gold"].passed, findings["gold"].told) == (None, "not made: no room")
    no_gold = found(type("Goldless", (Fine,), {"gold": ToolEnv.gold}))
    assert (no_gold["gold"].passed, "states no gold answer" in no_gold["gold"].told) == (None, True)
    assert no_gold["leaks"].passed
    nothing = found(Fine, [])
    assert [one.passed for one in nothing.values()] == [False, *[None] * (len(nothing) - 1)]
    assert nothing["speed"].told == "not made: there is no task"


def test_a_new_package_holds_every_check_and_its_own_tests(tmp_path):
    files = write_template("Ware-house", tmp_path / "made")
    assert [file.name for file in files] == [
        "pyproject.toml",
        "verigym_ware_house.py",
        "test_ware_house.py",
        "recipe.toml",
        "README.md",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."],
        cwd=tmp_path / "made",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ".", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    for wrong in ("9lives", "a b", "class"):
        with pytest.raises(ConfigError, match="no name for an environment"):
            write_template(wrong, tmp_path / "other")
    with pytest.raises(ConfigError, match="exists"):
        write_template("warehouse", tmp_path / "made")


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["envs", "new", "shelf"]) == 0
    assert (Path("verigym-shelf") / "verigym_shelf.py").exists()
    assert "verigym_shelf.py" in capsys.readouterr().out
    gymnasium.register(id="fine/Fine-v0", entry_point=Fine, disable_env_checker=True, order_enforce=False)
    try:
        assert main(["envs", "list", "--json"]) == 0
        rows = {row["id"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
        assert rows["verigym/Math-v0"]["from"] == "verigym"
        assert rows["fine/Fine-v0"]["about"] == "Say the word."
        assert main(["envs", "list"]) == 0
        assert "fine/Fine-v0" in capsys.readouterr().out
        assert main(["envs", "check", "fine/Fine-v0"]) == 0
        assert "ok     gold" in capsys.readouterr().out
        monkeypatch.setattr(Fine, "score", lambda *_: True)
        assert main(["envs", "check", "fine/Fine-v0", "--json"]) == 1
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [one["check"] for one in found if one["passed"] is False] == ["empty"]
    finally:
        del gymnasium.registry["fine/Fine-v0"]
