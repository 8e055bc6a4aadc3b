"""A program that calls the server at the URL in its argument below one span, and prints that span's ids."""

import json
import sys

import anyio
from fastmcp import Client
from opentelemetry import trace


async def main(url: str) -> None:
    with trace.get_tracer("agent").start_as_current_span("agent") as span:
        async with Client(url) as client:
            await client.list_tools()
            await client.call_tool("add", {"a": 1, "b": 2})
            await client.call_tool("steps", {})
            await client.call_tool("fail", {}, raise_on_error=False)
        span_context = span.get_span_context()
    print(json.dumps({"trace_id": span_context.trace_id, "span_id": span_context.span_id}))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
