"""The Code World Model's rules: one call a turn, budget lines, submissions that can be repeated, strict and lenient."""

import asyncio

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.registry.ids import make_env
from verigym.envs.swe.cwm import COMMAND_S, SANDBOX_S, TOKENS, TURNS, CwmSWEEnv
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.cwm import CwmParser
from verigym.model.chat.messages import ToolCall
from verigym.model.chat.sampling import Sampling


@pytest.fixture
def env(vault):
    made = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task])
    yield made
    made.close()


def call(name, **arguments):
    return encode_calls([ToolCall(name=name, arguments=arguments)])


def test_the_preset_is_the_papers():
    assert (TURNS, TOKENS, COMMAND_S, SANDBOX_S) == (128, 131_072, 120.0, 2_400.0)
    env = make_env("verigym/SWE-CWM-v0")
    assert (env.max_turns, [spec.name for spec in env.tool_specs]) == (128, ["bash", "edit", "create", "submit"])
    block = "<<<<<<< SEARCH\n    return a - b\n=======\n    return a + b\n>>>>>>> REPLACE"
    text = f"<tool: edit>\npkg/calc.py\n{block}\n</tool>"
    message, action = CwmParser().parse(text, env.tool_specs)
    assert message.calls[0].arguments == {
        "path": "pkg/calc.py",
        "search": "    return a - b",
        "replace": "    return a + b",
    }
    assert CwmParser().format(message, env.tool_specs) == text
    _, action = CwmParser().parse("<tool: submit>\n/tmp/x.patch\n</tool>", env.tool_specs)
    assert action == call("submit", result="/tmp/x.patch")


@pytest.mark.parametrize(("kind", "reward"), [("gold", 1.0), ("empty", 0.0)])
def test_gold_scores_one_and_empty_zero(env, vault, kind, reward):
    policy = ScriptedPolicy(play(getattr(env, kind)(vault.task)))
    trajectory = asyncio.run(rollout(env, policy, vault.task, budget=Budget(), sampling=Sampling()))
    assert (trajectory.reward, trajectory.ending) == (reward, "answered"), trajectory.detail


def test_tools_answer_with_what_is_left(env):
    env.reset(options={"task": env._tasks[0]})
    env.context_tokens = 1000
    answer = env.step(call("bash", command="echo hello"))[0]
    assert answer.startswith("<output>\nhello\n\n</output>\n\n<budget>\n* Remaining turns: 127\n* Remaining tokens: ")
    assert TOKENS - 1000 - 100 < int(answer.rstrip("</budget>\n").rpartition(" ")[2]) < TOKENS - 1000
    answer = env.step(call("edit", path="pkg/calc.py", search="    return a - b", replace="    return a + b"))[0]
    assert "pkg/calc.py is changed at line 2:\n1: def add(a, b):\n2:     return a + b" in answer
    assert "Remaining turns: 126" in answer
    assert "does not exist" in env.step(call("create", path="no/where.py", content="x"))[0]
    assert "exists; use edit" in env.step(call("create", path="pkg/calc.py", content="x"))[0]
    assert "new.py is written (1 lines)" in env.step(call("create", path="new.py", content="x"))[0]
    assert "nothing was submitted" in env.step(call("submit", result="gone.patch"))[0]
    env.step(call("bash", command="{ echo 'diff x'; head -c 17M /dev/zero; } > /tmp/large.patch"))
    assert "a patch at most 16777216" in env.step(call("submit", result="/tmp/large.patch"))[0]
    assert "holds no change" in env.step(call("submit", result="pkg/calc.py"))[0]


def test_the_last_of_several_submissions_counts_also_when_the_turns_run_out(vault):
    env = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task], budget_turns=5)
    try:
        env.reset(options={"task": vault.task})
        env.step(call("bash", command="printf 'diff nothing\\n' > a.patch"))
        assert "<submission>\ndiff nothing" in env.step(call("submit", result="a.patch"))[0]
        env.step(call("bash", command="sed -i 's/a - b/a + b/' pkg/calc.py; git diff pkg > /tmp/b.patch; cd /tmp"))
        env.step(call("submit", result="b.patch"))
        _, reward, terminated, truncated, info = env.step(call("bash", command="echo done"))
        assert (reward, terminated, truncated, info["ending"]) == (1.0, False, True, "turn_limit"), info["score"]
    finally:
        env.close()


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("I am done.", "nothing was submitted yet"),
        (encode_calls([ToolCall(name="bash", arguments={"command": "ls"})] * 2), "call exactly one"),
        ('{"format_error": "a tag is not closed"}', "a tag is not closed"),
    ],
)
def test_strict_rules_end_the_episode_and_lenient_ones_answer(vault, action, why):
    for strict in (True, False):
        env = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task], strict=strict)
        try:
            env.reset(options={"task": vault.task})
            observation, reward, terminated, _, info = env.step(action)
            assert (reward, terminated) == (0.0, strict)
            assert why in (info["score"].detail if strict else observation)
        finally:
            env.close()


def test_a_closing_message_needs_a_heading_only_where_the_rules_are_strict(vault):
    for strict, reward in ((True, 0.0), (False, 1.0)):
        env = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task], strict=strict)
        try:
            env.reset(options={"task": vault.task})
            for message in env.gold(vault.task)[:2]:
                env.step(encode_calls(message.calls))
            assert env.step("Done.")[1] == reward
        finally:
            env.close()


def test_a_sandboxs_time_ends_the_episode(vault):
    env = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task], sandbox_s=0.0)
    try:
        env.reset(options={"task": vault.task})
        _, reward, terminated, _, info = env.step(call("bash", command="ls"))
        assert (reward, terminated, info["score"].detail) == (0.0, True, "the sandbox's 0 seconds are over")
    finally:
        env.close()


def test_a_command_that_takes_too_long_is_ended(vault):
    env = CwmSWEEnv(sandbox=vault.backend, tasks=[vault.task], command_s=1.0)
    try:
        env.reset(options={"task": vault.task})
        assert "The command was ended (timeout)" in env.step(call("bash", command="sleep 99"))[0]
        assert "ok" in env.step(call("bash", command="echo ok"))[0]
    finally:
        env.close()
