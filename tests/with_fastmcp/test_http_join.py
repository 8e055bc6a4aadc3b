"""FastMCP servers over HTTP join their callers' traces, however they are started, whoever calls."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from support import http_join
from support.conformance import SCOPE, assert_conformant, check_agreement, message_spans
from support.conventions import HARVESTED
from support.http_join import (
    BOTH,
    HEADERS,
    INSTRUMENT,
    LEGACY,
    META,
    MODERN,
    NEITHER,
    WAYS,
    Caller,
    Ids,
    ReverseProxy,
    Sent,
    Server,
    assert_joined,
    by_id,
    ids_of,
    ours,
)
from support.sink import OtlpSink, SinkSpan

fastmcp = pytest.importorskip("fastmcp", reason="FastMCP is not installed in this environment")

VERSION = tuple(int(part) for part in fastmcp.__version__.split(".")[:2])
SDK2 = metadata.version("mcp").startswith("2.")
SUPPORT = Path(http_join.__file__).parent
PROGRAM = str(SUPPORT / "fastmcp_http_server.py")
CLI = Path(sys.executable).with_name("fastmcp")
SERVICE = "joined"
EXPORT_AT_THE_END = (("OTEL_BSP_SCHEDULE_DELAY", "600000"), ("OTEL_METRIC_EXPORT_INTERVAL", "600000"))
ERAS = (LEGACY, MODERN) if SDK2 else (LEGACY,)


class Start(NamedTuple):
    """A way to start the server: the command after `opentelemetry-instrument`, and what it makes of the server."""

    command: tuple[str, ...]
    stateful: bool = False
    traced: bool = False
    workers: int = 1
    env: tuple[tuple[str, str], ...] = ()


def _uvicorn(app: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "uvicorn", f"fastmcp_http_server:{app}", "--app-dir", str(SUPPORT), *options)


# Nothing is left out: the instrumentation of Starlette finds the server by itself.
_STARLETTE = ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
_RUN = (str(CLI), "run", PROGRAM, "--transport", "http", "--host", "127.0.0.1", "--no-banner")
STARTS = {
    "fastmcp-run": Start(_RUN, stateful=True),
    # FastMCP 2 has no option for it.
    "fastmcp-run-stateless": Start(_RUN, env=(("FASTMCP_STATELESS_HTTP", "true"),))
    if VERSION < (3, 0)
    else Start((*_RUN, "--stateless")),
    "python": Start((sys.executable, PROGRAM), stateful=True),
    "python-stateless": Start((sys.executable, PROGRAM, "--stateless")),
    "fastmcp-run-starlette": Start(_RUN, stateful=True, traced=True, env=(_STARLETTE,)),
    "python-traced": Start((sys.executable, PROGRAM, "--traced"), stateful=True, traced=True),
    "uvicorn": Start(_uvicorn("stateful_app"), stateful=True),
    "uvicorn-stateless-traced": Start(_uvicorn("traced_app"), traced=True),
    "uvicorn-2-workers": Start(_uvicorn("app", "--workers", "2"), workers=2),
    "uvicorn-2-workers-traced": Start(_uvicorn("traced_app", "--workers", "2"), traced=True, workers=2),
}


def start(start: Start, sink: OtlpSink | None, log: Path) -> Server:
    if start.command[0] == str(CLI) and not CLI.exists():
        pytest.skip("the command `fastmcp` is not installed in this environment")
    if _STARLETTE in start.env:
        http_join.need_starlette_instrumentation()
    if start.workers > 1 and sink is not None:
        http_join.need_instrumented_workers()
    port = http_join.free_port()
    command = (*start.command, "--port", str(port))
    env = http_join.environment(sink, SERVICE, **dict(start.env))
    return Server(command if sink is None else (INSTRUMENT, *command), port, env, log)


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


def finished(sink: OtlpSink, received: int, server: Server, *, workers: int = 1) -> list[SinkSpan]:
    """All spans of the server, which is ended for that; workers do not flush, so what they owe is waited for."""

    def arrived(sink: OtlpSink) -> bool:
        spans = [span for span in ours(sink.spans(SERVICE)) if span.kind is SpanKind.SERVER]
        points = [
            point
            for metric in _metrics(sink)
            if metric.name == "mcp.server.operation.duration"
            for point in metric.data.data_points
        ]
        return min(len(spans), sum(point.count for point in points)) >= received

    if workers > 1:
        sink.wait_for(arrived)
    server.stop()
    return sink.spans(SERVICE)


@pytest.mark.parametrize("name", STARTS)
def test_each_message_joins_the_trace_of_its_caller(name: str, sink: OtlpSink, tmp_path: Path) -> None:
    way_to_start = STARTS[name]
    if way_to_start.workers == 1:
        # What was not exported before is flushed when SIGINT ends the server.
        way_to_start = way_to_start._replace(env=(*way_to_start.env, *EXPORT_AT_THE_END))
    sent: list[Sent] = []
    handlers: dict[str, dict[str, Any]] = {}
    with start(way_to_start, sink, tmp_path / "log") as server:
        for era in ERAS:
            for way in WAYS:
                stateful = way_to_start.stateful and era == LEGACY
                caller = Caller(server.port, way, sent, era=era, stateful=stateful)
                for answer in caller.converse():
                    assert answer.status in (200, 202), answer
                for tool in ("context", "context_in_a_thread"):
                    answer = caller.call(tool)
                    handlers[answer.message["id"]] = answer.tool_output
                baggage = handlers[sent[-2].id or ""]["baggage"]
                wanted = {META: "meta", HEADERS: "header", NEITHER: None}.get(way, "meta")
                assert baggage.get("way") == wanted, way
                caller.close()
        assert way_to_start.workers > 1 or not sink.bodies
        spans = finished(sink, len(sent), server, workers=way_to_start.workers)
        output = server.output()
    assert_joined(sent, spans, service_name=SERVICE, traced=way_to_start.traced)
    assert_conformant(spans, sink.metrics(SERVICE), extra=HARVESTED)
    if way_to_start.workers == 1:
        # A worker that has not listed its tools does not put their names on metrics.
        assert not check_agreement(spans, sink.metrics(SERVICE))
    for request_id, seen in handlers.items():
        assert (seen["trace_id"], seen["span_id"]) == ids_of(by_id(spans, request_id).context)
    assert {span.instrumentation_scope.name for span in spans} <= {SCOPE, *http_join.HTTP_SCOPES}
    _assert_attributes(sent, spans)
    durations = {metric.name for metric in _metrics(sink) if metric.name.startswith("mcp.")}
    if way_to_start.stateful:
        assert durations == {"mcp.server.operation.duration", "mcp.server.session.duration"}
    else:
        assert durations == {"mcp.server.operation.duration"}
    for complaint in ("opentelemetry_instrumentation_mcp", "is not affected", "Failed to detach context"):
        assert complaint not in output, output


def _metrics(sink: OtlpSink) -> list[Any]:
    return [
        metric
        for resource in sink.metrics(SERVICE).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def _assert_attributes(sent: list[Sent], spans: list[SinkSpan]) -> None:
    for one in sent:
        if one.id is None:
            continue
        span = by_id(spans, one.id)
        assert span.attributes["mcp.method.name"] == one.method
        assert span.attributes["mcp.protocol.version"] == one.version
        tool = span.attributes.get("gen_ai.tool.name")
        assert span.name == (f"{one.method} {tool}" if tool else one.method)
        failed = tool == "fail"
        assert (span.attributes.get("error.type") is not None) == failed, span
        assert (span.status.status_code is StatusCode.ERROR) == (span.attributes.get("error.type") == "tool_error")


def test_both_workers_are_instrumented(sink: OtlpSink, tmp_path: Path) -> None:
    """Children that uvicorn starts load the instrumentation again and export on their own."""
    sent: list[Sent] = []
    trace_of: dict[str, Ids] = {}

    def call(_: int) -> tuple[str, int]:
        log: list[Sent] = []
        answer = Caller(server.port, META, log).call("block")
        sent.extend(log)
        trace_of[log[0].id or ""] = log[0].meta or Ids(0, 0)
        return log[0].id or "", answer.tool_output

    served_by: dict[str, int] = {}
    with start(STARTS["uvicorn-2-workers"], sink, tmp_path / "log") as server, ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            served_by.update(pool.map(call, range(4)))
            if len(set(served_by.values())) == 2:
                break
        spans = finished(sink, len(sent), server, workers=2)
    assert len(set(served_by.values())) == 2
    assert_joined(sent, spans, service_name=SERVICE, traced=False)
    for request_id, process_id in served_by.items():
        span = by_id(spans, request_id)
        assert span.resource["process.pid"] == process_id
        assert span.context.trace_id == trace_of[request_id].trace_id
    reporting = {
        int(str(resource.resource.attributes["process.pid"])) for resource in sink.metrics(SERVICE).resource_metrics
    }
    assert set(served_by.values()) <= reporting


@pytest.mark.parametrize("name", ["python-traced", "uvicorn-2-workers"])
def test_python_client_and_server_are_one_trace(name: str, sink: OtlpSink, tmp_path: Path) -> None:
    way_to_start = STARTS[name]
    with start(way_to_start, sink, tmp_path / "log") as server:
        root = _run_client(sink, server.port)
        messages = message_spans(sink.spans("client"))
        count = sum(span.kind is SpanKind.CLIENT for span in messages)
        # Progress runs the other way, from the server to the client.
        steps = sum(span.kind is SpanKind.SERVER for span in messages)
        finished(sink, count, server, workers=way_to_start.workers)
    spans = sink.spans()
    clients = {ids_of(span.context): span for span in ours(spans) if span.kind is SpanKind.CLIENT}
    servers = [span for span in ours(spans) if span.kind is SpanKind.SERVER]
    assert len(clients) == len(servers)
    assert {span.context.trace_id for span in ours(spans)} == {root.trace_id}
    for span in servers:
        assert span.parent is not None
        sender = clients.pop(ids_of(span.parent))
        assert (sender.name, sender.service_name) != (span.name, span.service_name)
        assert sender.name == span.name
        if way_to_start.traced and span.service_name == SERVICE:
            (link,) = span.links
            assert link.context.trace_id == root.trace_id
        else:
            assert not span.links
    assert not clients
    assert steps == 2
    assert "fastmcp" not in {span.instrumentation_scope.name for span in spans}
    assert_conformant(spans, extra=HARVESTED)


def _run_client(sink: OtlpSink, port: int) -> Ids:
    done = subprocess.run(
        [INSTRUMENT, sys.executable, str(SUPPORT / "fastmcp_http_client.py"), f"http://127.0.0.1:{port}/mcp"],
        env=http_join.environment(sink, "client"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Ids(**json.loads(done.stdout))


@pytest.mark.parametrize("traced_proxy", [False, True], ids=["headers-only", "with-spans"])
def test_behind_a_reverse_proxy(traced_proxy: bool, sink: OtlpSink, tmp_path: Path) -> None:
    """`_meta` passes through a proxy and wins; without it, the proxy's header is what there is."""
    sent: dict[str, list[Sent]] = {way: [] for way in (META, BOTH, HEADERS, NEITHER)}
    through: dict[str, Ids] = {}
    with (
        start(STARTS["python-stateless"], sink, tmp_path / "log") as server,
        ReverseProxy(server.port, sink if traced_proxy else None) as proxy,
    ):
        for way, log in sent.items():
            caller = Caller(proxy.port, way, log)
            for answer in caller.converse():
                assert answer.status in (200, 202)
            through |= dict(zip((one.serial for one in log), proxy.headers[-len(log) :], strict=True))
        root = _run_client(sink, proxy.port) if traced_proxy else None
        server.stop()
    # What the server got is not what was sent: the header is the proxy's.
    received = [replace(one, header=through[one.serial]) for log in sent.values() for one in log]
    known = {one.id for one in received}
    spans = [span for span in sink.spans(SERVICE) if root is None or span.context.trace_id != root.trace_id]
    assert_joined(received, spans, service_name=SERVICE, traced=False)
    assert known >= {span.attributes.get("jsonrpc.request.id") for span in ours(spans)}
    if root is not None:
        proxies = {ids_of(span.context): span for span in sink.spans("proxy")}
        for one in sent[HEADERS]:
            # Caller, proxy, server: one trace, one below the other.
            span = proxies[through[one.serial]]
            assert span.parent is not None and ids_of(span.parent) == one.header
        joined = [span for span in ours(sink.spans()) if span.context.trace_id == root.trace_id]
        senders = {ids_of(span.context): span.name for span in joined if span.kind is SpanKind.CLIENT}
        receivers = [(ids_of(span.parent), span.name) for span in joined if span.kind is SpanKind.SERVER]
        assert sorted(receivers) == sorted(senders.items())
        # The proxy's spans hang below the CLIENT span of the message they carried, beside its SERVER span.
        assert sum(span.context.trace_id == root.trace_id for span in sink.spans("proxy")) >= len(senders) - 2


