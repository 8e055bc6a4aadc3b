"""Console exporters leave stdout, and nothing else is redirected."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from opentelemetry_instrumentation_mcp import console_exporters
from opentelemetry_instrumentation_mcp.guard import forget_reports, logger


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    forget_reports()
    yield
    console_exporters.restore()


class Pipe(io.StringIO):
    """Says that it is stdout."""

    def fileno(self) -> int:
        return 1


def export_to(out: Any, kind: type[ConsoleSpanExporter] = ConsoleSpanExporter) -> ConsoleSpanExporter:
    exporter = kind(out=out)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.get_tracer("test").start_span("a span").end()
    return exporter


def test_stdout_is_left(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    console_exporters.redirect()
    for _ in range(2):
        pipe = Pipe()
        exporter = export_to(pipe)
        assert pipe.getvalue() == ""
        assert exporter.out is sys.stderr
    assert capsys.readouterr().err.count('"name": "a span"') == 2
    warnings = [record.getMessage() for record in caplog.records if record.name == logger.name]
    assert len(warnings) == 1 and "ConsoleSpanExporter" in warnings[0] and "mcp_tree" in warnings[0]


def test_an_exporter_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = Pipe()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=pipe)))
    provider.get_tracer("test").start_span("before").end()
    console_exporters.redirect()
    provider.get_tracer("test").start_span("after").end()
    assert '"name": "before"' in pipe.getvalue() and "after" not in pipe.getvalue()
    assert '"name": "after"' in capsys.readouterr().err


def test_other_streams_stay(caplog: pytest.LogCaptureFixture) -> None:
    console_exporters.redirect()
    for out in (io.StringIO(), sys.stderr, sys.__stderr__):
        assert export_to(out).out is out
    assert not caplog.records


def test_subclasses() -> None:
    class Mine(ConsoleSpanExporter):
        pass

    console_exporters.redirect()
    assert export_to(Pipe(), Mine).out is sys.stderr


def test_on_and_off() -> None:
    originals = ConsoleSpanExporter.export, ConsoleMetricExporter.export
    active = True
    console_exporters.redirect(lambda: active)
    once = ConsoleSpanExporter.export
    assert once is not originals[0]
    console_exporters.redirect(lambda: active)
    assert ConsoleSpanExporter.export is once
    active = False
    pipe = Pipe()
    assert export_to(pipe).out is pipe
    console_exporters.restore()
    assert (ConsoleSpanExporter.export, ConsoleMetricExporter.export) == originals


def test_without_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    console_exporters.redirect()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        pipe = Pipe()
        exporter = export_to(pipe)
    assert pipe.getvalue() == ""
    exporter.out.close()


def test_failures_are_contained(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(ConsoleSpanExporter):
        @property
        def out(self) -> Any:
            return Pipe()

        @out.setter
        def out(self, value: Any) -> None:
            if value is sys.stderr:
                raise RuntimeError

    console_exporters.redirect()
    export_to(Pipe(), Odd)
    assert [record.getMessage() for record in caplog.records if "redirect a console exporter" in record.getMessage()]


def test_nothing_is_imported() -> None:
    program = (
        "import sys; from opentelemetry_instrumentation_mcp.console_exporters import redirect; redirect(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
