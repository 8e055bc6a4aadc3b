"""One face for the MCP SDK 1.x and 2.x: the same server, the same client calls, every transport.

Nothing in here knows our instrumentation; versions differ here so that tests need not.
"""

# No `from __future__ import annotations`: SDK 1.9 does not resolve the annotations of tools if they are strings.
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
from opentelemetry import baggage, trace

VERSION = tuple(int(part) for part in metadata.version("mcp").split(".")[:2])
SDK2 = VERSION >= (2, 0)

types: Any
if SDK2:
    import mcp_types as types
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.shared.exceptions import MCPError as McpError
else:
    from mcp import types
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer
    from mcp.shared.exceptions import McpError

MODERN = "2026-07-28"
HTTP_TRANSPORTS = ("http", "http-stateless", "http-json", "sse")
TRANSPORTS = ("memory", "stdio", *HTTP_TRANSPORTS)
ERAS = ("legacy", "modern") if SDK2 else ("legacy",)


def mcp_error(code: int, message: str) -> Exception:
    kind: Any = McpError
    return kind(code=code, message=message) if SDK2 else kind(types.ErrorData(code=code, message=message))


def describe_context() -> dict[str, Any]:
    """The trace context a handler runs in, as the handler would report it."""
    span_context = trace.get_current_span().get_span_context()
    return {
        "trace_id": f"{span_context.trace_id:032x}",
        "span_id": f"{span_context.span_id:016x}",
        "baggage": {key: str(value) for key, value in baggage.get_all().items()},
    }


def build_server(name: str = "test-server", **settings: Any) -> Any:
    """A high-level server whose tools do everything a message can lead to."""
    server = MCPServer(name, **settings)

    @server.tool()
    async def add(a: int, b: int) -> str:
        return str(a + b)

    @server.tool()
    async def fail(text: str = "the tool failed") -> str:
        raise ValueError(text)

    @server.tool()
    async def reject(code: int = -32050, text: str = "rejected") -> str:
        raise mcp_error(code, text)

    @server.tool()
    async def slow(seconds: float = 5.0) -> str:
        await anyio.sleep(seconds)
        return "done"

    @server.tool()
    async def die() -> str:
        os._exit(3)

    @server.tool()
    async def context() -> str:
        return json.dumps(describe_context())

    @server.tool()
    async def sample(ctx: Context) -> str:
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hello?"))
        # The keyword form broke another instrumentation; ours has to pass it through.
        result = await ctx.session.create_message(messages=[message], max_tokens=10)
        content: Any = result.content
        return str(content.text)

    @server.tool()
    async def roots(ctx: Context) -> str:
        return str(len((await ctx.session.list_roots()).roots))

    @server.tool()
    async def ping_client(ctx: Context) -> str:
        await ctx.session.send_ping()
        return "pong"

    @server.tool()
    async def progress(ctx: Context, steps: int = 2) -> str:
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
        return "done"

    @server.tool()
    async def log(ctx: Context) -> str:
        await ctx.session.send_log_message(level="info", data="a log line", related_request_id=ctx.request_id)
        return "logged"

    @server.tool()
    async def change(ctx: Context) -> str:
        await ctx.session.send_tool_list_changed()
        await ctx.session.send_prompt_list_changed()
        await ctx.session.send_resource_list_changed()
        await ctx.session.send_resource_updated("res://greeting" if SDK2 else _url("res://greeting"))
        return "changed"

    @server.prompt()
    def greet(name: str) -> str:
        return f"Say hello to {name}"

    @server.resource("res://greeting")
    def greeting() -> str:
        return "hello"

    return server


def _url(text: str) -> Any:
    from pydantic import AnyUrl

    return text if SDK2 else AnyUrl(text)


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def lowlevel(server: Any) -> Any:
    return server._lowlevel_server if SDK2 else server._mcp_server


