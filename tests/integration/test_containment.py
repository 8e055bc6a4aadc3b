"""Our own code raises, everywhere: the host's results, exceptions and logs are those without us, one warning apart."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from opentelemetry import propagate
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

from conftest import Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor, measures, propagation, telemetry, telling
from opentelemetry_instrumentation_mcp import connection as connection_module
from opentelemetry_instrumentation_mcp.targets import sdk_v1_taps, sdk_v2_rounds, sessions, transports
from support import sdk
from support.breaking import is_teardown_race

pytestmark = pytest.mark.anyio
OURS = "opentelemetry_instrumentation_mcp"

SEAMS: list[tuple[Any, str]] = [
    (telemetry.Telemetry, "records"),
    (telemetry.Telemetry, "begin_client"),
    (telemetry.Telemetry, "begin_server"),
    (telemetry.Telemetry, "_begin"),
    (telemetry.Telemetry, "finish"),
    (telemetry.Telemetry, "end_session"),
    (measures.Measures, "admit_names"),
    (measures.Measures, "attributes"),
    (telling.Telling, "status_text"),
    (telemetry.Telemetry, "context_to_propagate"),
    (connection_module.Connection, "view"),
    (propagation, "receive"),
    (propagation, "extract"),
    (propagation, "inject"),
    (propagation, "with_injected_meta"),
    (transports, "context_of"),
    (transports, "endpoint_of"),
    (transports, "http_request_of"),
    (sessions.SessionClock, "__init__"),
    (sdk_v2_rounds.Rounds, "previous"),
    (sdk_v2_rounds.Rounds, "remember"),
    (sdk_v1_taps.Taps, "begin_inbound"),
    (sdk_v1_taps.Taps, "hand_over"),
    (sdk_v1_taps.Taps, "take"),
    (sdk_v1_taps.Taps, "_read_answer"),
    (sdk_v1_taps.Taps, "_answer_arrived"),
]


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("ours")


async def workload(transport: str, era: str) -> list[str]:
    """What a program sees of its calls: results and exceptions."""
    seen: list[str] = []

    async def step(name: str, call: Any) -> None:
        try:
            seen.append(f"{name}: {await call!r}")
        except Exception as error:
            seen.append(f"{name}: {type(error).__qualname__} {error}")

    async with sdk.connect(transport, era=era) as peer:
        await step("list", peer.session.list_tools())
        await step("add", peer.text("add", {"a": 1, "b": 2}))
        await step("fail", peer.text("fail"))
        await step("unknown", peer.text("unknown"))
        await step("prompt", peer.session.get_prompt("greet", {"name": "x"}))
        await step("no prompt", peer.session.get_prompt("nope"))
        await step("read", peer.read("res://greeting"))
        await step("progress", peer.call("progress", {"steps": 1}, progress=True))
        await step("log", peer.text("log"))
        if era == "legacy":
            await step("sample", peer.text("sample"))
            await step("roots", peer.text("roots"))
            await step("changed", peer.session.send_roots_list_changed())
        with anyio.move_on_after(0.05) as scope:
            await peer.call("slow", {"seconds": 5})
        seen.append(f"cancelled: {scope.cancelled_caught}")
        await anyio.sleep(0.05)
        seen += sorted(name for name, _ in peer.callbacks.seen)
    return seen


class _Logs(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelname, record.getMessage()))

    @property
    def ours(self) -> list[str]:
        return [message for name, _, message in self.records if name == OURS]

    @property
    def host(self) -> list[tuple[str, str, str]]:
        return sorted(
            record for record in self.records if record[0] != OURS and not is_teardown_race(record[0], record[2])
        )


@contextmanager
def logs() -> Iterator[_Logs]:
    handler = _Logs()
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def instrumented(tracer_provider: Any, **options: Any) -> Iterator[None]:
    McpInstrumentor().instrument(tracer_provider=tracer_provider, skip_dep_check=True, **options)
    try:
        yield
    finally:
        McpInstrumentor().uninstrument()


WAYS = [("memory", "legacy"), ("http", "legacy")] + ([("http", "modern"), ("direct", "modern")] if sdk.SDK2 else [])
_without: dict[tuple[str, str], tuple[list[str], list[Any]]] = {}


async def without_us(transport: str, era: str) -> tuple[list[str], list[Any]]:
    key = transport, era
    if key not in _without:
        with logs() as heard:
            _without[key] = (await workload(transport, era), heard.host)
    return _without[key]


@pytest.mark.parametrize(("transport", "era"), WAYS)
@pytest.mark.parametrize(("owner", "name"), SEAMS, ids=lambda value: getattr(value, "__name__", value))
async def test_host_is_unharmed(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, transport: str, era: str
) -> None:
    expected, host_logs = await without_us(transport, era)
    with logs() as heard, instrumented(recorder.tracer_provider):
        monkeypatch.setattr(owner, name, broken)
        assert await workload(transport, era) == expected
    assert heard.host == host_logs
    assert len(heard.ours) == len(set(heard.ours)), "a failure is reported once per place"
    assert all("ours" not in message.split("(")[0] or "Failed" in message for message in heard.ours)


class _Raises(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        raise RuntimeError("the exporter's own")

    def shutdown(self) -> None:
        return None


class _RaisingProcessor(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("the processor's own")

    def on_end(self, span: Any) -> None:
        raise RuntimeError("the processor's own")


class _Blocks(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        time.sleep(30)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return None


class _RaisingPropagator(TextMapPropagator):
    @property
    def fields(self) -> set[str]:
        return {"traceparent"}

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise RuntimeError("the propagator's own")

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        raise RuntimeError("the propagator's own")


@pytest.mark.parametrize("kind", ["exporter", "processor"])
async def test_a_raising_pipeline_fails_no_call(kind: str) -> None:
    expected, _ = await without_us("memory", "legacy")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(_Raises()) if kind == "exporter" else _RaisingProcessor())
    with instrumented(provider):
        assert await workload("memory", "legacy") == expected


async def test_a_blocking_exporter_stalls_no_call() -> None:
    expected, _ = await without_us("memory", "legacy")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Blocks(), schedule_delay_millis=1))
    with instrumented(provider), anyio.fail_after(10):
        assert await workload("memory", "legacy") == expected


async def test_a_raising_propagator_fails_no_call(recorder: Recorder) -> None:
    expected, _ = await without_us("memory", "legacy")
    configured = propagate.get_global_textmap()
    propagate.set_global_textmap(_RaisingPropagator())
    try:
        with instrumented(recorder.tracer_provider):
            assert await workload("memory", "legacy") == expected
    finally:
        propagate.set_global_textmap(configured)
    assert recorder.find("tools/call add", "CLIENT"), "the spans themselves are made all the same"
