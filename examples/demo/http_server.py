"""A weather server over streamable HTTP: `http_server.py PORT`. Nothing in here knows about OpenTelemetry."""

import sys

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("weather")


@server.tool()
async def forecast(city: str) -> str:
    """The weather of tomorrow."""
    await anyio.sleep(0.04)
    return f"Tomorrow in {city}: 23 degrees, light wind, no rain."


@server.tool()
async def air_quality(city: str) -> str:
    """Fails: a tool error is a normal result on the wire (`isError`), not a JSON-RPC error."""
    raise ToolError(f"no measuring station in {city}")


@server.tool()
async def radar(city: str) -> str:
    """Takes far longer than the client is ready to wait."""
    await anyio.sleep(30)
    return f"radar image of {city}"


@server.tool()
async def climate(city: str, ctx: Context) -> str:
    """Reports progress: three notifications from the server to the client while the call is running."""
    for decade in range(3):
        await anyio.sleep(0.03)
        await ctx.report_progress(decade + 1, 3, f"decade {decade + 1} of 3")
    return f"{city} is 1.2 degrees warmer than thirty years ago."


if __name__ == "__main__":
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(sys.argv[1]))
