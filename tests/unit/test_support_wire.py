"""The wire log: every message that passes is in it, and what passes is not changed by it."""

from __future__ import annotations

import contextvars
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from support import stdio_tee
from support.wire import (
    TO_CLIENT,
    TO_SERVER,
    SseParser,
    WireLog,
    WireLogASGI,
    read_stdio_log,
    tap_streams,
    tee_command,
)

# Long enough for the import of the SDK on a busy machine.
LIMIT = 60

REQUEST = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "tools/call",
    "params": {"name": "add", "_meta": {"traceparent": "t"}},
}
NOTIFICATION = {"jsonrpc": "2.0", "method": "notifications/initialized"}
RESPONSE = {"jsonrpc": "2.0", "id": 0, "result": {}}
ERROR = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def log() -> WireLog:
    return WireLog()


def shape(log: WireLog) -> list[tuple[Any, ...]]:
    return [(message.direction, message.kind, message.method, message.id) for message in log]


# --- the log ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "kind", "method", "message_id"),
    [
        (REQUEST, "request", "tools/call", 0),
        ({"method": "ping", "id": None}, "request", "ping", None),
        ({"method": "ping", "id": "a"}, "request", "ping", "a"),
        (NOTIFICATION, "notification", "notifications/initialized", None),
        (RESPONSE, "response", "", 0),
        (ERROR, "error", "", None),
        ({"method": 1, "id": 0}, "malformed", "", 0),
        ({}, "malformed", "", None),
        ("ping", "malformed", "", None),
        ([], "malformed", "", None),
    ],
)
def test_a_message_is_classified(log: WireLog, raw: Any, kind: str, method: str, message_id: Any) -> None:
    log.add(TO_SERVER, raw)
    assert shape(log) == [(TO_SERVER, kind, method, message_id)]
    assert [message.is_call for message in log] == [kind in ("request", "notification")]


def test_a_message_knows_its_parameters_and_meta(log: WireLog) -> None:
    for params in (REQUEST["params"], None, [1], {"_meta": 1}):
        log.add(TO_SERVER, {**REQUEST, "params": params})
    assert [message.meta for message in log] == [{"traceparent": "t"}, {}, {}, {}]
    assert log.messages[0].params["name"] == "add"


def test_a_batch_is_several_messages_and_no_json_is_malformed(log: WireLog) -> None:
    log.add_text(TO_SERVER, json.dumps([REQUEST, NOTIFICATION]))
    log.add_text(TO_CLIENT, b"\xff{")
    assert [message.kind for message in log] == ["request", "notification", "malformed"]
    assert len(log.calls) == 2
    assert len(log.malformed) == 1


def test_messages_are_selected_and_taken_back(log: WireLog) -> None:
    log.add(TO_SERVER, [REQUEST, REQUEST])
    (answer,) = log.add(TO_CLIENT, RESPONSE)
    assert log.select(direction=TO_CLIENT) == [answer]
    assert log.select(kind="request", method="tools/call") == log.messages[:2]
    assert log.select(kind="error") == []
    # One of two that are alike.
    log.discard(log.messages[:1])
    assert len(log) == 2
    log.clear()
    assert len(log) == 0


def test_a_log_can_be_read_by_people(log: WireLog) -> None:
    log.add(TO_SERVER, REQUEST)
    assert "client->server request tools/call #0" in repr(log)


# --- memory streams -----------------------------------------------------------------------------------------


def make_server() -> Any:
    """The high-level server of mcp 1.x or 2.x with one tool."""
    try:
        from mcp.server.fastmcp import FastMCP as Server
    except ModuleNotFoundError:
        from mcp.server.mcpserver import MCPServer as Server
    server = Server("test")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    return server


def low_level(server: Any) -> Any:
    return getattr(server, "_mcp_server", None) or server._lowlevel_server


@asynccontextmanager
async def memory_session(tap: Callable[[Any, Any], tuple[Any, Any]]) -> AsyncIterator[Any]:
    from mcp import ClientSession
    from mcp.shared.memory import create_client_server_memory_streams

    server = low_level(make_server())
    async with create_client_server_memory_streams() as pairs, anyio.create_task_group() as group:
        client_pair, server_pair = tap(*pairs)
        group.start_soon(server.run, *server_pair, server.create_initialization_options())
        async with ClientSession(*client_pair) as session:
            await session.initialize()
            yield session
        group.cancel_scope.cancel()


