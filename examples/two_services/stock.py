"""A service with a tool: `stock.py PORT`. Nothing in here knows about OpenTelemetry."""

import sys

import anyio
from fastmcp import FastMCP

mcp = FastMCP("stock")


@mcp.tool
async def available(article: str) -> int:
    """How many there are."""
    await anyio.sleep(0.02)
    return len(article)


if __name__ == "__main__":
    mcp.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
