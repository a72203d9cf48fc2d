"""What hooks and tools may return, and what is said of anything else."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportReturnType=false

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import EnvironmentBug
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.rewards.rubric import Rubric

TASK = Task(id="t", family="f", prompt="Go.")
LOOK = encode_calls([ToolCall(name="look")])


class Any(ToolEnv):
    system_prompt = "Be brief."
    answer: object = "seen"

    @tool
    def look(self) -> str:
        """Looks."""
        return self.answer

    def score(self, task, submission):
        return 1.0


def env(**members):
    one = type("Any", (Any,), members)()
    return one, one.reset(options={"task": TASK})[1]["messages"]


def test_an_episode_may_open_with_a_conversation():
    begun = [
        Message(role="user", content="1 + 1?"),
        Message(role="assistant", content="2"),
        Message(role="user", content="And 2 + 2?"),
    ]
    one, messages = env(prompt=lambda self, task: begun)
    assert [message.content for message in messages] == ["Be brief.", "1 + 1?", "2", "And 2 + 2?"]
    assert one.transcript == messages
    one.close()


@pytest.mark.parametrize(
    ("opening", "told"),
    [
        (None, "a NoneType; a str, a Message or a sequence of Messages is expected"),
        ([], "a list"),
        (["Go."], "a list"),
        ([Message(role="user", content="Hi."), Message(role="assistant", content="Hello.")], "is the assistant's"),
        ("x" * 16_777_217, "16,777,217 characters; 16,777,216 are the most"),
    ],
)
def test_what_opens_no_episode_is_a_bug_of_prompt(opening, told):
    with pytest.raises(EnvironmentBug, match=told) as found:
        env(prompt=lambda self, task: opening)
    assert found.value.hook == "prompt"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("text", "text"),
        ({"a": [1, None], "é": True}, '{"a": [1, null], "é": true}'),
        ([], "[]"),
        (3, "3"),
        (None, ""),
        (np.float64(0.5), "0.5"),
    ],
)
def test_what_a_tool_returns_is_shown(answer, shown):
    one, _ = env(answer=answer)
    assert one.step(LOOK)[0] == shown
    one.close()


@pytest.mark.parametrize(
    ("answer", "told"), [(b"x", "it returned bytes"), ({"a": {1}}, "set is not JSON"), (iter("x"), "has no text")]
)
def test_what_cannot_be_shown_is_a_bug_of_the_tool(answer, told):
    one, _ = env(answer=answer)
    with pytest.raises(EnvironmentBug, match=told) as found:
        one.step(LOOK)
    assert found.value.hook == "tool look"
    one.close()


@pytest.mark.parametrize("found", [np.float32(0.5), torch.tensor(0.5), np.float64(0.5), 0.5])
def test_scalars_of_other_libraries_are_numbers(found):
    one, _ = env(score=lambda *_: found)
    reward, info = one.step("done")[1], one.evidence
    assert (reward, type(reward), info) == (0.5, float, {})
    rubric, _ = env(score=ToolEnv.score, rubric=Rubric(lambda submission: found))
    assert rubric.step("done")[1] == 0.5


def test_a_turns_reward_has_no_name_of_a_part_of_the_score():
    def reply(self, task, message):
        self.reward(0.0, "score")
        return Submission(value=message)

    one, _ = env(reply=reply)
    with pytest.raises(EnvironmentBug, match="have one name, 'score'"):
        one.step("x")
    one.close()


def test_what_comparing_adds_has_no_name_of_another_part():
    one, _ = env(compare=lambda self, task, episodes: [{"score": 0.1} for _ in episodes])
    one.close()
    episode = SimpleNamespace(breakdown={"score": 1.0})
    with pytest.raises(EnvironmentBug, match="has a part 'score' already"):
        asyncio.run(one.acompare(TASK, [episode]))


def test_a_number_passes_where_the_whole_reward_is_the_most_there_is():
    def most(self, task, submission):
        self.reward(0.25, "tried")
        return 0.75

    one, _ = env(score=most)
    *_, info = one.step("done")
    assert (info["score"].value, info["score"].passed) == (1.0, True)


def test_their_booleans_are_verdicts():
    one, _ = env(score=lambda *_: np.all([1, 2]))
    *_, info = one.step("done")
    assert (info["score"].passed, info["score"].breakdown) == (True, {"passed": 1.0})


@pytest.mark.parametrize("found", [np.ones(2), "1", None, [1.0]])
def test_what_is_no_score_is_a_bug_of_score(found):
    one, _ = env(score=lambda *_: found)
    with pytest.raises(EnvironmentBug, match="a Score is expected, or a number, or a bool"):
        one.step("done")


def test_what_another_speaker_said_is_the_users():
    """``return await self.model("user").say(...)``, as it came: it was the assistant of its own conversation."""

    async def says(self, task, message=""):
        return await self.model("user").say([Message(role="user", content=message)])

    one, messages = env(reply=says, prompt=says, stand_in=lambda self, name, heard: f"I am the {name}")
    assert messages[1] == Message(role="user", content="I am the user")
    *_, info = one.step("who?")
    assert info["messages"] == (Message(role="user", content="I am the user"),)


def test_a_reply_is_text_a_message_or_an_end():
    one, _ = env(reply=lambda self, task, message: Message(role="user", content="so?"))
    assert one.step("hm")[0] == "so?"
    one, _ = env(reply=lambda self, task, message: Submission(value=1, message="over"))
    assert one.step("hm")[:2] == ("over", 1.0)
    for wrong in (None, 3, ["so?"]):
        one, _ = env(reply=lambda self, task, message, wrong=wrong: wrong)
        with pytest.raises(EnvironmentBug, match="a str, a Message or a Submission is expected"):
            one.step("hm")
        one.close()
