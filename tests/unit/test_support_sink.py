"""The OTLP sink: what a real exporter sends comes out as it went in."""

from __future__ import annotations

import gzip
import http.client
import os
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from support.conformance import SCOPE, assert_conformant, assert_message_spans, check_metrics, check_spans
from support.conventions import OPERATION_BOUNDS
from support.sink import OtlpSink
from support.wire import TO_SERVER, WireLog

SCHEMA = "https://opentelemetry.io/schemas/1.40.0"


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


def tracer_provider(sink: OtlpSink, compression: Compression = Compression.Gzip) -> TracerProvider:
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(f"{sink.endpoint}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def post(sink: OtlpSink, path: str, body: bytes, **headers: str) -> int:
    names = {
        "content-type": "application/x-protobuf",
        **{name.replace("_", "-"): at for name, at in headers.items()},
    }
    request = urllib.request.Request(sink.endpoint + path, body, names)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("compression", list(Compression))
def test_a_span_comes_out_as_the_sdk_has_it(sink: OtlpSink, compression: Compression) -> None:
    provider, memory = tracer_provider(sink, compression), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer(SCOPE, "0.1", schema_url=SCHEMA)
    with tracer.start_as_current_span("parent", kind=SpanKind.CLIENT):
        linked = SpanContext(3, 4, is_remote=True)
        with tracer.start_as_current_span("child", kind=SpanKind.SERVER, links=[Link(linked, {"n": 1})]) as child:
            child.set_attributes({"text": "é", "int": -1, "float": 0.5, "bool": True, "list": ["a", "b"]})
            child.add_event("exception", {"exception.type": "ValueError"})
            child.set_status(StatusCode.ERROR, "no")
    provider.shutdown()

    got = sink.spans()
    assert [span.name for span in got] == ["child", "parent"]
    for span, sent in zip(got, memory.get_finished_spans(), strict=True):
        assert span.kind is sent.kind
        assert (span.context.trace_id, span.context.span_id) == (sent.context.trace_id, sent.context.span_id)
        assert span.attributes == dict(sent.attributes or {})
        assert {name: type(value) for name, value in span.attributes.items()} == {
            name: type(value) for name, value in (sent.attributes or {}).items()
        }
        assert (span.start_time, span.end_time) == (sent.start_time, sent.end_time)
        assert (span.status.status_code, span.status.description) == (
            sent.status.status_code,
            sent.status.description,
        )
        scope = span.instrumentation_scope
        assert (scope.name, scope.version, scope.schema_url) == (SCOPE, "0.1", SCHEMA)
        assert span.service_name == span.resource["service.name"] == "shop"
    child_span, parent_span = got
    assert parent_span.parent is None
    assert child_span.parent is not None
    assert (child_span.parent.span_id, child_span.parent.is_remote) == (parent_span.context.span_id, False)
    (event,) = child_span.events
    assert (event.name, event.attributes) == ("exception", {"exception.type": "ValueError"})
    (link,) = child_span.links
    assert (link.context.trace_id, link.context.span_id, link.context.is_remote) == (3, 4, True)
    assert link.attributes == {"n": 1}


def test_a_remote_parent_is_remote(sink: OtlpSink) -> None:
    provider = tracer_provider(sink)
    parent = set_span_in_context(NonRecordingSpan(SpanContext(1, 2, True, TraceFlags(1))))
    provider.get_tracer("app").start_span("one", context=parent).end()
    provider.shutdown()
    (span,) = sink.spans()
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id, span.parent.is_remote) == (1, 2, True)


