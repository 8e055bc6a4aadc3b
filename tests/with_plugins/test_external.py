"""Plugins in servers of their own, real processes: the trace goes on there, and nobody else notices."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Instrument, Recorder
from support import plugin_framework as pf
from support.plugin_framework import framework, invoke, managing, plugin
from support.plugin_servers import PluginServer
from support.sink import OtlpSink, SinkSpan

pytestmark = pytest.mark.anyio

HAS_GRPC = importlib.util.find_spec("grpc") is not None
HAS_GRPC_INSTRUMENTATION = importlib.util.find_spec("opentelemetry.instrumentation.grpc") is not None

TRANSPORTS = [
    "mcp",
    pytest.param("grpc", marks=pytest.mark.skipif(not (HAS_GRPC and pf.HAS_TRANSPORTS), reason="needs grpcio")),
    pytest.param(
        "unix", marks=pytest.mark.skipif(not (HAS_GRPC and pf.HAS_TRANSPORTS), reason="needs protobuf and its messages")
    ),
]
WITHOUT_MCP = TRANSPORTS[1:]


def attributes_of(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


def execution(sink: OtlpSink, name: str) -> SinkSpan:
    """The span of a plugin in the plugin server's process."""

    def found(sink: OtlpSink) -> list[SinkSpan]:
        return [s for s in sink.spans() if s.name == "plugin.execute" and s.attributes["plugin.name"] == name]

    spans = sink.wait_for(found)
    assert len(spans) == 1 or pf.CALLS_FAILURES_AGAIN
    return spans[0]


async def call(folder: Path, recorder: Recorder, *entries: dict[str, Any], **options: Any) -> Any:
    async with managing(folder, *entries) as manager:
        # What was said while connecting is in no trace of ours.
        recorder.clear()
        with recorder.tracer().start_as_current_span("above"):
            return await invoke(manager, **options)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_trace_goes_on_in_the_plugin_server(instrumented: Recorder, tmp_path: Path, transport: str) -> None:
    plugins = [plugin("far", "modify"), plugin("guard", "deny", code="FAR")]
    with OtlpSink() as sink, PluginServer(transport, tmp_path / "server", *plugins, sink=sink) as server:
        entries = [server.entry("far"), server.entry("guard")]
        result = await call(tmp_path, instrumented, *entries)
        assert result.violation.code == "FAR" and result.modified_payload.args["added"] == "far"
        far, guard = execution(sink, "far"), execution(sink, "guard")
    chain = instrumented.one("plugin.hook.invoke")
    for there, name in ((far, "far"), (guard, "guard")):
        here = instrumented.find("plugin.execute", **{"plugin.name": name})[0]
        assert here.parent.span_id == chain.context.span_id
        parents = {here.context.span_id: here, **{span.context.span_id: span for span in sink.spans()}}
        parents |= {span.context.span_id: span for span in instrumented.spans}
        assert there.context.trace_id == here.context.trace_id == instrumented.one("above").context.trace_id
        between = []
        above = parents[there.parent.span_id]
        while above.context.span_id != here.context.span_id:
            between.append((above.kind.name, above.name))
            above = parents[above.parent.span_id]
        # Over MCP it is a message, with a span on either side.
        message = "tools/call invoke_hook"
        assert between == ([("SERVER", message), ("CLIENT", message)] if transport == "mcp" else [])
        assert attributes_of(here)["plugin.kind"] == "external" and there.attributes["plugin.kind"] == pf.ZOO
    assert attributes_of(chain)["plugin.chain.stopped_by"] == "guard"
    assert guard.attributes["plugin.violation.code"] == "FAR" and "error.type" not in guard.attributes
    # Of which chain it was a part is known where the chain is.
    assert "plugin.stopped_chain" not in guard.attributes


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_failure_there_is_a_failure_here(instrumented: Recorder, tmp_path: Path, transport: str) -> None:
    far = plugin("far", "crash")
    with OtlpSink() as sink, PluginServer(transport, tmp_path / "server", far, sink=sink) as server:
        with pytest.raises(framework.PluginError):
            await call(tmp_path, instrumented, server.entry("far"))
        there = execution(sink, "far")
    here = instrumented.one("plugin.execute")
    assert there.attributes["error.type"] == "support.plugin_zoo.CrashError"
    assert attributes_of(here)["error.type"] == f"{pf.PACKAGE}.errors.PluginError"
    assert attributes_of(instrumented.one("plugin.hook.invoke"))["error.type"] == attributes_of(here)["error.type"]


