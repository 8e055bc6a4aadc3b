"""A tiny OTLP/HTTP receiver: keeps the spans and histograms that other processes export, in memory.

The real thing is an OpenTelemetry Collector; with this one the demo needs no server to be installed.
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from opentelemetry_instrumentation_mcp.exporter.tree import TreeSpan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True)
class ReceivedSpan:
    tree: TreeSpan
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ReceivedMetric:
    """One histogram of one service, over all its attribute sets."""

    name: str
    service: str
    series: int
    count: int


class OtlpReceiver:
    """Listens on a free port of 127.0.0.1 while the `with` block runs; what it received stays readable."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Keyed: an export which is retried counts once, a cumulative histogram by its latest value.
        self._spans: dict[tuple[int, int], ReceivedSpan] = {}
        self._points: dict[tuple[str, str, tuple[bytes, ...]], int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> OtlpReceiver:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[ReceivedSpan]:
        with self._lock:
            return list(self._spans.values())

    def metrics(self) -> list[ReceivedMetric]:
        series: dict[tuple[str, str], list[int]] = {}
        with self._lock:
            for (name, service, _), count in self._points.items():
                series.setdefault((name, service), []).append(count)
        return [ReceivedMetric(*key, len(counts), sum(counts)) for key, counts in sorted(series.items())]

    def add_traces(self, body: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(resource_spans.resource.attributes).get("service.name", "")
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    received = _received(span, service, scope_spans.scope.name)
                    with self._lock:
                        self._spans[received.tree.trace_id, received.tree.span_id] = received

    def add_metrics(self, body: bytes) -> None:
        for resource_metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            service = _attributes(resource_metrics.resource.attributes).get("service.name", "")
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    for point in metric.histogram.data_points:
                        attributes = tuple(sorted(item.SerializeToString() for item in point.attributes))
                        with self._lock:
                            self._points[metric.name, service, attributes] = point.count


def _received(span: Span, service: str, scope: str) -> ReceivedSpan:
    attributes = _attributes(span.attributes)
    error = attributes.get("error.type")
    if error is None and span.status.code == Status.STATUS_CODE_ERROR:
        error = span.status.message or "error"
    tree = TreeSpan(
        trace_id=int.from_bytes(span.trace_id, "big"),
        span_id=int.from_bytes(span.span_id, "big"),
        parent_id=int.from_bytes(span.parent_span_id, "big") if span.parent_span_id else None,
        parent_is_remote=bool(span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        service=service,
        error=error,
        links=tuple(int.from_bytes(link.span_id, "big") for link in span.links),
        scope=scope,
    )
    return ReceivedSpan(tree, attributes)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}


def _handler_for(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    signals = {"/v1/traces": receiver.add_traces, "/v1/metrics": receiver.add_metrics}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            add = signals.get(self.path)
            if add is None:
                self.send_error(404)
                return
            try:
                add(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            except Exception as error:  # whatever is wrong with the request, only its sender is told
                self.send_error(400, explain=repr(error))
                return
            self.send_response(200)  # an empty body is an empty (successful) Export...ServiceResponse
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """The default writes every request to stderr; errors it still does write."""

    return Handler
