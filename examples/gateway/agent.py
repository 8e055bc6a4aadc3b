"""An MCP client that calls a tool through the gateway: `agent.py URL CITY`, with a token in `GATEWAY_TOKEN`."""

import os
import sys

import anyio
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from opentelemetry import trace


async def main(url: str, city: str) -> None:
    headers = {"authorization": f"Bearer {os.environ['GATEWAY_TOKEN']}"}
    async with streamablehttp_client(url, headers) as (read, write, _), ClientSession(read, write) as gateway:
        await gateway.initialize()
        await gateway.list_tools()
        with trace.get_tracer("demo").start_as_current_span("answer a question"):
            print((await gateway.call_tool("weather-forecast", {"city": city})).content)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