@pytest.mark.parametrize("side", ["client", "server", "both"])
@pytest.mark.parametrize("transport", WITHOUT_MCP)
async def test_plugins_are_given_the_same_with_and_without_us(
    recorder: Recorder, instrument: Instrument, tmp_path: Path, transport: str, side: str
) -> None:
    with OtlpSink() as sink:
        given = []
        for traced in (False, True):
            there = sink if traced and side != "client" else None
            folder = tmp_path / str(traced)
            folder.mkdir()
            with PluginServer(transport, folder / "server", plugin("far", "reveal"), sink=there) as server:
                if traced and side != "server":
                    instrument()
                result = await call(folder, recorder, server.entry("far"))
                given.append(json.loads(result.metadata["given"]))
        if side != "client":
            there = execution(sink, "far")
            assert (there.parent is None) is (side == "server")
    assert given[0] == given[1]
    assert "traceparent" not in str(given)


@pytest.mark.parametrize("remote_parent", ["link", "ignore"])
@pytest.mark.parametrize("transport", WITHOUT_MCP)
async def test_a_server_that_trusts_nobody(
    instrumented: Recorder, tmp_path: Path, transport: str, remote_parent: str
) -> None:
    option = {"OTEL_INSTRUMENTATION_MCP_REMOTE_PARENT": remote_parent}
    far = plugin("far")
    with OtlpSink() as sink, PluginServer(transport, tmp_path / "server", far, sink=sink, **option) as server:
        await call(tmp_path, instrumented, server.entry("far"))
        assert execution(sink, "far").parent is None


@pytest.mark.parametrize("transport", WITHOUT_MCP)
async def test_each_call_has_its_own_trace(instrumented: Recorder, tmp_path: Path, transport: str) -> None:
    with OtlpSink() as sink, PluginServer(transport, tmp_path / "server", plugin("far"), sink=sink) as server:
        async with managing(tmp_path, server.entry("far")) as manager:
            for _ in range(3):
                await invoke(manager)
        sink.wait_for(lambda sink: len(sink.spans()) == 3)
        spans = sink.spans()
    here = {span.context.span_id: span.context.trace_id for span in instrumented.find("plugin.execute")}
    assert {span.parent.span_id: span.context.trace_id for span in spans} == here and len(set(here.values())) == 3


@pytest.mark.skipif(not HAS_GRPC_INSTRUMENTATION, reason="opentelemetry-instrumentation-grpc is not installed here")
@pytest.mark.parametrize("side", ["client", "server", "both"])
async def test_beside_an_instrumentation_of_grpc(instrumented: Recorder, tmp_path: Path, side: str) -> None:
    from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient

    on = {} if side == "client" else {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "starlette,fastapi"}
    beside = GrpcAioInstrumentorClient()
    with OtlpSink() as sink:
        try:
            if side != "server":
                beside.instrument(tracer_provider=instrumented.tracer_provider)
            with PluginServer("grpc", tmp_path / "server", plugin("far", "reveal"), sink=sink, **on) as server:
                result = await call(tmp_path, instrumented, server.entry("far"))
                there = execution(sink, "far")
                rpc = [span for span in sink.spans() if span.kind.name == "SERVER" and "InvokeHook" in span.name]
        finally:
            if side != "server":
                beside.uninstrument()
    assert "traceparent" not in result.metadata["given"]
    here = instrumented.one("plugin.execute")
    clients = [span for span in instrumented.spans if span.kind.name == "CLIENT" and "InvokeHook" in span.name]
    assert (len(clients), len(rpc)) == ((side != "server"), (side != "client"))
    lineage = [*rpc, *clients, here]
    for below, above in zip([there, *lineage], lineage, strict=False):
        assert below.parent.span_id == above.context.span_id
