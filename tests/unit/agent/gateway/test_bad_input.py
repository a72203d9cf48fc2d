"""What is wrong is told in the dialect's own form and status; it reaches no other episode and ends none."""

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.gateway.app import DIALECTS
from verigym.agent.gateway.asked import GatewayError
from verigym.errors import ChatFormatError
from verigym.model.chat.sampling import Sampling

CHAT, RESPONSES, MESSAGES = (one.path for one in DIALECTS)
GOOD = {
    CHAT: {"model": "verigym", "messages": [{"role": "user", "content": "q"}]},
    RESPONSES: {"model": "verigym", "input": "q"},
    MESSAGES: {"model": "verigym", "messages": [{"role": "user", "content": "q"}], "max_tokens": 5},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def chat(*messages, **fields):
    return CHAT, {"model": "verigym", "messages": list(messages), **fields}


def responses(*items, **fields):
    return RESPONSES, {"model": "verigym", "input": list(items), **fields}


def messages(*rows, **fields):
    return MESSAGES, {"model": "verigym", "messages": list(rows), "max_tokens": 5, **fields}


USER = {"role": "user", "content": "q"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BAD = {
    "an image": (*chat({"role": "user", "content": [IMAGE]}), 400, "text"),
    "an image in responses": (*responses({"role": "user", "content": [{"type": "input_image"}]}), 400, "input_image"),
    "an image in messages": (*messages({"role": "user", "content": [{"type": "image", "source": {}}]}), 400, "image"),
    "an image in a tool's answer": (
        *messages(
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image"}]}]},
        ),
        400,
        "image",
    ),
    "an answer to no call": (*chat(USER, {"role": "tool", "tool_call_id": "x", "content": "a"}), 400, "'x'"),
    "an answer without its call's id": (*chat(USER, {"role": "tool", "content": "a"}), 400, "tool_call_id"),
    "an answer that is a number": (
        *chat(USER, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c", "content": 5}),
        400,
        "content",
    ),
    "an output of no call": (*responses({"type": "function_call_output", "call_id": "x", "output": "a"}), 400, "'x'"),
    "an output that is an object": (
        *responses(
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": {"a": 1}},
        ),
        400,
        "text",
    ),
    "a result of no call": (
        *messages({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "a"}]}),
        400,
        "'x'",
    ),
    "arguments that are no JSON": (
        *responses({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}),
        400,
        "JSON",
    ),
    "calls that are no list": (*chat({"role": "assistant", "tool_calls": 3}), 400, "tool_calls"),
    "a tool that is none": (*chat(USER, tools=[{"type": "web_search"}]), 400, "tools[0]"),
    "a tool of the server": (*responses(USER, tools=[{"type": "web_search"}]), 400, "web_search"),
    "a forced call": (*chat(USER, tool_choice="required", tools=[]), 400, "tool_choice"),
    "a forced call in messages": (*messages(USER, tool_choice={"type": "any"}), 400, "tool_choice"),
    "several choices": (*chat(USER, n=2), 400, "n is 2"),
    "a schema for the answer": (*chat(USER, response_format={"type": "json_schema"}), 400, "response_format"),
    "an answer from a store": (*responses(USER, previous_response_id="resp_1"), 400, "previous_response_id"),
    "what is not done": (*chat(USER, logit_bias={"1": 2}), 400, "logit_bias"),
    "no messages": (*chat(), 400, "messages is empty"),
    "no tokens": (*messages(USER, max_tokens=0), 400, "max_tokens"),
    "a temperature that is none": (*chat(USER, temperature="hot"), 400, "temperature"),
    "a foreign role": (*messages({"role": "system", "content": "x"}), 400, "role"),
    "another model": (*chat(USER, model="gpt-5"), 404, "gpt-5"),
    "another model in messages": (*messages(USER, model="claude"), 404, "claude"),
    "a late system's message": (*chat(USER, {"role": "system", "content": "x"}), 400, "system"),
}


def posted(told, opened, *requests):
    """(status, JSON) of each request: (path, content, headers that replace the key's, or None)."""
    _, policy = told("a")

    async def play():
        async with opened(policy) as (gateway, session), httpx.AsyncClient() as client:
            found = []
            for path, content, headers in requests:
                own = {"authorization": f"Bearer {session.key}", "content-type": "application/json"}
                headers = own if headers is None else {**own, **headers(session, gateway)}
                url = path if path.startswith("http") else f"{gateway.root(session)}{path}"
                answer = await client.post(url, content=content, headers=headers)
                found.append((answer.status_code, answer.json()))
            last = await client.post(f"{gateway.root(session)}{CHAT}", json=GOOD[CHAT], headers=own)
            assert last.status_code == 200, "the episode does not go on"
            return found

    return asyncio.run(play())


def checked(path, status, body):
    """The message of an error in the form of a path's dialect."""
    error = body["error"]
    if path == MESSAGES:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        assert body["type"] == "error"
        assert error["type"] == kinds.get(status, error["type"])
    else:
        assert {"message", "type", "param", "code"} <= set(error)
        assert error["type"] == "invalid_request_error"
    return error["message"]


def test_every_mistake_is_told_in_its_dialect(told, opened):
    requests = [(path, json.dumps(body), None) for path, body, _, _ in BAD.values()]
    for (name, (path, _, status, words)), (found, body) in zip(
        BAD.items(), posted(told, opened, *requests), strict=True
    ):
        assert (name, found) == (name, status), body
        assert words in checked(path, status, body), (name, body)


@pytest.mark.parametrize("path", GOOD)
def test_what_is_no_body(path, told, opened):
    contents = ["", "[", "[]", '"x"', "{" * 5000, "null"]
    found = posted(told, opened, *((path, content, None) for content in contents))
    assert [status for status, _ in found] == [400] * len(contents)
    for status, body in found:
        checked(path, status, body)
    typed = posted(told, opened, (path, json.dumps(GOOD[path]), lambda *_: {"content-type": "text/plain"}))
    assert typed[0][0] == 415


@pytest.mark.parametrize("path", GOOD)
def test_wrong_keys(path, told, opened):
    content = json.dumps(GOOD[path])
    keys = [
        lambda *_: {"authorization": "Bearer wrong"},
        lambda *_: {"authorization": ""},
        lambda *_: {"authorization": "Bearer"},
        lambda *_: {"authorization": "Basic abc", "x-api-key": "wrong"},
        lambda session, _: {"authorization": f"Bearer {session.key}x"},
        lambda session, _: {"authorization": f"Bearer {session.key[:-1]}"},
        lambda session, _: {"authorization": f"Bearer {session.id}"},
    ]
    found = posted(told, opened, *((path, content, key) for key in keys))
    assert [status for status, _ in found] == [401] * len(keys)
    for status, body in found:
        assert "key" in checked(path, status, body)
    other = posted(told, opened, (path, content, lambda session, _: {"authorization": "", "x-api-key": session.key}))
    assert other[0][0] == 200


def test_an_episode_reaches_no_other(told, opened):
    """Its key opens no other's address, and an address that is none is told the same."""
    _, policy = told("a")

    async def play():
        async with opened(policy) as (gateway, first), gateway.open(policy, Sampling()) as second:
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {first.key}"}) as client:
                base = f"http://127.0.0.1:{gateway.port}"
                found = [
                    await client.post(f"{base}/{episode}{path}", json=GOOD[path])
                    for episode in (
                        second.id,
                        "none",
                        "..",
                        f"{first.id}/../{second.id}",
                        f"{first.id}%2f..%2f{second.id}",
                    )
                    for path in GOOD
                ]
                listed = await client.get(f"{base}/{second.id}/v1/models")
                own = await client.get(f"{base}/{first.id}/v1/models")
                assert own.json()["data"][0]["id"] == "verigym"
            return found, listed.status_code, first.counts, second.counts

    found, listed, first, second = asyncio.run(play())
    assert {answer.status_code for answer in found} <= {401, 404}
    assert listed == 401
    assert len({answer.text for answer in found if answer.status_code == 401 and "type" not in answer.json()}) == 1
    assert (first.turns, second.turns) == (0, 0)


def test_an_unknown_route(told, opened):
    found = posted(
        told,
        opened,
        ("/v1/completions", "{}", None),
        ("/v1/messages/count_tokens", "{}", lambda *_: {"anthropic-version": "2023-06-01"}),
    )
    assert [status for status, _ in found] == [404, 404]
    assert found[0][1]["error"]["code"] == "unknown_url"
    assert found[1][1]["type"] == "error"


KEYS = ["role", "content", "type", "text", "tool_calls", "tool_call_id", "id", "name", "input", "function", "arguments"]
KEYS += ["call_id", "output", "tool_use_id", "model", "thinking", "parameters", "input_schema"]
WORDS = ["user", "assistant", "tool", "text", "tool_use", "tool_result", "function_call"]
FIELDS = ["messages", "input", "tools", "tool_choice", "stream", "max_tokens", "temperature", "system", "stop", "n"]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner | st.sampled_from(WORDS), max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(DIALECTS), st.dictionaries(st.sampled_from(FIELDS), plain))
def test_no_body_breaks_a_dialect(dialect, fields):
    """It is read, or refused with words."""
    try:
        asked = dialect.read({**GOOD[dialect.path], **fields})
    except (GatewayError, ChatFormatError):
        return
    assert all(isinstance(message.content, str) for message in asked.messages)
