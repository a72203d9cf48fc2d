"""Tests that meet their time limit: 0, with an ending of its own, in episodes and in gradings of files."""

import asyncio
import json

import pytest

from verigym.__main__ import main
from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.agent.trajectory import INFRASTRUCTURE, TERMINATED
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.registry.opening import open_env
from verigym.envs.swe.env import SWEEnv
from verigym.envs.swe.grading import TEST_TIMEOUT_S
from verigym.evals.suites.loading import load_suite
from verigym.evals.suites.registry import known_suites
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import Score
from verigym.rewards.similarity import hybrid_score

HANGS = "\nimport time\ntime.sleep(99)\n"


def hanging(env, task):
    call = ToolCall(name="bash", arguments={"command": f"cat >> shelf.py <<'E'{HANGS}E"})
    return [Message(role="assistant", content="", calls=(call,)), env.gold(task)[-1]]


def episode(env, task, messages, **budget):
    policy = ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, task, budget=Budget(**budget), sampling=Sampling()))


def test_an_episode_whose_tests_meet_their_limit_ends_so_and_earns_nothing(local_backend):
    task = example_tasks()[0]
    env = SWEEnv(sandbox=local_backend, test_timeout_s=3.0)
    found = episode(env, task, hanging(env, task))
    assert (found.ending, found.reward, found.passed) == ("test_timeout", 0.0, False)
    assert found.detail == "the tests took longer than 3 s"
    assert found.ending in TERMINATED - INFRASTRUCTURE


def test_what_a_limit_of_the_episode_cut_off_keeps_that_ending():
    class Env(SWEEnv):
        async def afinish(self):
            return Score(value=0.0, passed=False, ending="test_timeout")

        async def ascore(self, submission):
            return Score(value=0.0, passed=False, ending="test_timeout")

        async def start(self, task):
            pass

    task = example_tasks()[0]
    final = Message(role="assistant", content="done")
    assert episode(Env(), task, [final]).ending == "test_timeout"
    assert episode(Env(), task, [final], turns=0).ending == "turn_limit"


def test_a_rubric_keeps_the_ending():
    timed_out = Score(value=0.0, passed=False, ending="test_timeout")
    assert hybrid_score(timed_out, "", "").ending == "test_timeout"


def test_grade_takes_the_limit_and_names_the_ending(local_backend, tmp_path, capsys):
    task = example_tasks()[0]
    patch = "--- /dev/null\n+++ b/conftest_.py\n@@ -0,0 +1 @@\n+x = 1\n"
    slow = (
        "--- a/shelf.py\n+++ b/shelf.py\n@@ -1 +1,4 @@\n"
        ' """A shelf of books, in the order in which they were put on it."""\n'
        + "".join(f"+{line}\n" for line in HANGS.split("\n")[:-1])
    )
    (tmp_path / "rows").write_text(json.dumps(dict(task.hidden)) + "\n")
    rows = [{"instance_id": task.id, "model_patch": text} for text in (slow, patch)]
    (tmp_path / "preds").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["grade", "swe", "--data", str(tmp_path / "rows"), "--predictions", str(tmp_path / "preds")]
    out = tmp_path / "out"
    assert main([*command, "--sandbox", "local", "--test-timeout", "4", "--out", str(out)]) == 0
    found = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["ending"], row["passed"], row["score"]) for row in found] == [
        ("test_timeout", False, 0.0),
        ("answered", False, 0.0),
    ]
    assert "ended: test_timeout" in capsys.readouterr().out
    assert main([*command, "--sandbox", "local", "--test-timeout", "5", "--out", str(out)]) == 2  # another run


def test_every_suite_of_repositories_has_swebenchs_limit_and_hands_it_on(tmp_path):
    suites = {name: suite for name, suite in known_suites().items() if "swe" in suite.env_ids}
    assert {"swe", "swebench_verified", "swebench_lite", "tasks"} <= set(suites)
    assert {suite.test_timeout_s for suite in suites.values()} == {1_800.0} == {TEST_TIMEOUT_S}
    assert {suite.test_timeout_s for name, suite in known_suites().items() if name not in suites} == {None}
    task = example_tasks()[0]
    (tmp_path / "rows").write_text(json.dumps(dict(task.hidden)) + "\n")
    for asked, limit in (({}, 1_800.0), ({"test_timeout_s": 7.0}, 7.0)):
        loaded = load_suite("swe", data=tmp_path / "rows", env_kwargs=asked)
        assert loaded.make_env(task)._test_timeout_s == limit
    assert open_env("verigym/SWE-v0", {"test_timeout_s": 7.0})._test_timeout_s == 7.0


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["grade", "math500", "--predictions", "p", "--test-timeout", "5"], "means nothing to suite 'math500'"),
        (["grade", "swe", "--predictions", "p", "--test-timeout", "0"], "--test-timeout is 0.0"),
        (["eval", "math500", "--data", "p", "--test-timeout", "5"], "means nothing to suite 'math500'"),
        (["eval", "swe", "--data", "p", "--test-timeout", "nan"], "--test-timeout is nan"),
    ],
)
def test_a_limit_that_means_nothing_is_refused(command, told, capsys):
    assert main(command) == 2
    assert told in capsys.readouterr().err
