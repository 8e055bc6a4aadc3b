"""Parents, links, baggage and headers, with the real OpenTelemetry instrumentations of ASGI and httpx around us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan

from conftest import Instrument, Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor
from support import sdk
from support.wire import WireLog, WireLogASGI, tap_streams

pytestmark = pytest.mark.anyio

BAGGAGE = {"user.tier": "gold"}
ASGI = "opentelemetry.instrumentation.asgi"
HTTPX = "opentelemetry.instrumentation.httpx"


def http_client_instrumentors() -> list[Any]:
    if not sdk.SDK2:
        return [HTTPXClientInstrumentor()]
    from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor

    return [HTTPX2ClientInstrumentor()]


@pytest.fixture
def http_clients_traced(recorder: Recorder) -> Iterator[None]:
    instrumentors = http_client_instrumentors()
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=recorder.tracer_provider, skip_dep_check=True)
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def traced_asgi(recorder: Recorder) -> Any:
    def middleware(app: Any) -> Any:
        return OpenTelemetryMiddleware(app, tracer_provider=recorder.tracer_provider)

    return middleware


def by_id(spans: list[ReadableSpan]) -> dict[int, ReadableSpan]:
    return {span.context.span_id: span for span in spans if span.context}


def parent_of(span: ReadableSpan, spans: dict[int, ReadableSpan]) -> ReadableSpan | None:
    return spans.get(span.parent.span_id) if span.parent else None


def scope_of(span: ReadableSpan | None) -> str:
    return span.instrumentation_scope.name if span is not None and span.instrumentation_scope else "none"


@pytest.mark.parametrize("transport", sdk.HTTP_TRANSPORTS)
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_http_spans_belong_to_their_message(
    instrumented: Recorder, http_clients_traced: None, transport: str, era: str
) -> None:
    """Rules 1, 3 and 5: `_meta` is the parent, this message's own POST is linked and hangs below the CLIENT span."""
    tracer = instrumented.tracer()
    async with sdk.connect(transport, era=era, middleware=traced_asgi(instrumented)) as peer:
        await peer.session.list_tools()
        with tracer.start_as_current_span("agent"):
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(peer.call, "add", {"a": number, "b": 1})
        with tracer.start_as_current_span("another agent"):
            token = context.attach(baggage.set_baggage("user.tier", "gold"))
            seen = await peer.handler_context()
            context.detach(token)
        await anyio.sleep(0.1)

    spans = by_id(instrumented.spans)
    servers = [span for span in instrumented.ours if span.name == "tools/call add" and span.kind.name == "SERVER"]
    assert len(servers) == 5
    for server in servers:
        client = parent_of(server, spans)
        assert client is not None and client.name == "tools/call add" and client.kind.name == "CLIENT"
        agent = parent_of(client, spans)
        assert agent is not None and agent.name == "agent"
        assert len(server.links) == 1
        http_server = spans[server.links[0].context.span_id]
        assert (scope_of(http_server), http_server.kind.name) == (ASGI, "SERVER")
        http_client = parent_of(http_server, spans)
        assert http_client is not None and scope_of(http_client) == HTTPX
        assert parent_of(http_client, spans) is client, "the linked POST is not the one that carried this message"

    handler = instrumented.one("tools/call context", "SERVER")
    assert handler.context is not None
    assert seen["span_id"] == f"{handler.context.span_id:016x}"
    assert seen["baggage"] == BAGGAGE


@pytest.mark.parametrize("transport", sdk.HTTP_TRANSPORTS)
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_no_stale_parent(instrumented: Recorder, transport: str, era: str) -> None:
    """Rule 4: what was current when the session was opened is nobody's parent and nobody's baggage."""
    app = traced_asgi(instrumented)(sdk.http_app(sdk.build_server(), transport))
    async with AsyncExitStack() as stack:
        # The server starts first: its tasks must not inherit what the client has open.
        url = await stack.enter_async_context(sdk.serve(app))
        with instrumented.tracer().start_as_current_span("opening"):
            token = context.attach(baggage.set_baggage("opened", "long ago"))
            peer = await stack.enter_async_context(sdk.connect(transport, era=era, base_url=url))
            context.detach(token)
        seen = await peer.handler_context()
    opening = instrumented.one("opening")
    call = instrumented.one("tools/call context", "CLIENT")
    assert call.parent is None and call.context is not None and opening.context is not None
    assert seen["trace_id"] == f"{call.context.trace_id:032x}" != f"{opening.context.trace_id:032x}"
    assert seen["baggage"] == {}


