"""MCP servers in processes of their own, and callers that are no MCP SDK: plain HTTP, every byte in the test's hand.

Nothing in here knows our instrumentation. Callers record what they sent; :func:`assert_joined` compares it with what
the server's process exported.
"""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from support.conformance import SCOPE
from support.sink import OtlpSink, SinkSpan

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
LEGACY, MODERN = "2025-06-18", "2026-07-28"
# Who makes spans of HTTP requests: the middleware a server is given, or what finds Starlette by itself.
STARLETTE = "starlette"
HTTP_SCOPES = frozenset({"opentelemetry.instrumentation.asgi", "opentelemetry.instrumentation.starlette"})


OTEL = tuple(int(part) for part in metadata.version("opentelemetry-instrumentation").split("b")[0].split(".")[:2])


def need_starlette_instrumentation() -> None:
    """Skip the test where it is not installed."""
    if importlib.util.find_spec("opentelemetry.instrumentation.starlette") is None:
        pytest.skip("opentelemetry-instrumentation-starlette is not installed in this environment")


def need_instrumented_workers() -> None:
    """Skip the test where the workers of uvicorn are not instrumented."""
    if OTEL < (0, 63):
        pytest.skip("before 0.63b0 opentelemetry-instrumentation does not reach the workers of uvicorn")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ----- processes


def environment(sink: OtlpSink | None, service_name: str, **more: str) -> dict[str, str]:
    """The caller's environment without its telemetry; with a sink, all that a process needs to export there."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "FASTMCP_"))}
    env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "FASTMCP_CHECK_FOR_UPDATES": "off"}
    if sink is not None:
        env |= sink.environment(service_name)
        # Workers share a name; their process ids tell them apart.
        env |= {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
        # Whether there are HTTP spans is for the test to say, not for what else is installed.
        env["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "starlette,fastapi"
    return {**env, **more}


class Server:
    """An HTTP server in a process of its own; ends with the context at the latest."""

    def __init__(self, command: Sequence[str], port: int, env: Mapping[str, str], log: Path) -> None:
        self.port = port
        self._command, self._env, self._log = command, env, log

    def __enter__(self) -> Server:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _wait_until_it_listens(self, limit: float = 60.0) -> None:
        deadline = time.monotonic() + limit
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                # A bare connection: a request would be a message, or a span of an HTTP instrumentation.
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.output()}")

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it; its exit code. With SIGINT Python runs its exit handlers, which flush what was not exported."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop:\n{self.output()}") from None

    def output(self) -> str:
        return self._log.read_text(errors="replace")


# ----- callers


class Ids(NamedTuple):
    """A span, by its ids."""

    trace_id: int
    span_id: int

    @classmethod
    def new(cls) -> Ids:
        return cls(secrets.randbits(127) + 1, secrets.randbits(63) + 1)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


def ids_of(context: Any) -> Ids:
    return Ids(context.trace_id, context.span_id)


@dataclass(frozen=True)
class Sent:
    """One message as it was sent: what its SERVER span has to look like follows from it."""

    method: str
    id: str | None
    serial: str
    meta: Ids | None
    header: Ids | None
    session_id: str | None
    version: str


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    headers: Mapping[str, str]
    body: str

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message in the body, which may be an event stream."""
        if self.content_type != "text/event-stream":
            return json.loads(self.body)
        data = [line[6:] for line in self.body.splitlines() if line.startswith("data: ")]
        found = [message for one in data if one and ("result" in (message := json.loads(one)) or "error" in message)]
        assert len(found) == 1, self.body
        return found[0]

    @property
    def tool_output(self) -> Any:
        """What a tool returned as JSON text."""
        return json.loads(self.message["result"]["content"][0]["text"])


