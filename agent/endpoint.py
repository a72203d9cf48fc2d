"""A model server's HTTP interface: one place for retries, back-off, limits and errors.

Policies that ask no server need not import httpx, a quarter of what an evaluation imports.
"""

import asyncio
import ipaddress
import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import PolicyError, RequestRefused
from ..model.chat.encoding import valid_text
from ..model.chat.keys import key_in
from .asking import Question, asking
from .policy import ContextFull

if TYPE_CHECKING:
    import httpx

ATTEMPTS = 6
"""Tries of one request: with the back-off, about half a minute of a server's absence is bridged."""


class Endpoint:
    """Posts JSON to a server and reads JSON.

    Status 429 and 5xx, time-outs, broken connections and broken answers are tried again with back-off (a server's
    Retry-After is kept to, up to a minute); any other error is final. One object serves any number of callers on one
    event loop. An episode whose clock runs out while it is asked is the infrastructure's failure (``asking``).
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key_env: str | Sequence[str] = "OPENAI_API_KEY",
        api_key: str | None = None,
        concurrency: int = 16,
        timeout_s: float = 300.0,
        attempts: int | None = None,
        backoff_s: float = 1.0,
        give_up_s: float = 600.0,
    ) -> None:
        """
        Args:
            base_url: such as "http://localhost:8000"; paths are appended.
            api_key_env: environment variable that holds the key, or several, of which the first that is set counts;
                unset means that none is sent.
            api_key: the key itself.
            concurrency: most requests at once.
            timeout_s: of one attempt.
            attempts: tries of one request, the first included; None takes ``ATTEMPTS``.
            backoff_s: wait before the second try; it doubles, up to a minute, with jitter.
            give_up_s: of all tries of one request.
        """
        self._base_url = base_url.rstrip("/")
        self._api_key_env, self._api_key = api_key_env, api_key
        self._concurrency, self._slots = concurrency, asyncio.Semaphore(concurrency)
        self._timeout_s, self._backoff_s, self._give_up_s = timeout_s, backoff_s, give_up_s
        self._attempts = ATTEMPTS if attempts is None else attempts
        self._client: httpx.AsyncClient | None = None

    def url(self, path: str) -> str:
        """The address of a path, such as "/chat/completions"."""
        return self._base_url + path

    async def get(self, path: str) -> Any:
        """The JSON that a path answers with. Raises PolicyError, as ``post``."""
        return await self._limited("GET", path, None, None)

    async def post(self, path: str, body: Any, *, key: str | None = None) -> Any:
        """Send JSON and return the answer's.

        Args:
            key: in the place of the endpoint's own.
        Raises:
            ContextFull: the server says that the prompt is longer than the model's context.
            RequestRefused: it refused the request for another reason.
            PolicyError: it gave no answer in time, or none in JSON.
        """
        return await self._limited("POST", path, body, key)

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _limited(self, method: str, path: str, body: Any, key: str | None) -> Any:
        with asking(self.url(path)) as question:
            async with self._slots:
                try:
                    async with asyncio.timeout(self._give_up_s):
                        return await self._attempts_at(method, question, body, key)
                except TimeoutError:
                    last = f"; the last trouble: {question.problem}" if question.problem else ""
                    raise PolicyError(
                        f"{question.url} gave no answer in {self._give_up_s:g} s{_through(question.url)}{last}"
                    ) from None

    async def _attempts_at(self, method: str, question: Question, body: Any, key: str | None) -> Any:
        import httpx

        url = question.url
        if self._client is None:
            self._client = self._connected()
        headers = _bearer(key)
        content = None if body is None else valid_text(json.dumps(body, ensure_ascii=False)).encode("utf-8")
        for attempt in range(1, self._attempts + 1):
            wait_s = min(60.0, self._backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await self._client.request(method, url, content=content, headers=headers)
            except (httpx.RequestError, TimeoutError) as error:
                kind = "no answer" if isinstance(error, TimeoutError) else type(error).__name__
                question.problem = f"{kind}: {error}" if str(error) else f"{kind} in {self._timeout_s:g} s"
            except httpx.InvalidURL as error:
                raise PolicyError(f"{url} cannot be asked ({error}); mend the address") from None
            else:
                if response.is_success:
                    return _json_of(response)
                question.problem = f"status {response.status_code}: {_message_of(response)}"
                if response.status_code != 429 and response.status_code < 500:
                    raise _refusal(f"{url} refused the request with {question.problem}", response)
                wait_s = max(wait_s, _retry_after_s(response))
            if attempt < self._attempts:
                await asyncio.sleep(wait_s)
        raise PolicyError(
            f"{url} gave no answer in {self._attempts} attempts; the last: {question.problem}{_through(url)}"
        )

    def _connected(self) -> "httpx.AsyncClient":
        """Raises PolicyError where the environment names a proxy that cannot be used."""
        import httpx

        key = key_in(self._api_key_env, self._api_key)
        try:
            return httpx.AsyncClient(
                headers={"Content-Type": "application/json", **_bearer(key)},
                timeout=self._timeout_s,
                limits=httpx.Limits(max_connections=self._concurrency),  # its own, 100, would time out the others
                trust_env=not _is_here(self._base_url),
            )
        except (ImportError, ValueError) as error:
            raise PolicyError(
                f"{self._base_url} cannot be asked{_through(self._base_url)}: {error}; unset the variable, name the "
                "server in NO_PROXY, or install what the proxy needs"
            ) from None


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _is_here(url: str) -> bool:
    """Whether a server is on this machine, where no proxy stands between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _through(url: str) -> str:
    """The proxy that the environment sets between here and a server, in words, without its password; "" for none."""
    place = urlsplit(url)
    if _is_here(url) or proxy_bypass(place.hostname or ""):
        return ""
    proxies = getproxies()
    name = next((name for name in (place.scheme, "all") if proxies.get(name)), None)
    if name is None:
        return ""
    proxy = urlsplit(proxies[name] if "://" in proxies[name] else f"http://{proxies[name]}")
    return f" (through the proxy {proxy.scheme}://{proxy.netloc.rpartition('@')[2]} of {name.upper()}_PROXY)"


def _json_of(response: "httpx.Response") -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise PolicyError(f"{response.url} answered with no JSON: {response.text[:300]!r}") from None


def _message_of(response: "httpx.Response") -> str:
    """The message of an error's body: OpenAI's shape, vLLM's, or the text itself."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return response.text[:300]
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return str(message or body)[:300]


def _refusal(text: str, response: "httpx.Response") -> PolicyError:
    full = "context_length_exceeded" in response.text or "maximum context length" in response.text
    return ContextFull(text) if full else RequestRefused(text)


def _retry_after_s(response: "httpx.Response") -> float:
    try:
        return min(60.0, max(0.0, float(response.headers.get("retry-after", "0"))))
    except ValueError:  # an HTTP date; the back-off serves
        return 0.0
