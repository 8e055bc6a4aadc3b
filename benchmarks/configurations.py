"""The configurations that are compared, and how one process switches between them.

Each block of calls has a connection of its own, opened while its configuration is in force: objects of both SDKs keep
hold of what was patched when they were made. No global provider is ever set, so that ``none`` has no OpenTelemetry SDK.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.targets import TARGETS

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from floor import Floor

from support import sdk  # the tests' one face for SDK 1.x and 2.x

NONE = "none"
NATIVE_REMOVED = "native removed"
NATIVE = "native"
OURS_WITHOUT_SDK = "ours without SDK"
OURS = "ours with SDK"
FLOOR = "floor"

# What the benchmarks call a transport -> what the tests call transport and era.
TRANSPORTS = {
    "memory": ("memory", "legacy"),
    "direct": ("direct", "modern"),
    "http": ("http", "legacy"),
    "http-modern": ("http", "modern"),
}
IN_MEMORY = ("memory", "direct")


def transports() -> list[str]:
    """The transports of the SDK that is installed."""
    return [name for name, (_, era) in TRANSPORTS.items() if sdk.SDK2 or era == "legacy"]


def configurations(transport: str) -> list[str]:
    """What can be compared over ``transport`` with the SDK that is installed."""
    native = [NATIVE_REMOVED, NATIVE] if sdk.SDK2 else []
    floor = [FLOOR] if transport in IN_MEMORY else []
    return [NONE, *native, OURS_WITHOUT_SDK, OURS, *floor]


class NoOpExporter(SpanExporter):
    """Exports nothing; keeps the spans while somebody wants to look at them."""

    def __init__(self) -> None:
        self.kept: list[ReadableSpan] | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.kept is not None:
            self.kept.extend(spans)
        return SpanExportResult.SUCCESS


class Providers:
    """An OpenTelemetry SDK as programs have it, but for the exporter."""

    def __init__(self) -> None:
        self.exporter = NoOpExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])
        self.floor = Floor(self.tracer_provider, self.meter_provider)

    def flush(self) -> None:
        """Export what is queued, so that no configuration pays for the one before it."""
        self.tracer_provider.force_flush()

    @contextmanager
    def keeping_spans(self) -> Iterator[list[ReadableSpan]]:
        """A list of all spans that end inside, filled on leaving."""
        self.flush()
        kept = self.exporter.kept = []
        try:
            yield kept
        finally:
            self.flush()
            self.exporter.kept = None


# ----- the library's own telemetry


class _NoSpan:
    def __enter__(self) -> trace.Span:
        return trace.INVALID_SPAN

    def __exit__(self, *exception: object) -> None:
        return None


@contextmanager
def _replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _without_native_client() -> AbstractContextManager[None]:
    if not sdk.SDK2:
        return nullcontext()
    from mcp.shared import jsonrpc_dispatcher

    no_span = _NoSpan()
    return _replaced(jsonrpc_dispatcher, otel_span=lambda *_, **__: no_span, inject_trace_context=lambda _: None)


def _with_native(providers: Providers) -> AbstractContextManager[None]:
    from mcp.shared import _otel

    return _replaced(_otel, _tracer=providers.tracer_provider.get_tracer("mcp-python-sdk"))


def _remove_native_server(server: Any) -> None:
    if sdk.SDK2:
        from mcp.server._otel import OpenTelemetryMiddleware

        middleware = sdk.lowlevel(server).middleware
        middleware[:] = [each for each in middleware if not isinstance(each, OpenTelemetryMiddleware)]


# ----- ours


@contextmanager
def _instrumented(providers: Providers | None) -> Iterator[None]:
    instrumentor = McpInstrumentor()
    options = (
        {"tracer_provider": providers.tracer_provider, "meter_provider": providers.meter_provider} if providers else {}
    )
    instrumentor.instrument(skip_dep_check=True, **options)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def _patch_points() -> dict[str, Any]:
    """What is at the places that ours patches, now."""
    found: dict[str, Any] = {}
    for target in TARGETS:
        try:
            parent: Any = importlib.import_module(target.module)
        except ModuleNotFoundError:
            continue
        owner, _, name = target.attribute.partition("|")[0].rpartition(".")
        parent = getattr(parent, owner, None) if owner else parent
        if parent is not None and name in vars(parent):
            found[f"{target.module}.{target.attribute}"] = vars(parent)[name]
    return found


# ----- connections


@asynccontextmanager
async def _serve(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application in this event loop, on a free port of the loopback interface; yields its base URL."""
    # asyncio switches Nagle's algorithm off only for sockets that say they are TCP: with it, calls last 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, ws="none"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await anyio.sleep(0.001)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            with anyio.move_on_after(3, shield=True):
                while any(each.is_serving() for each in server.servers):  # noqa: ASYNC110
                    await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()


sdk.serve = _serve


class Connected:
    """A connection to the server under test, opened under one configuration."""

    def __init__(self, session: Any) -> None:
        self.session = session

    async def call(self) -> None:
        """What is measured: one ``tools/call`` and its answer."""
        await self.session.call_tool("add", {"a": 1, "b": 2})


class Lab:
    """Opens connections under any of the configurations."""

    def __init__(self) -> None:
        self.providers = Providers()
        self._pristine = _patch_points()

    def check_patches(self, *, patched: bool) -> None:
        """Raise unless ours has patched the SDK, or has not."""
        changed = [name for name, value in _patch_points().items() if value is not self._pristine[name]]
        if bool(changed) is not patched:
            raise AssertionError(f"patched: {changed or 'nothing'}")

    def _in_force(self, name: str) -> AbstractContextManager[None]:
        if name in (NATIVE_REMOVED, FLOOR):
            return _without_native_client()
        if name == NATIVE:
            return _with_native(self.providers)
        if name in (OURS, OURS_WITHOUT_SDK):
            return _instrumented(self.providers if name == OURS else None)
        return nullcontext()

    def _server(self, name: str) -> Any:
        server = sdk.build_server(log_level="CRITICAL")
        if name in (NATIVE_REMOVED, FLOOR):
            _remove_native_server(server)
        if name == FLOOR:
            self.providers.floor.trace_server(server)
        return server

    @asynccontextmanager
    async def connected(self, name: str, transport: str) -> AsyncIterator[Connected]:
        """A new connection to a new server, while configuration ``name`` is in force."""
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            raise TypeError("a global tracer provider is set: no configuration is without SDK")
        self.check_patches(patched=False)
        server = self._server(name)
        over, era = TRANSPORTS[transport]
        with self._in_force(name):
            if name in (OURS, OURS_WITHOUT_SDK):
                self.check_patches(patched=True)
            async with sdk.connect(over, era=era, server=server) as peer:
                if name == FLOOR:
                    self.providers.floor.trace_client(peer.session, _negotiated(peer.session))
                yield Connected(peer.session)
        self.check_patches(patched=False)


def _negotiated(session: Any) -> str:
    return str(session.protocol_version) if sdk.SDK2 else str(sdk.types.LATEST_PROTOCOL_VERSION)
