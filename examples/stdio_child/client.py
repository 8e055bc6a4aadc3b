"""Starts a calculator and calls it. Whether that server is instrumented is for the environment to say."""

import sys
from pathlib import Path

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

SERVER = StdioServerParameters(
    command=sys.executable,
    args=[str(Path(__file__).with_name("server.py"))],
    # By default a server is called what its command is: this one would be `server`.
    env={"OTEL_SERVICE_NAME": "calculator"},
)


async def main() -> None:
    async with stdio_client(SERVER) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        result = await session.call_tool("add", {"a": 1, "b": 2})
        print(result.content[0].text)


if __name__ == "__main__":
    anyio.run(main)