def post(port: int, body: bytes, headers: Mapping[str, str], path: str = "/mcp", method: str = "POST") -> Answer:
    """One request over a connection of its own; two, where an old SDK sends it on to the path with a slash."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        if response.status == 307 and not path.endswith("/"):
            return post(port, body, headers, f"{path}/", method)
        content_type = found.get("content-type", "").split(";")[0]
        return Answer(response.status, content_type, found, response.read().decode())
    finally:
        connection.close()


# How a caller gives its context away.
NEITHER, META, HEADERS, BOTH, BOTH_SAME = "neither", "_meta", "headers", "both", "both, the same"
WAYS = (META, HEADERS, BOTH, BOTH_SAME, NEITHER)
_serials = itertools.count(1)


class Caller:
    """A client of one MCP connection; writes down what it sends in ``log``."""

    def __init__(self, port: int, way: str, log: list[Sent], *, era: str = LEGACY, stateful: bool = False) -> None:
        self.port, self.way, self.log, self.era, self.stateful = port, way, log, era, stateful
        self.session_id: str | None = None
        self.trace_ids: set[int] = set()

    def contexts(self) -> tuple[Ids | None, Ids | None]:
        meta = Ids.new() if self.way in (META, BOTH, BOTH_SAME) else None
        header = Ids.new() if self.way in (HEADERS, BOTH) else None
        return meta, meta if self.way == BOTH_SAME else header

    def send(self, method: str, params: dict[str, Any] | None = None, *, notification: bool = False) -> Answer:
        serial = f"test-{next(_serials)}"
        request_id = None if notification else serial
        meta, header = self.contexts()
        carrier: dict[str, Any] = {}
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "user-agent": serial,
        }
        if method != "initialize":
            headers["mcp-protocol-version"] = self.era
        if self.era == MODERN:
            headers["mcp-method"] = method
            if params and "name" in params:
                headers["mcp-name"] = params["name"]
            prefix = "io.modelcontextprotocol/"
            carrier |= {
                f"{prefix}protocolVersion": MODERN,
                f"{prefix}clientInfo": {"name": "raw", "version": "1"},
                f"{prefix}clientCapabilities": {},
            }
        if self.session_id is not None:
            headers["mcp-session-id"] = self.session_id
        if meta is not None:
            carrier |= {"traceparent": meta.traceparent, "baggage": "way=meta"}
        if header is not None:
            headers |= {"traceparent": header.traceparent, "baggage": "way=header"}
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if request_id is not None:
            message["id"] = request_id
        if params is not None or carrier:
            message["params"] = {**(params or {}), **({"_meta": carrier} if carrier else {})}
        answer = post(self.port, json.dumps(message).encode(), headers)
        if method == "initialize" and self.stateful:
            self.session_id = answer.headers["mcp-session-id"]
        self.log.append(Sent(method, request_id, serial, meta, header, self.session_id, self.era))
        return answer

    def call(self, tool: str, **arguments: Any) -> Answer:
        return self.send("tools/call", {"name": tool, "arguments": arguments})

    def open(self) -> list[Answer]:
        """The messages that open a connection, as far as there are any."""
        if self.era == MODERN:
            return [self.send("server/discover", {})]
        client = {"protocolVersion": self.era, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        return [self.send("initialize", client), self.send("notifications/initialized", notification=True)]

    def converse(self) -> list[Answer]:
        """One of each kind of message; all answers, after those of :meth:`open`."""
        answers = [*self.open(), self.send("tools/list"), self.call("add", a=1, b=2), self.call("context")]
        return [*answers, self.call("context_in_a_thread"), self.call("fail")]

    def close(self) -> None:
        if self.session_id is not None:
            headers = {"mcp-session-id": self.session_id, "mcp-protocol-version": self.era}
            assert post(self.port, b"", headers, method="DELETE").status == 200


# ----- what the server's spans have to be


def ours(spans: Iterable[SinkSpan]) -> list[SinkSpan]:
    return [span for span in spans if span.instrumentation_scope.name == SCOPE]


def http_spans(spans: Iterable[SinkSpan]) -> dict[str, SinkSpan]:
    """The spans of HTTP requests, by the serial of the message they carried; of two, that which came last."""
    return {
        str(span.attributes.get("http.user_agent")): span
        for span in sorted(spans, key=lambda span: span.start_time)
        if span.instrumentation_scope.name in HTTP_SCOPES and span.kind is SpanKind.SERVER
    }


def assert_joined(sent: Sequence[Sent], spans: Sequence[SinkSpan], *, service_name: str, traced: bool) -> None:
    """One SERVER span of ours for each message, none more, each with the parent and the link that the message asks for.

    ``traced`` says whether the server's HTTP requests have spans of their own.
    """
    requests = http_spans(spans)
    assert bool(requests) == traced
    found: Counter[tuple[Any, ...]] = Counter()
    for span in ours(spans):
        assert span.kind is SpanKind.SERVER, span.name
        found[_as_seen(span)] += 1
    wanted: Counter[tuple[Any, ...]] = Counter()
    for one in sent:
        http_span = requests.get(one.serial)
        if traced:
            assert http_span is not None, one
            assert (ids_of(http_span.parent) if http_span.parent else None) == one.header, one
        parent, links = one.meta, ()
        if http_span is not None:
            parent, links = (one.meta, (ids_of(http_span.context),)) if one.meta else (ids_of(http_span.context), ())
        elif parent is None:
            parent = one.header
        wanted[one.method, one.id, parent, links, one.session_id] += 1
    assert found == wanted, f"missing: {wanted - found}\nsurplus: {found - wanted}"
    for span in ours(spans):
        attributes = span.attributes
        assert span.service_name == service_name
        assert (attributes["network.transport"], attributes["network.protocol.name"]) == ("tcp", "http")
        assert attributes["client.address"] == "127.0.0.1"
        assert attributes["mcp.protocol.version"] in {one.version for one in sent}
        assert span.end_time >= span.start_time > 0


def _as_seen(span: SinkSpan) -> tuple[Any, ...]:
    attributes = span.attributes
    parent = ids_of(span.parent) if span.parent is not None else None
    links = tuple(ids_of(link.context) for link in span.links)
    method, request_id = attributes["mcp.method.name"], attributes.get("jsonrpc.request.id")
    return method, request_id, parent, links, attributes.get("mcp.session.id")


def by_id(spans: Iterable[SinkSpan], request_id: str) -> SinkSpan:
    (found,) = [span for span in ours(spans) if span.attributes.get("jsonrpc.request.id") == request_id]
    return found


# ----- a reverse proxy

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class ReverseProxy:
    """Passes requests on to a port, with a `traceparent` of its own in their headers; bodies are none of its business.

    With a sink it has a span for each request, exported there, which continues the caller's headers; without, it
    makes up ids, as proxies do whose spans go elsewhere.
    """

    def __init__(self, port: int, sink: OtlpSink | None) -> None:
        self.headers: list[Ids] = []
        self._port = port
        self._provider = TracerProvider(resource=Resource({"service.name": "proxy"}))
        self._traced = sink is not None
        if sink is not None:
            exporter = OTLPSpanExporter(endpoint=f"{sink.endpoint}/v1/traces")
            self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _proxy_handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> ReverseProxy:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._provider.shutdown()

    @contextmanager
    def forward(self, method: str, headers: dict[str, str]) -> Iterator[dict[str, str]]:
        """The headers with which a request goes on, inside of the proxy's span if it has any."""
        if not self._traced:
            made_up = Ids.new()
            self.headers.append(made_up)
            yield {**headers, "traceparent": made_up.traceparent}
            return
        tracer = self._provider.get_tracer("proxy")
        context = propagate.extract(headers)
        with tracer.start_as_current_span(f"{method} proxy", context, SpanKind.SERVER) as span:
            self.headers.append(ids_of(span.get_span_context()))
            onwards = {name: value for name, value in headers.items() if name != "baggage"}
            propagate.inject(onwards, trace.set_span_in_context(span))
            yield onwards


def _proxy_handler(proxy: ReverseProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection = http.client.HTTPConnection("127.0.0.1", proxy._port, timeout=30)
            try:
                with proxy.forward(self.command, headers) as onwards:
                    connection.request(self.command, self.path, body, onwards)
                    response = connection.getresponse()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()
                # As it comes: an event stream may stay open for as long as its session.
                while data := response.read1(65536):
                    self.wfile.write(data)
                    self.wfile.flush()
            except OSError:
                self.close_connection = True
            finally:
                connection.close()

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_DELETE(self) -> None:
            self._pass_on()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - so the base class calls it
            """Nothing on stderr."""

    return Handler