CALLED = {"initialize", "notifications/initialized", "tools/call"}


def assert_is_the_log_of_a_call(log: WireLog) -> None:
    """Of a session in which ``add`` was called: nothing missing, nothing twice, everything answered."""
    calls = [message.method for message in log.calls]
    assert CALLED <= set(calls) <= CALLED | {"tools/list"}
    assert len(calls) == len(set(calls))
    requests = [message.id for message in log.select(kind="request", direction=TO_SERVER)]
    answers = [message.id for message in log.select(kind="response", direction=TO_CLIENT)]
    assert sorted(requests) == sorted(answers)
    assert len(requests) + len(answers) + 1 == len(log)
    assert log.messages[0].method == "initialize"
    (call,) = log.select(method="tools/call")
    assert call.params["name"] == "add"
    assert call.params["arguments"] == {"a": 1, "b": 2}


@pytest.mark.anyio
@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_session_over_tapped_memory_streams_is_logged(log: WireLog, side: str) -> None:
    def tap(client: Any, server: Any) -> tuple[Any, Any]:
        if side == "client":
            return tap_streams(log, *client), server
        return client, tap_streams(log, *server, side="server")

    with anyio.fail_after(LIMIT):
        async with memory_session(tap) as session:
            result = await session.call_tool("add", {"a": 1, "b": 2})
    assert result.content[0].text == "3"
    assert_is_the_log_of_a_call(log)


@pytest.mark.anyio
async def test_both_sides_of_a_session_log_the_same() -> None:
    client_log, server_log = WireLog(), WireLog()
    with anyio.fail_after(LIMIT):
        async with memory_session(
            lambda client, server: (
                tap_streams(client_log, *client),
                tap_streams(server_log, *server, side="server"),
            )
        ) as session:
            await session.call_tool("add", {"a": 1, "b": 2})
    assert sorted(shape(client_log), key=str) == sorted(shape(server_log), key=str)


def make_stream_pair() -> tuple[Any, Any]:
    """A sending and a receiving stream as the library makes them: context-aware in 2.x."""
    try:
        from mcp.shared._context_streams import create_context_streams
    except ModuleNotFoundError:
        return anyio.create_memory_object_stream(1)
    send, receive = create_context_streams(1)
    return send, receive


def make_message() -> Any:
    from mcp.shared.message import SessionMessage

    try:
        import mcp_types as types
    except ModuleNotFoundError:
        from mcp import types
    message: Any = types.JSONRPCRequest.model_validate(REQUEST)
    root: Any = types.JSONRPCMessage
    return SessionMessage(root(message) if hasattr(root, "model_validate") else message)


@pytest.mark.anyio
async def test_the_context_of_the_sender_goes_as_far_as_without_the_tap(log: WireLog) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    (plain_send, plain_receive), (send, receive) = make_stream_pair(), make_stream_pair()
    tapped_receive, _ = tap_streams(log, receive, None)
    _, tapped_send = tap_streams(log, None, send)

    async def sender(stream: Any) -> None:
        who.set("sender")
        await stream.send(make_message())

    contexts = []
    for sending, receiving in ((plain_send, plain_receive), (tapped_send, tapped_receive)):
        async with anyio.create_task_group() as group:
            group.start_soon(sender, sending)
        await receiving.receive()
        context = getattr(receiving, "last_context", None)
        contexts.append(context and context.get(who))
    assert contexts[0] == contexts[1]
    assert contexts[1] == (None if isinstance(plain_send, anyio.streams.memory.MemoryObjectSendStream) else "sender")


@pytest.mark.anyio
async def test_items_pass_unchanged_and_only_messages_are_logged(log: WireLog) -> None:
    send, receive = anyio.create_memory_object_stream(2)
    tapped_receive, _ = tap_streams(log, receive, None, side="server")
    message, fault = make_message(), ValueError("no JSON")
    await send.send(message)
    await send.send(fault)
    assert await tapped_receive.receive() is message
    assert await tapped_receive.receive() is fault
    assert shape(log) == [(TO_SERVER, "request", "tools/call", 0)]
    assert log.messages[0].raw == REQUEST


