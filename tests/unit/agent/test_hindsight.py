"""What a teacher is told of an episode: of itself how it went, of others how it is done, and never its own answer."""

from dataclasses import replace

import pytest

from verigym.agent.hindsight import answer_of, block_of, sibling_of
from verigym.agent.trajectory import Trajectory
from verigym.model.chat.messages import Message, ToolCall


def episode(name: str, passed: bool | None, **fields) -> Trajectory:
    said = (
        Message(role="user", content="do this"),
        Message(role="assistant", content=f"look {name}"),
        Message(role="tool", content=f"seen {name}", name="bash"),
        Message(role="assistant", content=f"answer {name}"),
    )
    reward = None if passed is None else float(passed)
    return Trajectory(
        task_id="t",
        family="f",
        ending="answered",
        reward=reward,
        passed=passed,
        messages=said,
        **({"detail": ""} | fields),
    )


def test_each_part_tells_what_it_says():
    mine = episode(
        "mine",
        False,
        detail="test_b failed first",
        evidence={"tests": {"test_a": "passed", "test_b": "failed", "test_c": "error"}, "feedback": "off by one"},
    )
    good = episode("good", True)
    group = [mine, episode("bad", False), good, episode("other", True)]

    def told(*parts, **more):
        return block_of(mine, group, parts, **more)

    assert "did not pass (answered). test_b failed first" in told("verdict")
    assert "test_b: failed\ntest_c: error" in told("tests")
    assert "test_a" not in told("tests")
    assert "off by one" in told("feedback")
    assert "answer good" in told("sibling")
    assert "seen good" in told("sibling_episode")
    assert "do this" not in told("sibling_episode")
    assert told("reference") == ""
    assert "gold!" in told("reference", reference=lambda one: "gold!")
    assert "by an expert" in told("demonstration", demonstration=lambda one: "by an expert")
    both = told("verdict", "sibling")
    assert both.index("did not pass") < both.index("answer good") < both.index("Now solve the task.")
    assert "did not pass" not in told("verdict", "sibling", feedback_with_sibling=False)


def test_a_group_without_a_success_is_told_of_itself_alone():
    mine = episode("mine", False, detail="wrong")
    group = [mine, episode("bad", False), episode("lost", None)]
    told = block_of(mine, group, ("sibling", "verdict"), feedback_with_sibling=False)
    assert "wrong" in told
    assert "answer bad" not in told
    assert block_of(mine, group, ("sibling",)) == ""


def test_nobody_is_told_its_own_answer():
    only = episode("only", True)
    group = [episode("bad", False), only, episode("worse", False)]
    assert sibling_of(only, group) is None
    assert block_of(only, group, ("sibling", "sibling_episode")) == ""
    twins = [episode("one", True), episode("two", True), episode("three", True)]
    assert [answer_of(sibling_of(one, twins)) for one in twins] == ["answer two", "answer three", "answer one"]
    # nor another speaker's of the same game
    rival = replace(episode("rival", True), speaker="opponent")
    assert sibling_of(twins[0], [twins[0], rival]) is None


def test_an_answer_is_the_patch_else_the_last_message_else_the_last_call():
    assert answer_of(episode("x", True, evidence={"patch": "--- a\n+++ b\n"})) == "--- a\n+++ b\n"
    assert answer_of(episode("x", True)) == "answer x"
    call = Message(role="assistant", content="", calls=(ToolCall(id="0", name="submit", arguments={"why": "done"}),))
    assert "submit" in answer_of(replace(episode("x", True), messages=(call,)))
    assert answer_of(replace(episode("x", True), messages=())) == ""


@pytest.mark.parametrize("passed", [None])
def test_of_an_episode_that_nobody_scored_there_is_no_verdict(passed):
    assert block_of(episode("x", passed), [], ("verdict",)) == ""
