"""`instrument()` late, `uninstrument()` at any time, and again; suppression; users' hooks; trio."""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from conftest import Instrument, Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor, Message, Outcome
from opentelemetry_instrumentation_mcp.hooks import find_attribute, is_ours
from opentelemetry_instrumentation_mcp.targets import TARGETS
from support import sdk
from support.conformance import assert_message_spans
from support.wire import WireLog, tap_streams

pytestmark = pytest.mark.anyio


def all_attributes() -> dict[str, Any]:
    found = {}
    for target in TARGETS:
        module = sys.modules.get(target.module)
        place = find_attribute(module, target.attribute) if module is not None else None
        if place is not None:
            found[f"{target.module}.{target.attribute}"] = vars(place[0]).get(place[1])
    return found


async def some_calls(peer: sdk.Peer) -> None:
    await peer.session.list_tools()
    await peer.call("add", {"a": 1, "b": 1})
    await peer.call("sample")
    await peer.call("progress", progress=True)
    await peer.call("log")
    await anyio.sleep(0.1)


async def test_uninstrument_restores_everything(recorder: Recorder) -> None:
    async with sdk.connect("memory"):
        pass
    before = all_attributes()
    instrumentor = McpInstrumentor()
    for _ in range(2):
        instrumentor.instrument(tracer_provider=recorder.tracer_provider, skip_dep_check=True)
        assert [name for name, attribute in all_attributes().items() if is_ours(attribute)]
        async with sdk.connect("memory") as peer:
            await some_calls(peer)
        assert len(recorder.find("tools/call add")) == 2
        recorder.clear()
        instrumentor.uninstrument()
        assert all_attributes() == before
        async with sdk.connect("memory") as peer:
            await some_calls(peer)
        assert not recorder.ours


async def test_sessions_opened_while_instrumented_go_on_without(recorder: Recorder) -> None:
    instrumentor = McpInstrumentor()
    instrumentor.instrument(tracer_provider=recorder.tracer_provider, skip_dep_check=True)
    async with sdk.connect("memory") as peer:
        await some_calls(peer)
        instrumentor.uninstrument()
        recorder.clear()
        assert await peer.text("add", {"a": 2, "b": 2}) == "4"
        await some_calls(peer)
        assert not recorder.ours


@pytest.mark.parametrize("transport", ["memory", "http", "direct"] if sdk.SDK2 else ["memory", "http"])
async def test_instrument_after_the_connection(instrument: Instrument, recorder: Recorder, transport: str) -> None:
    """Servers run, sessions are open, and nothing is lost from here on."""
    async with sdk.connect(transport) as peer:
        await peer.call("add", {"a": 1, "b": 1})
        instrument()
        if transport == "direct":
            await peer.call("add", {"a": 1, "b": 1})
        else:
            await some_calls(peer)
    names = ["tools/call add"]
    if transport != "direct":
        names += ["tools/list", "tools/call sample", "sampling/createMessage", "tools/call progress"]
    for name in names:
        client, server = recorder.one(name, "CLIENT"), recorder.one(name, "SERVER")
        assert server.parent is not None and client.context is not None
        assert server.parent.span_id == client.context.span_id, name


async def test_suppressed(instrumented: Recorder) -> None:
    log = WireLog()
    async with sdk.connect("memory", tap=lambda streams: tap_streams(log, *streams)) as peer:
        with instrumented.tracer().start_as_current_span("agent"), suppress_instrumentation():
            await peer.call("add", {"a": 1, "b": 1})
    assert not instrumented.find("tools/call add", "CLIENT")
    if not sdk.SDK2:
        # SDK 2.x injects by itself.
        assert "traceparent" not in log.select(kind="request", method="tools/call")[0].meta


async def test_unsampled_messages_propagate_the_decision(instrument: Instrument, recorder: Recorder) -> None:
    recorder.tracer_provider = TracerProvider(sampler=ALWAYS_OFF)
    instrument()
    log = WireLog()
    async with sdk.connect("memory", tap=lambda streams: tap_streams(log, *streams)) as peer:
        seen = await peer.handler_context()
    sent = log.select(kind="request", method="tools/call")[0].meta["traceparent"]
    assert int(sent.split("-")[3], 16) & 1 == 0, "the caller's decision was not passed on"
    assert seen["trace_id"] == sent.split("-")[1]
    assert not recorder.ours
    assert recorder.points("mcp.server.operation.duration"), "metrics do not depend on sampling"


async def test_hooks_of_the_user(instrument: Instrument, recorder: Recorder) -> None:
    seen: list[tuple[str, str, Any]] = []

    def on_request(span: Any, message: Message) -> None:
        seen.append(("request", message.method, message.target))
        span.set_attribute("gen_ai.tool.name", message.target) if message.target else None

    def on_response(span: Any, message: Message, outcome: Outcome) -> None:
        seen.append(("response", message.method, outcome.error_type))

    instrument(request_hook=on_request, response_hook=on_response)
    async with sdk.connect("memory") as peer:
        await peer.call("fail")
    assert seen.count(("request", "tools/call", "fail")) == 2
    assert seen.count(("response", "tools/call", "tool_error")) == 2


async def test_a_raising_hook_is_contained(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the user's own")

    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider, request_hook=broken, response_hook=broken, skip_dep_check=True
    )
    try:
        with caplog.at_level(logging.WARNING):
            async with sdk.connect("memory") as peer:
                assert await peer.text("add", {"a": 1, "b": 1}) == "2"
    finally:
        instrumentor.uninstrument()
    ours = [r.getMessage() for r in caplog.records if r.name == "opentelemetry_instrumentation_mcp"]
    assert len(ours) == 2 and "request_hook" in ours[0] + ours[1]
    assert len(recorder.find("tools/call add")) == 2


async def test_excluded_methods_keep_propagating(instrument: Instrument, recorder: Recorder) -> None:
    instrument(excluded_methods="tools/call,ping")
    async with sdk.connect("memory") as peer:
        with recorder.tracer().start_as_current_span("agent") as agent:
            seen = await peer.handler_context()
            await peer.session.send_ping()
    assert not recorder.find("tools/call context") and not recorder.find("ping")
    assert seen["span_id"] == f"{agent.get_span_context().span_id:016x}"
    names = {point.attributes["mcp.method.name"] for point in recorder.points("mcp.client.operation.duration")}
    assert "ping" not in names and "initialize" in names


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_trio(instrumented: Recorder, caplog: pytest.LogCaptureFixture, era: str) -> None:
    log = WireLog()
    async with sdk.connect("memory", era=era, tap=lambda streams: tap_streams(log, *streams)) as peer:
        await peer.call("add", {"a": 1, "b": 1})
        await peer.call("progress", progress=True)
        with anyio.move_on_after(0.1):
            await peer.call("slow", {"seconds": 1})
        with pytest.raises(sdk.McpError):
            await peer.call("slow", {"seconds": 1}, timeout=0.1)
        await anyio.sleep(1.2 if not sdk.SDK2 else 0.1)
    assert_message_spans(log, instrumented.spans)
    assert [(s.attributes or {}).get("error.type") for s in instrumented.find("tools/call slow", "CLIENT")] == [
        "cancelled",
        "timeout",
    ]
    assert "different Context" not in caplog.text and "Failed to detach" not in caplog.text


async def test_nothing_stays_current(instrumented: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """What is current after a session is what was current before it."""
    before = sdk.describe_context()
    async with sdk.connect("http") as peer:
        await some_calls(peer)
        assert sdk.describe_context() == before
    assert sdk.describe_context() == before
    assert "Failed to detach" not in caplog.text
