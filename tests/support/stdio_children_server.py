"""Serves the test server over stdio, with a tool that exports to the console in every way there is."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.sdk import build_server  # the path has to be there first


def export_to_console() -> str:
    """Spans, metrics and logs: by exporters that are made now, of classes that may be imported now."""
    from opentelemetry.sdk import _logs
    from opentelemetry.sdk._logs import export as logs
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    with tracing.get_tracer("late").start_as_current_span("late span"):
        pass
    metering = MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())])
    metering.get_meter("late").create_counter("late_counter").add(1)
    metering.shutdown()
    # Its name changed, and the old one warns.
    exporter = getattr(logs, "ConsoleLogRecordExporter", None) or getattr(logs, "ConsoleLogExporter")  # noqa: B009
    processor = getattr(logs, "SimpleLogRecordProcessor")  # noqa: B009
    logging_provider = _logs.LoggerProvider()
    logging_provider.add_log_record_processor(processor(exporter()))
    logger = logging.getLogger("late")
    logger.addHandler(_logs.LoggingHandler(logger_provider=logging_provider))
    logger.warning("late log")
    return "exported"


if __name__ == "__main__":
    server = build_server()
    server.tool()(export_to_console)
    server.run("stdio")
