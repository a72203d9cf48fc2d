"""Traces to text and tokens and exactly back, whatever the program says."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.errors import ChatFormatError
from verigym.model.chat.trace import (
    EVENT_TOKENS,
    RESERVED,
    Frame,
    Trace,
    depths_of,
    frame_text,
    frames_of_text,
    from_text,
    to_text,
    unfold,
)
from verigym.model.chat.trace_tokens import TraceFormat

SPELLINGS = st.sampled_from(
    ["<|frame_sep|>", "<|end_of_text|>", "<|arg_sep|>", "<|", "..", '"', "\\", "\n", "{", "é東"]
)
WRITTEN = st.characters(exclude_categories=["Cs"])
SOURCES = st.lists(st.one_of(st.text(WRITTEN, max_size=8), SPELLINGS), max_size=4).map("".join)
VALUES = st.lists(st.one_of(st.text(max_size=8), SPELLINGS), max_size=4).map("".join)
FRAMES = st.one_of(
    st.builds(
        Frame,
        event=st.sampled_from(["call", "line"]),
        source=SOURCES,
        locals=st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
    ),
    st.builds(
        Frame, event=st.sampled_from(["return", "exception"]), source=SOURCES, value=st.one_of(st.none(), VALUES)
    ),
)
TRACES = st.builds(Trace, context=SOURCES, frames=st.lists(FRAMES, max_size=5).map(tuple), ended=st.booleans())


@pytest.fixture(scope="module")
def trace_format(tokenizer):
    return TraceFormat(tokenizer)


@settings(max_examples=200)
@given(TRACES)
def test_tokens_read_back_exactly(trace_format, trace):
    assert trace_format.decode(trace_format.encode(trace)) == trace


@settings(max_examples=200)
@given(TRACES)
def test_text_reads_back_exactly_or_is_refused(trace):
    try:
        text = to_text(trace)
    except ChatFormatError:
        sources = [trace.context, *(frame.source for frame in trace.frames)]
        assert any(name in source for source in sources for name in RESERVED)
        return
    assert from_text(text) == trace
    assert frames_of_text(text) == trace.frames


def test_the_format_is_the_guides(trace_format, tokenizer):
    """Literally as PROMPTING_GUIDE.md has it."""
    frames = (
        Frame(event="call", source="def f(x):\n", locals={"x": "'a'"}),
        Frame(event="line", source="    return x * 2\n", locals={"x": ".."}),
        Frame(event="return", source="    return x * 2\n", value="'aa'"),
    )
    trace = Trace(context="def f(x):  # << START_OF_TRACE\n    return x * 2\n", frames=frames)
    assert to_text(trace) == (
        "<|begin_of_text|><|trace_context_start|>def f(x):  # << START_OF_TRACE\n    return x * 2\n<|frame_sep|>"
        '<|call_sep|>{"x": "\'a\'"}<|action_sep|>def f(x):\n<|frame_sep|>'
        '<|line_sep|>{"x": ".."}<|action_sep|>    return x * 2\n<|frame_sep|>'
        "<|return_sep|><|action_sep|>    return x * 2\n<|arg_sep|>\"'aa'\"<|frame_sep|><|end_of_text|>"
    )
    ids = trace_format.encode(trace)
    named = [tokenizer.reserved(name) for name in RESERVED]
    assert [token_id for token_id in ids if token_id in named] == [
        tokenizer.reserved(name)
        for name in (
            *("<|begin_of_text|>", "<|trace_context_start|>", "<|frame_sep|>"),
            *("<|call_sep|>", "<|action_sep|>", "<|frame_sep|>", "<|line_sep|>", "<|action_sep|>", "<|frame_sep|>"),
            *("<|return_sep|>", "<|action_sep|>", "<|arg_sep|>", "<|frame_sep|>", "<|end_of_text|>"),
        )
    ]


def test_a_prompt_and_the_frame_after_it(trace_format, tokenizer):
    frame = Frame(event="exception", source="raise E\n", value="E()")
    trace = Trace(context="c", frames=(), ended=False)
    prompt = trace_format.prompt(trace)
    whole = trace_format.encode(Trace(context="c", frames=(frame,), ended=False))
    assert whole[: len(prompt)] == prompt
    assert trace_format.decode_frame(whole[len(prompt) :]) == frame
    assert trace_format.decode_frame(whole[len(prompt) : -1]) == frame
    assert trace_format.decode_frame([tokenizer.reserved("<|end_of_text|>")]) is None
    assert whole[len(prompt)] == trace_format.event_id("exception")


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "<|line_sep|>{}",
        "<|line_sep|>{}<|action_sep|>a<|arg_sep|>1",
        "<|line_sep|>{]<|action_sep|>a",
        '<|line_sep|>{"a": 1}<|action_sep|>a',
        "<|return_sep|><|action_sep|>a<|arg_sep|>1",
        '<|return_sep|>x<|action_sep|>a<|arg_sep|>"1"',
        "<|action_sep|>a",
    ],
)
def test_what_is_no_frame_is_refused(trace_format, tokenizer, text):
    with pytest.raises(ChatFormatError):
        trace_format.decode_frame(tokenizer.encode(text, allow_reserved=True))


def test_what_is_no_trace_is_refused():
    for text in ("", "<|frame_sep|>", "<|begin_of_text|><|trace_context_start|>a<|frame_sep|><|line_sep|>{}"):
        with pytest.raises(ChatFormatError):
            from_text(text)
    unclosed = "<|begin_of_text|><|trace_context_start|>a<|frame_sep|><|line_sep|>{}<|action_sep|>a"
    with pytest.raises(ChatFormatError, match="not closed"):
        from_text(unclosed)


def test_a_surrogate_in_source_is_refused(trace_format):
    with pytest.raises(ChatFormatError, match="surrogate"):
        trace_format.encode(Trace(context="\ud800", frames=()))


def test_unchanged_values_are_those_of_the_scope():
    frames = [
        Frame(event="call", source="", locals={"a": "1"}),
        Frame(event="call", source="", locals={"a": "7", "b": "2"}),
        Frame(event="line", source="", locals={"a": "..", "b": "3"}),
        Frame(event="return", source="", value="0"),
        Frame(event="line", source="", locals={"a": "..", "c": ".."}),
    ]
    assert unfold(frames) == [
        {"a": "1"},
        {"a": "7", "b": "2"},
        {"a": "7", "b": "3"},
        {"a": "7", "b": "3"},
        {"a": "1", "c": ".."},
    ]
    assert depths_of(frames) == [1, 2, 2, 2, 1]


def test_json_of_a_frame_spells_no_token():
    text = frame_text(Frame(event="line", source="x\n", locals={"<|line_sep|>": "'<|frame_sep|>'"}))
    assert text.count("<|frame_sep|>") == 1
    body = text.removeprefix(EVENT_TOKENS["line"]).partition("<|action_sep|>")[0]
    assert json.loads(body) == {"<|line_sep|>": "'<|frame_sep|>'"}
