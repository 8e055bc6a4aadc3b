"""Serves the test server over stdio, instrumented in code: a real SDK whose exporter keeps nothing.

With ``--broken`` the instrumentation fails at every message.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class NoOpExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


if __name__ == "__main__":
    from opentelemetry_instrumentation_mcp import McpInstrumentor
    from opentelemetry_instrumentation_mcp.telemetry import Telemetry

    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(NoOpExporter()))
    McpInstrumentor().instrument(
        tracer_provider=tracer_provider,
        meter_provider=MeterProvider([InMemoryMetricReader()]),
        skip_dep_check=True,
    )
    assert "mcp" not in sys.modules, "the hooks are to fire when the library is imported"
    if "--broken" in sys.argv:

        def fail(*args: Any) -> None:
            raise RuntimeError("ours")

        Telemetry._begin = fail

    from support.sdk import build_server

    build_server().run("stdio")
