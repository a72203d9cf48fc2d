"""An MCP server of the official package: what it was told, and a way to break."""

import os

from mcp.server.mcpserver import MCPServer

server = MCPServer("desk")
kept: list[str] = []


@server.tool()
def keep(what: str, times: int = 1) -> str:
    """Keeps something."""
    kept.extend([what] * times)
    return f"kept {len(kept)} in {os.getpid()}"


@server.tool()
def told() -> str:
    """Tells what is kept."""
    return ",".join(kept) or "nothing"


@server.tool()
def breaks() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
def fails() -> str:
    """Raises."""
    raise ValueError("no luck")


if __name__ == "__main__":
    server.run("stdio")