@dataclass
class Callbacks:
    """What the client is asked to do; each records the context it ran in."""

    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.seen.append((what, describe_context()))

    async def sampling(self, context: Any, params: Any) -> Any:
        self.note("sampling")
        content = types.TextContent(type="text", text="sampled")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async def list_roots(self, context: Any) -> Any:
        self.note("roots")
        return types.ListRootsResult(roots=[types.Root(uri=_url("file:///tmp"))])

    async def logging(self, params: Any) -> None:
        self.note("logging")

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.note("progress")

    async def message(self, message: Any) -> None:
        if not isinstance(message, Exception):
            self.note("message")

    def keywords(self) -> dict[str, Any]:
        return {
            "sampling_callback": self.sampling,
            "list_roots_callback": self.list_roots,
            "logging_callback": self.logging,
            "message_handler": self.message,
        }


class Peer:
    """A connected client."""

    def __init__(self, session: Any, callbacks: Callbacks, client: Any = None) -> None:
        self.session = session
        self.callbacks = callbacks
        self.client = client

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        progress: bool = False,
    ) -> Any:
        limit: Any = timeout if SDK2 or timeout is None else timedelta(seconds=timeout)
        if progress:
            if SDK2 or VERSION >= (1, 10):
                return await self.session.call_tool(
                    tool, arguments or {}, limit, progress_callback=self.callbacks.progress
                )
            request = types.CallToolRequest(
                method="tools/call", params=types.CallToolRequestParams(name=tool, arguments=arguments or {})
            )
            return await self.session.send_request(
                types.ClientRequest(request), types.CallToolResult, progress_callback=self.callbacks.progress
            )
        return await self.session.call_tool(tool, arguments or {}, limit)

    async def text(self, tool: str, arguments: dict[str, Any] | None = None) -> str:
        return str((await self.call(tool, arguments)).content[0].text)

    async def handler_context(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.text("context"))
        return found

    async def read(self, uri: str) -> Any:
        return await self.session.read_resource(_url(uri))

    async def subscribe(self, uri: str) -> Any:
        return await self.session.subscribe_resource(_url(uri))

    async def request(self, method: str, params: dict[str, Any] | None = None) -> Any:
        """Send any request, known to the SDK or not."""
        if SDK2:
            return await self.session._dispatcher.send_raw_request(method, params)
        from pydantic import BaseModel

        class Anything(BaseModel):
            method: str
            params: dict[str, Any] | None = None

        return await self.session.send_request(Anything(method=method, params=params), types.EmptyResult)


@asynccontextmanager
async def _session(streams: Any, callbacks: Callbacks, era: str) -> AsyncIterator[Peer]:
    read, write = streams[0], streams[1]
    if SDK2:
        from mcp import Client

        class Streams:
            async def __aenter__(self) -> Any:
                return read, write

            async def __aexit__(self, *exc_info: object) -> None:
                return None

        mode: Any = "legacy" if era == "legacy" else "auto"
        async with Client(Streams(), mode=mode, **callbacks.keywords()) as client:
            yield Peer(client.session, callbacks, client)
    else:
        from mcp import ClientSession

        async with ClientSession(read, write, **callbacks.keywords()) as session:
            await session.initialize()
            yield Peer(session, callbacks)


@asynccontextmanager
async def memory_streams(server: Any) -> AsyncIterator[Any]:
    """The client's ends of an in-memory JSON-RPC connection to ``server``."""
    from mcp.shared.memory import create_client_server_memory_streams

    async with create_client_server_memory_streams() as (client_streams, server_streams):
        low = lowlevel(server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: low.run(*server_streams, low.create_initialization_options()))
            yield client_streams
            tasks.cancel_scope.cancel()


def stdio_parameters(*command: str, env: dict[str, str] | None = None) -> Any:
    from mcp import StdioServerParameters

    return StdioServerParameters(command=command[0], args=list(command[1:]), env=env)


