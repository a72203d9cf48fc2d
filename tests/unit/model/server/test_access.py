"""Who is let in: keys, foreign pages and names, bodies and heads that never come."""

import asyncio
import json
import socket
import time

import httpx
import pytest

from verigym.model.server.access import Access
from verigym.model.server.patience import PatientProtocol

from .conftest import Scripted, model_of, running

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
WEIGHT_ROUTES = [
    ("POST", "/pause"),
    ("POST", "/resume"),
    ("GET", "/is_paused"),
    ("POST", "/start_weight_update"),
    ("POST", "/update_weights"),
    ("POST", "/finish_weight_update"),
    ("GET", "/weight_info"),
]
ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/nowhere"),
]


@pytest.fixture(scope="module")
def closed(tokenizer):
    """A server with two keys."""
    access = Access(api_key="s3cret", weights_key="w3ights", hosts=("box.example",), origins=("https://chat.example",))
    model = model_of(Scripted(tokenizer, "yes"), tokenizer)
    with running(model, allow_weight_updates=True, access=access) as one:
        yield one


@pytest.fixture(scope="module")
def plain(tokenizer):
    """A server with no key."""
    with running(model_of(Scripted(tokenizer, "yes"), tokenizer), allow_weight_updates=True) as one:
        yield one


def ask(server, method, path, *, key=None, body=None, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent["authorization"] = f"Bearer {key}"
    return httpx.request(method, server.url + path, json=CHAT if body is None else body, headers=sent, timeout=60)


def error_of(response, status):
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return response.json()["error"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("key", [None, "s3cre", "s3cret2", "w3ights", "S3CRET", "sécret"])
def test_without_the_key_no_route_answers(closed, method, path, key):
    if key == "sécret":  # what httpx would not send
        headers = {b"authorization": b"Bearer s\xe9cret"}
        assert error_of(httpx.request(method, closed.url + path, headers=headers), 401)
        return
    error = error_of(ask(closed, method, path, key=key), 401)
    assert error["code"] == "invalid_api_key"
    assert "s3cret" not in error["message"]


@pytest.mark.parametrize(("method", "path"), WEIGHT_ROUTES)
@pytest.mark.parametrize("key", [None, "s3cret", "w3ight"])
def test_weights_have_a_key_of_their_own(closed, method, path, key):
    assert "weights key" in error_of(ask(closed, method, path, key=key), 401)["message"]


def test_with_the_keys_all_answer(closed):
    assert ask(closed, "GET", "/v1/models", key="s3cret").status_code == 200
    assert ask(closed, "POST", "/v1/chat/completions", key="s3cret").status_code == 200
    assert ask(closed, "GET", "/is_paused", key="w3ights").json() == {"is_paused": False}
    for path in ("/health", "/metrics"):
        assert httpx.get(closed.url + path).status_code == 200
    assert httpx.get(closed.url + "/v1/models", headers={"authorization": "bearer s3cret"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:1", "", "a b", "[x"),
        *("localhost:80.evil.example", "[::1].evil.example", "x@localhost"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/is_paused"])
def test_a_name_that_somebody_lets_point_here_is_refused(plain, host, path):
    assert ask(plain, "GET", path, host=host).status_code in (400, 403)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "10.1.2.3", "[::1]:80", socket.gethostname()]
)
def test_own_names_are_not(plain, host):
    assert ask(plain, "GET", "/v1/models", host=host).status_code == 200


def test_names_can_be_added(closed):
    assert ask(closed, "GET", "/v1/models", key="s3cret", host="box.example:8000").status_code == 200
    assert ask(closed, "GET", "/v1/models", key="s3cret", host="box.example.evil").status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/chat/completions"), ("POST", "/pause"), ("GET", "/v1/models")]
)
def test_a_foreign_page_is_refused(plain, origin, method, path):
    assert error_of(ask(plain, method, path, origin=origin), 403)["code"] == "forbidden"
    assert ask(plain, "GET", "/is_paused").json() == {"is_paused": False}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site"])
def test_a_foreign_page_without_an_origin_is_refused(plain, closed, site):
    assert ask(plain, "GET", "/v1/models", sec_fetch_site=site).status_code == 403
    # Another page than the one that is let in.
    assert ask(closed, "GET", "/v1/models", key="s3cret", sec_fetch_site=site).status_code == 403
    let_in = ask(closed, "GET", "/v1/models", key="s3cret", sec_fetch_site=site, origin="https://chat.example")
    assert let_in.status_code == 200
    assert ask(plain, "GET", "/v1/models", sec_fetch_site="none").status_code == 200
    assert ask(plain, "GET", "/v1/models", sec_fetch_site="same-origin").status_code == 200


def test_pages_can_be_let_in(closed, plain):
    asked = {"origin": "https://chat.example", "access_control_request_method": "POST"}
    may = ask(closed, "OPTIONS", "/v1/chat/completions", **asked)
    assert may.headers["access-control-allow-origin"] == "https://chat.example"
    assert ask(closed, "GET", "/v1/models", key="s3cret", origin="https://chat.example").status_code == 200
    assert ask(closed, "GET", "/v1/models", key="s3cret", origin="https://evil.example").status_code == 403
    assert ask(plain, "GET", "/v1/models", origin=plain.url).status_code == 200  # a page of the server's own


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "", "none"]
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/update_weights", "/finish_weight_update"]
)
def test_only_json_is_taken_for_json(plain, kind, path):
    content = json.dumps(CHAT).encode()
    response = httpx.post(plain.url + path, content=content, headers={"content-type": kind} if kind != "none" else {})
    assert "application/json" in error_of(response, 415)["message"]


@pytest.mark.parametrize("path", ["", " ", "\n", "a\0b", None, 7, ["a"], {}])
def test_a_path_of_nothing_is_no_checkpoint(plain, path):
    assert ask(plain, "POST", "/pause").status_code == 200
    try:
        error = error_of(ask(plain, "POST", "/update_weights", body={"update_info": {"path": path}}), 400)
        assert error["param"] == "update_info"
    finally:
        ask(plain, "POST", "/resume")


def test_a_client_that_leaves_in_its_body_is_no_failure(plain, caplog):
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Content-Length: 9\r\n\r\n{"
    with _connected(plain) as connection:
        connection.sendall(head.encode())
        time.sleep(0.2)
    counted = 'route="/v1/completions",status="499"'
    deadline = time.monotonic() + 30
    while counted not in httpx.get(f"{plain.url}/metrics").text:
        assert time.monotonic() < deadline
    assert [record for record in caplog.records if record.name.startswith("verigym")] == []


class Impatient(PatientProtocol):
    head_seconds = 0.4


@pytest.fixture
def impatient(tokenizer):
    with running(model_of(Scripted(tokenizer, "yes"), tokenizer), http=Impatient, body_seconds=0.4) as server:
        yield server


def _connected(server):
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _until_closed(connection):
    said = b""
    while piece := connection.recv(4096):
        said += piece
    return said


@pytest.mark.parametrize("head", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_never_ends_is_not_waited_for(impatient, head):
    with _connected(impatient) as connection:
        if head:
            connection.sendall(head)
        assert _until_closed(connection) == b""


def test_nor_one_that_drips(impatient):
    with _connected(impatient) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
        for _ in range(200):
            connection.sendall(b"X")
            time.sleep(0.05)


def test_nor_the_head_of_a_second_request(impatient):
    with _connected(impatient) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        connection.sendall(b"GET /health HTT")
        _until_closed(connection)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_body_that_never_comes_is_408(impatient, path):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    with _connected(impatient) as connection:
        connection.sendall(head.encode())
        said = _until_closed(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"has not come whole within 0.4 s" in said


def test_a_long_answer_is_not_a_slow_client(tokenizer):
    class Slow(Scripted):
        async def stream(self, *arguments):
            await asyncio.sleep(1.0)
            async for part in super().stream(*arguments):
                yield part

    with running(model_of(Slow(tokenizer, "yes"), tokenizer), http=Impatient, body_seconds=0.4) as server:
        assert ask(server, "POST", "/v1/chat/completions").status_code == 200