@pytest.mark.parametrize("transport", sdk.HTTP_TRANSPORTS)
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_post_carries_the_context_in_its_headers(instrumented: Recorder, transport: str, era: str) -> None:
    """Rule 5: without an HTTP client instrumentation the POST itself carries the CLIENT span's context."""
    log = WireLog()

    def middleware(app: Any) -> Any:
        return WireLogASGI(app, log)

    async with sdk.connect(transport, era=era, middleware=middleware) as peer:
        token = context.attach(baggage.set_baggage("user.tier", "gold"))
        await peer.call("add", {"a": 1, "b": 2})
        context.detach(token)
    call = instrumented.one("tools/call add", "CLIENT")
    sent = log.select(kind="request", method="tools/call")[0]
    assert sent.headers is not None and call.context is not None
    assert sent.headers["traceparent"].split("-")[1:3] == [
        f"{call.context.trace_id:032x}",
        f"{call.context.span_id:016x}",
    ]
    assert sent.headers["traceparent"] == sent.meta["traceparent"]
    assert sent.headers["baggage"] == sent.meta["baggage"] == "user.tier=gold"


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "0"},
    },
}
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.mark.parametrize("traced", [False, True], ids=["plain", "asgi-traced"])
async def test_header_is_the_parent_without_meta(instrumented: Recorder, traced: bool) -> None:
    """Rule 2: the ambient HTTP span, else the `traceparent` header of the request that carried the message."""
    app = sdk.http_app(sdk.build_server(), "http-stateless")
    if traced:
        app = traced_asgi(instrumented)(app)
    headers = {**HEADERS, "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "baggage": "user.tier=gold"}
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "context", "arguments": {}}}
    async with sdk.serve(app) as url, httpx.AsyncClient(follow_redirects=True) as client:
        answer = await client.post(f"{url}/mcp", json=call, headers=headers)
    assert answer.status_code == 200
    server = instrumented.one("tools/call context", "SERVER")
    assert server.parent is not None and server.context is not None
    assert f"{server.context.trace_id:032x}" == TRACE_ID
    if traced:
        parent = parent_of(server, by_id(instrumented.spans))
        assert parent is not None and scope_of(parent) == ASGI
    else:
        assert f"{server.parent.span_id:016x}" == SPAN_ID
    assert not server.links
    assert "user.tier" in answer.text and "gold" in answer.text


async def test_gateway_sends_its_own_span(instrumented: Recorder) -> None:
    """Rule 6: a program that forwards the `_meta` it received sends the context of its own span."""
    log = WireLog()
    async with sdk.connect("memory", tap=lambda streams: tap_streams(log, *streams)) as peer:
        tracer = instrumented.tracer()
        with tracer.start_as_current_span("gateway"):
            params = {
                "name": "add",
                "arguments": {"a": 1, "b": 1},
                "_meta": {
                    "traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01",
                    "tracestate": "vendor=stale",
                    "baggage": "stale=yes",
                    "custom": "kept",
                },
            }
            before = {**params, "_meta": dict(params["_meta"])}
            await peer.request("tools/call", params)
            assert params == before, "the caller's dictionary was changed"
    sent = log.select(kind="request", method="tools/call")[0]
    call = instrumented.one("tools/call add", "CLIENT")
    assert call.context is not None
    assert sent.meta["traceparent"].split("-")[1:3] == [
        f"{call.context.trace_id:032x}",
        f"{call.context.span_id:016x}",
    ]
    assert sent.meta["custom"] == "kept"
    assert "tracestate" not in sent.meta and "baggage" not in sent.meta


