"""A real MCP server, over standard streams or HTTP: run it with ``stdio`` or ``http PORT``."""

import asyncio
import os
import sys
import time
from pathlib import Path

from mcp.server.fastmcp import FastMCP


def server(port: int = 0) -> FastMCP:
    """Return a server with a few tools, each with a fault of its own."""
    made = FastMCP("tools", host="127.0.0.1", port=port, log_level="ERROR")

    @made.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @made.tool()
    def environment(name: str) -> str:
        """Say what a variable is."""
        return os.environ.get(name, "not set")

    @made.tool()
    def note(text: str) -> str:
        """Append a line to the file that NOTES names."""
        with Path(os.environ["NOTES"]).open("a") as file:
            file.write(f"{text}\n")
        return "noted"

    @made.tool()
    def fail(why: str) -> str:
        """Fail."""
        raise ValueError(why)

    @made.tool()
    async def hang() -> str:
        """Take for ever."""
        await asyncio.sleep(600)
        return ""

    @made.tool()
    def crash() -> str:
        """End the server."""
        os._exit(3)

    return made


if __name__ == "__main__":
    if sys.argv[1] == "mute":
        time.sleep(600)
    elif sys.argv[1] == "http":
        server(int(sys.argv[2])).run("streamable-http")
    else:
        server().run("stdio")
