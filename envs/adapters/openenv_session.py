"""One episode at an OpenEnv server, over a websocket or over HTTP."""

import asyncio
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from ...errors import SandboxError
from ..tools.spec import ToolError
from .needed import needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a server answers.

    Attributes:
        observation: its fields.
        reward: of the step; None where it says none.
        done: whether the episode has ended.
    """

    observation: Mapping[str, Any]
    reward: float | None
    done: bool


class Session(Protocol):
    """Raises, all of it: ToolError, what the server says is wrong with a request. SandboxError: it does not answer."""

    async def reset(self, arguments: Mapping[str, Any]) -> Result: ...
    async def step(self, action: Mapping[str, Any]) -> Result: ...
    async def close(self) -> None: ...


class WebsocketSession:
    """OpenEnv's own client: the server keeps an environment for this connection."""

    def __init__(self, url: str, seconds: float) -> None:
        """
        Raises:
            ConfigError: openenv is not installed.
        """
        self._client = needed("openenv", "openenv").GenericEnvClient(base_url=url)
        self._url, self._seconds = url, seconds

    async def reset(self, arguments: Mapping[str, Any]) -> Result:
        await self._asked(self._client.connect())
        return _told(await self._asked(self._client.reset(**arguments)))

    async def step(self, action: Mapping[str, Any]) -> Result:
        return _told(await self._asked(self._client.step(dict(action))))

    async def _asked(self, question: Awaitable[Any]) -> Any:
        try:
            return await asyncio.wait_for(question, self._seconds)
        except RuntimeError as error:  # an answer: what the server says is wrong
            raise ToolError(str(error)) from None
        except Exception as error:  # of the client's transport, whose classes are several libraries'
            raise SandboxError(f"{self._url}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        try:
            await asyncio.wait_for(self._client.close(), self._seconds)
        except Exception as error:  # the server may be gone, and the episode with it
            raise SandboxError(f"{self._url} did not close: {type(error).__name__}: {error}") from error


def _told(found: Any) -> Result:
    return Result(observation=found.observation, reward=found.reward, done=bool(found.done))


class HttpSession:
    """``POST /reset`` and ``POST /step``, each with the episode's id.

    OpenEnv's own server makes an environment for each of these requests: what an episode is must lie in the action, or
    be kept by ``episode_id``, or the server's environment must be one alone, for one episode at a time.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=seconds)
        self._url = url
        self._episode: dict[str, Any] = {"episode_id": uuid.uuid4().hex}

    async def reset(self, arguments: Mapping[str, Any]) -> Result:
        self._episode = {"episode_id": arguments.get("episode_id", self._episode["episode_id"])}
        return await self._asked("/reset", {**self._episode, **arguments})

    async def step(self, action: Mapping[str, Any]) -> Result:
        return await self._asked("/step", {**self._episode, "action": dict(action)})

    async def _asked(self, route: str, body: Mapping[str, Any]) -> Result:
        try:
            answer = await self._http.post(route, json=body)
            if answer.status_code == 422:
                raise ToolError(str(answer.json().get("detail", answer.text)))
            found = answer.raise_for_status().json()
            return Result(observation=found["observation"], reward=found.get("reward"), done=bool(found.get("done")))
        except (httpx.HTTPError, KeyError, TypeError, AttributeError) as error:
            raise SandboxError(f"{self._url}{route}: {type(error).__name__}: {error}") from None

    async def close(self) -> None:
        await self._http.aclose()


TRANSPORTS = {"websocket": WebsocketSession, "http": HttpSession}
