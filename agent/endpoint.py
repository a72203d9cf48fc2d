"""A model server's HTTP interface: one place for retries, back-off, limits and errors."""

import asyncio
import json
import os
import random
from typing import Any

import httpx

from ..errors import PolicyError, RequestRefused
from ..model.chat.encoding import valid_text
from .asking import Question, asking
from .policy import ContextFull

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
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        timeout_s: float = 300.0,
        attempts: int | None = None,
        backoff_s: float = 1.0,
        give_up_s: float = 600.0,
    ) -> None:
        """
        Args:
            base_url: such as "http://localhost:8000"; paths are appended.
            api_key_env: environment variable that holds the key; unset means that none is sent.
            concurrency: most requests at once.
            timeout_s: of one attempt.
            attempts: tries of one request, the first included; None takes ``ATTEMPTS``.
            backoff_s: wait before the second try; it doubles, up to a minute, with jitter.
            give_up_s: of all tries of one request.
        """
        self._base_url = base_url.rstrip("/")
        self._api_key_env = api_key_env
        self._concurrency, self._slots = concurrency, asyncio.Semaphore(concurrency)
        self._timeout_s, self._backoff_s, self._give_up_s = timeout_s, backoff_s, give_up_s
        self._attempts = ATTEMPTS if attempts is None else attempts
        self._client: httpx.AsyncClient | None = None

    def url(self, path: str) -> str:
        """The address of a path, such as "/chat/completions"."""
        return self._base_url + path

    async def get(self, path: str) -> Any:
        """The JSON that a path answers with. Raises PolicyError, as ``post``."""
        return await self._limited("GET", path, None)

    async def post(self, path: str, body: Any) -> Any:
        """Send JSON and return the answer's.

        Raises:
            ContextFull: the server says that the prompt is longer than the model's context.
            RequestRefused: it refused the request for another reason.
            PolicyError: it gave no answer in time, or none in JSON.
        """
        return await self._limited("POST", path, body)

    async def aclose(self) -> None:
        """Close the connections. May be called twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _limited(self, method: str, path: str, body: Any) -> Any:
        with asking(self.url(path)) as question:
            async with self._slots:
                try:
                    async with asyncio.timeout(self._give_up_s):
                        return await self._attempts_at(method, question, body)
                except TimeoutError:
                    last = f"; the last trouble: {question.problem}" if question.problem else ""
                    raise PolicyError(f"{question.url} gave no answer in {self._give_up_s:g} s{last}") from None

    async def _attempts_at(self, method: str, question: Question, body: Any) -> Any:
        url = question.url
        if self._client is None:
            key = os.environ.get(self._api_key_env)
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
            limits = httpx.Limits(max_connections=self._concurrency)  # its own limit of 100 would time out the others
            self._client = httpx.AsyncClient(headers=headers, timeout=self._timeout_s, limits=limits)
        content = None if body is None else valid_text(json.dumps(body, ensure_ascii=False)).encode("utf-8")
        for attempt in range(1, self._attempts + 1):
            wait_s = min(60.0, self._backoff_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            try:
                async with asyncio.timeout(self._timeout_s):
                    response = await self._client.request(method, url, content=content)
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
        raise PolicyError(f"{url} gave no answer in {self._attempts} attempts; the last: {question.problem}")


def _json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise PolicyError(f"{response.url} answered with no JSON: {response.text[:300]!r}") from None


def _message_of(response: httpx.Response) -> str:
    """The message of an error's body: OpenAI's shape, vLLM's, or the text itself."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return response.text[:300]
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return str(message or body)[:300]


def _refusal(text: str, response: httpx.Response) -> PolicyError:
    full = "context_length_exceeded" in response.text or "maximum context length" in response.text
    return ContextFull(text) if full else RequestRefused(text)


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(60.0, max(0.0, float(response.headers.get("retry-after", "0"))))
    except ValueError:  # an HTTP date; the back-off serves
        return 0.0
