"""An MCP client that calls a tool through the gateway: `agent.py URL TOOL JSON`, with a token in `GATEWAY_TOKEN`."""

import json
import os
import sys

import anyio
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from opentelemetry import trace


async def main(url: str, tool: str, arguments: str) -> None:
    headers = {"authorization": f"Bearer {os.environ['GATEWAY_TOKEN']}"}
    async with streamablehttp_client(url, headers) as (read, write, _), ClientSession(read, write) as gateway:
        await gateway.initialize()
        await gateway.list_tools()
        with trace.get_tracer("demo").start_as_current_span("answer a question"):
            result = await gateway.call_tool(tool, json.loads(arguments))
            print(result.content[0].text)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
