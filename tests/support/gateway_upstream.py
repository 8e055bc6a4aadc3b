"""What stands behind the gateway under test: `gateway_upstream.py --name NAME --port PORT --record FILE [--sse]`.

An MCP server (tools, a resource, a prompt), and beside it plain HTTP services: REST and A2A. Every request that
arrives is a JSON line in the log: path, headers, and the JSON-RPC message if there is one.
"""

# No `from __future__ import annotations`: the SDK resolves the annotations of tools.
import argparse
import asyncio
import json
import time
import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

counts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def build(name: str) -> FastMCP:
    server = FastMCP(name)

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    def echo(text: str) -> str:
        return text

    @server.tool()
    def fail(text: str) -> str:
        raise ValueError(text)

    @server.tool()
    async def slow(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "at last"

    @server.tool()
    def count(context: Context) -> int:
        """How often this tool was called in this session."""
        counts[context.session] = counts.get(context.session, 0) + 1
        return counts[context.session]

    @server.resource(f"demo://{name}")
    def greeting() -> str:
        return "hello"

    @server.prompt()
    def ask(topic: str) -> str:
        return f"What about {topic}?"

    async def rest(request: Request) -> Response:
        if request.path_params["what"] == "broken":
            return JSONResponse({"detail": "broken"}, 500)
        if request.path_params["what"] == "flaky" and next_is_bad():
            return JSONResponse({"detail": "try again"}, 503)
        return JSONResponse({"answer": 42})

    async def a2a(_: Request) -> Response:
        return JSONResponse({"response": "from the agent"})

    async def flush(_: Request) -> Response:
        """All spans that ended so far are exported when this has answered."""
        provider: Any = trace.get_tracer_provider()
        if hasattr(provider, "force_flush"):
            await asyncio.to_thread(provider.force_flush)
        return Response()

    server.custom_route("/rest/{what}", ["GET", "POST"])(rest)
    server.custom_route("/a2a", ["POST"])(a2a)
    server.custom_route("/flush", ["POST"])(flush)
    return server


answers = 0


def next_is_bad() -> bool:
    """Of two requests the first is."""
    global answers
    answers += 1
    return answers % 2 == 1


class Recording:
    """Writes down each request before the application gets it."""

    def __init__(self, app: Starlette, log: Path) -> None:
        self.app, self.log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/flush":
            await self.app(scope, receive, send)
            return
        messages = [message := await receive()]
        while message.get("more_body"):
            messages.append(message := await receive())
        body = b"".join(message.get("body", b"") for message in messages)
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        line = {
            "time": time.time_ns(),
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]},
            "content": content,
        }
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        waiting = iter(messages)

        async def replay() -> MutableMapping[str, Any]:
            return next(waiting, None) or await receive()

        await self.app(scope, replay, send)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--sse", action="store_true")
    options = parser.parse_args()
    server = build(options.name)
    app = server.sse_app() if options.sse else server.streamable_http_app()
    recording: Any = Recording(app, options.record)
    uvicorn.run(recording, host="127.0.0.1", port=options.port, log_level="warning", timeout_graceful_shutdown=1)
