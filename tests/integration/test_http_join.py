"""Servers of the SDK over HTTP, in processes of their own, join the traces of callers that are no MCP SDK."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from opentelemetry.trace import SpanKind

from support import http_join, sdk
from support.conformance import assert_conformant
from support.http_join import (
    HEADERS,
    INSTRUMENT,
    META,
    MODERN,
    NEITHER,
    WAYS,
    Caller,
    Sent,
    Server,
    by_id,
    ids_of,
    ours,
)
from support.sink import OtlpSink

SUPPORT = Path(http_join.__file__).parent
PROGRAM = str(SUPPORT / "sdk_http_server.py")
# The oldest of our SDKs knows it too.
LEGACY = "2025-03-26"
VERSIONS = (LEGACY, MODERN) if sdk.SDK2 else (LEGACY,)


class Start(NamedTuple):
    command: tuple[str, ...]
    stateful: bool = False
    traced: bool = False
    workers: int = 1
    starlette: bool = False


def _uvicorn(app: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "uvicorn", f"sdk_http_server:{app}", "--app-dir", str(SUPPORT), *options)


STARTS = {
    "python": Start((sys.executable, PROGRAM), stateful=True),
    "python-stateless": Start((sys.executable, PROGRAM, "--stateless")),
    "python-starlette": Start((sys.executable, PROGRAM), stateful=True, traced=True, starlette=True),
    "uvicorn": Start(_uvicorn("stateful_app"), stateful=True),
    "uvicorn-traced": Start(_uvicorn("traced_app"), traced=True),
    "uvicorn-2-workers": Start(_uvicorn("app", "--workers", "2"), workers=2),
}


@pytest.mark.parametrize("name", STARTS)
def test_each_message_joins_the_trace_of_its_caller(name: str, tmp_path: Path) -> None:
    start = STARTS[name]
    if start.workers > 1:
        http_join.need_instrumented_workers()
    port = http_join.free_port()
    sent: list[Sent] = []
    with OtlpSink() as sink:
        env = http_join.environment(sink, "joined")
        if start.starlette:
            http_join.need_starlette_instrumentation()
            del env["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"]
        with Server((INSTRUMENT, *start.command, "--port", str(port)), port, env, tmp_path / "log") as server:
            for version in VERSIONS:
                for way in WAYS:
                    stateful = start.stateful and version == LEGACY
                    caller = Caller(port, way, sent, era=version, stateful=stateful)
                    for answer in caller.converse():
                        assert answer.status in (200, 202), answer
                    seen = caller.call("context").tool_output
                    wanted = {META: "meta", HEADERS: "header", NEITHER: None}.get(way, "meta")
                    assert seen["baggage"].get("way") == wanted, way
                    last = sent[-1].id or ""
                    span = sink.wait_for(lambda sink, last=last: [s for s in ours(sink.spans()) if _id(s) == last])[0]
                    assert (int(seen["trace_id"], 16), int(seen["span_id"], 16)) == ids_of(span.context)
                    if sdk.VERSION >= (1, 10):
                        # After it, a server of SDK 1.9 answers whoever comes next with 500, with and without us.
                        caller.close()
            sink.wait_for(lambda sink: len(ours(sink.spans())) >= len(sent))
            server.stop()
        spans = sink.spans()
        metrics = sink.metrics("joined")
    http_join.assert_joined(sent, spans, service_name="joined", traced=start.traced)
    assert {span.kind for span in ours(spans)} == {SpanKind.SERVER}
    assert by_id(spans, sent[0].id or "").attributes["mcp.method.name"] == sent[0].method == "initialize"
    if start.traced and http_join.OTEL < (0, 63):
        # Seen with SDK 1.31, not understood: beside an ASGI middleware our histograms have the default buckets.
        assert_conformant(spans)
    else:
        assert_conformant(spans, metrics)


def _id(span: object) -> object:
    return getattr(span, "attributes", {}).get("jsonrpc.request.id")
