"""An OpenEnv server as ours, and ours as one (``pip install openenv-core``)."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from ...errors import ConfigError, SandboxError
from ...rewards.score import Score
from ..acting import Submission
from ..core import ToolEnv
from ..task import Task
from .needed import needed

SHOWN = ("prompt", "text", "message", "output", "response", "stdout", "result")
"""Fields of an observation that are its text, where it has one of them."""
ENVELOPE = ("done", "reward", "metadata")


def shown(observation: Mapping[str, Any]) -> str:
    """An observation as text: its one text, else all of its fields as JSON."""
    fields = {key: value for key, value in observation.items() if key not in ENVELOPE and value not in (None, "", [])}
    texts = [fields[key] for key in SHOWN if isinstance(fields.get(key), str)]
    if len(fields) == 1 and texts:
        return texts[0]
    return json.dumps(fields, ensure_ascii=False) if fields else "(nothing)"


def action_reader(schema: Mapping[str, Any]) -> Callable[[str], dict[str, Any]]:
    """Reads a message as an action of this JSON schema: a JSON object, or, where one text is all that an action needs,
    the message itself."""
    fields = {name: one for name, one in schema.get("properties", {}).items() if name != "metadata"}
    needed_ = [name for name in schema.get("required", []) if name in fields] or list(fields)
    text = needed_[0] if len(needed_) == 1 and fields[needed_[0]].get("type") == "string" else None

    def read(message: str) -> dict[str, Any]:
        if text is not None:
            return {text: message}
        try:
            found = json.loads(message)
        except ValueError as error:
            raise ValueError(f"answer with a JSON object with {', '.join(fields)} ({error})") from None
        if not isinstance(found, dict):
            raise ValueError(f"answer with a JSON object with {', '.join(fields)}")
        return found

    return read


class OpenEnv(ToolEnv):
    """A session over the websocket for each episode; its rewards are the turns', under the name "reward".

    What the server refuses of an action is told to the policy; a server that does not answer is a failure of the
    infrastructure.

    Source: OpenEnv, github.com/meta-pytorch/OpenEnv.
    """

    family = "openenv"

    def __init__(
        self,
        url: str,
        *,
        render: Callable[[Mapping[str, Any]], str] = shown,
        read: Callable[[str], Mapping[str, Any]] | None = None,
        about: str = "",
        bounds: tuple[float, float] = (0.0, 1.0),
        passing: float | None = None,
        num_tasks: int = 100,
        seconds: float = 60.0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            url: of the server, such as "http://localhost:8000".
            render: observation -> the message that shows it.
            read: message -> action; raises ValueError with what is wrong. None: by the server's schema of actions.
            about: what the first message says before the first observation.
            bounds: the least and the most that rewards come to.
            passing: from which sum on an episode passed; None: the upper bound.
            num_tasks: tasks of its own: so many seeds; ``task.hidden["reset"]`` are further arguments of ``reset``.
            seconds: for one answer of the server.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self._client_class = needed("openenv", "openenv-core").GenericEnvClient
        self._url, self._seconds = url.rstrip("/"), seconds
        self._render, self._read, self._about = render, read, about
        self.reward_bounds, self._passing, self._num_tasks = bounds, passing, num_tasks
        self._client: Any = None

    def load(self) -> Sequence[Task]:
        return [
            Task(id=f"seed-{seed}", family=self.family, prompt=self._about, hidden={"seed": seed})
            for seed in range(self._num_tasks)
        ]

    async def start(self, task: Task) -> None:
        if self._read is None:
            self._read = action_reader(await self._schema())
        self._client = self._client_class(base_url=self._url)
        await self._asked(self._client.connect())
        arguments = {**task.hidden.get("reset", {})}
        if "seed" in task.hidden:
            arguments["seed"] = task.hidden["seed"]
        self._first = await self._asked(self._client.reset(**arguments))

    async def _schema(self) -> Mapping[str, Any]:
        try:
            async with httpx.AsyncClient(timeout=self._seconds) as http:
                answer = await http.get(f"{self._url}/schema")
                answer.raise_for_status()
                return answer.json()["action"]
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise SandboxError(
                f"{self._url}/schema: {type(error).__name__}: {error}; is an OpenEnv server there?"
            ) from None

    async def _asked(self, question: Any) -> Any:
        try:
            return await asyncio.wait_for(question, self._seconds)
        except RuntimeError as error:  # an answer: what the server says is wrong
            raise ValueError(str(error)) from None
        except Exception as error:  # of the client's transport, whose classes are several libraries'
            raise SandboxError(f"{self._url}: {type(error).__name__}: {error}") from error

    async def prompt(self, task: Task) -> str:  # type: ignore[override]  # may be awaited
        return "\n\n".join(part for part in (task.prompt, self._render(self._first.observation)) if part)

    async def reply(self, task: Task, message: str) -> str | Submission:
        assert self._read is not None
        try:
            result = await self._asked(self._client.step(dict(self._read(message))))
        except ValueError as error:
            return f"error: {error}"
        if result.reward is not None:
            self.reward(float(result.reward), "reward")
        text = self._render(result.observation)
        return Submission(value=result.observation, message=text) if result.done else text

    async def score(self, task: Task, submission: Any) -> Score:
        passing = self.reward_bounds[1] if self._passing is None else self._passing
        low, high = self.reward_bounds
        return Score(value=0.0, passed=self.earned.total >= passing, bounds=(min(0.0, low), max(0.0, high)))

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await asyncio.wait_for(client.close(), self._seconds)
            except Exception as error:  # the server may be gone, and the episode with it
                raise SandboxError(f"{self._url} did not close: {type(error).__name__}: {error}") from error


def served_as_openenv(make: Callable[[], ToolEnv], *, at_once: int = 64) -> Any:
    """One of our environments as an OpenEnv server: a FastAPI application for uvicorn.

    An action is ``{"message": TEXT}``, which calls no tool, or ``{"calls": [{"name", "arguments"}]}``. An observation
    has ``text``, ``messages`` and, of a reset, ``tools`` (OpenAI's form); at the end ``metadata`` has ``passed``,
    ``breakdown``, ``ending``. ``reset(task_id=...)`` chooses a task.

    Args:
        make: a fresh environment, for each session.
        at_once: most sessions.
    Raises:
        ConfigError: openenv-core is not installed.
    """
    server = needed("openenv.core.env_server", "openenv-core")
    from .openenv_server import classes

    made = classes(make)
    return server.create_fastapi_app(made.environment, made.action, made.observation, max_concurrent_envs=at_once)


def missing(task_id: str) -> ConfigError:
    return ConfigError(f"there is no task {task_id!r}; leave task_id out for one that the seed draws")
