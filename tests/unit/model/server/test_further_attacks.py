"""Requests by somebody who had read the documentation: each gets an answer of its own at once, and none does harm."""

import contextlib
import gzip
import json
import os
import socket
import time

import httpx
import pytest

from verigym.model.server.access import Access

from .conftest import Scripted, model_of, running

COMPLETION = {"model": "tiny", "prompt": [7, 8, 9], "max_tokens": 2}


@pytest.fixture(scope="module")
def closed(tokenizer):
    """A server with keys whose weights can be changed, and the paths it was told to load."""
    asked = []
    model = model_of(Scripted(tokenizer, "hi"), tokenizer, load_weights=lambda path, *_: asked.append(path))
    with running(model, allow_weight_updates=True, access=Access(api_key="one", weights_key="two")) as one:
        yield one, asked


def raw(url, data, *, wait_s=60.0):
    """What a server answers to bytes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(data)
        with contextlib.suppress(OSError):  # it has been closed
            connection.shutdown(socket.SHUT_WR)
        pieces = []
        with contextlib.suppress(ConnectionResetError):  # of what it has not read
            while piece := connection.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)


def post(url, body, **options):
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    return httpx.post(f"{url}/v1/completions", content=body, headers=headers, timeout=60, **options)


BODIES = {
    "nested without end": b'{"prompt": ' + b"[" * 100_000,
    "a number of 100,000 digits": b'{"model": "tiny", "prompt": [7], "max_tokens": ' + b"9" * 100_000 + b"}",
    "an exponent": b'{"model": "tiny", "prompt": [7], "temperature": 1e999999999}',
    "NaN": b'{"model": "tiny", "prompt": [7], "top_p": NaN}',
    "keys twice": b'{"model": "tiny", "prompt": [7], "max_tokens": 1, "max_tokens": -5}',
    "a byte order mark of no text": b"\xff\xfe{}",
    "no UTF-8": b'{"model": "tiny", "prompt": "\xff\xff"}',
    "a half of a pair as the model": b'{"model": "\\ud800", "prompt": [7]}',
    "a model of 100 kB": json.dumps({**COMPLETION, "model": "x" * 100_000}).encode(),
    "100,000 stops": json.dumps({**COMPLETION, "stop": ["a"] * 100_000}).encode(),
    "a list": b"[]",
    "a text": b'"prompt"',
    "NUL": b"\0" * 1000,
    "a key of NUL": b'{"\\u0000": 1}',
    "constructor": b'{"__class__": {"__init__": 1}, "prompt": [7], "model": "tiny"}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_refused_and_says_why(server, name):
    began = time.monotonic()
    answer = post(server.url, BODIES[name])
    assert answer.status_code in (400, 404), answer.text[:300]
    assert answer.json()["error"]["message"]
    assert len(answer.content) < 5000
    assert time.monotonic() - began < 60
    assert post(server.url, json.dumps(COMPLETION)).status_code == 200


def test_a_packed_body_is_not_unpacked(server):
    packed = gzip.compress(json.dumps(COMPLETION).encode() + b" " * (64 << 20))
    answer = post(server.url, packed, headers={"content-encoding": "gzip"})
    assert answer.status_code in (400, 415)


@pytest.mark.parametrize(
    "path",
    [
        *("/update_weights/", "//update_weights", "/UPDATE_WEIGHTS", "/%75pdate_weights", "/v1/../update_weights"),
        *("/update_weights?key=two", "/update_weights;a=b", "/update_weights%00", "/v1/%2e%2e/update_weights"),
        *("/health/../update_weights", "/metrics/%2e%2e/update_weights", "/update_weights#two"),
    ],
)
def test_no_other_spelling_leads_to_the_weights(closed, path):
    server, asked = closed
    body = b'{"path": "/tmp"}'
    for key in ("", "authorization: Bearer one\r\n", "authorization: Bearer\r\n", "Authorization: Basic dHdv\r\n"):
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{key}"
        said = raw(server.url, f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        assert said.split(b" ")[1] in (b"400", b"401", b"403", b"404", b"405", b"307"), said[:200]
    assert asked == []


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 5\r\ncontent-length: 50\r\n",
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999\r\n",
        b"content-length: 0x10\r\n",
        b"authorization: Bearer two\r\nauthorization: Bearer one\r\n",
        b"authorization: Bearer t\xc3\xb6\r\n",
        b"x-original-url: /update_weights\r\nx-forwarded-host: evil\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n",
        b"host: evil.example\r\n",
        b"x: " + b"y" * 200_000 + b"\r\n",
    ],
)
def test_a_head_of_two_meanings_changes_nothing(closed, head):
    server, asked = closed
    begin = b"POST /update_weights HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    said = raw(server.url, begin + head + b"\r\n" + b'5\r\n{"pat\r\nb\r\nh": "/tmp"}\r\n0\r\n\r\n')
    assert b" 200 " not in said.split(b"\r\n")[0]
    assert asked == []
    assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200


def test_a_path_that_is_no_folder_is_refused_and_not_waited_for(closed, tmp_path):
    server, asked = closed
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    headers = {"authorization": "Bearer two"}
    assert httpx.post(f"{server.url}/pause", headers=headers, timeout=60).status_code == 200
    for path in (
        str(tmp_path / "fifo"),
        str(tmp_path / "loop"),
        "/dev/zero",
        "\0",
        "a" * 10_000,
        "/tmp/\ud800",
        7,
        None,
    ):
        body = json.dumps({"path": path})
        kind = {"content-type": "application/json"}
        answer = httpx.post(f"{server.url}/update_weights", content=body, headers={**headers, **kind}, timeout=60)
        assert answer.status_code == 400, (path, answer.text[:200])
    assert httpx.post(f"{server.url}/resume", headers=headers, timeout=60).status_code == 200
    assert asked == []


@pytest.mark.parametrize("key", ["TWO", "tw", "twoo", "one,two", "bearer two", "two two", "*", "one"])
def test_a_key_is_that_key(closed, key):
    server, asked = closed
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{server.url}/update_weights", json={"path": "/tmp"}, headers=headers, timeout=60)
    assert (answer.status_code, asked) == (401, [])
