"""The official TypeScript SDK on the other side of the wire, in both roles."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.trace import SpanKind

from support import sdk
from support.conformance import assert_conformant, message_spans
from support.sink import OtlpSink
from support.wire import (
    TO_CLIENT,
    TO_SERVER,
    Direction,
    WireLog,
    WireLogASGI,
    WireMessage,
    read_stdio_log,
    tee_command,
)
from typescript.peers import Node, http_server
from typescript.proxy import Proxy
from typescript.python_server import build

pytestmark = pytest.mark.anyio

HERE = Path(__file__).resolve().parent
GUIDE = HERE.parent.parent / "docs" / "typescript.md"
INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
KEYS = ("traceparent", "tracestate", "baggage")
HAS_ELICITATION = sdk.VERSION >= (1, 10)
Where = tuple[int, int] | None

FIRST = ("initialize", "server/discover")
"""What comes before there are a session and a revision."""


# --- one side of the wire -----------------------------------------------------------------------------------


def parse(traceparent: Any) -> Where:
    if not isinstance(traceparent, str):
        return None
    _, trace_id, span_id, _ = traceparent.split("-")
    return int(trace_id, 16), int(span_id, 16)


def carried(message: WireMessage) -> Where:
    """The context that a message names: in its `_meta`, or else in its HTTP headers."""
    return parse(message.meta.get("traceparent") or (message.headers or {}).get("traceparent"))


def where(context: Any) -> Where:
    return (context.trace_id, context.span_id) if context is not None else None


def key(span: Any) -> tuple[str, Any]:
    return span.attributes["mcp.method.name"], span.attributes.get("jsonrpc.request.id")


def assert_one_side(wire: Iterable[WireMessage], spans: Iterable[Any], sends: Direction) -> None:
    """One CLIENT span for each message that our side sent, one SERVER span for each that it received, and no others.

    What was sent names its own CLIENT span; the SERVER span's parent is what the received message names.
    """
    messages = [message for message in wire if message.is_call]
    spans = list(message_spans(spans))

    def expected(sent: bool) -> Counter[Any]:
        return Counter(
            (message.method, None if message.id is None else str(message.id), carried(message))
            for message in messages
            if (message.direction == sends) is sent
        )

    clients = Counter((*key(span), where(span.context)) for span in spans if span.kind is SpanKind.CLIENT)
    servers = Counter((*key(span), where(span.parent)) for span in spans if span.kind is SpanKind.SERVER)
    assert spans and len(spans) == sum(clients.values()) + sum(servers.values())
    assert_same(clients, expected(sent=True), "CLIENT spans and messages sent")
    assert_same(servers, expected(sent=False), "SERVER spans and messages received")


def assert_same(spans: Counter[Any], messages: Counter[Any], what: str) -> None:
    assert spans == messages, f"{what} differ:\nspans only {spans - messages}\nmessages only {messages - spans}"


def assert_transport(spans: Iterable[Any], transport: str) -> None:
    """What is known of the connection is on every span."""
    spans = list(message_spans(spans))
    sessions = {span.attributes.get("mcp.session.id") for span in spans if span.name not in FIRST}
    for span in spans:
        assert span.attributes["network.transport"] == ("pipe" if transport == "stdio" else "tcp"), span.name
        assert "mcp.protocol.version" in span.attributes or span.name in FIRST, span.name
    assert len(sessions) == 1 and (None in sessions) is (transport not in ("http", "http-json", "sse")), sessions


# --- the TypeScript client and our server -------------------------------------------------------------------

GIVEN = {
    "traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
    "tracestate": "vendor=1",
    "baggage": "user.tier=gold",
    "com.example/kept": "yes",
}


class Outcome:
    """What the TypeScript client printed, and the messages that went over the wire."""

    def __init__(self, printed: str, wire: WireLog) -> None:
        seen = json.loads(printed)
        self.results: dict[str, Any] = seen["results"]
        self.context_of_handler: dict[str, Any] = seen["contextOfHandler"]
        self.received: list[dict[str, Any]] = seen["received"]
        self.wire = wire

    @property
    def flow(self) -> tuple[dict[str, Any], list[Any], list[tuple[str, str]]]:
        """All that an instrumentation must not change: results, what the server asked, messages on the wire."""
        asked = [
            (one["method"], {name: value for name, value in one["meta"].items() if name not in KEYS})
            for one in self.received
        ]
        wire = Counter((message.direction, message.method) for message in self.wire.calls)
        return self.results, sorted(asked, key=str), sorted(wire.elements())


def asks(transport: str) -> bool:
    """Whether a server can ask its client something."""
    return transport in ("stdio", "http", "sse")


async def client_over_http(
    node: Node,
    transport: str,
    middleware: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Outcome:
    log = WireLog()
    app = WireLogASGI(sdk.http_app(build(), transport), log)
    async with sdk.serve(middleware(app) if middleware else app) as base_url:
        kind, path = ("sse", "/sse") if transport == "sse" else ("http", "/mcp")
        wanted = {"transport": kind, "url": base_url + path, "asks": asks(transport), **options}
        printed = await node.run("client.mjs", json.dumps(wanted))
    return Outcome(printed, log)


async def client_over_stdio(
    node: Node, log_file: Path, *prefix: str, env: dict[str, str] | None = None, **options: Any
) -> Outcome:
    command = tee_command(log_file, *prefix, sys.executable, str(HERE / "python_server.py"))
    wanted = {"transport": "stdio", "command": command, "env": env or {}, "asks": True, **options}
    printed = await node.run("client.mjs", json.dumps(wanted))
    return Outcome(printed, read_stdio_log(log_file))


def assert_client_did_all(outcome: Outcome, transport: str) -> None:
    results = outcome.results
    assert results["tool"]["content"] == [{"type": "text", "text": "3"}]
    assert results["tool error"]["isError"] is True
    assert results["unknown method"]["code"] == (-32601 if sdk.SDK2 else -32602)
    assert results["complete"]["completion"]["values"] == ["Ada", "Alan"]
    assert [one["content"][0]["text"] for one in results["concurrent"]] == ["2", "4", "6", "8", "10"]
    asked = Counter(one["method"] for one in outcome.received)
    # SDK 1.9 does not say which call the progress is of: a stateless server has nowhere to send it.
    steps = 2 if sdk.VERSION >= (1, 10) or transport != "http-stateless" else 0
    assert (asked["notifications/progress"], asked["notifications/message"]) == (steps, 1)
    if asks(transport):
        assert results["sample"]["content"][0]["text"] == "sampled: hello?"
        assert results["roots"]["content"][0]["text"] == "1"
        assert (asked["sampling/createMessage"], asked["roots/list"], asked["ping"]) == (1, 1, 1)
        assert asked["elicitation/create"] == HAS_ELICITATION


def assert_given(outcome: Outcome) -> None:
    """The handler ran in the trace that the program itself had put into `_meta`, with its baggage."""
    assert outcome.context_of_handler["trace_id"] == GIVEN["traceparent"].split("-")[1]
    assert outcome.context_of_handler["span_id"] != GIVEN["traceparent"].split("-")[2]
    assert outcome.context_of_handler["baggage"] == {"user.tier": "gold"}


@pytest.mark.parametrize("transport", ["http", "http-stateless", "http-json", "sse"])
async def test_client_over_http(node: Node, instrument: Any, recorder: Any, transport: str) -> None:
    """A context in `_meta` is continued, message by message, in both directions; and the messages flow as before."""
    before = await client_over_http(node, transport, context="meta")
    assert not message_spans(recorder.spans)
    instrument()
    outcome = await client_over_http(node, transport, context="meta")
    assert outcome.flow == before.flow
    if transport != "http-json":
        # There is no way for a notification in one JSON answer.
        assert_client_did_all(outcome, transport)
    assert_one_side(outcome.wire, recorder.spans, TO_CLIENT)
    assert all(carried(message) for message in outcome.wire.calls)
    assert_transport(recorder.spans, transport)


async def test_client_over_stdio(node: Node, tmp_path: Path) -> None:
    """The same, with a server that was started as `opentelemetry-instrument python server.py`."""
    before = await client_over_stdio(node, tmp_path / "before.jsonl", context="meta")
    with OtlpSink() as sink:
        env = {**sink.environment("server"), "OTEL_LOGS_EXPORTER": "none"}
        outcome = await client_over_stdio(
            node, tmp_path / "wire.jsonl", INSTRUMENT, env=env, context="meta", given=GIVEN
        )
        spans = sink.spans()
    assert_client_did_all(outcome, "stdio")
    assert_given(outcome)
    # The call with the given context is one more.
    assert outcome.flow[:2] == before.flow[:2]
    assert_one_side(outcome.wire, spans, TO_CLIENT)
    assert all(carried(message) for message in outcome.wire.calls)
    assert_transport(spans, "stdio")
    assert_conformant(spans)


@pytest.mark.parametrize(
    ("transport", "context"), [("http", "headers"), ("http-stateless", "headers"), ("http", "both"), ("http", "none")]
)
async def test_client_context_elsewhere(node: Node, instrumented: Any, transport: str, context: str) -> None:
    """A context in the HTTP headers is continued unless `_meta` names another; without any a message is a root."""
    outcome = await client_over_http(node, transport, context=context, given=GIVEN)
    assert_client_did_all(outcome, transport)
    assert_given(outcome)
    assert_one_side(outcome.wire, instrumented.spans, TO_CLIENT)
    received = [message for message in outcome.wire.calls if message.direction == TO_SERVER]
    assert sum("traceparent" in (message.headers or {}) for message in received) == (context != "none") * len(received)
    # The one with `_meta` of its own is the call with the given context.
    assert sum("traceparent" in message.meta for message in received) == (len(received) if context == "both" else 1)


async def test_client_with_asgi_spans(node: Node, instrumented: Any) -> None:
    """With spans of HTTP requests: `_meta` is the parent, and the request that carried the message is linked."""

    def with_spans(app: Any) -> Any:
        return OpenTelemetryMiddleware(app, tracer_provider=instrumented.tracer_provider)

    outcome = await client_over_http(node, "http", with_spans, context="both")
    assert_one_side(outcome.wire, instrumented.spans, TO_CLIENT)
    requests = {where(span.context): span for span in instrumented.spans if span not in instrumented.ours}
    servers = [span for span in instrumented.ours if span.kind is SpanKind.SERVER]
    headers = {carried(message): parse((message.headers or {})["traceparent"]) for message in outcome.wire.calls
               if message.direction == TO_SERVER}  # fmt: skip
    for span in servers:
        (link,) = span.links
        request = requests[where(link.context)]
        assert where(request.parent) == headers[where(span.parent)], span.name


# --- our client and TypeScript servers ----------------------------------------------------------------------


class Callbacks(sdk.Callbacks):
    async def elicitation(self, context: Any, params: Any) -> Any:
        self.note("elicitation")
        return sdk.types.ElicitResult(action="accept", content={"answer": "yes"})

    def keywords(self) -> dict[str, Any]:
        return {**super().keywords(), **({"elicitation_callback": self.elicitation} if HAS_ELICITATION else {})}


class Wire:
    """The messages of the connections to a TypeScript server, wherever they are written down."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "wire.jsonl"
        self.over_http = WireLog()

    @property
    def calls(self) -> list[WireMessage]:
        return [*self.over_http.calls, *read_stdio_log(self.file).calls]

    @property
    def flow(self) -> Counter[tuple[str, str]]:
        return Counter((message.direction, message.method) for message in self.calls)

    def clear(self) -> None:
        self.over_http.clear()
        self.file.unlink(missing_ok=True)


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    return Wire(tmp_path)


