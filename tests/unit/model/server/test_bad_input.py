"""Bad input: OpenAI's error format with the right status, told to the official client; the engine goes on."""

import json
import threading

import httpx
import pytest

from verigym.model.engine.generator import Generator

from .conftest import model_of, running

COMPLETION = {"model": "tiny", "prompt": [7, 8, 9], "max_tokens": 2}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}

BAD_COMPLETIONS = [
    ({"prompt": [7, 320]}, "prompt", "holds id 320"),
    ({"prompt": [7, -1]}, "prompt", "holds id -1"),
    ({"prompt": [[7], [7, 10**30]]}, "prompt", "holds id 1000000"),
    ({"prompt": []}, "prompt", "prompt is empty"),
    ({"prompt": ""}, "prompt", "prompt is empty"),
    ({"prompt": [[7], []]}, "prompt", "prompt is empty"),
    ({"prompt": [7, "a"]}, "prompt", "prompt"),
    ({"prompt": [True]}, "prompt", "prompt"),
    ({"prompt": None}, "prompt", "prompt"),
    ({"prompt": [7] * 256}, "prompt", "maximum context length is 256 tokens and the prompt has 256"),
    ({"prompt": [7] * 257, "max_tokens": 0, "echo": True}, "prompt", "maximum context length"),
    ({"prompt": [[7]] * 129}, "prompt", "more than 128"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 129}, "n", "less than or equal to 128"),
    ({"n": 1.5}, "n", "valid integer"),
    ({"temperature": float("nan")}, "temperature", "finite number"),
    ({"temperature": float("inf")}, "temperature", "finite number"),
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"top_k": -2}, "top_k", "greater than or equal to -1"),
    ({"min_p": 1.1}, "min_p", "less than or equal to 1"),
    ({"max_tokens": 0}, None, "max_tokens is 0"),
    ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
    ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
    ({"logprobs": True}, "logprobs", "valid integer"),
    ({"stop": ["a", ""]}, None, "stop holds an empty text"),
    ({"best_of": 2}, None, "best_of is 2"),
    ({"frequency_penalty": 1}, None, "no penalties"),
    ({"logit_bias": {"5": 1}}, None, "logit_bias is not supported"),
    ({"suffix": "x"}, None, "suffix is not supported"),
    ({"stream_options": {"include_usage": True}}, None, "need stream=true"),
    ({"seed": 2**63}, "seed", "less than"),
    ({"nonsense": 1}, "nonsense", "nonsense is no parameter"),
]
BAD_CHATS = [
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages", "the role 'robot'"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages", "one system"),
    ({"messages": [{"role": "user", "content": "東" * 200}]}, "messages", "maximum context length"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"top_logprobs": 2}, None, "need logprobs=true"),
    ({"tools": [{"type": "retrieval"}]}, "messages", "tools[0] must be"),
    ({"tool_choice": "required"}, None, "there are no tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice", "'no'"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "'text'"),
    ({"n": 0}, "n", "greater than or equal to 1"),
]


def post(server, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(server.url + path, content=content, headers={"content-type": "application/json"}, timeout=60)


def error_of(response, status):
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    return body["error"]


def works(server):
    assert post(server, "/v1/completions", COMPLETION).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "good", "table"),
    [("/v1/completions", COMPLETION, BAD_COMPLETIONS), ("/v1/chat/completions", CHAT, BAD_CHATS)],
)
def test_values_that_cannot_be(server, path, good, table, stream):
    for change, param, told in table:
        if stream and ("stream_options" in change or change.get("max_tokens") == 0):
            continue
        error = error_of(post(server, path, {**good, "stream": stream, **change}), 400)
        assert told in error["message"], change
        assert error["param"] == param or (param is not None and error["param"].startswith(param)), (change, error)
    works(server)


def test_a_full_context_has_its_code(server):
    assert error_of(post(server, "/v1/completions", {**COMPLETION, "prompt": [7] * 300}), 400)["code"] == (
        "context_length_exceeded"
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": "tiny", ', b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 9999 + b"}"],
)
def test_malformed_json(server, body):
    error = error_of(post(server, "/v1/completions", body), 400)
    assert "JSON" in error["message"]
    works(server)


