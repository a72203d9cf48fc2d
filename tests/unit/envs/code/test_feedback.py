"""What a program's first failing test says, for a teacher: input, expectation, outcome; bounded and printable."""

import asyncio

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.code.env import CodeEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling

PRINTS = {"tests": [{"input": "1\n", "output": "2\n"}, {"input": "5\n", "output": "6\n"}]}
CALLS = {"fn_name": "f", "tests": [{"args": [1], "expected": 2}, {"args": [5], "expected": [6]}]}
EMBEDDED = {"test_code": "def check():\n    assert f(1) == 2\n    assert f(5) == 6\n\n\ncheck()\n", "names": ["f"]}
REFERENCE = {"reference": "def f(x):\n    return x + 1", "fn_name": "f", "inputs": [[1], [5]]}
RAISES = "def f(x):\n    if x == 5:\n        raise ValueError('five')\n    return x + 1\n"


def episode(backend, hidden, program):
    env = CodeEnv(sandbox=backend)
    said = [Message(role="assistant", content=f"```python\n{program}\n```")]
    task = Task(id="t", family="code", prompt="?", hidden=hidden)
    found = asyncio.run(rollout(env, ScriptedPolicy(play(said)), task, budget=Budget(), sampling=Sampling()))
    env.close()
    return found


@pytest.mark.parametrize(
    ("hidden", "program", "told"),
    [
        (PRINTS, "print(2)", ["input:\n5", "expected:\n6", "printed:\n2"]),
        (PRINTS, RAISES + "print(f(int(input())))", ["input:\n5", 'File "main.py", line 3, in f', "ValueError: five"]),
        (CALLS, "def f(x):\n    return x + 1", ["input:\n[5]", "expected:\n[6]", "returned:\n6"]),
        (CALLS, RAISES, ["input:\n[5]", 'File "main.py", line 3, in f', "ValueError: five"]),
        (EMBEDDED, "def f(x):\n    return 2", ["test:\nassert f(5) == 6", "AssertionError"]),
        (EMBEDDED, RAISES, ["test:\nassert f(5) == 6", "ValueError: five"]),
        (REFERENCE, "def f(x):\n    return 2", ["input:\n[5]", "expected:\n6", "returned:\n2"]),
        (REFERENCE, RAISES, ["input:\n[5]", "expected:\n6", "ValueError: five"]),
    ],
)
def test_the_first_failing_test_is_told_and_no_policy_sees_it(backend, hidden, program, told):
    found = episode(backend, hidden, program)
    assert found.passed is False
    assert [part for part in told if part not in found.evidence["feedback"]] == []
    assert not any(told[0] in message.content for message in found.every_message)


def test_a_program_that_passes_and_none_at_all_are_told_nothing(backend):
    assert "feedback" not in episode(backend, CALLS, "def f(x):\n    return [6] if x == 5 else 2").evidence
    assert "feedback" not in episode(backend, PRINTS, "").evidence


@pytest.mark.parametrize("hidden", [PRINTS, CALLS], ids=["prints", "returns"])
def test_what_a_hostile_program_says_is_short_and_printable(backend, hidden):
    hostile = "import sys\ndef f(x):\n    return shown\nshown = '\\x1b[2J\\0\\u202e' + 'passed ' * 10**5\n"
    found = episode(backend, hidden, hostile + "print(shown)\nprint(shown, file=sys.stderr)").evidence["feedback"]
    assert found.replace("\n", "").isprintable()
    assert "[2J" in found
    assert len(found) < 7000