@asynccontextmanager
async def connected(command: list[str], transport: str, era: str, wire: Wire) -> AsyncIterator[sdk.Peer]:
    """Our client and a TypeScript server in a process of its own, over a connection that is logged."""
    async with AsyncExitStack() as stack:
        if transport == "stdio":
            from mcp.client.stdio import stdio_client

            parameters = sdk.stdio_parameters(*tee_command(wire.file, *command))
            streams = await stack.enter_async_context(stdio_client(parameters))
        else:
            target = await stack.enter_async_context(http_server(command))
            proxy = await stack.enter_async_context(Proxy(target))
            base_url = await stack.enter_async_context(sdk.serve(WireLogASGI(proxy, wire.over_http)))
            stack.push_async_callback(proxy.drained)
            streams = await stack.enter_async_context(sdk.http_streams(base_url, transport))
        yield await stack.enter_async_context(sdk._session(streams, Callbacks(), era))


async def came(awaitable: Awaitable[Any]) -> Any:
    """A result as on the wire, or the error."""
    try:
        result = await awaitable
    except sdk.McpError as error:
        return error.error.code, error.error.message
    return result.model_dump(by_alias=True, mode="json", exclude_none=True) if result is not None else None


async def use(peer: sdk.Peer, transport: str) -> dict[str, Any]:
    """Everything our client can do with server.mjs."""
    session = peer.session
    reference = sdk.types.PromptReference(type="ref/prompt", name="greet")
    results = {
        "list tools": await came(session.list_tools()),
        "list resources": await came(session.list_resources()),
        "list templates": await came(session.list_resource_templates()),
        "list prompts": await came(session.list_prompts()),
        "tool": await came(peer.call("add", {"a": 1, "b": 2})),
        "tool error": await came(peer.call("fail", {"text": "lost"})),
        "unknown tool": await came(peer.call("no-such-tool")),
        "bad arguments": await came(peer.call("add", {"a": "one"})),
        "read": await came(peer.read("res://greeting")),
        "read template": await came(peer.read("res://items/7")),
        "read unknown": await came(peer.read("res://no-such-resource")),
        "prompt": await came(session.get_prompt("greet", {"name": "Ada"})),
        "unknown prompt": await came(session.get_prompt("no-such-prompt")),
        "complete": await came(session.complete(reference, {"name": "name", "value": "A"})),
        "ping": await came(session.send_ping()),
        "unknown method": await came(peer.request("example/unknown")),
        "progress": await came(peer.call("progress", {"steps": 2}, progress=True)),
        "log": await came(peer.call("log")),
    }
    concurrent: dict[int, Any] = {}

    async def add(number: int) -> None:
        concurrent[number] = await came(peer.call("add", {"a": number, "b": number}))

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(add, number)
    results["concurrent"] = sorted(concurrent.items())
    if asks(transport):
        results["sample"] = await came(peer.call("sample"))
        results["roots"] = await came(peer.call("roots"))
        results["ping client"] = await came(peer.call("ping_client"))
        if HAS_ELICITATION:
            results["elicit"] = await came(peer.call("elicit"))
        await session.send_roots_list_changed()
        results["after the change"] = await came(peer.call("add", {"a": 3, "b": 4}))
    return results