def test_unknown_models_routes_and_methods(server):
    for path, good in (("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)):
        error = error_of(post(server, path, {**good, "model": "gpt-9"}), 404)
        assert error["code"] == "model_not_found"
    assert error_of(post(server, "/v1/fly", {}), 404)["code"] == "unknown_url"
    assert error_of(httpx.get(f"{server.url}/v1/completions"), 405)["code"] == "method_not_allowed"
    assert error_of(httpx.get(f"{server.url}/v1/models/nothing"), 404)["code"] == "model_not_found"
    assert error_of(post(server, "/pause", {}), 404)  # not without --allow-weight-updates


def test_the_official_client_reads_each_error(server):
    import openai

    client = server.client
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[7, 999])
    assert (caught.value.param, caught.value.status_code) == ("prompt", 400)
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=CHAT["messages"])
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "東" * 300}], stream=True)


def test_texts_that_are_no_unicode_are_served(server):
    body = b'{"model": "tiny", "prompt": "a\\ud800b", "max_tokens": 1, "echo": true}'
    answer = post(server, "/v1/completions", body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"].startswith("a\ud800b")


def test_a_body_that_is_too_large(decoder, tokenizer):
    engine = Generator(decoder, max_batch=2, max_context=64, num_threads=1)
    with running(model_of(engine, tokenizer), max_body_bytes=1000) as server:
        large = json.dumps({**COMPLETION, "user": "x" * 1000}).encode()
        assert "larger than 1000 bytes" in error_of(post(server, "/v1/completions", large), 413)["message"]

        def in_pieces():
            for start in range(0, len(large), 100):
                yield large[start : start + 100]

        response = httpx.post(
            f"{server.url}/v1/completions", content=in_pieces(), headers={"content-type": "application/json"}
        )
        assert error_of(response, 413)
        works(server)


def test_a_full_queue_sends_away_and_the_rest_is_served(decoder, tokenizer):
    """n = 4 is one more than fits: it is refused as a whole, and holds nothing."""
    import openai

    engine = Generator(decoder, max_batch=2, max_context=256, num_threads=1, max_waiting=1)
    with running(model_of(engine, tokenizer)) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            server.client.completions.create(**COMPLETION | {"max_tokens": 200}, n=4, extra_body={"ignore_eos": True})
        assert caught.value.response.headers["retry-after"] == "1"
        assert caught.value.body["type"] == "rate_limit_error"
        statuses, lock = [], threading.Lock()

        def ask():
            response = post(server, "/v1/completions", {**COMPLETION, "max_tokens": 200, "ignore_eos": True})
            with lock:
                statuses.append(response.status_code)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) <= {200, 429}
        assert 200 in statuses
        works(server)
        assert engine.stats().num_running == engine.stats().num_waiting == 0


def test_without_a_tokenizer_ids_are_served_and_chat_is_not(decoder):
    from verigym.model.engine.open import OpenModel

    engine = Generator(decoder, max_batch=2, max_context=64, num_threads=1)
    bare = OpenModel(
        engine=engine, chat_problem="the checkpoint has no tokenizer", load_weights=lambda path, version, mode: None
    )
    with running(bare) as server:
        row = post(
            server, "/v1/completions", {**COMPLETION, "echo": True, "logprobs": 1, "return_token_ids": True}
        ).json()["choices"][0]
        assert row["text"] == ""
        assert len(row["token_ids"]) == 2
        assert row["logprobs"]["tokens"][:3] == ["token_id:7", "token_id:8", "token_id:9"]
        assert "no tokenizer" in error_of(post(server, "/v1/chat/completions", CHAT), 400)["message"]
        assert "token ids" in error_of(post(server, "/v1/completions", {**COMPLETION, "prompt": "a"}), 400)["message"]
        assert "token ids" in error_of(post(server, "/v1/completions", {**COMPLETION, "stop": "a"}), 400)["message"]
