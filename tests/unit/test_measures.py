"""Attributes of metrics: kept for the next message only if nothing of the connection can become known meanwhile."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from opentelemetry_instrumentation_mcp.connection import Connection, Endpoint
from opentelemetry_instrumentation_mcp.message import Message
from opentelemetry_instrumentation_mcp.operation import Operation
from opentelemetry_instrumentation_mcp.telemetry import Telemetry


class Session:
    session_id: str | None = None


def test_what_becomes_known_while_a_message_is_under_way_is_told_also_if_one_like_it_succeeded() -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(None, provider, MeterProvider([reader]))
    session = Session()
    connection = Connection(server=False, endpoint=Endpoint("tcp", "http", "host", 80, session))

    def ping(request_id: int) -> Operation:
        operation = telemetry.begin_client(Message("ping", request_id), connection)
        assert operation is not None
        return operation

    ping(1).settle()
    second = ping(2)
    session.session_id = "session"
    connection.protocol_version = "2025-06-18"
    second.settle()
    ping(3).settle()
    ping(4).settle()

    told = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    assert [each.get("mcp.session.id") for each in told] == [None, "session", "session", "session"]
    assert [each.get("mcp.protocol.version") for each in told] == [None, "2025-06-18", "2025-06-18", "2025-06-18"]
    data: Any = reader.get_metrics_data()
    points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    counts = {point.attributes.get("mcp.protocol.version"): point.count for point in points}
    assert counts == {None: 1, "2025-06-18": 3}
