"""Our own code fails, at every place where it can: the host's results, exceptions and logs are those without us.

No list of places: every function of ours that a run of the workload calls is made to raise, one at a time. What is
exempt is listed, with the reason.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpHistogram, NoOpMeter, NoOpMeterProvider
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

from opentelemetry_instrumentation_mcp import McpInstrumentor, connection, message, operation, telemetry
from support import sdk
from support.breaking import (
    BrokenError,
    Outcome,
    Place,
    described,
    dumped,
    harm,
    instrumented,
    listening,
)
from support.breaking import break_each as breaking_each
from support.breaking import places_called as breaking_places_called

pytestmark = pytest.mark.anyio

# --- the host: a client and a server at work -----------------------------------------------------------------

Step = tuple[str, Callable[[sdk.Peer], Awaitable[Any]]]


async def cancelled_by_caller(peer: sdk.Peer) -> str:
    with anyio.move_on_after(0.01) as scope:
        await peer.call("slow", {"seconds": 3})
    return "cancelled" if scope.cancelled_caught else "not cancelled"


async def at_the_same_time(peer: sdk.Peer) -> list[str]:
    results: dict[int, str] = {}

    async def add(number: int) -> None:
        results[number] = await peer.text("add", {"a": number, "b": number})

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(add, number)
    return [results[number] for number in sorted(results)]


EVERYWHERE: tuple[Step, ...] = (
    ("list tools", lambda peer: peer.session.list_tools()),
    ("list prompts", lambda peer: peer.session.list_prompts()),
    ("add", lambda peer: peer.call("add", {"a": 1, "b": 2})),
    ("fail", lambda peer: peer.call("fail")),
    ("reject", lambda peer: peer.call("reject")),
    ("unknown tool", lambda peer: peer.call("nobody-knows-this-tool")),
    ("bad arguments", lambda peer: peer.call("add", {"a": "not a number"})),
    ("prompt", lambda peer: peer.session.get_prompt("greet", {"name": "you"})),
    ("unknown prompt", lambda peer: peer.session.get_prompt("unknown")),
    ("resource", lambda peer: peer.read("res://greeting")),
    ("progress", lambda peer: peer.call("progress", progress=True)),
    ("log", lambda peer: peer.call("log")),
    ("change", lambda peer: peer.call("change")),
    ("timeout", lambda peer: peer.call("slow", {"seconds": 3}, timeout=0.01)),
    ("cancelled", cancelled_by_caller),
    ("at the same time", at_the_same_time),
)
HANDSHAKE_ONLY: tuple[Step, ...] = (
    ("unknown method", lambda peer: peer.request("no/such/method")),
    ("ping", lambda peer: peer.session.send_ping()),
    ("logging level", lambda peer: peer.session.set_logging_level("info")),
    ("roots changed", lambda peer: peer.session.send_roots_list_changed()),
)
BACK_CHANNEL: tuple[Step, ...] = (
    ("sample", lambda peer: peer.call("sample")),
    ("roots", lambda peer: peer.call("roots")),
    ("ping client", lambda peer: peer.call("ping_client")),
)


class HostError(Exception):
    pass


@dataclass(frozen=True)
class Way:
    """A transport and a protocol era."""

    transport: str
    era: str = "legacy"

    @property
    def steps(self) -> tuple[Step, ...]:
        if self.era == "modern" or self.transport == "direct":
            return EVERYWHERE
        return EVERYWHERE + HANDSHAKE_ONLY + (BACK_CHANNEL if self.transport != "http-json" else ())


async def work(way: Way, command: list[str] | None = None) -> list[Outcome]:
    """What the host does and sees; the last thing it does is to fail. ``command`` starts the stdio server."""
    seen: list[Outcome] = []
    current = context.get_current()
    server = _server if way.transport in ("memory", "direct") else None
    try:
        async with sdk.connect(way.transport, era=way.era, server=server, command=command) as peer:
            for label, step in way.steps:
                with anyio.move_on_after(10) as patience:
                    try:
                        seen.append((label, dumped(await step(peer))))
                    except Exception as error:
                        seen.append((label, *described(error)))
                assert not patience.cancelled_caught, f"{label} hangs"
                assert context.get_current() is current, f"{label} left its context behind"
            await anyio.sleep(0.01)
            seen.append(("callbacks", *sorted(Counter(name for name, _ in peer.callbacks.seen).items())))
            raise HostError("mine")
    except BaseException as error:
        seen.append(("closed", *described(error)))
    assert context.get_current() is current
    return seen


# One for all runs: building it costs more than using it. Applications for HTTP can be started only once.
_server = sdk.build_server()

_baselines: dict[Way, tuple[list[Outcome], list[tuple[str, str, str]]]] = {}


async def without_us(way: Way) -> tuple[list[Outcome], list[tuple[str, str, str]]]:
    if way not in _baselines:
        assert not McpInstrumentor().is_instrumented_by_opentelemetry
        with listening() as log:
            seen = await work(way)
        assert log.ours == []
        assert len(seen) == len(way.steps) + 2
        _baselines[way] = seen, log.host
    return _baselines[way]


async def places_called(way: Way, **options: Any) -> list[Place]:
    return await breaking_places_called(partial(work, way), **options)


async def break_each(way: Way, places: Sequence[Place], **options: Any) -> list[str]:
    return await breaking_each(await without_us(way), partial(work, way), places, **options)


MEMORY = [Way("memory", era) for era in sdk.ERAS] + ([Way("direct", "modern")] if sdk.SDK2 else [])
HTTP = [Way("http", era) for era in sdk.ERAS]


@pytest.mark.parametrize("way", MEMORY + HTTP, ids=str)
async def test_we_are_not_noticed(way: Way) -> None:
    """What all the others stand on: two runs agree, and with us they do too."""
    without = await without_us(way)
    with listening() as log:
        again = await work(way)
    assert harm(without, again, log) == []
    with listening() as log, instrumented():
        assert harm(without, await work(way), log) == []
    assert log.ours == []


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize("way", MEMORY, ids=str)
async def test_we_are_not_noticed_on_trio(way: Way) -> None:
    with listening() as log:
        seen = await work(way)
    without = seen, log.host
    with listening() as log, instrumented():
        assert harm(without, await work(way), log) == []
    assert log.ours == []


@pytest.mark.parametrize("way", MEMORY, ids=str)
async def test_every_function_fails_once(way: Way) -> None:
    called = await places_called(way)
    assert len(called) > 40, "most of the code is in use"
    # What knows no library is the same on every way.
    places = [place for place in called if way is MEMORY[0] or place.label.startswith("targets.")]
    harmed = await break_each(way, places)
    assert not harmed, f"{len(harmed)} of {len(places)} failures reach the host:\n" + "\n".join(harmed)


EVERYTHING = {
    "capture_content": "SPAN_AND_EVENT",
    "stacktraces": True,
    "identity": "on",
    "langfuse": "on",
    "baggage_attributes": "tenant.*",
    "baggage_outbound": "tenant.*",
    "clean_spans": True,
}


async def test_every_function_fails_once_while_everything_is_told() -> None:
    way = MEMORY[0]
    ordinary = await places_called(way)
    places = [place for place in await places_called(way, **EVERYTHING) if place not in ordinary]
    assert len(places) > 30
    harmed = await break_each(way, places, **EVERYTHING)
    assert not harmed, f"{len(harmed)} of {len(places)} failures reach the host:\n" + "\n".join(harmed)


@pytest.mark.parametrize("way", HTTP, ids=str)
async def test_every_function_of_transports_fails_once(way: Way) -> None:
    in_memory = {place for memory_way in MEMORY for place in await places_called(memory_way)}
    called = await places_called(way)
    of_transports = ("targets.transports", "targets.sdk_v2_modern_http", "propagation.receive")
    places = [place for place in called if place not in in_memory or place.label.startswith(of_transports)]
    assert len(places) > 5
    harmed = await break_each(way, places)
    assert not harmed, f"{len(harmed)} of {len(places)} failures reach the host:\n" + "\n".join(harmed)


# --- what we are given fails ----------------------------------------------------------------------------------


class FailingProcessor(SpanProcessor):
    def __init__(self, *, at: str) -> None:
        self.at = at

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        if self.at == "start":
            raise BrokenError

    def on_end(self, span: ReadableSpan) -> None:
        if self.at == "end":
            raise BrokenError


class FailingExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise BrokenError


class FailingSampler(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        raise BrokenError

    def get_description(self) -> str:
        return "fails"


class FailingHistogram(NoOpHistogram):
    def record(self, *args: Any, **kwargs: Any) -> None:
        raise BrokenError


class FailingMeter(NoOpMeter):
    def create_histogram(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return FailingHistogram(name)


class FailingMeterProvider(NoOpMeterProvider):
    def get_meter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return FailingMeter(name)


class UselessMeterProvider(NoOpMeterProvider):
    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        raise BrokenError


class UselessTracerProvider(trace.NoOpTracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        raise BrokenError


class FailingPropagator(TextMapPropagator):
    def __init__(self, at: str) -> None:
        self.at = at

    def inject(self, *args: Any, **kwargs: Any) -> None:
        if self.at == "inject":
            raise BrokenError

    def extract(self, carrier: Any, context: Context | None = None, getter: Any = None) -> Context:
        if self.at == "extract":
            raise BrokenError
        return context or Context()

    @property
    def fields(self) -> set[str]:
        if self.at == "fields":
            raise BrokenError
        return {"traceparent", "_meta", "progressToken", "io.modelcontextprotocol/protocolVersion"}


def tracing(processor: SpanProcessor | None = None, sampler: Sampler | None = None) -> dict[str, Any]:
    provider = TracerProvider(sampler=sampler)
    if processor is not None:
        provider.add_span_processor(processor)
    return {"tracer_provider": provider}


def failing(*args: Any) -> None:
    raise BrokenError


GIFTS: dict[str, Callable[[], dict[str, Any]]] = {
    "processor at start": lambda: tracing(FailingProcessor(at="start")),
    "processor at end": lambda: tracing(FailingProcessor(at="end")),
    "exporter": lambda: tracing(SimpleSpanProcessor(FailingExporter())),
    "sampler": lambda: tracing(sampler=FailingSampler()),
    "histogram": lambda: {"meter_provider": FailingMeterProvider()},
    "meter provider": lambda: {"meter_provider": UselessMeterProvider()},
    "tracer provider": lambda: {"tracer_provider": UselessTracerProvider()},
    "request_hook": lambda: {"request_hook": failing},
    "response_hook": lambda: {"response_hook": failing},
    "hooks of another signature": lambda: {"request_hook": lambda: None, "response_hook": lambda span: None},
}


@pytest.mark.parametrize("gift", GIFTS)
@pytest.mark.parametrize("way", [*MEMORY, HTTP[0]], ids=str)
async def test_what_we_are_given_fails(way: Way, gift: str) -> None:
    without = await without_us(way)
    with listening() as log, instrumented(**GIFTS[gift]()):
        assert harm(without, await work(way), log) == []
    # The SDK contains its exporters by itself.
    assert bool(log.ours) is (gift != "exporter")


@pytest.mark.parametrize("at", ["inject", "extract", "fields"])
@pytest.mark.parametrize("way", [*MEMORY, HTTP[0]], ids=str)
async def test_a_propagator_fails(way: Way, at: str) -> None:
    without = await without_us(way)
    before = propagate.get_global_textmap()
    with listening() as log, instrumented():
        propagate.set_global_textmap(FailingPropagator(at))
        try:
            assert harm(without, await work(way), log) == []
        finally:
            propagate.set_global_textmap(before)


@pytest.mark.parametrize("way", [*MEMORY, HTTP[0]], ids=str)
async def test_a_stuck_exporter_stalls_nobody(way: Way) -> None:
    released, entered = threading.Event(), threading.Event()

    class StuckExporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            entered.set()
            released.wait(60)
            return SpanExportResult.SUCCESS

    without = await without_us(way)
    processor = BatchSpanProcessor(StuckExporter(), max_queue_size=8, max_export_batch_size=2, schedule_delay_millis=1)
    try:
        with listening() as log, instrumented(**tracing(processor)):
            started = time.perf_counter()
            assert harm(without, await work(way), log) == []
            took = time.perf_counter() - started
    finally:
        released.set()
        processor.shutdown()
    assert entered.is_set()
    assert took < 10
    assert log.ours == []


# --- stdio ----------------------------------------------------------------------------------------------------


async def test_both_processes_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client and a server process whose instrumentation fails at every message."""
    way = Way("stdio")
    without = await without_us(way)
    command = [sys.executable, sdk.server_command()[1].replace("stdio_server", "instrumented_stdio_server")]
    with listening() as log, instrumented():
        assert harm(without, await work(way, command), log) == []
    assert log.ours == []
    monkeypatch.setattr(telemetry.Telemetry, "_begin", failing)
    with listening() as log, instrumented():
        assert harm(without, await work(way, [*command, "--broken"]), log) == []
    assert log.ours