@pytest.mark.parametrize("policy", ["link", "ignore"])
def test_servers_that_face_the_public(policy: str, sink: OtlpSink, tmp_path: Path) -> None:
    """What strangers send is no parent, neither in `_meta` nor in headers."""
    way_to_start = STARTS["python-stateless"]._replace(env=(("OTEL_INSTRUMENTATION_MCP_REMOTE_PARENT", policy),))
    sent: list[Sent] = []
    with start(way_to_start, sink, tmp_path / "log") as server:
        for way in WAYS:
            assert Caller(server.port, way, sent).call("add", a=1, b=2).status == 200
        server.stop()
    spans = sink.spans(SERVICE)
    assert len(ours(spans)) == len(sent)
    for one in sent:
        span = by_id(spans, one.id or "")
        stranger = one.meta or one.header
        assert span.parent is None
        wanted = [stranger] if policy == "link" and stranger else []
        assert [ids_of(link.context) for link in span.links] == wanted


ODD_BODIES = {
    "no JSON": b"{",
    "no JSON-RPC": b'{"method": "tools/list"}',
    "unknown method": b'{"jsonrpc": "2.0", "id": 1, "method": "no/such"}',
    "traceparent is a number": b'{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"_meta":{"traceparent":123}}}',
    "traceparent is empty": b'{"jsonrpc":"2.0","id":3,"method":"tools/list","params":{"_meta":{"traceparent":""}}}',
    "_meta is a list": b'{"jsonrpc":"2.0","id":4,"method":"tools/list","params":{"_meta":["traceparent"]}}',
    "id is null": b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}',
    "bad arguments": b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"add","arguments":{"a":"x"}}}',
}


