"""Nothing leaks: a workload full of canaries over every transport, and a search of the exported bytes.

With ``-s`` (as `make canary` does) a table of what was searched is printed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan

from conftest import Recorder
from opentelemetry_instrumentation_mcp import McpConfig, McpInstrumentor
from opentelemetry_instrumentation_mcp.config import variable_of
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from opentelemetry_instrumentation_mcp.payload import Policy
from support import canaries as support
from support import sdk
from support.canaries import CONTENT, ERROR, SECRET, Canaries
from support.sink import OtlpSink
from support.wire import tee_command

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
NATIVE = "mcp-python-sdk"

Options = dict[str, Any]

DEFAULTS, ERRORS_OFF, EVERYTHING, KEEP_NATIVE = "defaults", "error texts off", "everything on", "native spans cleaned"


def options_of(setting: str, key: str) -> Options:
    """Keyword arguments of a setting; ``key`` is that of the identity hashes."""
    if setting == DEFAULTS:
        return {}
    if setting == ERRORS_OFF:
        return {"error_text": "off"}
    everything: Options = {
        "capture_content": "SPAN_AND_EVENT",
        "identity": "hashed",
        "identity_key": key,
        "langfuse": "on",
        "stacktraces": True,
        "baggage_attributes": "app.*",
        "clean_spans": True,
        "resource_uri_in_span_name": True,
    }
    return {**everything, "native_spans": "keep"} if setting == KEEP_NATIVE else everything


def may_appear(setting: str) -> set[str]:
    """The kinds of canaries that a setting lets out."""
    if setting == DEFAULTS:
        return {ERROR}
    return set() if setting == ERRORS_OFF else {ERROR, CONTENT}


class LogExporter:
    """Keeps log records; the exporter in memory has another name in each generation of the SDK."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def export(self, batch: Any) -> Any:
        self.records += batch

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


class OurLog(logging.Handler):
    """What our logger says, as a formatter writes it: arguments and traceback included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Exports:
    """All that leaves a process in memory: spans (the SDK's own too), metrics, events, and what our logger says."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.logs = LogExporter()
        self.logger_provider = LoggerProvider()
        processor: Any = SimpleLogRecordProcessor(self.logs)  # type: ignore[arg-type]
        self.logger_provider.add_log_record_processor(processor)
        self.our_log = OurLog()

    @contextmanager
    def instrumented(self, **options: Any) -> Iterator[None]:
        instrumentor = McpInstrumentor()
        level = our_logger.level
        our_logger.addHandler(self.our_log)
        our_logger.setLevel(logging.DEBUG)
        try:
            instrumentor.instrument(
                tracer_provider=self.recorder.tracer_provider,
                meter_provider=self.recorder.meter_provider,
                logger_provider=self.logger_provider,
                skip_dep_check=True,
                **options,
            )
            yield
        finally:
            instrumentor.uninstrument()
            our_logger.setLevel(level)
            our_logger.removeHandler(self.our_log)

    def data(self) -> bytes:
        """Everything as OTLP bytes."""
        data = encode_spans(self.recorder.spans).SerializeToString()
        metrics = self.recorder.metrics()
        if metrics is not None:
            data += encode_metrics(metrics).SerializeToString()
        if self.logs.records:
            data += encode_logs(self.logs.records).SerializeToString()
        return data + "\n".join(self.our_log.lines).encode()


@pytest.fixture
def exports(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Exports:
    if sdk.SDK2:
        from mcp.shared import _otel

        monkeypatch.setattr(_otel, "_tracer", recorder.tracer_provider.get_tracer(NATIVE))
    return Exports(recorder)


class Row(NamedTuple):
    transport: str
    setting: str
    searched: int
    planted: int
    found: int


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    """The table of all runs, printed at the end (pytest shows it with ``-s``)."""
    rows: list[Row] = []
    yield rows
    environment = f"mcp {'.'.join(map(str, sdk.VERSION))}, Python {sys.version_info[0]}.{sys.version_info[1]}"
    print(f"\n\n{environment:22}  {'transport':24} {'setting':20} {'bytes':>9} {'planted':>8} {'leaked':>7}")
    for row in rows:
        print(f"{'':22}  {row.transport:24} {row.setting:20} {row.searched:9} {row.planted:8} {row.found:7}")


def judge(table: list[Row], c: Canaries, transport: str, setting: str, data: bytes, where: Any = "") -> None:
    """Nothing is in ``data`` that the setting does not let out, and all is that it does."""
    found = set(c.found_in(data))
    allowed = set(c.of_kind(*may_appear(setting)))
    leaked = found - allowed
    table.append(Row(transport, setting, len(data), len(c), len(leaked)))
    assert not leaked, f"{sorted(leaked)} in {where}"
    if CONTENT in may_appear(setting) and setting != KEEP_NATIVE:
        assert set(c.of_kind(CONTENT)) <= found, f"not seen: {sorted(set(c.of_kind(CONTENT)) - found)}"
    if ERROR in may_appear(setting):
        assert "JSON-RPC error" in found


def places(recorder: Recorder, c: Canaries) -> list[str]:
    """Where in the spans a canary is, for the message of a failure."""

    def hits(owner: str, values: dict[str, Any]) -> list[str]:
        return [
            f"{owner}: {key} has {found}"
            for key, value in values.items()
            if (found := c.found_in(repr(value).encode()))
        ]

    lines: list[str] = []
    for span in recorder.spans:
        own = {"name": span.name, "status": span.status.description, **(span.attributes or {})}
        lines += hits(f"{span.kind.name} {span.name}", own)
        for event in span.events:
            lines += hits(f"{span.kind.name} {span.name} event {event.name}", dict(event.attributes or {}))
    return lines


SETTINGS = [DEFAULTS, ERRORS_OFF, EVERYTHING]
IN_PROCESS = [
    (transport, era, setting)
    for era in sdk.ERAS
    for transport in ("memory", *sdk.HTTP_TRANSPORTS, *(("direct",) if era == "modern" else ()))
    for setting in SETTINGS
]
if sdk.SDK2:
    IN_PROCESS += [("memory", "legacy", KEEP_NATIVE), ("http", "modern", KEEP_NATIVE)]


@pytest.mark.anyio
@pytest.mark.parametrize(("transport", "era", "setting"), IN_PROCESS)
async def test_in_process(exports: Exports, table: list[Row], transport: str, era: str, setting: str) -> None:
    c = Canaries.make(transport, era)
    with exports.instrumented(**options_of(setting, c["key of the identity hashes"])), anyio.fail_after(20):
        seen = await support.run_workload(c, transport, era)
    if seen:
        missing = support.on_the_wire(c, transport, era) - set(c.found_in(seen))
        assert not missing, f"never sent: {sorted(missing)}"
    judge(table, c, f"{transport} ({era})", setting, exports.data(), places(exports.recorder, c))
