"""The pytest plugin behind `run.py`: sets up one side; notes outcomes, our warnings, spans of ours that never ended.

Loaded by `-p external.plugin` before any conftest, in pytest-xdist's workers as well. What it does is said by
environment variables, because workers are told nothing else:

* `OTEL_MCP_EXTERNAL_OUT`: the folder for what is noted, one file a process;
* `OTEL_MCP_EXTERNAL_SIDE`: `without` or `with`;
* `OTEL_MCP_EXTERNAL_PROVIDERS`: `own` (given to `instrument()` alone: the suite's own remain the global ones), `global`
  (set globally on both sides) or `none` (no OpenTelemetry SDK is set up, unless the suite does);
* `OTEL_MCP_EXTERNAL_OPTIONS`: keyword arguments of `instrument()`, in JSON.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

OUR_NAME = "opentelemetry_instrumentation_mcp"
OUT = Path(os.environ["OTEL_MCP_EXTERNAL_OUT"])
WITH_US = os.environ["OTEL_MCP_EXTERNAL_SIDE"] == "with"
PROVIDERS = os.environ["OTEL_MCP_EXTERNAL_PROVIDERS"]
OPTIONS: dict[str, Any] = json.loads(os.environ["OTEL_MCP_EXTERNAL_OPTIONS"])


_pending: list[str] = []
_own_pid = os.getpid()


def note(kind: str, **values: Any) -> None:
    """Keep a line for this process's file."""
    _pending.append(json.dumps({"kind": kind, "test": os.environ.get("PYTEST_CURRENT_TEST", ""), **values}))
    if os.getpid() != _own_pid:  # a server that a test has forked: nobody will write for it
        write_notes()


def write_notes() -> None:
    """Write what is kept. Not while a test runs: a suite may forbid its event loop to write files."""
    with (OUT / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in _pending)
    _pending.clear()


class OpenSpans(SpanProcessor):
    """Counts spans of ours and remembers those that have not ended, with the test they began in."""

    def __init__(self) -> None:
        self.open: dict[int, dict[str, str]] = {}
        self.ended = 0
        os.register_at_fork(after_in_child=self.open.clear)
        os.register_at_fork(after_in_child=_pending.clear)

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == OUR_NAME:
            self.open[span.get_span_context().span_id] = {
                "span": f"{span.kind.name} {span.name}",
                "began_in": os.environ.get("PYTEST_CURRENT_TEST", ""),
            }

    def on_end(self, span: ReadableSpan) -> None:
        scope = span.instrumentation_scope
        if scope is not None and scope.name == OUR_NAME:
            self.ended += 1
            self.open.pop(span.get_span_context().span_id, None)


class Notes(logging.Handler):
    """What our logger says: nothing is what it should say."""

    def emit(self, record: logging.LogRecord) -> None:
        note("log", level=record.levelname, message=record.getMessage())


open_spans = OpenSpans()
instrumentor: Any = None


def set_up() -> None:
    """Providers, and on one side the instrumentation."""
    global instrumentor
    given: dict[str, Any] = {}
    if PROVIDERS != "none":
        tracer_provider = TracerProvider()
        tracer_provider.add_span_processor(open_spans)
        meter_provider = MeterProvider([InMemoryMetricReader()])
        if PROVIDERS == "global":
            trace.set_tracer_provider(tracer_provider)
            metrics.set_meter_provider(meter_provider)
        else:
            given = {"tracer_provider": tracer_provider, "meter_provider": meter_provider}
    if WITH_US:
        from opentelemetry_instrumentation_mcp import McpInstrumentor

        logging.getLogger(OUR_NAME).addHandler(Notes(logging.WARNING))
        instrumentor = McpInstrumentor()
        instrumentor.instrument(**given, **OPTIONS)


# Warnings are not errors yet here, and must not be printed by one side alone.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    set_up()


def pytest_runtest_setup() -> None:
    """Let every test hear the warnings that are otherwise given once per process."""
    if instrumentor is not None:
        from opentelemetry_instrumentation_mcp.guard import forget_reports

        forget_reports()


def pytest_runtest_logfinish() -> None:
    """Write what was kept during a test; workers of xdist come by here too."""
    write_notes()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what came of a phase of a test; with xdist only where the reports of all workers arrive."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    note(
        "phase",
        nodeid=report.nodeid,
        when=report.when,
        outcome=report.outcome,
        xfail=hasattr(report, "wasxfail"),
        reason=_reason(report),
    )


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note what could not be collected: its tests did not run."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        note("phase", nodeid=report.nodeid, when="collect", outcome="failed", xfail=False, reason=_reason(report))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Note which spans did not end, when all fixtures are gone; later, xdist may end its workers any time."""
    if instrumentor is not None:
        gc.collect()
        instrumentor.uninstrument()
        note("spans", ended=open_spans.ended, never_ended=list(open_spans.open.values()))
    write_notes()


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return text.strip()[:500]