@pytest.mark.anyio
async def test_what_could_not_be_sent_is_not_logged(log: WireLog) -> None:
    send, receive = anyio.create_memory_object_stream(0)
    _, tapped = tap_streams(log, None, send)
    with anyio.move_on_after(0.01):
        await tapped.send(make_message())
    await receive.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await tapped.send(make_message())
    with pytest.raises(anyio.BrokenResourceError):
        tapped.send_nowait(make_message())
    assert len(log) == 0


@pytest.mark.anyio
async def test_clones_and_ends_of_tapped_streams(log: WireLog) -> None:
    send, receive = anyio.create_memory_object_stream(3)
    tapped_receive, tapped_send = tap_streams(log, receive, send)
    async with tapped_send.clone() as clone:
        await clone.send(make_message())
    async with tapped_send:
        tapped_send.send_nowait(make_message())
    async with tapped_receive:
        assert tapped_receive.receive_nowait() is not None
        assert len([item async for item in tapped_receive]) == 1
    # Two sent by the client, two read by it.
    assert [message.direction for message in log] == [TO_SERVER, TO_SERVER, TO_CLIENT, TO_CLIENT]


# --- HTTP ---------------------------------------------------------------------------------------------------


def http_scope(method: str = "POST", content_type: str = "application/json", path: str = "/mcp") -> dict[str, Any]:
    headers = [(b"Content-Type", content_type.encode()), (b"Mcp-Session-Id", b"s-1")]
    return {"type": "http", "method": method, "path": path, "headers": headers}


def chunks(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)] or [b""]


def request_events(body: bytes, size: int = 7) -> list[dict[str, Any]]:
    pieces = chunks(body, size)
    last = len(pieces) - 1
    return [{"type": "http.request", "body": piece, "more_body": at < last} for at, piece in enumerate(pieces)]


def response_events(body: bytes, content_type: str = "application/json", size: int = 7) -> list[dict[str, Any]]:
    headers = [(b"content-type", content_type.encode())]
    return [
        {"type": "http.response.start", "status": 200, "headers": headers},
        *({"type": "http.response.body", "body": piece, "more_body": True} for piece in chunks(body, size)),
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


async def exchange_http(
    log: WireLog, scope: dict[str, Any], inbound: list[Any], outbound: list[Any], **options: Any
) -> list[Any]:
    """Run an application that reads all of its request, then answers; what came out of the middleware.

    Each event has to come through as the very same object, and before the next one is asked for.
    """
    taken: list[Any] = []
    sent: list[Any] = []
    copies = json.dumps(inbound + outbound, default=repr)

    async def receive() -> Any:
        return inbound[len(taken)]

    async def send(event: Any) -> None:
        sent.append(event)

    async def app(_: Any, receive: Any, send: Any) -> None:
        for expected in inbound:
            taken.append(await receive())
            assert taken[-1] is expected
        for number, event in enumerate(outbound, 1):
            await send(event)
            assert len(sent) == number
            assert sent[-1] is event

    await WireLogASGI(app, log, **options)(scope, receive, send)
    assert json.dumps(inbound + outbound, default=repr) == copies
    return sent


def sse(*events: str) -> bytes:
    return "".join(events).encode()


def sse_message(raw: Any, name: str = "message", end: str = "\r\n") -> str:
    return f"event: {name}{end}id: 1{end}data: {json.dumps(raw)}{end}{end}"


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 7, 10000])
async def test_a_post_with_a_json_answer_is_logged(log: WireLog, size: int) -> None:
    await exchange_http(
        log,
        http_scope(),
        request_events(json.dumps(REQUEST).encode(), size),
        response_events(json.dumps(RESPONSE).encode(), "application/json; charset=utf-8", size),
    )
    assert shape(log) == [(TO_SERVER, "request", "tools/call", 0), (TO_CLIENT, "response", "", 0)]
    assert log.messages[0].raw == REQUEST
    assert log.messages[0].headers == {"content-type": "application/json", "mcp-session-id": "s-1"}


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 7, 10000])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
async def test_a_post_with_a_stream_as_answer_is_logged(log: WireLog, size: int, end: str) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"message": "é\u2028"}}
    body = sse(sse_message(note, end=end), f": ping{end}{end}", sse_message(RESPONSE, end=end))
    await exchange_http(
        log,
        http_scope(),
        request_events(json.dumps(REQUEST).encode()),
        response_events(body, "text/event-stream", size),
    )
    assert shape(log)[1:] == [
        (TO_CLIENT, "notification", "notifications/progress", None),
        (TO_CLIENT, "response", "", 0),
    ]
    assert log.messages[1].raw == note


