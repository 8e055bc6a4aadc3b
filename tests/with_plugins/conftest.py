"""The instrumentation switched on for programs that send no message: only their INTERNAL spans are checked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import Instrument, Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from support.conformance import check_spans


@pytest.fixture
def instrument(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> Iterator[Instrument]:
    """Switches the instrumentation on; at the end all that was exported must conform, and nothing of ours failed."""
    instrumentor = McpInstrumentor()

    def switch_on(**options: object) -> None:
        instrumentor.instrument(
            tracer_provider=recorder.tracer_provider,
            meter_provider=recorder.meter_provider,
            skip_dep_check=True,
            **options,
        )

    yield switch_on
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    assert check_spans(recorder.ours, content=recorder.content) == []
    failures = [record for record in caplog.get_records("call") if record.name == our_logger.name]
    assert not failures, [record.getMessage() for record in failures]