def server_command(*arguments: str) -> list[str]:
    """The command line that serves :func:`build_server` over stdio."""
    return [sys.executable, str(Path(__file__).with_name("stdio_server.py")), *arguments]


def http_app(server: Any, transport: str) -> Any:
    """The ASGI application of ``server`` for one of the HTTP transports."""
    if transport == "sse":
        return server.sse_app()
    if transport == "websocket":
        return _websocket_app(lowlevel(server))
    options = {"stateless_http": transport == "http-stateless", "json_response": transport == "http-json"}
    if SDK2:
        return server.streamable_http_app(**options)
    for name, value in options.items():
        setattr(server.settings, name, value)
    return server.streamable_http_app()


def _websocket_app(server: Any) -> Any:
    from mcp.server.websocket import websocket_server
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    async def endpoint(websocket: Any) -> None:
        async with websocket_server(websocket.scope, websocket.receive, websocket.send) as streams:
            await server.run(*streams, server.create_initialization_options())

    return Starlette(routes=[WebSocketRoute("/ws", endpoint)])


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port of the loopback interface; yields its base URL."""
    import socket

    import uvicorn

    # asyncio switches Nagle's algorithm off only for sockets that say they are TCP: with it, calls last 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    websockets: Any = "websockets-sansio" if is_installed("websockets") else "none"
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, ws=websockets, lifespan="on")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # uvicorn < 0.29
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        while not server.started:
            await anyio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True
            with anyio.move_on_after(3, shield=True):
                while server.servers and any(s.is_serving() for s in server.servers):
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def http_streams(base_url: str, transport: str, **options: Any) -> AsyncIterator[Any]:
    """The client's streams to a server at ``base_url``."""
    if transport == "sse":
        from mcp.client.sse import sse_client

        async with sse_client(f"{base_url}/sse", **options) as streams:
            yield streams
        return
    if transport == "websocket":
        from mcp.client.websocket import websocket_client

        async with websocket_client(f"ws{base_url.removeprefix('http')}/ws") as streams:
            yield streams
        return
    from mcp.client import streamable_http

    client = getattr(streamable_http, "streamable_http_client", None) or streamable_http.streamablehttp_client
    async with client(f"{base_url}/mcp", **options) as streams:
        yield streams


@asynccontextmanager
async def connect(
    transport: str = "memory",
    *,
    era: str = "legacy",
    server: Any = None,
    middleware: Callable[[Any], Any] | None = None,
    tap: Callable[[Any], Any] | None = None,
    command: list[str] | None = None,
    env: dict[str, str] | None = None,
    base_url: str | None = None,
) -> AsyncIterator[Peer]:
    """A client connected over ``transport``.

    Args:
        era: ``legacy`` (initialize) or ``modern`` (2026-07-28, SDK 2.x only); over ``direct`` always modern.
        server: what to serve, default :func:`build_server`; stdio always serves the default, in a process of its own.
        middleware: wraps the ASGI application (outermost).
        tap: called with the client's streams, returns those to use.
        command: the stdio server's command.
        base_url: of an HTTP server that is running already.
    """
    callbacks = Callbacks()
    async with AsyncExitStack() as stack:
        if transport == "direct":
            from mcp import Client

            client = await stack.enter_async_context(Client(server or build_server(), **callbacks.keywords()))
            yield Peer(client.session, callbacks, client)
            return
        if transport == "memory":
            streams = await stack.enter_async_context(memory_streams(server or build_server()))
        elif transport == "stdio":
            from mcp.client.stdio import stdio_client

            parameters = stdio_parameters(*(command or server_command()), env=env)
            streams = await stack.enter_async_context(stdio_client(parameters))
        else:
            if base_url is None:
                app = http_app(server or build_server(), transport)
                base_url = await stack.enter_async_context(serve(middleware(app) if middleware else app))
            streams = await stack.enter_async_context(http_streams(base_url, transport))
        if tap is not None:
            streams = tap(streams)
        yield await stack.enter_async_context(_session(streams, callbacks, era))