async def test_callbacks_run_under_the_message_they_answer(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:
        token = context.attach(baggage.set_baggage("user.tier", "gold"))
        await peer.call("sample")
        await peer.call("roots")
        await peer.call("progress", {"steps": 1}, progress=True)
        await peer.call("log")
        context.detach(token)
        await anyio.sleep(0.05)
    expected = {
        "sampling": "sampling/createMessage",
        "roots": "roots/list",
        "progress": "notifications/progress",
        "logging": "notifications/message",
    }
    for what, method in expected.items():
        seen = [found for name, found in peer.callbacks.seen if name == what]
        server = instrumented.one(method, "SERVER")
        assert server.context is not None
        assert [found["span_id"] for found in seen] == [f"{server.context.span_id:016x}"], what
        assert seen[0]["baggage"] == BAGGAGE, what


@pytest.mark.parametrize("policy", ["parent", "link", "ignore"])
async def test_remote_parent_policy(instrument: Instrument, recorder: Recorder, policy: str) -> None:
    """Rule 7: a server that faces the public may refuse to be part of its callers' traces."""
    instrument(remote_parent=policy)
    async with sdk.connect("memory") as peer:
        await peer.call("add", {"a": 1, "b": 1})
    client, server = recorder.one("tools/call add", "CLIENT"), recorder.one("tools/call add", "SERVER")
    assert client.context is not None and server.context is not None
    joined = server.parent is not None and server.parent.span_id == client.context.span_id
    linked = [link.context.span_id for link in server.links] == [client.context.span_id]
    assert (joined, linked) == {"parent": (True, False), "link": (False, True), "ignore": (False, False)}[policy]


@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_without_an_opentelemetry_sdk_contexts_pass_through(transport: str) -> None:
    """A process that records nothing is no gap in the trace of others."""
    caller = trace.NonRecordingSpan(
        trace.SpanContext(int(TRACE_ID, 16), int(SPAN_ID, 16), is_remote=True, trace_flags=trace.TraceFlags(1))
    )
    McpInstrumentor().instrument(skip_dep_check=True)
    try:
        async with sdk.connect(transport) as peer:
            before = await peer.handler_context()
            token = context.attach(baggage.set_baggage("user.tier", "gold", trace.set_span_in_context(caller)))
            during = await peer.handler_context()
            context.detach(token)
            after = await peer.handler_context()
    finally:
        McpInstrumentor().uninstrument()
    assert during == {"trace_id": TRACE_ID, "span_id": SPAN_ID, "baggage": BAGGAGE}
    assert before["baggage"] == after["baggage"] == {}
    assert int(before["trace_id"], 16) == int(after["trace_id"], 16) == 0


async def test_an_opentelemetry_sdk_that_comes_late(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions opened before there was one record from then on what they send and handle."""
    McpInstrumentor().instrument(skip_dep_check=True)
    try:
        async with sdk.connect("memory") as peer:
            assert await peer.text("add", {"a": 1, "b": 1}) == "2"
            monkeypatch.setattr(trace, "_TRACER_PROVIDER", recorder.tracer_provider)
            assert await peer.text("add", {"a": 1, "b": 1}) == "2"
    finally:
        McpInstrumentor().uninstrument()
    client, server = recorder.one("tools/call add", "CLIENT"), recorder.one("tools/call add", "SERVER")
    assert server.parent is not None and client.context is not None
    assert server.parent.span_id == client.context.span_id


async def test_other_propagators(instrumented: Recorder) -> None:
    """What travels is up to the configured propagators, not to us."""
    from opentelemetry.propagators.composite import CompositePropagator

    configured = propagate.get_global_textmap()
    log = WireLog()
    try:
        propagate.set_global_textmap(CompositePropagator([]))
        async with sdk.connect("memory", tap=lambda streams: tap_streams(log, *streams)) as peer:
            await peer.call("add", {"a": 1, "b": 1})
    finally:
        propagate.set_global_textmap(configured)
    assert "traceparent" not in log.select(kind="request", method="tools/call")[0].meta
    assert instrumented.one("tools/call add", "SERVER").parent is None
    assert not trace.get_current_span().get_span_context().is_valid
