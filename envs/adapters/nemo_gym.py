"""Resources servers of NeMo Gym as ours, over HTTP. Nothing of NeMo Gym is imported."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from ...errors import ChatFormatError, ConfigError, GradingError, SandboxError, TaskError
from ...model.chat.api import from_openai_tools
from ...model.chat.items import from_items, to_items
from ...model.chat.messages import Message, ToolCall, ToolSpec
from ...rewards.score import Score
from ..acting import Submission
from ..core import ToolEnv
from ..datasets.files import read_rows
from ..task import Task
from ..tools.bounds import bounded

OPENING = {"verify": "/seed_session", "step": "/reset"}
"""Protocol -> the route that opens a session."""


class NemoGym(ToolEnv):
    """A row of its data is a task: its input opens the episode, its functions are the tools.

    A server speaks one of two protocols. With ``/seed_session`` and ``/verify`` a call is a request to the route of the
    tool's name, whose answer is shown, an error too; a message that calls nothing ends the episode, and the server
    scores the whole trajectory. With ``/reset`` and ``/step`` each turn is a step, whose reward is the turn's. Each
    episode has a session (a cookie) of its own. A server that does not answer is a failure of the infrastructure.

    Source: NeMo Gym, github.com/NVIDIA-NeMo/Gym, "Resources Server APIs".
    """

    family = "nemo_gym"

    def __init__(
        self,
        url: str,
        *,
        data: str | Path | Sequence[Mapping[str, Any]] = (),
        protocol: Literal["", "verify", "step"] = "",
        bounds: tuple[float, float] = (0.0, 1.0),
        passing: float | None = None,
        seconds: float = 60.0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            url: of the resources server, such as "http://localhost:8001".
            data: rows with ``responses_create_params`` and what the server wants beside it, or a file of them.
            protocol: "" asks the server which one it speaks.
            bounds: the least and the most that an episode's reward comes to.
            passing: from which reward on an episode passed; None: the upper bound.
            seconds: for one answer of the server.
            kwargs: as of ToolEnv.
        Raises:
            ConfigError: there is no such protocol.
        """
        super().__init__(**kwargs)
        if protocol not in ("", *OPENING):
            raise ConfigError(f"protocol is {protocol!r}; it is 'verify' or 'step', or '' to ask the server")
        self._url, self._data, self._seconds = url.rstrip("/"), data, seconds
        self._protocol: Literal["", "verify", "step"] = protocol
        self.reward_bounds, self._passing = bounds, passing
        self._http: httpx.AsyncClient | None = None
        self._specs: tuple[ToolSpec, ...] = ()
        self._explicit_close = False

    def load(self) -> Sequence[Task]:
        rows: Iterable[Mapping[str, Any]] = self._data  # type: ignore[assignment]  # of rows, below where it is a file
        if isinstance(self._data, str | Path):
            rows = (row.value for row in read_rows(self._data))
        return [self._task_of(place, row) for place, row in enumerate(rows)]

    def _task_of(self, place: int, row: Mapping[str, Any]) -> Task:
        messages, _ = _read(row, f"row {place}")
        asked = next((one.content for one in reversed(messages) if one.role == "user"), "")
        return Task(id=f"row-{place}", family=self.family, prompt=asked, hidden={"row": dict(row)})

    def check(self, task: Task) -> None:
        _read(task.hidden.get("row"), f"task {task.id!r}")

    async def start(self, task: Task) -> None:
        self._row = task.hidden["row"]
        self._opening, self._specs = _read(self._row, f"task {task.id!r}")
        self._http = httpx.AsyncClient(base_url=self._url, timeout=self._seconds)
        opened = await self._opened()
        self._observation = opened.get("observation") if self._protocol == "step" else None
        self._explicit_close = bool((opened.get("info") or {}).get("supports_explicit_close"))

    async def _opened(self) -> Mapping[str, Any]:
        """Open the session, with the protocol that the server speaks."""
        for protocol, route in OPENING.items():
            if self._protocol in ("", protocol):
                answer = await self._post(route, self._row)
                if answer.status_code == 404 and not self._protocol:
                    continue
                self._protocol = protocol  # type: ignore[assignment]  # a key of OPENING
                return _object(answer, SandboxError)
        raise ConfigError(f"{self._url} has neither /seed_session nor /reset; is a resources server there?")

    async def _post(self, route: str, body: Any) -> httpx.Response:
        assert self._http is not None
        try:
            return await self._http.post(route, json=body)
        except httpx.HTTPError as error:
            raise SandboxError(f"{self._url}{route}: {type(error).__name__}: {error}") from None

    @property
    def tool_specs(self) -> tuple[ToolSpec, ...]:
        """The class's own, and, while an episode runs, the row's."""
        own = super().tool_specs
        return (*own, *(spec for spec in self._specs if spec.name not in self._tools))

    async def prompt(self, task: Task) -> list[Message]:  # type: ignore[override]  # may be awaited
        seen = [Message(role="user", content=self._observation)] if self._observation else []
        return [*self._opening, *seen]

    async def reply(self, task: Task, message: str) -> str | Submission:
        if self._protocol == "verify":
            return Submission(value=message)
        step = await self._step()
        shown = step.get("observation") or ""
        return Submission(value=step.get("info"), message=shown) if _ends(step) else shown

    async def _answer(self, calls: Sequence[ToolCall]) -> Any:
        if self._protocol == "verify":
            return await super()._answer(calls)
        step = await self._hooks.call("step", self._step)
        known = {one.get("call_id"): str(one.get("output")) for one in step.get("info", {}).get("tool_outputs", ())}
        ids = [item["call_id"] for item in self._items() if item["type"] == "function_call"]
        answers = [
            Message(role="tool", name=call.name, call_id=call.id, content=bounded(known.get(call_id, "")))
            for call, call_id in zip(calls, ids, strict=True)
        ]
        if step.get("observation"):
            answers.append(Message(role="user", content=bounded(step["observation"])))
        return answers, step.get("info"), "submitted" if _ends(step) else None

    async def _call_tool(self, one: ToolCall) -> str | Message | Submission:
        if one.name in self._tools or one.name not in {spec.name for spec in self._specs}:
            return await super()._call_tool(one)
        return bounded((await self._post(f"/{one.name}", dict(one.arguments))).text)

    async def _step(self) -> Mapping[str, Any]:
        body = {**self._row, "response": self._response(self._items())}
        step = _object(await self._post("/step", body), SandboxError)
        self.reward(float(step.get("reward", 0.0)), "reward")
        return step

    def _items(self) -> list[dict[str, Any]]:
        """Of the last turn. What calls are named by depends on those before them."""
        return to_items(self.transcript)[len(to_items(self.transcript[:-1])) :]

    def _response(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        tools = self._row["responses_create_params"].get("tools") or []
        head = {"id": "resp_verigym", "object": "response", "created_at": 0, "model": "verigym"}
        return {**head, "output": items, "tools": tools, "tool_choice": "auto", "parallel_tool_calls": True}

    def unfinished(self, task: Task) -> str | None:
        """The server scores a trajectory that a limit ended as it is."""
        return "" if self._protocol == "verify" else None

    async def score(self, task: Task, submission: Any) -> Score:
        low, high = self.reward_bounds
        passing = high if self._passing is None else self._passing
        if self._protocol == "step":
            return Score(value=0.0, passed=self.earned.total >= passing, bounds=(min(0.0, low), max(0.0, high)))
        said = self.transcript[len(self._opening) + bool(self.system_prompt) :]
        found = _object(
            await self._post("/verify", {**self._row, "response": self._response(to_items(said))}), GradingError
        )
        if not isinstance(found.get("reward"), int | float):
            raise GradingError(f"{self._url}/verify said no reward: {str(found)[:200]}")
        value = float(found["reward"])
        return Score(value=value, passed=value >= passing, breakdown=_parts(found, self._row), bounds=(-1e9, 1e9))

    async def stop(self) -> None:
        if self._http is None:
            return
        try:
            if self._explicit_close:
                await self._post("/close", {})
        finally:
            await self._http.aclose()
            self._http, self._specs, self._explicit_close = None, (), False


def _read(row: Any, where: str) -> tuple[list[Message], tuple[ToolSpec, ...]]:
    """(the messages, the tools) of a row.

    Raises:
        TaskError: it is no row of NeMo Gym, or holds what is not taken here.
    """
    asked = row.get("responses_create_params") if isinstance(row, Mapping) else None
    if not isinstance(asked, Mapping) or not isinstance(asked.get("input"), str | list):
        raise TaskError(f"{where} has no responses_create_params with an input; rows are NeMo Gym's JSON Lines")
    tools = [{"type": one.get("type"), "function": one} for one in asked.get("tools") or ()]
    first = [Message(role="system", content=asked["instructions"])] if asked.get("instructions") else []
    try:
        return [*first, *from_items(asked["input"])], tuple(from_openai_tools(tools))
    except ChatFormatError as error:
        raise TaskError(f"{where}: {error}") from None


def _object(answer: httpx.Response, failure: type[Exception]) -> Mapping[str, Any]:
    """The JSON object that a route of the session answers."""
    try:
        found = answer.raise_for_status().json()
    except (httpx.HTTPStatusError, ValueError):
        found = None
    if not isinstance(found, Mapping):
        raise failure(f"{answer.request.url} answered {answer.status_code}: {answer.text[:300]}")
    return found


def _ends(step: Mapping[str, Any]) -> bool:
    return bool(step.get("terminated") or step.get("truncated"))


def _parts(found: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, float]:
    """What the server says beside the reward: its named components, and numbers that the row did not have."""
    told = {**found, **(found.get("reward_components") or {})}
    return {name: float(value) for name, value in told.items() if isinstance(value, int | float) and name not in row}
