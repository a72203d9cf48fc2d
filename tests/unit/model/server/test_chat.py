"""/v1/chat/completions by the official client: streams, tools, reasoning, log-probabilities."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.model.chat.cwm import CwmParser
from verigym.model.chat.messages import ToolSpec
from verigym.model.chat.openai import JsonParser
from verigym.model.chat.text import overlap
from verigym.model.chat.turns import TurnText

BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}
QUESTION = [{"role": "user", "content": "what is it?"}]
CALL = "I look.\n<tool: bash>\nls -l\n</tool>"


def ask(server, **options):
    return server.client.chat.completions.create(**{"model": "tiny", "messages": QUESTION, **options})


def streamed(server, **options):
    """(content, reasoning, calls, finish reason) of a stream."""
    content, reasoning, calls, finish = "", "", [], None
    for event in ask(server, **options, stream=True):
        choice = event.choices[0]
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        calls += [
            (one.index, one.id, one.function.name, one.function.arguments) for one in choice.delta.tool_calls or ()
        ]
        finish = choice.finish_reason or finish
    return content, reasoning, calls, finish


def test_an_answer_and_its_stream(scripted):
    with scripted("def add(a, b): 東京 \U0001f600") as server:
        answer = ask(server)
        assert answer.choices[0].message.content == "def add(a, b): 東京 \U0001f600"
        assert (answer.choices[0].finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "tiny")
        assert streamed(server) == (answer.choices[0].message.content, "", [], "stop")
        assert ask(server, max_completion_tokens=2).choices[0].finish_reason == "length"
        prompt = server.engine.prompts[0]
        assert prompt.endswith("what is it?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
        assert server.engine.samplings[0].max_tokens == 512 - answer.usage.prompt_tokens


def test_tools_are_called_and_answered(scripted):
    with scripted(CALL, CALL, "two files") as server:
        answer = ask(server, tools=[BASH])
        choice = answer.choices[0]
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.")
        assert (call.type, call.function.name) == ("function", "bash")
        assert json.loads(call.function.arguments) == {"command": "ls -l"}
        content, _, calls, finish = streamed(server, tools=[BASH])
        assert (content, finish) == ("I look.", "tool_calls")
        ((index, call_id, name, arguments),) = calls
        assert (index, name, json.loads(arguments)) == (0, "bash", {"command": "ls -l"})
        assert call_id not in ("", call.id)
        told = [
            choice.message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "a b"},
        ]
        assert ask(server, messages=[*QUESTION, *told], tools=[BASH]).choices[0].message.content == "two files"
        prompt = server.engine.prompts[-1]
        assert "I look.\n<tool: bash>\nls -l\n</tool><|eot_id|>" in prompt
        assert "<|start_header_id|>tool: bash<|end_header_id|>\n\na b<|eot_id|>" in prompt
        assert "You have access to the following tools:" in prompt


def test_calls_that_cannot_be_read_are_content(scripted):
    broken = "so\n<tool: bash>\nls"
    with scripted(broken) as server:
        choice = ask(server, tools=[BASH]).choices[0]
        assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (broken, None, "stop")
        assert streamed(server, tools=[BASH]) == (broken, "", [], "stop")


def test_tool_choice(scripted):
    with scripted("ls\n</tool>") as server:
        named = {"type": "function", "function": {"name": "bash"}}
        choice = ask(server, tools=[BASH], tool_choice=named).choices[0]
        assert json.loads(choice.message.tool_calls[0].function.arguments) == {"command": "ls"}
        assert server.engine.prompts[-1].endswith("<|end_header_id|>\n\n<tool: bash>\n")
        assert streamed(server, tools=[BASH], tool_choice=named)[2][0][2:] == ("bash", '{"command": "ls"}')
    with scripted("bash>\nls\n</tool>", CALL) as server:
        assert (
            ask(server, tools=[BASH], tool_choice="required").choices[0].message.tool_calls[0].function.name == "bash"
        )
        assert server.engine.prompts[-1].endswith("<|end_header_id|>\n\n<tool: ")
        choice = ask(server, tools=[BASH], tool_choice="none").choices[0]
        assert (choice.message.content, choice.message.tool_calls) == (CALL, None)
        assert "You have access" not in server.engine.prompts[-1]


def test_reasoning_is_kept_apart(scripted):
    with scripted(f"so it is\n</think>\n{CALL}", reasoning=True) as server:
        message = ask(server, tools=[BASH]).choices[0].message
        assert (message.reasoning_content, message.content) == ("so it is", "I look.")
        assert len(message.tool_calls) == 1
        content, reasoning, calls, finish = streamed(server, tools=[BASH])
        assert (content, reasoning, len(calls), finish) == ("I look.", "so it is", 1, "tool_calls")
        named = {"type": "function", "function": {"name": "bash"}}
        ask(server, tools=[BASH], tool_choice=named)
        assert server.engine.prompts[-1].endswith("<think>\n\n</think>\n<tool: bash>\n")
    with scripted("I never close", reasoning=True) as server:
        message = ask(server).choices[0].message
        assert (message.reasoning_content, message.content) == ("I never close", "")
        assert streamed(server)[:2] == ("", "I never close")


def test_logprobs(scripted, server):
    choice = ask(server, logprobs=True, top_logprobs=3, max_tokens=5, temperature=0).choices[0]
    assert 1 <= len(choice.logprobs.content) <= 5
    for row in choice.logprobs.content:
        assert len(row.top_logprobs) == 3
        assert row.logprob == pytest.approx(row.top_logprobs[0].logprob)  # greedy
        assert row.bytes is None or bytes(row.bytes).decode() == row.token
    events = list(ask(server, logprobs=True, top_logprobs=3, max_tokens=5, temperature=0, stream=True))
    told = [row.token for event in events if event.choices[0].logprobs for row in event.choices[0].logprobs.content]
    assert told == [row.token for row in choice.logprobs.content]
    with scripted(CALL) as one:
        answer = ask(one, tools=[BASH], logprobs=True)
        assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens  # the stop token too


def test_usage_of_a_stream_and_several_choices(server):
    options = {"n": 3, "max_tokens": 7, "seed": 5}
    whole = ask(server, **options)
    assert len({choice.message.content for choice in whole.choices}) == 3
    *events, last = ask(server, **options, stream=True, stream_options={"include_usage": True})
    assert last.usage == whole.usage
    for choice in whole.choices:
        deltas = [event.choices[0].delta for event in events if event.choices[0].index == choice.index]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == choice.message.content


SPECS = [ToolSpec(name="bash", description="", parameters=BASH["function"]["parameters"])]
PIECES = st.sampled_from(
    ["<think>", "</think>", "<tool: bash>", "</tool>", "<tool_call>", "</tool_call>", "\n", "\n\n", " ", "ls", "<", "{",
     '{"name": "bash", "arguments": {"command": "ls"}}', "a", "```", "<too", "</thi", "k>"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12), st.booleans(), st.booleans(), st.sampled_from([CwmParser(), JsonParser()]))
def test_deltas_add_up_to_the_turn(pieces, with_tools, opened, parser):
    """Whatever the model says, in whatever pieces it comes."""
    tools = SPECS if with_tools else []
    begun = "<think>\n" if opened else ""
    turn = TurnText(parser, tools, begun)
    found = {"content": "", "reasoning_content": ""}
    for piece in pieces:
        for name, text in turn.push(piece).items():
            assert text
            found[name] += text
    left, message = turn.finish()
    for name, text in left.items():
        found[name] += text
    whole = begun + "".join(pieces)
    if "</think>" in whole and not whole.startswith("<think>"):
        return  # a thought that nothing opened: the stream told it as content before its end came
    assert found["reasoning_content"] == (message.thinking or "")
    if message.calls:
        assert found["content"].strip() == message.content
    else:
        assert found["content"] == message.content


@given(st.text("ab"), st.lists(st.text("ab", min_size=1), max_size=3))
def test_overlap_is_the_longest_end_that_may_grow_into_a_word(text, words):
    length = overlap(text, words)
    begins = [n for n in range(1, len(text) + 1) if any(w != text[-n:] and w.startswith(text[-n:]) for w in words)]
    assert length == max(begins, default=0)


def test_one_call_at_a_time_where_that_is_asked_for(scripted):
    two = f"{CALL}\n{CALL.replace('I look.', '').replace('ls -l', 'pwd')}"
    with scripted(two) as server:
        assert len(ask(server, tools=[BASH]).choices[0].message.tool_calls) == 2
        assert len(ask(server, tools=[BASH], parallel_tool_calls=True).choices[0].message.tool_calls) == 2
        choice = ask(server, tools=[BASH], parallel_tool_calls=False).choices[0]
        (call,) = choice.message.tool_calls
        assert json.loads(call.function.arguments) == {"command": "ls -l"}
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.")
        content, _, calls, finish = streamed(server, tools=[BASH], parallel_tool_calls=False)
        assert (content, finish, len(calls)) == ("I look.", "tool_calls", 1)
