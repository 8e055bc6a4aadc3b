"""An "agent" that asks the server: `client.py URL`. Its only line of OpenTelemetry is the span around its work."""

import sys

import anyio
from fastmcp import Client
from opentelemetry import trace


async def on_progress(progress: float, total: float | None, message: str | None) -> None:
    print(f"progress: {message}")


async def main(url: str) -> None:
    with trace.get_tracer("example").start_as_current_span("look something up"):
        async with Client(url, progress_handler=on_progress) as library:
            await library.list_tools()
            print((await library.call_tool("author_of", {"title": "Ulysses"})).data)
            print((await library.call_tool("read_all", {})).data)
            failed = await library.call_tool("author_of", {"title": "Faust"}, raise_on_error=False)
            print(f"failed as it should: {failed.is_error}")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
