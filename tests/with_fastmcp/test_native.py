"""Living with the spans that FastMCP 3 and 4 make themselves."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import anyio
import pytest

from conftest import Instrument, Recorder
from support import fastmcp_sdk as fm
from support.conformance import SCOPE
from support.wire import WireLog

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(fm.MAJOR < 3, reason="FastMCP 2 makes no spans of its own"),
]


@pytest.fixture
def native(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The tracers of FastMCP and of the SDK record into the same exporter as ours."""
    import fastmcp.telemetry

    def get_tracer(name: str, *_: Any, **__: Any) -> Any:
        return recorder.tracer_provider.get_tracer(name)

    monkeypatch.setattr(fastmcp.telemetry, "otel_get_tracer", get_tracer)
    if fm.MAJOR >= 4:
        from mcp.shared import _otel

        monkeypatch.setattr(_otel, "_tracer", recorder.tracer_provider.get_tracer("mcp-python-sdk"))
    return recorder


async def workload(log: WireLog, era: str, transport: str = "memory") -> None:
    child = fm.build_server("child")
    main = fm.build_server("main")
    fm.mount(main, child, "child")
    async with fm.connect(transport, server=main, era=era, log=log) as client:
        await client.list_tools()
        await client.call_tool("add", {"a": 1, "b": 2})
        await client.call_tool("child_add", {"a": 1, "b": 2})
        await client.call_tool("fail", {}, raise_on_error=False)
        await client.call_tool("nobody-knows-this-tool", {}, raise_on_error=False)
        await client.read_resource("res://greeting")
        await client.get_prompt("greet", {"name": "you"})
        await client.call_tool("progress", {})
        if era == "legacy":
            await client.ping()
            await client.call_tool("sample", {})
        with suppress(Exception):
            await client.get_prompt("unknown")
        await anyio.sleep(0.1)


def scopes(recorder: Recorder) -> Counter[str]:
    return Counter(span.instrumentation_scope.name for span in recorder.spans if span.instrumentation_scope)


def spans_per_message(recorder: Recorder) -> Counter[tuple[str, str]]:
    """How many CLIENT and SERVER spans there are for each method."""
    return Counter(
        (str((span.attributes or {}).get("mcp.method.name")), span.kind.name)
        for span in recorder.spans
        if span.kind.name != "INTERNAL"
    )


@pytest.mark.parametrize("era", fm.ERAS)
@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_replace(instrument: Instrument, native: Recorder, transport: str, era: str) -> None:
    instrument()
    await workload(WireLog(), era, transport)
    assert set(scopes(native)) == {SCOPE}


@pytest.mark.parametrize("era", fm.ERAS)
async def test_without_us_it_makes_spans(native: Recorder, era: str) -> None:
    """Else the test above could not fail."""
    await workload(WireLog(), era)
    assert scopes(native)["fastmcp"] > 10


@pytest.mark.parametrize("era", fm.ERAS)
async def test_keep(instrument: Instrument, native: Recorder, era: str) -> None:
    """FastMCP's spans stay; ours are only where it has none; each message has one CLIENT and one SERVER span."""
    instrument(native_spans="keep")
    log = WireLog()
    await workload(log, era)
    on_wire = Counter(message.method for message in log.calls)
    spans = spans_per_message(native)
    if fm.VERSION < (4, 2):
        # It makes a SERVER span in each of the servers that a call passes, and one when it lists for itself.
        spans = Counter({key: count for key, count in spans.items() if key[0] not in ("tools/call", "tools/list")})
        on_wire = Counter({key: count for key, count in on_wire.items() if key not in ("tools/call", "tools/list")})
    assert spans == Counter({(method, kind): n for method, n in on_wire.items() for kind in ("CLIENT", "SERVER")})
    ours = {
        (str((span.attributes or {})["mcp.method.name"]), span.kind.name)
        for span in native.spans
        if span.instrumentation_scope and span.instrumentation_scope.name == SCOPE
    }
    assert not [key for key in ours if key[0] in ("tools/call", "resources/read", "prompts/get")]
    assert native.points("mcp.server.operation.duration") and native.points("mcp.client.operation.duration")


@pytest.mark.parametrize("era", fm.ERAS)
async def test_kept_spans_are_parent_and_child(instrument: Instrument, native: Recorder, era: str) -> None:
    instrument(native_spans="keep")
    async with fm.connect("memory", era=era) as client:
        await client.call_tool("add", {"a": 1, "b": 2})
    client_span, server_span = native.one("tools/call add", "CLIENT"), native.one("tools/call add", "SERVER")
    assert server_span.parent and server_span.parent.span_id == client_span.context.span_id


only_4 = pytest.mark.skipif(fm.MAJOR < 4, reason="FastMCP 3 has no setting for its telemetry")


@only_4
@pytest.mark.parametrize("mode", ["propagation_only", "off"])
@pytest.mark.parametrize("native_spans", ["replace", "keep"])
async def test_telemetry_mode(
    instrument: Instrument, native: Recorder, monkeypatch: pytest.MonkeyPatch, mode: str, native_spans: str
) -> None:
    """FastMCP is told to be silent: it adds nothing, neither spans nor attributes; the messages have ours."""
    import fastmcp

    monkeypatch.setattr(fastmcp.settings, "telemetry_mode", mode)
    instrument(native_spans=native_spans)
    log = WireLog()
    await workload(log, "modern")
    assert not [span for span in native.spans if span.kind.name == "INTERNAL"]
    assert scopes(native)["fastmcp"] == 0
    for span in native.spans:
        assert not [name for name in span.attributes or {} if name.startswith("fastmcp.")]
    on_wire = Counter(message.method for message in log.calls)
    servers = {method: n for (method, kind), n in spans_per_message(native).items() if kind == "SERVER"}
    assert servers == on_wire


@only_4
async def test_suppressed_for_a_while(instrument: Instrument, native: Recorder) -> None:
    from fastmcp.telemetry import suppress_fastmcp_telemetry

    instrument()
    server = fm.build_server("main")
    with suppress_fastmcp_telemetry():
        await server.call_tool("add", {"a": 1, "b": 2})
    assert not native.spans
    await server.call_tool("add", {"a": 1, "b": 2})
    assert [span.name for span in native.spans] == ["execute_tool add"]
    async with fm.connect("memory") as client:
        await client.ping()
