"""Proxies of the environment: never before a server of this machine, and named where one stood between."""

import asyncio
import http.server
import threading

import pytest

from verigym.agent.endpoint import Endpoint
from verigym.errors import PolicyError

VARIABLES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"told": "%s"}' % self.headers.get("authorization", "").encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


def asked(url, **options):
    async def main():
        endpoint = Endpoint(url, attempts=1, timeout_s=20, **options)
        try:
            return await endpoint.get("/x")
        finally:
            await endpoint.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://user:secret@127.0.0.1:9", "nonsense://x"])
@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTP_PROXY", "http_proxy"])
def test_servers_of_this_machine_are_asked_directly(server, host, proxy, name, monkeypatch):
    monkeypatch.setenv(name, proxy)
    assert asked(f"http://{host}:{server}") == {"told": ""}


@pytest.mark.parametrize(
    ("name", "proxy", "told"),
    [
        ("ALL_PROXY", "socks5://user:secret@127.0.0.1:9", "through the proxy socks5://127.0.0.1:9 of ALL_PROXY"),
        ("HTTP_PROXY", "http://user:secret@127.0.0.1:9", "through the proxy http://127.0.0.1:9 of HTTP_PROXY"),
        ("HTTP_PROXY", "127.0.0.1:9", "through the proxy http://127.0.0.1:9 of HTTP_PROXY"),
    ],
)
def test_a_proxy_that_stood_between_is_named(name, proxy, told, monkeypatch):
    monkeypatch.setenv(name, proxy)
    with pytest.raises(PolicyError) as caught:
        asked("http://model.invalid:8000")
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_keys_come_from_the_first_variable_that_is_set(server, monkeypatch):
    monkeypatch.setenv("FIRST_KEY", " ")
    monkeypatch.setenv("SECOND_KEY", "two")
    url = f"http://127.0.0.1:{server}"
    assert asked(url, api_key_env=("FIRST_KEY", "SECOND_KEY")) == {"told": "Bearer two"}
    assert asked(url, api_key_env="NOWHERE_KEY") == {"told": ""}
    assert asked(url, api_key_env=(), api_key="one") == {"told": "Bearer one"}
