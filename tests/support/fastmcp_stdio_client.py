"""A FastMCP client of one stdio server: `fastmcp_stdio_client.py TRANSPORT ARGUMENTS TOOL`.

``TRANSPORT`` is the name of a class of ``fastmcp.client.transports``, ``ARGUMENTS`` those of its constructor, a JSON
object. The result of ``TOOL`` is printed; then it waits for its stdin to end before it disconnects.
"""

import json
import sys
from importlib import import_module

import anyio
from opentelemetry import trace


async def main(transport: str, arguments: str, tool: str) -> None:
    with trace.get_tracer("test-app").start_as_current_span("work"):
        start = getattr(import_module("fastmcp.client.transports"), transport)
        client = import_module("fastmcp").Client(start(**json.loads(arguments), keep_alive=False))
        async with client:
            result = await client.call_tool(tool, {"a": 1, "b": 2} if tool == "add" else {})
            print("result:", result.content[0].text, flush=True)
            await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
