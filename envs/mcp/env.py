"""``verigym/Mcp-v0``: the tools of an MCP server, and an answer that is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError, TaskError
from ...model.chat.messages import Message, ToolCall, ToolSpec
from ...rewards.score import Score, verdict
from ..core import Submission, ToolEnv
from ..task import Task
from ..tools.bounds import bounded
from .connection import Connection


class McpEnv(ToolEnv):
    """Each episode has a connection of its own, and with ``command`` a server of its own, which ends with it.

    The final message must be ``task.hidden["answer"]``, blanks at its ends aside. A subclass overrides ``score``, and
    may have tools of its own beside the server's.
    """

    def __init__(
        self,
        *,
        command: str | Sequence[str] = (),
        url: str = "",
        env: Mapping[str, str] | None = None,
        only: Sequence[str] | None = None,
        tool_timeout_s: float = 60.0,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            command: starts the server, which speaks on its standard streams. It runs on this machine, not in a sandbox.
            url: of a server that runs already (streamable HTTP), in place of a command.
            env: variables of the command.
            only: tools that are offered; None: all that the server has.
            tool_timeout_s: of one call.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        if bool(command) == bool(url):
            raise ConfigError("an MCP environment needs a command that starts its server, or the url of one: not both")
        self._command = command.split() if isinstance(command, str) else list(command)
        self._url, self._env, self._only, self._tool_timeout_s = url, env, only, tool_timeout_s
        self._connection: Connection | None = None
        self._remote: dict[str, ToolSpec] = {}

    def check(self, task: Task) -> None:
        if type(self).score is McpEnv.score and not isinstance(task.hidden.get("answer"), str):
            raise TaskError(f"task {task.id!r} has no answer; hidden['answer'] must be a string")

    async def start(self, task: Task) -> None:
        self._connection, specs = await Connection.open(command=self._command, url=self._url, env=self._env)
        known = {spec.name: spec for spec in specs}
        missing = [name for name in self._only or () if name not in known]
        if missing:
            raise ConfigError(f"the MCP server has no tool {missing[0]!r}; it has {', '.join(known) or 'none'}")
        self._remote = {name: known[name] for name in (known if self._only is None else self._only)}

    async def stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    @property
    def tool_specs(self) -> tuple[ToolSpec, ...]:
        """The class's own, and, while an episode runs, the server's."""
        own = super().tool_specs
        return (*own, *(spec for name, spec in self._remote.items() if name not in self._tools))

    async def _call_tool(self, one: ToolCall) -> str | Message | Submission:
        if one.name in self._tools or one.name not in self._remote or self._connection is None:
            return await super()._call_tool(one)
        text, is_error = await self._connection.call(one.name, one.arguments, timeout_s=self._tool_timeout_s)
        return bounded(f"error: {text}" if is_error else text)

    def score(self, task: Task, submission: Any) -> Score:
        found = str(submission).strip()
        return verdict(found == task.hidden["answer"].strip(), f"the answer is {found[:100]!r}")

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content=task.hidden["answer"])]
