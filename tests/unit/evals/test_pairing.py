"""Two policies on an environment that compares: pairs of episodes, as the environment judges them."""

import json

import pytest

from verigym.__main__ import main

LETTERS = '''
from verigym.envs.core import ToolEnv
from verigym.envs.judge import Judge
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.rewards.rubric import Rubric, part

nicer = Judge("First: {first}\\nSecond: {second}\\nWhich is nicer? Answer first, second or neither.",
              answers={"first": 0.0, "second": 1.0, "neither": 0.5})


def written(submission):
    return bool(submission)


async def nicest(task, episodes, env):
    """Where the judge fails at task "c", that pair is not compared."""
    if len(episodes) != 2:
        raise ValueError(f"{len(episodes)} episodes")
    if task.id == "c":
        raise KeyError("c")
    first, second = [one.messages[-1].content for one in episodes]
    worth = await nicer(env, first=first, second=second)
    return [1.0 - worth, worth]


class Letters(ToolEnv):
    rubric = Rubric(written, compare=[part(nicest, 0.5)])

    def load(self):
        return [Task(id=name, family="letters", prompt=f"Write to {name}.") for name in "abc"]

    def gold(self, task):
        return [Message(role="assistant", content=f"Dear {task.id}!")]

    def empty(self, task):
        return [Message(role="assistant", content="")]
'''


@pytest.fixture
def run(tmp_path, monkeypatch, scripted_server, capsys):
    (tmp_path / "letters_env.py").write_text(LETTERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(policy, out, *more):
        words = ["eval", "letters_env:Letters", "--policy", policy, "--out", out, "--save-trajectories", *more]
        assert main(words) == 0
        return json.loads((tmp_path / out / "report.json").read_text()), capsys.readouterr()

    scripted_server.answer = lambda asked, prompt: "The second." if "Second: Dear" in prompt else "Neither, I think."
    return run


def test_the_environment_compares_two_policies(run, scripted_server, tmp_path):
    run("empty", "one")
    judge = f"judge={scripted_server.policy}"
    report, told = run("gold", "two", "--against", "one", "--model", judge)
    assert report["pairs"] == {
        "pairs": 2,
        "better": 2,
        "worse": 0,
        "even": 0,
        "p_value": 0.5,
        "parts": {"nicest": [0.0, pytest.approx(1 / 3)]},
        "failed": {"EnvironmentBug": 1},
    }
    assert "better in 2 of 2 pairs, worse in 0, sign test p = 0.5; 1 could not be compared" in told.out
    asked = [body["messages"][0]["content"] for body in scripted_server.asked]
    assert sorted(asked)[0].startswith("First: \nSecond: Dear a!")
    same, _ = run("gold", "three", "--against", "two", "--model", judge)
    assert (same["pairs"]["better"], same["pairs"]["even"]) == (2, 0)


def test_what_cannot_be_compared_is_said(run, tmp_path, capsys):
    run("empty", "one")
    (tmp_path / "one" / "trajectories.jsonl").unlink()
    words = ["eval", "letters_env:Letters", "--policy", "gold", "--out", "two", "--save-trajectories"]
    assert main([*words, "--against", "one"]) != 0
    assert "comparing episodes needs runs with --save-trajectories" in capsys.readouterr().err
