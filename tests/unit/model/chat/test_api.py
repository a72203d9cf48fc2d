"""OpenAI's chat API, read and written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.errors import ChatFormatError
from verigym.model.chat.actions import decode_action
from verigym.model.chat.api import from_openai_message, from_openai_messages, from_openai_tools, to_openai_messages
from verigym.model.chat.messages import Message, ToolCall, ToolSpec

LS = {"name": "bash", "arguments": {"command": "ls"}}


def test_messages_to_the_api_tie_answers_to_calls():
    calls = (ToolCall(name="bash", arguments={"command": "ls"}), ToolCall(name="submit", id="x"))
    rows = to_openai_messages(
        [
            Message(role="user", content="go"),
            Message(role="assistant", content="", calls=calls),
            Message(role="tool", name="bash", content="a"),
            Message(role="tool", name="submit", content="b", call_id="x"),
        ]
    )
    assert [call["id"] for call in rows[1]["tool_calls"]] == ["call_0", "x"]
    assert rows[1]["tool_calls"][0]["function"] == {"name": "bash", "arguments": '{"command": "ls"}'}
    assert [row["tool_call_id"] for row in rows[2:]] == ["call_0", "x"]


def test_messages_of_the_api_are_read():
    function = {"name": "bash", "arguments": '{"command": "ls"}'}
    row = {"content": None, "reasoning_content": "hm", "tool_calls": [{"id": "7", "function": function}]}
    message, action = from_openai_message(row)
    assert message == Message(
        role="assistant",
        content="",
        thinking="hm",
        calls=(ToolCall(name="bash", arguments={"command": "ls"}, id="7"),),
    )
    assert json.loads(action) == {"calls": [LS]}
    assert from_openai_message({"content": "42"})[1] == "42"


@pytest.mark.parametrize(
    "told",
    [
        [{"function": {"name": "bash", "arguments": "{"}}],
        [{"function": {"name": "bash", "arguments": "[]"}}],
        [{"function": {}}],
        ["x"],
        "x",
    ],
)
def test_malformed_arguments_of_the_api_are_a_format_error(told):
    message, action = from_openai_message({"content": "a", "tool_calls": told})
    assert decode_action(action).format_error
    assert message.calls == ()


def test_calls_that_cannot_be_read_stay_in_the_content():
    row = {"content": "let me see", "tool_calls": [{"id": "7", "function": {"name": "bash", "arguments": "{"}}]}
    content = from_openai_message(row)[0].content
    assert content.startswith("let me see\n")
    assert json.loads(content.splitlines()[1]) == row["tool_calls"][0]


_NAMES = st.sampled_from(["bash", "submit"])
_CALLS = st.lists(
    st.builds(ToolCall, name=_NAMES, arguments=st.dictionaries(st.text(), st.text() | st.integers())), max_size=2
)
_TURNS = st.lists(st.tuples(st.text(), _CALLS, st.text()), max_size=4)


@given(_TURNS)
def test_messages_survive_the_api(turns):
    """Ids are given on the way; a tool's answer comes back with its tool's name."""
    conversation = [Message(role="system", content="be brief")]
    for content, calls, answer in turns:
        conversation.append(Message(role="assistant", content=content, calls=tuple(calls)))
        conversation += [Message(role="tool", name=call.name, content=answer) for call in calls]
        conversation.append(Message(role="user", content=answer))
    back = from_openai_messages(json.loads(json.dumps(to_openai_messages(conversation))))
    assert [(m.role, m.content, m.name) for m in back] == [(m.role, m.content, m.name) for m in conversation]
    assert [[(c.name, c.arguments) for c in m.calls] for m in back] == [
        [(c.name, c.arguments) for c in m.calls] for m in conversation
    ]
    ids = [call.id for m in back for call in m.calls]
    assert len(set(ids)) == len(ids)


def test_developers_are_the_system_and_parts_are_joined():
    rows = [
        {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
    ]
    assert from_openai_messages(rows) == [
        Message(role="system", content="be brief"),
        Message(role="assistant", content="", thinking="hm"),
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("hello", r"messages\[0\] must be an object"),
        ({"role": "robot", "content": "a"}, r"the role 'robot'"),
        ({"role": "user", "content": 3}, r"messages\[0\].content must be a text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "parts of type text"),
        ({"role": "tool", "content": "a"}, "give its tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}, "not valid JSON"),
        ({"role": "assistant", "tool_calls": "x"}, "must be a list"),
    ],
)
def test_messages_that_cannot_be_read_are_told(row, told):
    with pytest.raises(ChatFormatError, match=told):
        from_openai_messages([row])


def test_tools_are_read():
    spec = ToolSpec(name="bash", description="Run.", parameters={"type": "object", "properties": {"command": {}}})
    assert from_openai_tools([spec.to_openai()]) == [spec]
    (bare,) = from_openai_tools([{"type": "function", "function": {"name": "now"}}])
    assert bare.parameters["properties"] == {}
    for row in ({"type": "function"}, {"type": "retrieval"}, "bash", {"type": "function", "function": {"name": ""}}):
        with pytest.raises(ChatFormatError, match=r"tools\[0\] must be"):
            from_openai_tools([row])
