"""An upstream server over streamable HTTP: `weather_server.py PORT`. Nothing in here knows about OpenTelemetry."""

import sys

from mcp.server.fastmcp import FastMCP

server = FastMCP("weather", host="127.0.0.1", port=int(sys.argv[1]))


@server.tool()
async def forecast(city: str) -> str:
    """The weather of tomorrow."""
    return f"Tomorrow in {city}: 23 degrees, light wind, no rain."


@server.tool()
async def air_quality(city: str) -> str:
    """Fails: a tool error is a normal result on the wire (`isError`), not a JSON-RPC error."""
    raise ValueError(f"no measuring station in {city}")


if __name__ == "__main__":
    server.run("streamable-http")
