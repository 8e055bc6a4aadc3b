"""Fixtures of all tests: the instrumentation switched on with exporters in memory, checked against the conventions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from support.canary_table import Row, print_table
from support.conformance import SCOPE, assert_conformant
from support.conventions import HARVESTED

_HARVESTED: tuple[str, ...] = HARVESTED if importlib.util.find_spec("fastmcp") else ()


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    """The runs of the tests of a file that search for canaries, printed at the end (pytest shows them with ``-s``)."""
    rows: list[Row] = []
    yield rows
    print_table(rows)


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Recorder:
    """What was exported so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])
        self.content = False
        self.extra: tuple[str, ...] = _HARVESTED
        """Attributes that the test asked for."""

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def ours(self) -> list[ReadableSpan]:
        return [span for span in self.spans if span.instrumentation_scope and span.instrumentation_scope.name == SCOPE]

    def find(self, name: str, kind: str | None = None, **attributes: Any) -> list[ReadableSpan]:
        return [
            span
            for span in self.spans
            if span.name == name
            and kind in (None, span.kind.name)
            and all((span.attributes or {}).get(key) == value for key, value in attributes.items())
        ]

    def one(self, name: str, kind: str | None = None) -> ReadableSpan:
        found = self.find(name, kind)
        assert len(found) == 1, f"{len(found)} spans {name!r} {kind}: {[span.name for span in self.spans]}"
        return found[0]

    def tracer(self) -> Any:
        return self.tracer_provider.get_tracer("test-app")

    def metrics(self) -> Any:
        return self.reader.get_metrics_data()

    def all_points(self) -> dict[str, list[Any]]:
        data = self.metrics()
        found: dict[str, list[Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(metric.data.data_points)
        return found

    def points(self, name: str) -> list[Any]:
        return self.all_points().get(name, [])

    def clear(self) -> None:
        self.exporter.clear()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.tracer_provider.shutdown()
    recorder.meter_provider.shutdown()


Instrument = Callable[..., None]


@pytest.fixture
def instrument(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> Iterator[Instrument]:
    """Switches the instrumentation on; at the end all that was exported must conform, and nothing of ours failed."""
    instrumentor = McpInstrumentor()

    def switch_on(**options: Any) -> None:
        instrumentor.instrument(
            tracer_provider=recorder.tracer_provider,
            meter_provider=recorder.meter_provider,
            skip_dep_check=True,
            **options,
        )

    yield switch_on
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    assert_conformant(recorder.ours, recorder.metrics(), content=recorder.content, extra=recorder.extra)
    failures = [record for record in caplog.get_records("call") if record.name == our_logger.name]
    assert not failures, [record.getMessage() for record in failures]


@pytest.fixture
def instrumented(instrument: Instrument, recorder: Recorder) -> Recorder:
    """The instrumentation with its defaults."""
    instrument()
    return recorder
