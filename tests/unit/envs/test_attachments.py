"""Images and files beside messages: shown to models that take them, refused where the format has no place for them."""

import asyncio
import json

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, TokenPolicy, play
from verigym.agent.trajectory import Trajectory
from verigym.agent.transcript import format_episode
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.api import to_openai_messages
from verigym.model.chat.messages import Attachment, Message, ToolCall
from verigym.model.chat.sampling import Sampling

PIXEL = b"\x89PNG\r\n\x1a\n123"
TASK = Task(id="t", family="look", prompt="What is it?")


class Look(ToolEnv):
    def prompt(self, task):
        return Message(role="user", content=task.prompt, attachments=(Attachment.of(PIXEL),))

    @tool
    def zoom(self) -> str:
        """Looks closer."""
        return Message(role="tool", content="closer", attachments=(Attachment.of(b"%PDF", "application/pdf", "a.pdf"),))

    @tool
    def raw(self) -> str:
        """Gives bytes."""
        return PIXEL

    def reply(self, task, message):
        return Submission(value=message)

    def score(self, task, submission):
        return submission == "a cat"


CALLS = Message(role="assistant", content="", calls=(ToolCall(name="zoom"),))


def episode(policy):
    return asyncio.run(rollout(Look(), policy, TASK, budget=Budget(), sampling=Sampling()))


def test_they_are_kept_with_the_episode_and_told_to_people():
    found = episode(ScriptedPolicy(play([CALLS, Message(role="assistant", content="a cat")])))
    assert found.reward == 1.0
    assert found.messages[0].attachments[0].data == "iVBORw0KGgoxMjM="
    assert (found.messages[2].role, found.messages[2].name, found.messages[2].content) == ("tool", "zoom", "closer")
    assert Trajectory.from_json(json.loads(json.dumps(found.to_json()))) == found
    shown = format_episode(found)
    assert "[image/png attachment, 12 bytes]" in shown
    assert "[application/pdf a.pdf," in shown


def test_a_chat_server_gets_them_in_its_own_form():
    found = episode(ScriptedPolicy(play([CALLS, Message(role="assistant", content="a cat")])))
    rows = to_openai_messages(found.messages)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoxMjM="}}
    assert rows[0] == {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
    assert [row["role"] for row in rows] == ["user", "assistant", "tool", "user", "assistant"]
    assert rows[2]["content"] == "closer"
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}
    assert rows[3]["content"] == [{"type": "file", "file": file}]


def test_a_format_of_text_alone_refuses_them():
    with pytest.raises(ConfigError, match=r"an attachment \(image/png\), and this model's format takes text alone"):
        episode(TokenPolicy(None, None, None))  # type: ignore[arg-type]  # refused before any of them is asked


def test_bytes_are_no_answer_of_a_tool():
    found = episode(ScriptedPolicy(play([Message(role="assistant", content="", calls=(ToolCall(name="raw"),))])))
    assert (found.ending, found.failed_in) == ("environment_failure", "tool raw")
    assert "it returned bytes; return text, or a Message with attachments" in found.detail


def test_gymnasiums_face_shows_the_text():
    env = Look()
    assert env.reset(options={"task": TASK})[0] == "What is it?"
    observation, *_, info = env.step(encode_calls(CALLS.calls))
    assert (observation, info["messages"][0].attachments[0].name) == ("closer", "a.pdf")
    env.close()
