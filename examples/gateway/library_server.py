"""Another upstream server: `library_server.py PORT`. It is started without OpenTelemetry, as servers of others are."""

import sys

from mcp.server.fastmcp import FastMCP

server = FastMCP("library", host="127.0.0.1", port=int(sys.argv[1]))


@server.tool()
async def find_book(topic: str) -> str:
    """A book about something."""
    return f"{topic}: a very short introduction"


if __name__ == "__main__":
    server.run("streamable-http")