@pytest.mark.anyio
async def test_a_get_stream_is_logged_as_it_goes_on(log: WireLog) -> None:
    logged: list[int] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        first, *bodies = response_events(sse(sse_message(REQUEST), sse_message(NOTIFICATION)), "text/event-stream", 8)
        await send(first)
        for event in bodies:
            await send(event)
            logged.append(len(log))

    async def nothing(*_: Any) -> Any:
        return {"type": "http.disconnect"}

    await WireLogASGI(app, log)(http_scope("GET"), nothing, nothing)
    assert [message.kind for message in log.select(direction=TO_CLIENT)] == ["request", "notification"]
    assert 0 < logged.index(1) < logged.index(2)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scope", "options"),
    [
        (http_scope(content_type="application/x-www-form-urlencoded"), {}),
        (http_scope("PUT"), {}),
        (http_scope(path="/token"), {"paths": ["/mcp"]}),
    ],
)
async def test_other_requests_are_not_logged(log: WireLog, scope: dict[str, Any], options: dict[str, Any]) -> None:
    answer = response_events(b"<html>", "text/html")
    await exchange_http(log, scope, request_events(b"{}"), answer, **options)
    assert len(log) == 0


@pytest.mark.anyio
async def test_a_post_that_is_no_json_is_malformed_and_an_aborted_one_is_nothing(log: WireLog) -> None:
    await exchange_http(log, http_scope(), request_events(b"{nonsense"), response_events(b"", "application/json"))
    assert [message.kind for message in log] == ["malformed"]
    log.clear()
    aborted = [*request_events(b"123456789")[:1], {"type": "http.disconnect"}]
    await exchange_http(log, http_scope(), aborted, [])
    assert len(log) == 0


def test_server_sent_events_that_are_no_messages() -> None:
    parser = SseParser()
    events = (
        sse_message("/messages?id=1", "endpoint"),
        "id: 1\ndata:\n\n",
        "retry: 5\n\n",
        "data:1\ndata: 2\n\n",
    )
    assert list(parser.feed(sse(*events, "data: unfinished\n"))) == ["1\n2"]


@pytest.mark.anyio
async def test_a_websocket_is_logged(log: WireLog) -> None:
    inbound = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": json.dumps(REQUEST)}]
    outbound = [
        {"type": "websocket.accept"},
        {"type": "websocket.send", "bytes": json.dumps(RESPONSE).encode()},
    ]
    await exchange_http(log, {"type": "websocket", "path": "/ws", "headers": []}, inbound, outbound)
    assert [message.kind for message in log] == ["request", "response"]


@asynccontextmanager
async def uvicorn_server(app: Any) -> AsyncIterator[str]:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await anyio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True


def http_client(name: str, url: str) -> Any:
    import mcp.client.sse
    import mcp.client.streamable_http as streamable

    if name == "sse":
        return mcp.client.sse.sse_client(f"{url}/sse")
    connect = getattr(streamable, "streamable_http_client", None) or streamable.streamablehttp_client
    return connect(f"{url}/mcp")


