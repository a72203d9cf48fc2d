import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.errors import ChatFormatError
from verigym.model.chat.actions import decode_action, encode_calls
from verigym.model.chat.messages import Message, ToolCall, ToolSpec
from verigym.model.chat.openai import JsonParser

TOOLS = tuple(ToolSpec(name=name, description="", parameters={"type": "object"}) for name in ("bash", "submit"))
LS = {"name": "bash", "arguments": {"command": "ls"}}


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{json.dumps(LS)}\n</tool_call>",
        f"I look.\n<tool_call>{json.dumps(LS)}</tool_call>",
        json.dumps(LS),
        json.dumps([LS]),
        json.dumps({"tool_calls": [LS]}),
        json.dumps({"tool_calls": [{"id": "1", "type": "function", "function": LS}]}),
        json.dumps({"name": "bash", "arguments": json.dumps(LS["arguments"])}),
        json.dumps({"name": "bash", "parameters": LS["arguments"]}),
        f"```json\n{json.dumps(LS, indent=2)}\n```",
        f"Let me see.\n\n{json.dumps(LS, indent=2)}",
        f"<think>\nhm {{\n</think>\n\n{json.dumps(LS)}",
    ],
)
def test_a_call_is_read(text):
    message, action = JsonParser().parse(text, TOOLS)
    assert [(call.name, call.arguments) for call in message.calls] == [("bash", {"command": "ls"})]
    assert json.loads(action) == {"calls": [LS]}


def test_several_calls_keep_their_order_and_the_text_beside_them():
    submit = {"name": "submit", "arguments": {}}
    text = f"a\n<tool_call>{json.dumps(LS)}</tool_call>\n<tool_call>{json.dumps(submit)}</tool_call>"
    message, _ = JsonParser().parse(text, TOOLS)
    assert (message.content, [call.name for call in message.calls]) == ("a", ["bash", "submit"])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{</tool_call>",
        "<tool_call></tool_call>",
        f"<tool_call>{json.dumps(LS)}",
        f"{json.dumps(LS)}</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "bash", "arguments": [1]}</tool_call>',
        '{"name": "bash", "arguments": "{broken"}',
        '{"name": "bash", "arguments": {"command": "l',
        '{"name": "rm", "arguments": {}}',
        "<think>still thinking",
    ],
)
def test_a_broken_call_is_a_format_error(text):
    assert decode_action(JsonParser().parse(text, TOOLS)[1]).format_error


@pytest.mark.parametrize(
    "text", ["42", '{"x": 1}', '[1, 2]\n"name":', '{"name": "Bob", "age": 3}', "```json\n[1]\n```", ""]
)
def test_other_json_is_a_final_answer(text):
    message, action = JsonParser().parse(text, TOOLS)
    assert (message.calls, action) == ((), text)


NESTED = "[" * 100_000
ANY = st.text() | st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", json.dumps(LS), "{", "[", '"name":', "\n", "```json\n", "```", "</think>"]
    )
).map("".join)


@settings(max_examples=200)
@given(ANY)
def test_any_text_is_read_without_an_error(text):
    message, action = JsonParser().parse(text, TOOLS)
    decoded = decode_action(action)
    assert decoded.calls == tuple(ToolCall(name=call.name, arguments=call.arguments) for call in message.calls)


def test_deeply_nested_text_is_read_without_an_error():
    assert JsonParser().parse(NESTED, TOOLS)[1] == NESTED
    assert decode_action(JsonParser().parse(f"<tool_call>{NESTED}</tool_call>", TOOLS)[1]).format_error


@settings(max_examples=100)
@given(
    ANY, st.lists(st.dictionaries(st.text(max_size=3), st.integers() | ANY, max_size=2), max_size=2), st.none() | ANY
)
def test_what_is_written_is_read_back_or_refused(content, arguments, thinking):
    calls = tuple(ToolCall(name="bash", arguments=one) for one in arguments)
    message = Message(role="assistant", content=content, thinking=thinking, calls=calls)
    try:
        text = JsonParser().format(message, TOOLS)
    except ChatFormatError:
        return
    assert JsonParser().parse(text, TOOLS)[1] == (encode_calls(calls) if calls else content)


def test_ordinary_messages_are_never_refused():
    for arguments in ({"command": "echo '</x>' \"{}\"\n"}, {}, {"n": 1.5, "list": [None, True]}):
        message = Message(role="assistant", content="ok", calls=(ToolCall(name="bash", arguments=arguments),))
        text = JsonParser().format(message, TOOLS)
        assert JsonParser().parse(text, TOOLS)[0].calls[0].arguments == arguments
