"""One face for FastMCP 2, 3 and 4: the same server, the same client calls, every transport.

Nothing in here knows our instrumentation; versions differ here so that tests need not.
"""

# No `from __future__ import annotations`: FastMCP resolves the annotations of tools at run time.
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import fastmcp
from fastmcp import Client, Context, FastMCP

from support import sdk
from support.wire import WireLog, WireLogASGI, tap_streams

VERSION = tuple(int(part) for part in fastmcp.__version__.split(".")[:2])
MAJOR = VERSION[0]
TRANSPORTS = ("memory", "http", "http-stateless", "http-json", "sse", "stdio")
ERAS = ("legacy", "modern") if MAJOR >= 4 else ("legacy",)
NATIVE_SCOPES = frozenset({"fastmcp", "mcp-python-sdk"})
SERVER_SCRIPT = str(Path(__file__).with_name("fastmcp_sdk_server.py"))

types = sdk.types


class HandlerLog(logging.Handler):
    """The log lines that handlers wrote, with the trace id of the span that was current then."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), sdk.describe_context()["trace_id"]))


handler_logger = logging.getLogger("fastmcp-test-handlers")


def _report(what: str) -> str:
    handler_logger.warning("%s", what)
    return json.dumps(sdk.describe_context())


def build_server(name: str = "main", **settings: Any) -> Any:
    """A server whose tools do everything a message can lead to."""
    server: Any = FastMCP(name, **settings)

    @server.tool
    async def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    async def fail(text: str = "the tool failed") -> str:
        raise ValueError(text)

    @server.tool
    async def reject(code: int = -32050, text: str = "rejected") -> str:
        raise sdk.mcp_error(code, text)

    @server.tool
    async def slow(seconds: float = 5.0) -> str:
        await anyio.sleep(seconds)
        return "done"

    @server.tool
    async def garbage() -> int:
        not_a_number: Any = object()
        return not_a_number

    @server.tool
    async def context() -> str:
        return _report("tool")

    @server.tool
    def context_in_thread(ctx: Context) -> str:
        return _report("sync tool")

    @server.tool
    async def progress(ctx: Context, steps: int = 2) -> str:
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
        return "done"

    @server.tool
    async def log(ctx: Context) -> str:
        await ctx.info("a log line")
        return "logged"

    @server.tool
    async def sample(ctx: Context) -> str:
        if MAJOR < 4:
            return str((await ctx.sample("hello?", max_tokens=10)).text)
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hello?"))
        result: Any = await ctx.session.create_message(messages=[message], max_tokens=10)
        return str(result.content.text)

    @server.tool
    async def elicit(ctx: Context) -> str:
        if MAJOR < 4:
            answer: Any = await ctx.elicit("how many?", response_type=int)
            return str(answer.action)
        schema: Any = {"type": "object", "properties": {"value": {"type": "integer"}}}
        result: Any = await ctx.session.elicit("how many?", schema)
        return str(result.action)

    @server.tool
    async def roots(ctx: Context) -> str:
        listed: Any = await (ctx.list_roots() if MAJOR < 4 else ctx.session.list_roots())
        return str(len(listed if MAJOR < 4 else listed.roots))

    @server.tool
    async def ping_client(ctx: Context) -> str:
        await ctx.session.send_ping()
        return "pong"

    @server.tool
    async def change(ctx: Context) -> str:
        await ctx.session.send_tool_list_changed()
        return "changed"

    @server.resource("res://greeting")
    def greeting() -> str:
        return "hello"

    @server.resource("res://context")
    async def resource_context() -> str:
        return _report("resource")

    @server.resource("res://items/{item}")
    def item(item: str) -> str:
        return f"item {item}"

    @server.prompt
    def greet(name: str) -> str:
        return f"Say hello to {name}"

    @server.prompt
    async def prompt_context() -> str:
        return _report("prompt")

    return server


def mount(parent: Any, child: Any, namespace: str, **options: Any) -> None:
    parent.mount(child, **{"prefix" if MAJOR < 3 else "namespace": namespace}, **options)


def proxy_of(target: Any, name: str = "proxy") -> Any:
    """A server that forwards to ``target``: a server, a client, a URL."""
    if MAJOR < 3:
        return FastMCP.as_proxy(target, name=name)
    from fastmcp.server import create_proxy

    return create_proxy(target, name=name)


def http_app(server: Any, transport: str) -> Any:
    if transport == "sse":
        return server.http_app(transport="sse", path="/sse")
    return server.http_app(
        path="/mcp", stateless_http=transport == "http-stateless", json_response=transport == "http-json"
    )


class Answers:
    """What the client is asked to do, and the context it was asked in."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def _note(self, what: str) -> None:
        self.seen.append((what, sdk.describe_context()))

    async def sampling(self, messages: Any, params: Any, context: Any) -> str:
        self._note("sampling")
        return "sampled"

    async def elicitation(self, message: str, response_type: Any, params: Any, context: Any) -> Any:
        self._note("elicitation")
        return {"value": 3}

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        self._note("progress")

    async def logging(self, message: Any) -> None:
        self._note("logging")

    def keywords(self) -> dict[str, Any]:
        return {
            "sampling_handler": self.sampling,
            "elicitation_handler": self.elicitation,
            "progress_handler": self.progress,
            "log_handler": self.logging,
            "roots": ["file:///tmp"],
        }


