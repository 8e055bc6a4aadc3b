"""The gateway's own OpenTelemetry is on: nothing is there twice, and all of it is one tree."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from support.conformance import assert_conformant
from support.gateway import Gateway, Upstreams, native
from support.gateway_trees import CALL, Trees, below, draw, is_noise, trace_of
from support.sink import OtlpSink, SinkSpan

OURS = "opentelemetry_instrumentation_mcp"


def is_native(span: SinkSpan) -> bool:
    """What only the gateway tells, and FastAPI's account."""
    return is_noise(span) or (span.instrumentation_scope.name == "mcp-gateway" and span.name == "tool.list")


@pytest.fixture(scope="module")
def own(start: Any, sink: OtlpSink) -> Gateway:
    return start("gateway-native", env=native(sink))


@pytest.fixture(scope="module")
def own_trees(sink: OtlpSink, own: Gateway, behind: Upstreams) -> Trees:
    return Trees(sink, own, behind)


@pytest.fixture(scope="module")
def kept(start: Any, sink: OtlpSink) -> Gateway:
    return start("gateway-kept", env={**native(sink), "OTEL_INSTRUMENTATION_MCP_NATIVE_SPANS": "keep"})


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/servers/{id}/mcp", "/sse", "/ws"])
def test_the_tree_is_the_same_as_without(own: Gateway, own_trees: Trees, sink: OtlpSink, entry: str) -> None:
    reply = own.call_tool(entry, "up-add", {"a": 2, "b": 3})
    assert reply.text == "5"
    own_trees.spans(reply)
    assert draw(trace_of(sink, reply.ids), is_native) == below(entry, CALL.format(peer="up")).strip()


def test_without_a_caller_there_is_one_trace(own: Gateway, own_trees: Trees, sink: OtlpSink) -> None:
    before = {span.context.trace_id for span in sink.spans()}
    own.call_tool("/rpc", "up-echo", {"text": "x"}, headers={"traceparent": ""})
    own_trees.settle()
    spans = [span for span in sink.spans() if span.context.trace_id not in before]
    traces = {span.context.trace_id for span in spans if span.name in ("tool.invoke", "tools/call up-echo")}
    assert len(traces) == 1
    inside = [span for span in spans if span.context.trace_id in traces]
    assert [span.name for span in inside if span.parent is None] == ["POST /rpc"]


@pytest.mark.parametrize("entry", ["/rpc", "/mcp"])
def test_spans_that_are_kept_are_not_there_twice(kept: Gateway, behind: Upstreams, sink: OtlpSink, entry: str) -> None:
    """The gateway's own spans stay, ours of the same things stand down; messages, plugins and propagation remain."""
    trees = Trees(sink, kept, behind)
    reply = kept.call_tool(entry, "up-add", {"a": 2, "b": 3})
    spans = trees.spans(reply)
    names = Counter((span.name, span.service_name) for span in spans if span.kind.name == "INTERNAL")
    for name in (
        "tool.invoke",
        "mcp.client.call",
        "mcp.client.initialize",
        "mcp.client.request",
        "mcp.client.response",
    ):
        assert names[name, kept.service_name] == 1, names
    assert names["plugin.hook.invoke", kept.service_name] == 2 and names["plugin.execute", kept.service_name] == 3
    messages = Counter((span.name, span.kind.name) for span in spans if "mcp.method.name" in span.attributes)
    assert set(messages.values()) == {1}, messages
    assert {("tools/call up-add", "SERVER"), ("tools/call add", "CLIENT"), ("tools/call add", "SERVER")} <= set(
        messages
    )
    by_id = {span.context.span_id: span for span in spans}
    (invoked,) = [span for span in spans if span.name == "tool.invoke"]
    assert invoked.instrumentation_scope.name == "mcp-gateway"
    above = by_id[invoked.parent.span_id]
    assert above.name == "tools/call up-add" and above.instrumentation_scope.name == OURS


def test_metrics_are_ours(own: Gateway, sink: OtlpSink) -> None:
    own.call_tool("/rpc", "up-add", {"a": 2, "b": 3})

    def names(sink: OtlpSink) -> set[str]:
        found = sink.metrics(own.service_name).resource_metrics
        return {metric.name for one in found for scope in one.scope_metrics for metric in scope.metrics}

    wanted = {"mcp.server.operation.duration", "mcp.client.operation.duration"}
    sink.wait_for(lambda sink: wanted <= names(sink))


def test_what_was_exported_conforms(own: Gateway, kept: Gateway, gateway: Gateway, sink: OtlpSink) -> None:
    """All of ours that these gateways told so far."""
    for one in (own, kept, gateway):
        assert_conformant(sink.spans(one.service_name), sink.metrics(one.service_name))
