"""Living with the SDK's own telemetry, and with other instrumentations."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import anyio
import pytest
from opentelemetry import trace

from conftest import Instrument, Recorder
from support import sdk
from support.wire import WireLog, tap_streams

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not sdk.SDK2, reason="SDK 1.x emits no spans of its own"),
]

NATIVE = "mcp-python-sdk"


@pytest.fixture
def native(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The SDK's tracer records into the same exporter as ours."""
    from mcp.shared import _otel

    monkeypatch.setattr(_otel, "_tracer", recorder.tracer_provider.get_tracer(NATIVE))
    return recorder


def scopes(recorder: Recorder) -> Counter[tuple[str, str]]:
    return Counter(
        (span.instrumentation_scope.name, span.kind.name)
        for span in recorder.spans
        if span.instrumentation_scope is not None
    )


async def workload(transport: str, era: str, log: WireLog | None = None) -> None:
    def tap(streams: Any) -> Any:
        return tap_streams(log, *streams) if log is not None else streams

    async with sdk.connect(transport, era=era, tap=None if transport == "direct" else tap) as peer:
        await peer.session.list_tools()
        await peer.call("add", {"a": 1, "b": 1})
        await peer.call("fail")
        await peer.call("progress", progress=True)
        if era == "legacy":
            await peer.call("sample")
        await anyio.sleep(0.1)


@pytest.mark.parametrize("transport", ["memory", "http", "direct"])
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_replace(instrument: Instrument, native: Recorder, transport: str, era: str) -> None:
    instrument()
    await workload(transport, "modern" if transport == "direct" else era)
    assert not [scope for scope, _ in scopes(native) if scope == NATIVE]


@pytest.mark.parametrize("transport", ["memory", "http", "direct"])
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_keep(instrument: Instrument, native: Recorder, transport: str, era: str) -> None:
    """The SDK's spans stay, ours stand down where it has its own; metrics and propagation remain."""
    instrument(native_spans="keep")
    era = "modern" if transport == "direct" else era
    await workload(transport, era)
    spans = {span.context.span_id: span for span in native.spans if span.context}
    calls = [span for span in native.spans if (span.attributes or {}).get("mcp.method.name") == "tools/call"]
    per_request = Counter((span.kind.name, (span.attributes or {})["jsonrpc.request.id"]) for span in calls)
    assert per_request and set(per_request.values()) == {1}, per_request
    for span in calls:
        assert span.instrumentation_scope is not None
        if span.kind is trace.SpanKind.SERVER:
            assert span.instrumentation_scope.name == NATIVE
            assert span.parent is not None and span.parent.span_id in spans
    assert native.points("mcp.server.operation.duration")
    assert native.points("mcp.client.operation.duration")


async def test_phantom_listing_is_no_message(instrument: Instrument, native: Recorder) -> None:
    """Without an input schema at hand the SDK lists tools for itself; no such message was sent."""
    from mcp.server.lowlevel.server import Server

    async def list_tools(ctx: Any, params: Any) -> Any:
        return sdk.types.ListToolsResult(tools=[sdk.types.Tool(name="add", input_schema={"type": "object"})])

    async def call_tool(ctx: Any, params: Any) -> Any:
        return sdk.types.CallToolResult(content=[])

    instrument()
    server: Any = Server("phantom", on_list_tools=list_tools, on_call_tool=call_tool)
    app = server.streamable_http_app()
    async with sdk.serve(app) as url, sdk.connect("http", era="modern", base_url=url) as peer:
        await peer.call("add", {"a": 1})
    assert len(native.find("tools/call add", "SERVER")) == 1
    listings = native.find("tools/list", "SERVER")
    assert len(listings) == len(native.find("tools/list", "CLIENT"))
    assert all(span.parent is not None for span in listings)


async def test_reuses_the_span_of_an_agent_framework(instrument: Instrument, recorder: Recorder) -> None:
    instrument()
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"}
    async with sdk.connect("memory") as peer:
        with recorder.tracer().start_as_current_span("execute_tool add", attributes=attributes) as outer:
            await peer.call("add", {"a": 1, "b": 1})
            await peer.call("fail")
    assert not recorder.find("tools/call add", "CLIENT")
    assert recorder.find("tools/call fail", "CLIENT"), "another tool than the outer span's"
    server = recorder.one("tools/call add", "SERVER")
    assert server.parent is not None and server.parent.span_id == outer.get_span_context().span_id
    assert outer.attributes["mcp.method.name"] == "tools/call"


async def test_another_instrumentation_is_reported_once(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wrapt
    from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher

    from opentelemetry_instrumentation_mcp import McpInstrumentor

    def foreign(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    monkeypatch.setattr(
        JSONRPCDispatcher, "send_raw_request", wrapt.FunctionWrapper(JSONRPCDispatcher.send_raw_request, foreign)
    )
    instrumentor = McpInstrumentor()
    with caplog.at_level(logging.WARNING):
        instrumentor.instrument(tracer_provider=recorder.tracer_provider, skip_dep_check=True)
        try:
            await workload("memory", "legacy")
        finally:
            instrumentor.uninstrument()
    reports = [record.getMessage() for record in caplog.records if "another instrumentation" in record.getMessage()]
    assert len(reports) == 1 and __name__ in reports[0]
