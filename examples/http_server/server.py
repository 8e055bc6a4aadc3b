"""A FastMCP server over streamable HTTP: `server.py PORT`. Nothing in here knows about OpenTelemetry."""

import sys

from fastmcp import Context, FastMCP

mcp = FastMCP("library")

BOOKS = {"moby dick": "Herman Melville", "ulysses": "James Joyce"}


@mcp.tool
async def author_of(title: str) -> str:
    """Who wrote it."""
    return BOOKS[title.lower()]


@mcp.tool
async def read_all(ctx: Context) -> str:
    """Reports progress: notifications from the server to the client while the call is running."""
    for number, title in enumerate(BOOKS, start=1):
        await ctx.report_progress(number, len(BOOKS), title)
    return f"{len(BOOKS)} books read"


if __name__ == "__main__":
    mcp.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
