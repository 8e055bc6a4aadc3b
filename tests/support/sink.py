"""An OTLP/HTTP receiver for tests of whole processes: keeps what arrives, parsed and as the bytes it came in.

    with OtlpSink() as sink:
        subprocess.run(command, env={**os.environ, **sink.environment("my-service")})
        spans = sink.wait_for(lambda sink: len(sink.spans()) == 2 and sink.spans())

Its spans have the names of the SDK's ``ReadableSpan``, its metrics are the SDK's data classes: the checks of
``conformance`` take both.
"""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

T = TypeVar("T")

TRACES, METRICS, LOGS = "/v1/traces", "/v1/metrics", "/v1/logs"
_MESSAGES: dict[str, tuple[type[Message], type[Message]]] = {
    TRACES: (ExportTraceServiceRequest, ExportTraceServiceResponse),
    METRICS: (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    LOGS: (ExportLogsServiceRequest, ExportLogsServiceResponse),
}


@dataclass(frozen=True)
class Body:
    """One request as it arrived, unpacked."""

    path: str
    headers: Mapping[str, str]
    raw: bytes
    message: Any

    @cached_property
    def spans(self) -> tuple[SinkSpan, ...]:
        """What it holds, if it is one of traces; made once, as tests ask for all spans again and again."""
        return tuple(_spans(self.message)) if self.path == TRACES else ()


@dataclass(frozen=True)
class SinkEvent:
    name: str
    attributes: Mapping[str, Any]
    timestamp: int


@dataclass(frozen=True)
class SinkLink:
    context: SpanContext
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class SinkSpan:
    """A span as it was exported; attributes have the Python types of their OTLP values."""

    name: str
    kind: SpanKind
    context: SpanContext
    parent: SpanContext | None
    attributes: Mapping[str, Any]
    events: Sequence[SinkEvent]
    links: Sequence[SinkLink]
    status: Status
    start_time: int
    end_time: int
    instrumentation_scope: InstrumentationScope
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def service_name(self) -> str | None:
        return self.resource.get("service.name")


@dataclass(frozen=True)
class SinkLog:
    body: Any
    severity_text: str
    event_name: str
    attributes: Mapping[str, Any]
    trace_id: int
    span_id: int
    instrumentation_scope: InstrumentationScope
    resource: Mapping[str, Any]


class OtlpSink:
    """Listens on a free port of the loopback interface while the context is open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._bodies: list[Body] = []
        self._rejected: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        # Closing waits for requests that are under way: each is one connection, so none lasts.
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> OtlpSink:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The base URL, for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, service_name: str) -> dict[str, str]:
        """The variables with which a process exports everything to this sink, without a long wait."""
        return {
            "OTEL_SERVICE_NAME": service_name,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    # What has arrived.

    @property
    def bodies(self) -> list[Body]:
        with self._changed:
            return list(self._bodies)

    @property
    def rejected(self) -> list[str]:
        """Requests that were no OTLP, and why."""
        with self._changed:
            return list(self._rejected)

    def contains(self, needle: bytes | str) -> bool:
        """Whether the text is anywhere in what was exported, be it name, attribute, event, status or log."""
        wanted = needle.encode() if isinstance(needle, str) else needle
        return any(wanted in body.raw for body in self.bodies)

    def spans(self, service_name: str | None = None) -> list[SinkSpan]:
        spans = [span for body in self.bodies for span in body.spans]
        return [span for span in spans if service_name in (None, span.service_name)]

    def logs(self, service_name: str | None = None) -> list[SinkLog]:
        logs = [log for message in self._messages(LOGS) for log in _logs(message)]
        return [log for log in logs if service_name in (None, log.resource.get("service.name"))]

    def metrics(self, service_name: str | None = None) -> MetricsData:
        """The last state of each resource: what a process reports is cumulative."""
        latest: dict[str, ResourceMetrics] = {}
        for message in self._messages(METRICS):
            for proto in message.resource_metrics:
                attributes = _attributes(proto.resource.attributes)
                if service_name in (None, attributes.get("service.name")):
                    latest[repr(sorted(attributes.items()))] = _resource_metrics(proto, attributes)
        return MetricsData(resource_metrics=list(latest.values()))

    def clear(self) -> None:
        with self._changed:
            self._bodies.clear()
            self._rejected.clear()

    def wait_for(self, predicate: Callable[[OtlpSink], T], timeout: float = 10.0) -> T:
        """Wait until the predicate gives something true, and return that.

        It is asked whenever something arrives.
        """
        deadline = time.monotonic() + timeout
        while True:
            known = self._arrivals()
            if result := predicate(self):
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise AssertionError(f"not within {timeout} s; arrived: {self._summary()}")
            with self._changed:
                if self._arrivals() == known:
                    # And now and then, for a predicate that looks at something else too.
                    self._changed.wait(min(remaining, 0.2))

    def _arrivals(self) -> int:
        with self._changed:
            return len(self._bodies) + len(self._rejected)

    def _summary(self) -> str:
        spans = [f"{span.service_name}: {span.kind.name} {span.name}" for span in self.spans()]
        counts = {path: len(self._messages(path)) for path in _MESSAGES}
        return f"{counts}, rejected {self.rejected}, spans {spans}"

    def _messages(self, path: str) -> list[Any]:
        return [body.message for body in self.bodies if body.path == path]

    def _arrived(self, body: Body) -> None:
        with self._changed:
            self._bodies.append(body)
            self._changed.notify_all()

    def _reject(self, why: str) -> None:
        with self._changed:
            self._rejected.append(why)
            self._changed.notify_all()


def _handler(sink: OtlpSink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_POST(self) -> None:
            try:
                answer = self._take()
            except (ValueError, OSError, EOFError, zlib.error, DecodeError) as error:
                sink._reject(f"{self.path}: {error}")
                self._answer(400, b"")
            else:
                self._answer(200, answer.SerializeToString())

        def _take(self) -> Message:
            raw = self._read()
            if self.path not in _MESSAGES:
                raise ValueError("no such signal")
            content_type = self.headers.get("content-type", "")
            if content_type.split(";")[0].strip() != "application/x-protobuf":
                raise ValueError(f"content type {content_type!r}")
            data = _unpacked(raw, self.headers.get("content-encoding", "identity"))
            request, response = _MESSAGES[self.path]
            message = request.FromString(data)
            headers = {name.lower(): value for name, value in self.headers.items()}
            sink._arrived(Body(self.path, headers, data, message))
            return response()

        def _read(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("content-length") or 0))
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            # The trailer ends with an empty line.
            while self.rfile.readline().strip():
                pass
            return body

        def _answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - so the base class calls it
            """Nothing on stderr: the sink tells what arrived."""

    return Handler


def _unpacked(raw: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(raw)
    if encoding == "deflate":
        return zlib.decompress(raw)
    if encoding == "identity":
        return raw
    raise ValueError(f"content encoding {encoding!r}")


# --- from protobuf ------------------------------------------------------------------------------------------


def _value(proto: Any) -> Any:
    which = proto.WhichOneof("value")
    if which == "array_value":
        return tuple(_value(item) for item in proto.array_value.values)
    if which == "kvlist_value":
        return _attributes(proto.kvlist_value.values)
    return None if which is None else getattr(proto, which)


def _attributes(protos: Iterable[Any]) -> dict[str, Any]:
    return {proto.key: _value(proto.value) for proto in protos}


def _scope(proto: Any, schema_url: str) -> InstrumentationScope:
    return InstrumentationScope(proto.name, proto.version, schema_url, _attributes(proto.attributes))


def _context(trace_id: bytes, span_id: bytes, state: str, flags: int, is_remote: bool) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=is_remote,
        trace_flags=TraceFlags(flags & 0xFF),
        trace_state=TraceState.from_header([state]) if state else TraceState(),
    )


# Bit 9 of the flags says whether the parent, or the linked span, is remote.
_REMOTE = 0x200
_STATUS = {0: StatusCode.UNSET, 1: StatusCode.OK, 2: StatusCode.ERROR}


def _spans(message: Any) -> Iterable[SinkSpan]:
    for resource_spans in message.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = _scope(scope_spans.scope, scope_spans.schema_url)
            for proto in scope_spans.spans:
                yield _span(proto, scope, resource)


def _span(proto: Any, scope: InstrumentationScope, resource: Mapping[str, Any]) -> SinkSpan:
    parent = None
    if proto.parent_span_id:
        parent = _context(proto.trace_id, proto.parent_span_id, "", proto.flags, bool(proto.flags & _REMOTE))
    status = _STATUS[proto.status.code]
    return SinkSpan(
        name=proto.name,
        # OTLP counts from "unspecified", the API from INTERNAL.
        kind=SpanKind(max(proto.kind - 1, 0)),
        context=_context(proto.trace_id, proto.span_id, proto.trace_state, proto.flags, False),
        parent=parent,
        attributes=_attributes(proto.attributes),
        events=tuple(
            SinkEvent(event.name, _attributes(event.attributes), event.time_unix_nano) for event in proto.events
        ),
        links=tuple(_link(link) for link in proto.links),
        status=Status(status, (proto.status.message or None) if status is StatusCode.ERROR else None),
        start_time=proto.start_time_unix_nano,
        end_time=proto.end_time_unix_nano,
        instrumentation_scope=scope,
        resource=resource,
    )


def _link(proto: Any) -> SinkLink:
    remote = bool(proto.flags & _REMOTE)
    context = _context(proto.trace_id, proto.span_id, proto.trace_state, proto.flags, remote)
    return SinkLink(context, _attributes(proto.attributes))


def _logs(message: Any) -> Iterable[SinkLog]:
    for resource_logs in message.resource_logs:
        resource = _attributes(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            scope = _scope(scope_logs.scope, scope_logs.schema_url)
            for proto in scope_logs.log_records:
                yield SinkLog(
                    body=_value(proto.body),
                    severity_text=proto.severity_text,
                    event_name=getattr(proto, "event_name", ""),
                    attributes=_attributes(proto.attributes),
                    trace_id=int.from_bytes(proto.trace_id, "big"),
                    span_id=int.from_bytes(proto.span_id, "big"),
                    instrumentation_scope=scope,
                    resource=resource,
                )


def _resource_metrics(proto: Any, attributes: Mapping[str, Any]) -> ResourceMetrics:
    return ResourceMetrics(
        resource=Resource(dict(attributes), proto.schema_url),
        scope_metrics=[
            ScopeMetrics(
                scope=_scope(scope_metrics.scope, scope_metrics.schema_url),
                metrics=[
                    Metric(metric.name, metric.description, metric.unit, _metric_data(metric))
                    for metric in scope_metrics.metrics
                ],
                schema_url=scope_metrics.schema_url,
            )
            for scope_metrics in proto.scope_metrics
        ],
        schema_url=proto.schema_url,
    )


def _metric_data(proto: Any) -> Any:
    """Histograms, sums and gauges as the SDK has them; what is neither stays as it is in protobuf."""
    which = proto.WhichOneof("data")
    data = getattr(proto, which)
    if which == "histogram":
        points = [_histogram_point(point) for point in data.data_points]
        return Histogram(points, AggregationTemporality(data.aggregation_temporality))
    if which == "sum":
        points = [_number_point(point) for point in data.data_points]
        return Sum(points, AggregationTemporality(data.aggregation_temporality), data.is_monotonic)
    if which == "gauge":
        return Gauge([_number_point(point) for point in data.data_points])
    return data


def _histogram_point(proto: Any) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=_attributes(proto.attributes),
        start_time_unix_nano=proto.start_time_unix_nano,
        time_unix_nano=proto.time_unix_nano,
        count=proto.count,
        sum=proto.sum,
        bucket_counts=list(proto.bucket_counts),
        explicit_bounds=list(proto.explicit_bounds),
        min=proto.min,
        max=proto.max,
    )


def _number_point(proto: Any) -> NumberDataPoint:
    value = getattr(proto, proto.WhichOneof("value"))
    return NumberDataPoint(
        attributes=_attributes(proto.attributes),
        start_time_unix_nano=proto.start_time_unix_nano,
        time_unix_nano=proto.time_unix_nano,
        value=value,
    )
