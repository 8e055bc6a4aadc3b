"""A FastMCP server made of servers: `travel_server.py PORT WEATHER_URL`. Nothing in here knows about OpenTelemetry."""

import sys

from fastmcp import FastMCP
from fastmcp.server import create_proxy

money = FastMCP("money")


@money.tool
async def convert(amount: float, currency: str) -> str:
    """A tool of a mounted server: the same process, no second message."""
    return f"{amount * 1.09:.2f} {currency}"


travel = FastMCP("travel")
travel.mount(money, namespace="money")

if __name__ == "__main__":
    # Behind a proxy, the same call is a message of its own, to another process.
    travel.mount(create_proxy(sys.argv[2], name="weather-proxy"), namespace="weather")
    travel.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
