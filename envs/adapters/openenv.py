"""An OpenEnv server as ours, and ours as one (``pip install openenv``)."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import httpx

from ...errors import ConfigError, SandboxError
from ...model.chat.messages import Message, ToolCall, ToolSpec
from ...rewards.score import Score
from ..acting import Submission
from ..core import ToolEnv
from ..task import Task
from ..tools.bounds import bounded
from ..tools.spec import ToolError
from .needed import needed
from .openenv_session import TRANSPORTS, Result, Session

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


def calls_tools(schema: Mapping[str, Any]) -> bool:
    """Whether actions of this JSON schema call tools by their names, or are OpenEnv's most general ones, which may."""
    fields = schema.get("properties", {}).keys() - {"metadata"}
    return not fields or {"tool_name", "arguments"} <= fields


class OpenEnv(ToolEnv):
    """A session at the server for each episode; its rewards are the turns', under the name "reward".

    An environment of tools (OpenEnv's ``MCPEnvironment``) has them as tools here; a message that calls none ends the
    episode. Of any other one each message is an action. What the server refuses of an action is told to the policy; a
    server that does not answer is a failure of the infrastructure.

    Source: OpenEnv, github.com/meta-pytorch/OpenEnv.
    """

    family = "openenv"

    def __init__(
        self,
        url: str,
        *,
        transport: Literal["websocket", "http"] = "websocket",
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
            transport: "websocket" needs the package openenv; "http" needs none, and a server that keeps an episode
                from one request to the next (``openenv_session.HttpSession``).
            render: observation -> the message that shows it.
            read: message -> action; raises ValueError with what is wrong. None: by the server's schema of actions.
            about: what the first message says before the first observation.
            bounds: the least and the most that rewards come to.
            passing: from which sum on an episode passed; None: the upper bound.
            num_tasks: tasks of its own: so many seeds; ``task.hidden["reset"]`` are further arguments of ``reset``.
            seconds: for one answer of the server.
            kwargs: as of ToolEnv.
        Raises:
            ConfigError: there is no such transport, or its package is not installed.
        """
        super().__init__(**kwargs)
        if transport not in TRANSPORTS:
            raise ConfigError(f"transport is {transport!r}; it is one of {', '.join(TRANSPORTS)}")
        if transport == "websocket":
            needed("openenv", "openenv")
        self._url, self._transport, self._seconds = url.rstrip("/"), TRANSPORTS[transport], seconds
        self._render, self._read, self._about = render, read, about
        self.reward_bounds, self._passing, self._num_tasks = bounds, passing, num_tasks
        self._session: Session | None = None
        self._actions: Mapping[str, Any] | None = None
        self._remote: dict[str, ToolSpec] = {}

    def load(self) -> Sequence[Task]:
        return [
            Task(id=f"seed-{seed}", family=self.family, prompt=self._about, hidden={"seed": seed})
            for seed in range(self._num_tasks)
        ]

    async def start(self, task: Task) -> None:
        if self._actions is None:
            self._actions = await self._schema()
        self._take = self._read or action_reader(self._actions)
        self._session = session = self._transport(self._url, self._seconds)
        arguments = {**task.hidden.get("reset", {})}
        if "seed" in task.hidden:
            arguments["seed"] = task.hidden["seed"]
        self._first = await session.reset(arguments)
        if self._read is None and calls_tools(self._actions):
            listed = await session.step({"type": "list_tools"})
            self._remote = {row["name"]: _spec(row) for row in listed.observation.get("tools", ())}

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

    @property
    def tool_specs(self) -> tuple[ToolSpec, ...]:
        """The class's own, and, while an episode runs, the server's."""
        own = super().tool_specs
        return (*own, *(spec for name, spec in self._remote.items() if name not in self._tools))

    async def prompt(self, task: Task) -> str:  # type: ignore[override]  # may be awaited
        return "\n\n".join(part for part in (task.prompt, self._render(self._first.observation)) if part)

    async def reply(self, task: Task, message: str) -> str | Submission:
        if self._remote:
            return Submission(value=message)
        try:
            action = self._take(message)
        except ValueError as error:
            return f"error: {error}"
        result = await self._step(action)
        text = self._render(result.observation)
        return Submission(value=result.observation, message=text) if result.done else text

    async def _step(self, action: Mapping[str, Any]) -> Result:
        assert self._session is not None
        result = await self._session.step(action)
        if result.reward is not None:
            self.reward(float(result.reward), "reward")
        return result

    async def _call_tool(self, one: ToolCall) -> str | Message | Submission:
        if one.name in self._tools or one.name not in self._remote:
            return await super()._call_tool(one)
        action = {"type": "call_tool", "tool_name": one.name, "arguments": dict(one.arguments)}
        try:
            result = await self._hooks.call(f"tool {one.name}", self._step, action)
        except ToolError as error:
            return bounded(f"error: {error}")
        text = bounded(tool_answer(result.observation))
        return Submission(value=result.observation, message=text) if result.done else text

    async def score(self, task: Task, submission: Any) -> Score:
        passing = self.reward_bounds[1] if self._passing is None else self._passing
        low, high = self.reward_bounds
        return Score(value=0.0, passed=self.earned.total >= passing, bounds=(min(0.0, low), max(0.0, high)))

    async def stop(self) -> None:
        session, self._session, self._remote = self._session, None, {}
        if session is not None:
            await session.close()


def _spec(row: Mapping[str, Any]) -> ToolSpec:
    schema = {"type": "object", "properties": {}, **(row.get("input_schema") or {})}
    return ToolSpec(name=row["name"], description=row.get("description") or "", parameters=schema)


def tool_answer(observation: Mapping[str, Any]) -> str:
    """What a tool of an OpenEnv environment answered: its data, else its texts; or its error."""
    error, result = observation.get("error"), observation.get("result")
    if error:
        return f"error: {error.get('message', error)}"
    if isinstance(result, Mapping):
        texts = [str(part["text"]) for part in result.get("content") or () if "text" in part]
        if result.get("data") is None and (texts or "content" in result):
            return ("error: " if result.get("is_error") else "") + "\n".join(texts)
        result = result.get("data", result)
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def served_as_openenv(make: Callable[[], ToolEnv], *, at_once: int = 64) -> Any:
    """One of our environments as an OpenEnv server: a FastAPI application for uvicorn.

    An action is ``{"message": TEXT}``, which calls no tool, or ``{"calls": [{"name", "arguments"}]}``. An observation
    has ``text``, ``messages`` and, of a reset, ``tools`` (OpenAI's form); at the end ``metadata`` has ``passed``,
    ``breakdown``, ``ending``. ``reset(task_id=...)`` chooses a task.

    Args:
        make: a fresh environment, for each session.
        at_once: most sessions.
    Raises:
        ConfigError: openenv is not installed.
    """
    server = needed("openenv.core.env_server", "openenv")
    from .openenv_server import classes

    made = classes(make)
    return server.create_fastapi_app(made.environment, made.action, made.observation, max_concurrent_envs=at_once)


def missing(task_id: str) -> ConfigError:
    return ConfigError(f"there is no task {task_id!r}; leave task_id out for one that the seed draws")
