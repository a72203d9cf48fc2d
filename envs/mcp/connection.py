"""A connection to a server of tools, kept by a task of its own: the protocol's client must end where it began."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError, SandboxError
from ...model.chat.messages import ToolSpec

START_S = 60.0


class Connection:
    """Made by ``open``."""

    def __init__(self, server: Any, called: str) -> None:
        self._server, self._called = server, called
        self._client: Any = None
        self._over = asyncio.Event()
        self._ready: asyncio.Future[tuple[ToolSpec, ...]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep())

    @classmethod
    async def open(
        cls, *, command: Sequence[str] = (), url: str = "", env: Mapping[str, str] | None = None
    ) -> "tuple[Connection, tuple[ToolSpec, ...]]":
        """(the connection, the server's tools).

        Args:
            command: starts a server that speaks on its standard streams; it ends with the connection.
            url: of a server that runs already, with streamable HTTP.
            env: variables of the command, besides PATH and HOME.
        Raises:
            ConfigError: the package mcp is not installed. SandboxError: the server does not start or answer in time.
        """
        connection = cls(url or _stdio(command, env), url or " ".join(command))
        try:
            async with asyncio.timeout(START_S):
                return connection, await asyncio.shield(connection._ready)
        except TimeoutError:
            await connection.aclose()
            raise SandboxError(f"the MCP server {connection._called!r} did not answer within {START_S:g} s") from None
        except BaseException:
            await connection.aclose()
            raise

    async def call(self, name: str, arguments: Mapping[str, Any], *, timeout_s: float) -> tuple[str, bool]:
        """(the answer as text, whether it is an error of the tool's). Raises SandboxError: the server is gone."""
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED

        work = asyncio.ensure_future(self._client.call_tool(name, dict(arguments), read_timeout_seconds=timeout_s))
        try:
            await asyncio.wait({work, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise SandboxError(f"the MCP server {self._called!r} is gone")
            result = work.result()
        except MCPError as error:
            if self._task.done() or error.code == CONNECTION_CLOSED:
                raise SandboxError(f"the MCP server {self._called!r} is gone: {error.message}") from None
            return error.message, True
        finally:
            work.cancel()
        return _text(result.content), bool(result.is_error)

    async def aclose(self) -> None:
        """End the connection, and the server that it started. May be called twice."""
        self._over.set()
        await asyncio.wait({self._task}, timeout=10.0)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        from mcp import Client

        try:
            async with Client(self._server) as client:
                self._client = client
                found, cursor = [], None
                while True:
                    page = await client.list_tools(cursor=cursor)
                    found += page.tools
                    cursor = page.next_cursor
                    if not cursor:
                        break
                self._ready.set_result(tuple(map(_spec, found)))
                await self._over.wait()
        except Exception as error:  # the package's own groups of errors, the system's, the server's
            if not self._ready.done():
                self._ready.set_exception(SandboxError(f"the MCP server {self._called!r} failed: {_told(error)}"))


def _stdio(command: Sequence[str], env: Mapping[str, str] | None) -> Any:
    try:
        from mcp import StdioServerParameters
    except ImportError:
        raise ConfigError("MCP needs the package mcp; pip install 'verigym[mcp]'") from None
    if not command:
        raise ConfigError("there is neither a command nor a url of an MCP server; give one")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return StdioServerParameters(command=command[0], args=list(command[1:]), env={**kept, **(env or {})})


def _spec(tool: Any) -> ToolSpec:
    schema = {"type": "object", "properties": {}, **(tool.input_schema or {})}
    return ToolSpec(name=tool.name, description=tool.description or "", parameters=schema)


def _text(content: Sequence[Any]) -> str:
    """The texts of an answer; what is none is named."""
    return "\n".join(getattr(part, "text", None) or f"[{part.type}]" for part in content)


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