def test_conformance_can_be_checked_on_what_arrived(sink: OtlpSink) -> None:
    provider, wire = tracer_provider(sink), WireLog()
    tracer = provider.get_tracer(SCOPE, "0.1", schema_url=SCHEMA)
    attributes = {"mcp.method.name": "ping", "jsonrpc.request.id": "0"}
    with tracer.start_as_current_span("ping", kind=SpanKind.CLIENT, attributes=attributes):
        tracer.start_span("ping", kind=SpanKind.SERVER, attributes=attributes).end()
    wire.add(TO_SERVER, {"jsonrpc": "2.0", "id": 0, "method": "ping"})
    provider.force_flush()
    assert_conformant(sink.spans())
    assert_message_spans(wire, sink.spans())

    broken = tracer.start_span("pong", kind=SpanKind.SERVER, attributes={**attributes, "server.port": 80})
    broken.set_status(StatusCode.OK)
    broken.end()
    provider.shutdown()
    found = {violation.rule for violation in check_spans(sink.spans())}
    assert found == {"span-name", "attribute-kind", "port-address", "status-ok"}
    with pytest.raises(AssertionError, match="wrong-parent"):
        assert_message_spans(wire, sink.spans())


def test_metrics_come_out_in_their_last_state(sink: OtlpSink) -> None:
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{sink.endpoint}/v1/metrics"), 3_600_000)
    provider = MeterProvider([reader], resource=Resource({"service.name": "shop"}))
    meter = provider.get_meter(SCOPE, "0.1", schema_url=SCHEMA)
    histogram = meter.create_histogram(
        "mcp.client.operation.duration", "s", explicit_bucket_boundaries_advisory=OPERATION_BOUNDS
    )
    meter.create_up_down_counter("up").add(-2)
    for value in (0.25, 0.75):
        histogram.record(value, {"mcp.method.name": "ping"})
        provider.force_flush()
    provider.shutdown()

    ((scope,),) = (resource.scope_metrics for resource in sink.metrics("shop").resource_metrics)
    up, duration = sorted(scope.metrics, key=lambda metric: metric.name, reverse=True)
    assert isinstance(duration.data, Histogram)
    (point,) = duration.data.data_points
    assert (point.count, point.sum, point.min, point.max) == (2, 1.0, 0.25, 0.75)
    assert point.attributes == {"mcp.method.name": "ping"}
    assert tuple(point.explicit_bounds) == OPERATION_BOUNDS
    assert [point.value for point in up.data.data_points] == [-2]
    assert {violation.rule for violation in check_metrics(sink.metrics())} == {"metric-name"}
    assert list(sink.metrics("another").resource_metrics) == []


def test_logs_come_out(sink: OtlpSink) -> None:
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = logs.scope_logs.add()
    scope.scope.name = "app"
    record = scope.log_records.add(severity_text="INFO", trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    # The field is younger than the oldest protocol definition of the matrix.
    names_events = "event_name" in record.DESCRIPTOR.fields_by_name
    if names_events:
        record.event_name = "sold"
    record.body.string_value = "one"
    record.attributes.add(key="map").value.kvlist_value.values.add(key="n").value.int_value = 1
    assert post(sink, "/v1/logs", request.SerializeToString()) == 200
    (log,) = sink.logs("shop")
    assert (log.body, log.severity_text, log.event_name, log.attributes) == (
        "one",
        "INFO",
        "sold" if names_events else "",
        {"map": {"n": 1}},
    )
    assert (log.trace_id, log.span_id) == (int("01" * 16, 16), int("02" * 8, 16))
    assert log.instrumentation_scope.name == "app"
    assert sink.logs("another") == []


def test_a_canary_is_found_wherever_it_hides(sink: OtlpSink) -> None:
    provider = tracer_provider(sink)
    tracer = provider.get_tracer("app")
    span = tracer.start_span("canary-name", attributes={"key": "canary-välue", "canary-key": 1})
    span.add_event("e", {"exception.message": "canary-event"})
    span.set_status(StatusCode.ERROR, "canary-status")
    span.end()
    provider.shutdown()
    for canary in (
        "canary-name",
        "canary-välue",
        "canary-key",
        "canary-event",
        "canary-status",
        b"canary-name",
    ):
        assert sink.contains(canary)
    assert not sink.contains("canary-payload")
    assert sink.bodies[0].headers["content-encoding"] == "gzip"
    sink.clear()
    assert not sink.contains("canary-name")


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        pytest.param("/v1/traces", b"no protobuf", {}, id="body"),
        pytest.param("/v1/profiles", b"", {}, id="path"),
        pytest.param("/v1/traces", b"{}", {"content_type": "application/json"}, id="content type"),
        pytest.param("/v1/traces", b"", {"content_encoding": "br"}, id="encoding"),
        pytest.param("/v1/traces", b"no gzip", {"content_encoding": "gzip"}, id="gzip"),
        pytest.param("/v1/traces", gzip.compress(b"x" * 99)[:-9], {"content_encoding": "gzip"}, id="half a gzip"),
        pytest.param("/v1/traces", b"no zlib", {"content_encoding": "deflate"}, id="deflate"),
    ],
)
def test_what_is_no_otlp_is_rejected(sink: OtlpSink, path: str, body: bytes, headers: dict[str, str]) -> None:
    assert post(sink, path, body, **headers) == 400
    assert len(sink.rejected) == 1
    assert sink.rejected[0].startswith(f"{path}: ")
    assert sink.bodies == []
    sink.clear()
    assert sink.rejected == []