@pytest.mark.parametrize("era", sdk.ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http", "http-stateless"])
async def test_server(node: Node, instrument: Any, recorder: Any, wire: Wire, transport: str, era: str) -> None:
    """Spans for what we send and for what the server sends, whose context is continued; and all flows as before."""
    command = node.command("server.mjs", transport)
    async with connected(command, transport, era, wire) as peer:
        before = await use(peer, transport)
    flow = wire.flow
    assert not message_spans(recorder.spans)
    wire.clear()
    instrument()
    async with connected(command, transport, era, wire) as peer:
        assert await use(peer, transport) == before
    assert wire.flow == flow

    assert before["tool"]["content"][0]["text"] == "3"
    assert before["tool error"]["isError"] is True
    assert before["unknown tool"]["isError"] is before["bad arguments"]["isError"] is True
    assert before["unknown method"][0] == -32601
    assert before["complete"]["completion"]["values"] == ["Ada", "Alan"]
    if asks(transport):
        assert before["sample"]["content"][0]["text"] == "sampled"
        for method in ("sampling/createMessage", "roots/list", "ping", "notifications/progress"):
            assert flow[TO_CLIENT, method], method

    assert_one_side(wire.calls, recorder.spans, TO_SERVER)
    assert all(carried(message) for message in wire.calls)
    assert_transport(recorder.spans, transport)
    assert recorder.one("tools/call no-such-tool", "CLIENT").attributes["error.type"] == "tool_error"
    if asks(transport):
        # What the server asked while it handled a call of ours is in that call's trace.
        call, asked = recorder.one("tools/call sample", "CLIENT"), recorder.one("sampling/createMessage", "SERVER")
        assert call.context.trace_id == asked.context.trace_id


@pytest.mark.parametrize("transport", ["stdio", "http", "http-stateless"])
async def test_server_sees_our_context(node: Node, instrumented: Any, wire: Wire, transport: str) -> None:
    """In `_meta`, and over HTTP in the headers of the message's own POST."""
    token = otel_context.attach(baggage.set_baggage("user.tier", "gold"))
    try:
        async with connected(node.command("server.mjs", transport), transport, "legacy", wire) as peer:
            seen = json.loads(await peer.text("report"))
    finally:
        otel_context.detach(token)
    (span,) = instrumented.find("tools/call report", "CLIENT")
    assert parse(seen["meta"]["traceparent"]) == where(span.context)
    assert seen["meta"]["baggage"] == "user.tier=gold"
    if transport != "stdio":
        assert parse(seen["headers"]["traceparent"]) == where(span.context)
        assert seen["headers"]["baggage"] == "user.tier=gold"


# --- our client and the reference server --------------------------------------------------------------------


async def logged(peer: sdk.Peer, times: int) -> None:
    """The server told the client of what it did by itself: over HTTP that may be after the next answer."""
    with anyio.fail_after(20):
        while [what for what, _ in peer.callbacks.seen].count("logging") < times:
            await anyio.sleep(0.02)


async def use_everything(peer: sdk.Peer) -> dict[str, Any]:
    """A walk through the reference server, once it has asked for our roots: only then it has all its tools."""
    session = peer.session
    await logged(peer, 1)
    reference = sdk.types.PromptReference(type="ref/prompt", name="completable-prompt")
    results = {
        "list tools": await came(session.list_tools()),
        "list prompts": await came(session.list_prompts()),
        "list templates": await came(session.list_resource_templates()),
        "echo": await came(peer.call("echo", {"message": "hello"})),
        "sum": await came(peer.call("get-sum", {"a": 1, "b": 2})),
        "structured": await came(peer.call("get-structured-content", {"location": "Chicago"})),
        "image": await came(peer.call("get-tiny-image")),
        "unknown tool": await came(peer.call("no-such-tool")),
        "progress": await came(
            peer.call("trigger-long-running-operation", {"duration": 0.2, "steps": 2}, progress=True)
        ),
        "roots": await came(peer.call("get-roots-list")),
        "sample": await came(peer.call("trigger-sampling-request", {"prompt": "hello?", "maxTokens": 10})),
        "prompt": await came(session.get_prompt("args-prompt", {"city": "Paris"})),
        "complete": await came(session.complete(reference, {"name": "department", "value": "E"})),
        "ping": await came(session.send_ping()),
    }
    resources = await session.list_resources()
    results["resources"] = await came(peer.read(str(resources.resources[0].uri)))
    results["subscribe"] = await came(peer.subscribe(str(resources.resources[0].uri)))
    await logged(peer, 2)
    if HAS_ELICITATION:
        results["elicit"] = await came(peer.call("trigger-elicitation-request"))
    return results


@pytest.mark.parametrize("transport", ["stdio", "http", "sse"])
async def test_reference_server(node: Node, instrument: Any, recorder: Any, wire: Wire, transport: str) -> None:
    """It knows nothing of trace contexts: what it sends by itself begins traces of its own."""
    command = node.everything("streamableHttp" if transport == "http" else transport)
    async with connected(command, transport, "legacy", wire) as peer:
        before = await use_everything(peer)
    wire.clear()
    instrument()
    async with connected(command, transport, "legacy", wire) as peer:
        assert await use_everything(peer) == before
    assert "LLM sampling result" in before["sample"]["content"][0]["text"]
    assert before["complete"]["completion"]["values"] == ["Engineering"]
    assert wire.flow[TO_CLIENT, "notifications/progress"] == 2
    assert_one_side(wire.calls, recorder.spans, TO_SERVER)
    assert all(bool(carried(message)) is (message.direction == TO_SERVER) for message in wire.calls)
    assert_transport(recorder.spans, transport)


# --- the second generation of the TypeScript SDK ------------------------------------------------------------

V2_MODE = {"legacy": "legacy", "modern": "auto"}


@pytest.mark.parametrize("era", sdk.ERAS)
async def test_client_v2(node: Node, instrument: Any, recorder: Any, era: str) -> None:
    """It hands over a context in the `_meta` of its requests; what it sends without is a root."""

    async def outcome() -> Outcome:
        log = WireLog()
        async with sdk.serve(WireLogASGI(sdk.http_app(build(), "http"), log)) as base_url:
            wanted = {"url": f"{base_url}/mcp", "mode": V2_MODE[era]}
            return Outcome(await node.run("client_v2.mjs", json.dumps(wanted)), log)

    before = await outcome()
    assert not message_spans(recorder.spans)
    instrument()
    after = await outcome()
    assert after.flow == before.flow
    assert after.results["tool"]["content"] == [{"type": "text", "text": "3"}]
    assert after.context_of_handler["baggage"] == {"user.tier": "gold"}
    modern = {method for direction, method in after.flow[2] if direction == TO_SERVER} & {"server/discover"}
    assert bool(modern) is (era == "modern")
    assert_one_side(after.wire, recorder.spans, TO_CLIENT)


@pytest.mark.parametrize("transport", ["stdio", "http"])
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_server_v2(node: Node, instrument: Any, recorder: Any, wire: Wire, transport: str, era: str) -> None:
    """It sees our context, and what it sends with one continues it."""

    async def use_v2(peer: sdk.Peer) -> dict[str, Any]:
        results = {
            "list tools": await came(peer.session.list_tools()),
            "tool": await came(peer.call("add", {"a": 1, "b": 2})),
            "tool error": await came(peer.call("fail", {"text": "lost"})),
            "unknown tool": await came(peer.call("no-such-tool")),
            "progress": await came(peer.call("progress", {"steps": 2}, progress=True)),
            "read": await came(peer.read("res://greeting")),
            "prompt": await came(peer.session.get_prompt("greet", {"name": "Ada"})),
        }
        if era == "modern":
            results["elicit"] = await came(peer.client.call_tool("elicit"))
        return results

    command = node.command("server_v2.mjs", transport)
    async with connected(command, transport, era, wire) as peer:
        before = await use_v2(peer)
    flow = wire.flow
    wire.clear()
    instrument()
    async with connected(command, transport, era, wire) as peer:
        assert await use_v2(peer) == before
        assert wire.flow == flow
        seen = json.loads(await peer.text("report"))
    assert before["tool"]["content"][0]["text"] == "3"
    if era == "modern":
        assert before["elicit"]["content"][0]["text"] == "accept"
        question, answer = recorder.find("tools/call elicit", "CLIENT")
        assert [where(link.context) for link in answer.links] == [where(question.context)]
    call = recorder.one("tools/call report", "CLIENT")
    assert parse(seen["meta"]["traceparent"]) == where(call.context)
    if transport == "http":
        assert parse(seen["headers"]["traceparent"]) == where(call.context)
    assert_one_side(wire.calls, recorder.spans, TO_SERVER)
    assert all(carried(message) for message in wire.calls)


# --- the programs of the guide ------------------------------------------------------------------------------


@pytest.fixture
def guide(node: Node) -> Node:
    """The programs in docs/typescript.md, as files."""
    programs = re.findall(
        r"^```js\n// (\S+\.mjs)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert [name for name, _ in programs] == ["tracing.mjs", "traced-server.mjs", "traced-client.mjs"]
    for name, program in programs:
        (node.folder / name).write_text(program, encoding="utf-8")
    return node


def by_name(spans: Iterable[Any], name: str, kind: SpanKind) -> Any:
    (span,) = [span for span in spans if (span.name, span.kind) == (name, kind)]
    return span


async def test_server_of_the_guide(guide: Node, instrumented: Any) -> None:
    """Spans of both languages, one below the other, there and back."""
    from mcp.client.stdio import stdio_client

    with OtlpSink() as sink:
        parameters = sdk.stdio_parameters(*guide.command("traced-server.mjs"), env=sink.environment("typescript"))
        async with stdio_client(parameters) as streams, sdk._session(streams, Callbacks(), "legacy") as peer:
            assert await peer.text("summarize") == "sampled"
            # The SDK 1.9 kills its server at once.
            await anyio.to_thread.run_sync(sink.wait_for, lambda sink: len(sink.spans()) == 2)
        theirs = sink.spans()
    chain = [
        by_name(instrumented.ours, "tools/call summarize", SpanKind.CLIENT),
        by_name(theirs, "tools/call summarize", SpanKind.SERVER),
        by_name(theirs, "sampling/createMessage", SpanKind.CLIENT),
        by_name(instrumented.ours, "sampling/createMessage", SpanKind.SERVER),
    ]
    assert [where(span.parent) for span in chain] == [None, *(where(span.context) for span in chain[:-1])]


async def test_client_of_the_guide(guide: Node, instrumented: Any) -> None:
    with OtlpSink() as sink:
        async with sdk.serve(sdk.http_app(build(), "http")) as base_url:
            await guide.run("traced-client.mjs", f"{base_url}/mcp", **sink.environment("typescript"))
        (theirs,) = sink.spans()
    assert (theirs.name, theirs.kind) == ("tools/call add", SpanKind.CLIENT)
    ours = by_name(instrumented.ours, "tools/call add", SpanKind.SERVER)
    assert where(ours.parent) == where(theirs.context)