@pytest.mark.parametrize("name", ["fastmcp-run", "python-traced"])
def test_answers_are_those_of_a_server_without_instrumentation(name: str, sink: OtlpSink, tmp_path: Path) -> None:
    way_to_start = STARTS[name]
    with start(way_to_start, sink, tmp_path / "on") as server:
        instrumented = _answers(server.port, way_to_start)
    with start(way_to_start, None, tmp_path / "off") as server:
        plain = _answers(server.port, way_to_start)
    assert instrumented == plain


def _answers(port: int, way_to_start: Start) -> list[Any]:
    """Status, content type and body of everything that can be asked; what is new in each run is left out."""
    found: list[Any] = []
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    for era in ERAS:
        for way in (META, NEITHER):
            log: list[Sent] = []
            caller = Caller(port, way, log, era=era, stateful=way_to_start.stateful and era == LEGACY)
            for answer, one in zip([*caller.converse(), caller.call("nobody")], log, strict=True):
                if "trace_id" in answer.body:
                    continue
                names = sorted(name for name in answer.headers if name != "date")
                found.append((one.method, answer.status, names, answer.body.replace(one.serial, "id")))
            if era == LEGACY:
                known = {"mcp-session-id": caller.session_id} if caller.session_id else {}
                for what, body in ODD_BODIES.items():
                    answer = http_join.post(port, body, {**headers, **known})
                    found.append((what, answer.status, answer.content_type, answer.body))
                caller.close()
    for what, odd in {
        "unknown session": {**headers, "mcp-session-id": "nobody's"},
        "not acceptable": {**headers, "accept": "text/html"},
        "no content type": {"accept": headers["accept"]},
        "unknown version": {**headers, "mcp-protocol-version": "1999-01-01"},
    }.items():
        answer = http_join.post(port, b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', odd)
        found.append((what, answer.status, answer.content_type, answer.body))
    answer = http_join.post(port, b"", {"accept": "text/html"}, path="/nowhere")
    return [*found, (answer.status, answer.body)]
