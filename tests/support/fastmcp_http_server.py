"""A FastMCP server as its users write it: served by `fastmcp run`, by itself, or by uvicorn (`module:app`).

By itself: `fastmcp_http_server.py --port PORT [--stateless] [--traced]`. It knows nothing of our instrumentation;
`--traced` and the applications named `traced...` have OpenTelemetry's own middleware for ASGI around them.
"""

import argparse
import json
import os
import time
from typing import Any

from fastmcp import Context, FastMCP
from opentelemetry import baggage, trace

mcp: Any = FastMCP("joined")


@mcp.tool
async def add(a: int, b: int) -> int:
    return a + b


@mcp.tool
async def context() -> str:
    """The span and the baggage a handler sees, and which process it runs in."""
    span_context = trace.get_current_span().get_span_context()
    seen = {
        "trace_id": span_context.trace_id,
        "span_id": span_context.span_id,
        "baggage": {key: str(value) for key, value in baggage.get_all().items()},
        "pid": os.getpid(),
    }
    return json.dumps(seen)


@mcp.tool
def context_in_a_thread() -> str:
    """The same of a handler that is no coroutine."""
    span_context = trace.get_current_span().get_span_context()
    return json.dumps({"trace_id": span_context.trace_id, "span_id": span_context.span_id})


@mcp.tool
async def fail() -> str:
    raise ValueError("as it should")


@mcp.tool
async def steps(ctx: Context) -> str:
    """Two messages from the server to the client while it runs."""
    await ctx.report_progress(1, 2)
    await ctx.report_progress(2, 2)
    return "done"


@mcp.tool
async def block() -> int:
    """Keeps this worker's event loop busy: whoever connects meanwhile gets another worker."""
    time.sleep(0.3)  # noqa: ASYNC251 - that is what it is for
    return os.getpid()


def traced() -> list[Any]:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from starlette.middleware import Middleware

    return [Middleware(OpenTelemetryMiddleware, exclude_spans=["receive", "send"])]


app = mcp.http_app(stateless_http=True)
stateful_app = mcp.http_app()
traced_app = mcp.http_app(stateless_http=True, middleware=traced())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stateless", action="store_true")
    parser.add_argument("--traced", action="store_true")
    options = parser.parse_args()
    mcp.run(
        transport="http",
        host="127.0.0.1",
        port=options.port,
        stateless_http=options.stateless,
        middleware=traced() if options.traced else [],
        show_banner=False,
    )
