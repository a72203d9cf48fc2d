"""Solved questions before a task: written right, shown as turns, part of what makes two runs the same."""

import argparse
import json
import re

import pytest

from verigym.agent.policy import Turn
from verigym.errors import ConfigError
from verigym.evals.shots import shots_identity, shots_of
from verigym.evals.suites.exemplars import EXEMPLARS
from verigym.evals.suites.loading import load_suite


def asked(shots, suite="gsm8k", agent="verigym", policy="engine:model"):
    return argparse.Namespace(shots=shots, suite=suite, agent=agent, policy=policy)


@pytest.mark.parametrize("suite", sorted(EXEMPLARS))
def test_exemplars_are_distinct_and_in_the_form_that_is_graded(suite):
    questions = [question for question, _ in EXEMPLARS[suite]]
    assert len(set(questions)) == len(questions) > 2
    for question, answer in EXEMPLARS[suite]:
        if suite == "mbpp":
            exec(answer.split("```")[1].removeprefix("python"), names := {})
            tests = re.findall(r"^assert .*", question, re.MULTILINE)
            assert len(tests) == 3
            for test in tests:
                exec(test, names)
        else:
            assert answer.count("boxed") == 1
            assert question.endswith("Wrap your answer in $\\boxed{}$.")


def test_shots_are_turns_before_the_prompt(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "How many?", "answer": "#### 3"}) + "\n")
    suite = load_suite("gsm8k", data=rows)
    plain, shown = (env_messages(one) for one in (suite, type(suite)(**fields(suite, shots_of(asked("2"))))))
    assert [message.role for message in shown] == ["user", "assistant", "user", "assistant", "user"]
    assert shown[-1:] == plain
    assert (shown[0].content, shown[1].content) == EXEMPLARS["gsm8k"][0]
    assert not any(isinstance(message, Turn) for message in shown)


def fields(suite, shots):
    return {name: getattr(suite, name) for name in suite.__slots__} | {"shots": shots}


def env_messages(suite):
    env = suite.make_env(suite.tasks[0])
    _, info = env.reset(options={"task": suite.tasks[0]})
    env.close()
    return info["messages"]


def test_a_file_gives_all_its_questions_and_another_file_is_another_run(tmp_path):
    path = tmp_path / "shots.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "2"}\n\n{"question": "2 + 2?", "answer": "4"}\n')
    shots = shots_of(asked(str(path)))
    assert shots == (("1 + 1?", "2"), ("2 + 2?", "4"))
    assert shots_identity(()) == {}
    assert shots_identity(shots) != shots_identity(shots[:1])


@pytest.mark.parametrize(
    ("shots", "suite", "agent", "told"),
    [
        ("9", "gsm8k", "verigym", "gsm8k has 8"),
        ("0", "gsm8k", "verigym", "gsm8k has 8"),
        ("2", "humaneval", "verigym", "some of gsm8k"),
        ("2", "gsm8k", "mini-swe-agent", "its own prompt"),
        ("/nowhere/shots.jsonl", "gsm8k", "verigym", "no such file"),
    ],
)
def test_what_cannot_be_shown_is_refused(shots, suite, agent, told):
    with pytest.raises(ConfigError, match=told):
        shots_of(asked(shots, suite, agent))


def test_a_script_is_shown_nothing():
    with pytest.raises(ConfigError, match="--policy gold reads nothing"):
        shots_of(asked("2", policy="gold"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no question"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: a JSON object"),
        ('{"question": "a", "answer": 3}', "two texts"),
        ('{"question": "a", "answer": " "}', "two texts"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, text, told):
    path = tmp_path / "shots.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        shots_of(asked(str(path)))