def test_a_body_of_unknown_length_is_taken(sink: OtlpSink) -> None:
    body = ExportTraceServiceRequest()
    body.resource_spans.add().scope_spans.add().spans.add(name="chunked", trace_id=b"\x01" * 16)
    pieces = (bytes([byte]) for byte in body.SerializeToString())
    connection = http.client.HTTPConnection("127.0.0.1", int(sink.endpoint.rpartition(":")[2]), timeout=5)
    connection.request("POST", "/v1/traces", pieces, {"content-type": "application/x-protobuf"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    connection.close()
    assert [span.name for span in sink.spans()] == ["chunked"]


def test_deflate_and_several_requests_in_a_row(sink: OtlpSink) -> None:
    body = zlib.compress(ExportTraceServiceRequest().SerializeToString())
    connection = http.client.HTTPConnection("127.0.0.1", int(sink.endpoint.rpartition(":")[2]), timeout=5)
    headers = {"content-type": "application/x-protobuf", "content-encoding": "deflate"}
    for _ in range(3):
        connection.request("POST", "/v1/traces", body, headers)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
    connection.close()
    assert len(sink.bodies) == 3


def _later(action: Any) -> threading.Thread:
    thread = threading.Timer(0.2, action)
    thread.start()
    return thread


def test_waiting_ends_when_what_is_waited_for_arrives(sink: OtlpSink) -> None:
    provider = tracer_provider(sink)
    thread = _later(lambda: provider.get_tracer("app").start_span("late").end())
    (span,) = sink.wait_for(lambda sink: sink.spans("shop"))
    assert span.name == "late"
    thread.join()
    provider.shutdown()


def test_waiting_may_be_for_something_else() -> None:
    with OtlpSink() as sink:
        done = threading.Event()
        thread = _later(done.set)
        assert sink.wait_for(lambda _: done.is_set())
        thread.join()


def test_waiting_in_vain_tells_what_arrived(sink: OtlpSink) -> None:
    provider = tracer_provider(sink)
    provider.get_tracer("app").start_span("other").end()
    provider.shutdown()
    begun = time.monotonic()
    with pytest.raises(AssertionError, match="shop: INTERNAL other"):
        sink.wait_for(lambda sink: len(sink.spans()) == 2, timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 5


def test_two_sinks_do_not_share_anything(sink: OtlpSink) -> None:
    with OtlpSink() as other:
        assert other.endpoint != sink.endpoint
        post(other, "/v1/traces", ExportTraceServiceRequest().SerializeToString())
        assert (len(other.bodies), len(sink.bodies)) == (1, 0)


def test_a_closed_sink_does_not_listen() -> None:
    with OtlpSink() as sink:
        pass
    with pytest.raises(urllib.error.URLError):
        post(sink, "/v1/traces", b"")


def test_a_process_exports_to_it_by_its_environment(sink: OtlpSink) -> None:
    script = """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    provider.get_tracer("app").start_span("from a process").end()
    provider.shutdown()
    """
    environment = {**os.environ, **sink.environment("child")}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=True, timeout=60)
    (span,) = sink.wait_for(lambda sink: sink.spans("child"))
    assert span.name == "from a process"