# --- garbage --------------------------------------------------------------------------------------------------


async def test_collecting_garbage_never_enters_the_sdk() -> None:
    """An operation may be dropped at any moment, also while the SDK holds one of its locks."""
    lock = threading.Lock()
    entered_again: list[str] = []
    ended: list[str] = []

    class Locking(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span.name)
            if not lock.acquire(blocking=False):
                entered_again.append(span.name)
                return
            try:
                gc.collect()
            finally:
                lock.release()

    class Cycle:
        def __init__(self, dropped: Any) -> None:
            self.itself = self
            self.dropped = dropped

    provider = tracing(Locking())["tracer_provider"]
    ours = telemetry.Telemetry(None, provider, MeterProvider([InMemoryMetricReader()]))
    server = connection.Connection(server=True)

    def begin(method: str, request_id: int | None = None) -> operation.Operation:
        begun = ours.begin_server(message.describe(method, {}, request_id), server, None)
        assert begun is not None
        return begun

    gc.collect()
    Cycle(begin("notifications/progress"))
    begin("ping", 1).settle()
    assert entered_again == [], "a lock of the SDK would be waited for by the thread that holds it"
    begin("ping", 2).settle()
    assert sorted(ended) == ["notifications/progress", "ping", "ping"], "dropped is not forgotten"
