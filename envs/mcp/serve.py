"""An environment's tools as an MCP server: of an episode that runs, for the agent that acts in it."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, redirect_stdout
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ...errors import ConfigError
from ...model.chat.actions import encode_calls
from ...model.chat.messages import ToolCall
from ..core import Acted, ToolEnv


class EpisodeTools:
    """The tools of a running episode, one call after another.

    Attributes:
        ended: the call that handed something in; None: none has.
    """

    def __init__(self, env: ToolEnv) -> None:
        self.env = env
        self.ended: Acted | None = None
        self._lock = asyncio.Lock()

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """(what the tool answers, whether it is an error). Raises what the environment raises."""
        async with self._lock:
            if self.ended is not None:
                return "the episode has ended: its work is handed in", True
            acted = await self.env.aact(encode_calls([ToolCall(name=name, arguments=arguments)]))
            if acted.ending is not None:
                self.ended = acted
        text = "\n".join(message.content for message in acted.messages)
        return text, text.startswith("error:")

    def server(self) -> Any:
        """The official package's server over them. Raises ConfigError where it is not installed."""
        try:
            import mcp.types as types
            from mcp.server.lowlevel import Server
        except ImportError:
            raise ConfigError("MCP needs the package mcp; pip install 'verigym[mcp]'") from None
        specs = [
            types.Tool(name=one.name, description=one.description, input_schema=json.loads(json.dumps(one.parameters)))
            for one in self.env.tool_specs
        ]

        async def listed(context: Any, params: Any) -> Any:
            return types.ListToolsResult(tools=specs)

        async def called(context: Any, params: Any) -> Any:
            text, is_error = await self.call(params.name, dict(params.arguments or {}))
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)

        return Server("verigym", on_list_tools=listed, on_call_tool=called)


@asynccontextmanager
async def http_app(tools: EpisodeTools) -> AsyncGenerator[ASGIApp, None]:
    """An ASGI application that speaks streamable HTTP at every path, as long as the block. Raises ConfigError."""
    server = tools.server()
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(app=server, json_response=True, stateless=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await manager.handle_request(scope, receive, send)

    async with manager.run():
        yield app


async def serve_stdio(tools: EpisodeTools) -> None:
    """Speak on this process's standard streams until the other side ends. Raises ConfigError."""
    server = tools.server()
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (reading, writing):
        with redirect_stdout(sys.stderr):  # what hooks print is no part of the protocol
            await server.run(reading, writing, server.create_initialization_options())