def make_client(target: Any, era: str = "legacy", **options: Any) -> Any:
    if MAJOR >= 4:
        options["mode"] = "legacy" if era == "legacy" else "auto"
    return Client(target, **options)


@asynccontextmanager
async def connect(
    transport: str = "memory",
    *,
    server: Any = None,
    era: str = "legacy",
    log: WireLog | None = None,
    middleware: Callable[[Any], Any] | None = None,
    command: list[str] | None = None,
    answers: Answers | None = None,
) -> AsyncIterator[Any]:
    """A connected FastMCP client.

    Args:
        server: what to serve, default :func:`build_server`; stdio always serves the default, in a process of its own.
        log: gets the messages on the wire; over stdio, ``command`` has to write them down.
        middleware: wraps the ASGI application (outermost).
        command: the stdio server's command.
    """
    options = (answers or Answers()).keywords()
    async with AsyncExitStack() as stack:
        if transport == "memory":
            with tapped_memory(log):
                yield await stack.enter_async_context(make_client(server or build_server(), era, **options))
                await stack.aclose()
            return
        if transport == "stdio":
            from fastmcp.client.transports import StdioTransport

            program, *arguments = command or sdk.server_command()
            target: Any = StdioTransport(program, arguments, env=dict(os.environ), keep_alive=False)
        else:
            app = http_app(server or build_server(), transport)
            if log is not None:
                app = WireLogASGI(app, log)
            url = await stack.enter_async_context(sdk.serve(middleware(app) if middleware else app))
            target = f"{url}/{'sse' if transport == 'sse' else 'mcp'}"
        yield await stack.enter_async_context(make_client(target, era, **options))


class tapped_memory:  # noqa: N801 - a context manager
    """Logs the messages of all in-memory connections that FastMCP makes while it is entered."""

    def __init__(self, log: WireLog | None) -> None:
        self._log = log

    def __enter__(self) -> None:
        from fastmcp.client import transports

        self._module: Any = transports if MAJOR < 3 else __import__(f"{transports.__name__}.memory", fromlist=["_"])
        self._original = self._module.create_client_server_memory_streams
        log, original = self._log, self._original

        @asynccontextmanager
        async def tapped(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async with original(*args, **kwargs) as (client, server):
                yield (tap_streams(log, *client), server) if log is not None else (client, server)

        self._module.create_client_server_memory_streams = tapped

    def __exit__(self, *exception: object) -> None:
        self._module.create_client_server_memory_streams = self._original


def text_of(result: Any) -> str:
    """The text of a tool's, resource's or prompt's result."""
    if isinstance(result, list):
        return str(result[0].text)
    if hasattr(result, "messages"):
        return str(result.messages[0].content.text)
    return str(result.content[0].text)
