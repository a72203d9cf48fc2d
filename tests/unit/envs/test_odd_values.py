"""Whatever a hook returns: an episode that JSON takes, or one bad episode with the hook's name."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportReturnType=false, reportOperatorIssue=false

import asyncio
import io
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.evidence import as_json
from verigym.envs.registry.opening import open_env
from verigym.envs.task import Task
from verigym.envs.tools.hooks import made_in_time
from verigym.envs.tools.spec import ToolError, tool
from verigym.errors import ConfigError, EnvironmentBug, HookTimeout, TaskError
from verigym.model.chat.messages import Attachment, Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.rubric import Rubric, part
from verigym.rewards.score import Score

TASK = Task(id="t", family="f", prompt="Go.", hidden={"seen": []})


class Untold:
    def __str__(self):
        raise KeyError("no text")

    __repr__ = __str__


class Endless(str):
    def __len__(self):
        raise KeyError("no length")


def within_itself():
    found = []
    found.append(found)
    return found


def deep():
    found = []
    for _ in range(50_000):
        found = [found]
    return found


def message(content="so?", **changes):
    return replace(Message(role="user", content=content), **changes)


def score(**changes):
    return Score(**{"value": 0.5, "passed": True, **changes})


BARE = Attachment(media_type="image/png", data=b"x")
ODD = {
    "none": None,
    "nan": math.nan,
    "big": 10**400,
    "bytes": b"x",
    "array": np.ones(3),
    "scalar": np.float32(0.5),
    "surrogate": "a\ud800b",
    "within itself": within_itself(),
    "deep": deep(),
    "untold": Untold(),
    "endless": Endless("x"),
    "keys": {(1, 2): 3},
    "content None": message(None),
    "content bytes": message(b"x"),
    "role": message(role="narrator"),
    "attachment": message(attachments=("x",)),
    "attachment bytes": message(attachments=(BARE,)),
    "calls": message(role="assistant", calls=(ToolCall(name="look", arguments={"a": Untold()}),)),
    "last words": Submission(value=1, message=b"x"),
    "numpy's score": score(value=np.float32(0.5), passed=np.bool_(True), breakdown={"a": np.float32(0.5)}),
    "passed None": score(passed=None),
    "part's name": score(breakdown={(1, 2): 0.5}),
    "detail": score(detail=Untold()),
    "ending": score(ending="party"),
    "others": score(others={"x": np.float32(0.3)}),
}
HOOKS = ("check", "prompt", "start", "reply", "stand_in", "score", "stop", "unfinished", "feedback", "tool look")
HOOKS += ("part odd", "reward", "its name", "evidence")


def env_with(hook, value):
    """An environment of which one hook returns the value."""

    class Odd(ToolEnv):
        rubric = Rubric(part(lambda: value, name="odd") if hook == "part odd" else part(lambda: 1.0, name="fine"))

        @tool
        def look(self) -> str:
            """Looks."""
            return value if hook == "tool look" else "seen"

        async def reply(self, task, message):
            await self.model("user").say(self.transcript)
            return "more" if message == "more" else Submission(value=message)

        def stand_in(self, name, messages):
            return "well"

        async def score(self, task, submission):
            if hook in ("reward", "its name"):
                self.reward(*((value, "odd") if hook == "reward" else (0.0, value)))
            if hook == "evidence":
                self.evidence["odd"] = value
            return await super().score(task, submission)

    if not hook.startswith(("part", "tool", "reward", "its", "evidence")):
        setattr(Odd, hook, lambda self, *args: value)
    return Odd()


def played(env, hook):
    look = Message(role="assistant", content="", calls=(ToolCall(name="look"),))
    said = "more" if hook == "unfinished" else "x"
    policy = ScriptedPolicy(play([look, *[Message(role="assistant", content=said)] * 3]))
    budget = Budget(turns=3, seconds=20)
    return asyncio.run(rollout(env, policy, TASK, budget=budget, sampling=Sampling()))


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_hook_returns_is_plain_or_its_bug(hook, caplog):
    named = {"reward": "score", "its name": "score", "evidence": ""}.get(hook, hook)
    for name, value in ODD.items():
        found = played(env_with(hook, value), hook)
        json.loads("".join(found.json_pieces()))
        if found.ending == "environment_failure":
            assert (found.failed_in, found.reward) == (named, None), name
            continue
        assert found.ending in ("answered", "turn_limit"), (name, found.detail)
        assert (type(found.reward), type(found.passed)) == (float, bool), name
        assert {type(part) for part in found.breakdown.values()} <= {float}, name
        assert all(isinstance(one.content, str) for one in found.messages), name


def test_an_error_whose_text_cannot_be_had_answers_all_the_same():
    def refuse(self, *args):
        raise ToolError(Untold())

    for hook in ("reply", "look"):
        env = type("Refusing", (ToolEnv,), {"look": tool(_look(refuse)), "reply": refuse, "score": lambda *_: 1.0})()
        found = played(env, hook)
        assert "error: its text cannot be had (KeyError)" in [one.content for one in found.messages]


def _look(refuse):
    def look(self) -> str:
        """Looks."""
        return refuse(self)

    return look


class Marks(ToolEnv):
    """Writes into its task."""

    def start(self, task):
        task.hidden["seen"].append(1)

    def score(self, task, submission):
        return len(task.hidden["seen"]) == 1

    def compare(self, task, episodes):
        task.hidden["seen"].clear()
        return [{"more": 0.25}] * len(episodes)


def test_what_a_hook_writes_into_its_task_is_gone_with_the_episode():
    assert [played(Marks(), "score").reward for _ in range(3)] == [1.0, 1.0, 1.0]
    assert TASK.hidden == {"seen": []}
    with pytest.raises(TaskError, match=r"task 'g' cannot be copied .*hold JSON"):
        Marks().reset(options={"task": Task(id="g", family="f", prompt="", hidden={"it": (one for one in ())})})


@pytest.mark.parametrize(("reward", "unit", "fits"), [(0.75, False, True), (0.8, False, False), (0.8, True, False)])
def test_a_comparison_that_leaves_the_bounds_is_a_bug_of_compare(reward, unit, fits):
    episodes = [replace(played(Marks(), "score"), reward=reward)]
    if fits:
        assert asyncio.run(Marks().acompare(TASK, episodes, unit=unit)) == [{"more": 0.25}]
        return
    with pytest.raises(EnvironmentBug, match=r"the reward is 1\.05, outside \[0, 1\]") as told:
        asyncio.run(Marks().acompare(TASK, episodes, unit=unit))
    assert told.value.hook == "compare"


def test_a_comparison_may_return_an_array():
    made = type("Made", (ToolEnv,), {"rubric": Rubric(lambda: 1.0, compare=[part(lambda: np.ones(2), name="ones")])})
    assert asyncio.run(made().acompare(TASK, [None, None])) == [{"ones": 0.5}] * 2


def test_tasks_are_made_within_load_and_are_json():
    def half(self):
        yield TASK
        raise KeyError("half")

    for load, told in (
        (half, "KeyError: 'half'"),
        (lambda self: [replace(TASK, hidden={"a": {1}})], "task 't' is not JSON .*set"),
        (lambda self: [replace(TASK, id=5)], "the id of task 5 is 5; a str is expected"),
    ):
        with pytest.raises(EnvironmentBug, match=told) as found:
            type("Loads", (ToolEnv,), {"load": load})().reset(seed=0)
        assert found.value.hook == "load"


def test_evidence_is_shown_as_json():
    odd = {"n": np.int64(3), 5: {1, 2}.__class__, "text": Untold(), "self": within_itself()}
    found = as_json(odd)
    assert found["n"] == 3
    assert found["5"] == "<class 'set'>"
    assert found["text"] == "its text cannot be had (KeyError)"
    assert found["self"] == "cannot be shown: Circular reference detected"
    assert as_json({"patch": "x", "tests": {"a": [1, None]}}) == {"patch": "x", "tests": {"a": [1, None]}}


def test_a_hook_that_changes_the_working_folder_leaves_it_as_it_was(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    env = type("Moves", (ToolEnv,), {"start": lambda *_: os.chdir("in"), "score": lambda *_: 1.0})()
    assert played(env, "score").reward == 1.0
    assert os.getcwd() == str(tmp_path)
    assert "Moves.start, or a hook beside it, changed the working folder" in caplog.text


def test_a_conversation_is_shown_whatever_the_terminal_holds(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    env = type("Shown", (ToolEnv,), {"score": lambda *_: 1.0})(render_mode="human")
    env.reset(options={"task": replace(TASK, prompt="a\ud800é")})
    shown.seek(0)
    assert shown.read() == "[user]\na??\n\n"


class Broken(ToolEnv):
    def __init__(self, size=1):
        super().__init__()
        self.name = "1" + size


def test_what_a_constructor_raises_is_a_bug_and_what_it_lacks_a_setting():
    with pytest.raises(EnvironmentBug, match="Broken cannot be made: TypeError: can only concatenate") as told:
        open_env(f"{__name__}:Broken", {}, {"size": 2})
    assert told.value.hook == "__init__"
    with pytest.raises(ConfigError, match="unexpected keyword argument 'length'"):
        open_env(f"{__name__}:Broken", {}, {"length": 2})


def test_a_constructor_that_hangs_is_left_to_itself():
    def hangs():
        while True:
            pass

    with pytest.raises(HookTimeout, match=r"did not return within hook_timeout_s = 0.5 s and was left at .* in hangs"):
        asyncio.run(made_in_time(hangs, 0.5))
    assert asyncio.run(made_in_time(lambda: 5, 10.0)) == 5