@pytest.mark.anyio
@pytest.mark.parametrize("transport", ["streamable_http", "sse"])
async def test_a_session_with_a_real_http_server_is_logged(log: WireLog, transport: str) -> None:
    from mcp import ClientSession

    server = make_server()
    app = server.sse_app() if transport == "sse" else server.streamable_http_app()
    with anyio.fail_after(LIMIT):
        async with (
            uvicorn_server(WireLogASGI(app, log)) as url,
            http_client(transport, url) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            result = await session.call_tool("add", {"a": 1, "b": 2})
    assert result.content[0].text == "3"
    assert_is_the_log_of_a_call(log)
    if transport == "streamable_http":
        (call,) = log.select(method="tools/call")
        assert call.headers is not None
        assert call.headers["mcp-session-id"]


# --- stdio --------------------------------------------------------------------------------------------------

STDIO_SERVER = """
try:
    from mcp.server.fastmcp import FastMCP as Server
except ModuleNotFoundError:
    from mcp.server.mcpserver import MCPServer as Server
server = Server("test")

@server.tool()
def add(a: int, b: int) -> int:
    return a + b

server.run("stdio")
"""


@pytest.fixture
def tee(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a Python script behind the tee."""
    started: list[subprocess.Popen[bytes]] = []

    def start(script: str) -> subprocess.Popen[bytes]:
        command = tee_command(tmp_path / "wire.jsonl", sys.executable, "-c", textwrap.dedent(script))
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0))
        return started[-1]

    yield start
    for process in started:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.kill()
        process.wait()


def logged_lines(tmp_path: Path) -> list[tuple[str, str]]:
    entries = [json.loads(line) for line in (tmp_path / "wire.jsonl").read_text().splitlines()]
    return [(entry["direction"], entry["line"]) for entry in entries]


@pytest.mark.anyio
async def test_a_session_with_a_real_stdio_server_is_logged(tmp_path: Path) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    command, *arguments = tee_command(tmp_path / "wire.jsonl", sys.executable, "-c", STDIO_SERVER)
    with anyio.fail_after(LIMIT):
        async with (
            stdio_client(StdioServerParameters(command=command, args=arguments)) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            result = await session.call_tool("add", {"a": 1, "b": 2})
    assert result.content[0].text == "3"
    assert_is_the_log_of_a_call(read_stdio_log(tmp_path / "wire.jsonl"))


def test_bytes_pass_as_they_are(tee: Any, tmp_path: Path) -> None:
    process = tee("import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)")
    data = b"plain\r\n\n\xff\xfe bin\x00ary\n" + b"x" * 3_000_000 + b"\nno end"
    threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.close())).start()
    received = b"".join(iter(lambda: process.stdout.read(65536), b""))
    assert received == data
    assert process.wait(LIMIT) == 0
    for direction in (TO_SERVER, TO_CLIENT):
        lines = [line for to, line in logged_lines(tmp_path) if to == direction]
        assert "\n".join(lines).encode("utf-8", "surrogateescape") == data


def test_nothing_waits_for_the_end_of_a_line_or_a_buffer(tee: Any, tmp_path: Path) -> None:
    process = tee(
        """
        import os
        os.write(1, b"name? ")
        while chunk := os.read(0, 100):
            os.write(1, chunk.upper())
        """
    )
    assert process.stdout.read(6) == b"name? "
    for piece in (b"a", b"b", b"c\n"):
        process.stdin.write(piece)
        assert process.stdout.read(len(piece)) == piece.upper()
    # Whoever has read a line finds it in the log.
    assert logged_lines(tmp_path) == [(TO_SERVER, "abc"), (TO_CLIENT, "name? ABC")]
    process.stdin.close()
    assert process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("import sys; sys.stdin.read(); sys.exit(7)", 7, id="after the end of stdin"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, id="by a signal"),
    ],
)
def test_the_exit_code_is_the_commands(tee: Any, script: str, code: int) -> None:
    process = tee(script)
    process.stdin.close()
    assert process.wait(LIMIT) == code


def test_a_command_that_ends_by_itself_ends_the_tee(tee: Any) -> None:
    process = tee("print('bye'); raise SystemExit(3)")
    assert process.wait(LIMIT) == 3
    assert process.stdout.read() == b"bye" + os.linesep.encode()


def test_a_signal_is_passed_on(tee: Any) -> None:
    process = tee(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
        """
    )
    assert process.stdout.read(5) == b"ready"
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 5


def test_a_command_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio_tee, "GRACE", 0.1)
    monkeypatch.setattr(stdio_tee, "KILL_AFTER", 0.1)
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"{ignore}; print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.read(1)
        begun = time.monotonic()
        stdio_tee.end(child)
        assert child.wait(LIMIT) == -signal.SIGKILL
        assert 0.2 <= time.monotonic() - begun < LIMIT


def test_a_wrong_command_line_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert stdio_tee.main(["wire.jsonl", "python"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "LOGFILE -- command" in err


def test_a_log_that_is_still_being_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "wire.jsonl"
    assert len(read_stdio_log(path)) == 0
    lines = [(TO_SERVER, json.dumps(REQUEST)), (TO_SERVER, " "), (TO_CLIENT, "Starting...")]
    entries = [json.dumps({"direction": direction, "line": line}) for direction, line in lines]
    path.write_text("\n".join(entries) + '\n{"direction": "client->')
    assert shape(read_stdio_log(path)) == [
        (TO_SERVER, "request", "tools/call", 0),
        (TO_CLIENT, "malformed", "", None),
    ]
