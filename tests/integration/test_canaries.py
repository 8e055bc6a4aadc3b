"""Nothing leaks: a workload full of canaries over every transport, and a search of the exported bytes.

With ``-s`` (as `make canary` does) a table of what was searched is printed.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.trace import StatusCode

from conftest import Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.config import variable_of
from opentelemetry_instrumentation_mcp.events import EventLog
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from opentelemetry_instrumentation_mcp.payload import Policy
from support import canaries as support
from support import sdk
from support.canaries import CONTENT, ERROR, SECRET, Canaries
from support.canary_table import Row
from support.sink import OtlpSink
from support.wire import tee_command

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
NATIVE = "mcp-python-sdk"

Options = dict[str, Any]

DEFAULTS, ERRORS_OFF, EVERYTHING, KEEP_NATIVE = "defaults", "errors-off", "everything", "native-cleaned"


def options_of(setting: str, key: str) -> Options:
    """Keyword arguments of a setting; ``key`` is that of the identity hashes, set also where none are made."""
    if setting == DEFAULTS:
        return {"identity_key": key}
    if setting == ERRORS_OFF:
        return {"identity_key": key, "error_text": "off"}
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
        exporter: Any = self.logs
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
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


def judge(
    table: list[Row], c: Canaries, transport: str, setting: str, data: bytes, recorder: Recorder | None = None
) -> None:
    """Nothing is in ``data`` that the setting does not let out, and all is that it does."""
    found = set(c.found_in(data))
    leaked = found - set(c.of_kind(*may_appear(setting)))
    table.append(Row(transport, setting, len(data), len(c), len(leaked)))
    assert not leaked, places(recorder, c, leaked) if recorder else sorted(leaked)
    if CONTENT in may_appear(setting) and setting != KEEP_NATIVE:
        unseen = set(c.of_kind(CONTENT)) - found - support.UNCERTAIN
        assert not unseen, f"not exported, so nothing was tested: {sorted(unseen)}"
    if ERROR in may_appear(setting):
        assert "JSON-RPC error" in found


def places(recorder: Recorder, c: Canaries, leaked: set[str]) -> list[str]:
    """Where in the spans, if there, canaries are: for the message of a failure."""

    def hits(owner: str, values: dict[str, Any]) -> list[str]:
        found = {key: leaked.intersection(c.found_in(f"{key} {value!r}".encode())) for key, value in values.items()}
        return [f"{owner}: {key} has {sorted(which)}" for key, which in found.items() if which]

    lines = sorted(leaked)
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
async def test_in_process(
    exports: Exports, monkeypatch: pytest.MonkeyPatch, table: list[Row], transport: str, era: str, setting: str
) -> None:
    c = Canaries.make(transport, era)
    monkeypatch.setenv("VENDOR_PASSWORD", c["environment variable"])
    with exports.instrumented(**options_of(setting, c["key of the identity hashes"])), anyio.fail_after(20):
        seen = await support.run_workload(c, transport, era)
    if seen:
        missing = support.on_the_wire(c, transport, era) - set(c.found_in(seen))
        assert not missing, f"never sent: {sorted(missing)}"
    assert bool(exports.logs.records) == (setting == EVERYTHING) or setting == KEEP_NATIVE
    judge(table, c, f"{transport} ({era})", setting, exports.data(), exports.recorder)


# ----- whole processes


def run_processes(c: Canaries, folder: Path, era: str, options: Options) -> tuple[bytes, bytes]:
    """A client and its stdio server under `opentelemetry-instrument`: what they exported, and what was on the wire."""
    plan, wire = folder / "plan.json", folder / "wire.jsonl"
    c.save(plan)
    program = [INSTRUMENT, sys.executable, str(Path(support.__file__))]
    server = tee_command(wire, *program, "server", str(plan))
    env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env["VENDOR_PASSWORD"] = c["environment variable"]
    env |= {variable_of(name): str(value) for name, value in options.items()}
    with OtlpSink() as sink:
        env |= sink.environment("client")
        env |= {"OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_BLRP_SCHEDULE_DELAY": "100"}
        done = subprocess.run(
            [*program, "client", str(plan), era, *server],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
        assert {span.service_name for span in sink.spans()} == {"client", "server"}
        assert not sink.rejected
        signals = {"/v1/traces", "/v1/metrics"} | ({"/v1/logs"} if "capture_content" in options else set())
        assert {body.path for body in sink.bodies} == signals
        exported = [body.raw for body in sink.bodies]
    logs = [Path(f"{plan}.{role}.log").read_bytes() for role in ("client", "server")]
    return b"".join([*exported, *logs]), support.stdio_log(wire)


STDIO = [(era, setting) for era in sdk.ERAS for setting in SETTINGS if (era, setting) != ("modern", ERRORS_OFF)]


@pytest.mark.parametrize(("era", "setting"), STDIO)
def test_stdio(tmp_path: Path, table: list[Row], era: str, setting: str) -> None:
    c = Canaries.make("stdio", era)
    data, seen = run_processes(c, tmp_path, era, options_of(setting, c["key of the identity hashes"]))
    missing = support.on_the_wire(c, "stdio", era) - set(c.found_in(seen))
    assert not missing, f"never sent: {sorted(missing)}"
    judge(table, c, f"stdio ({era})", setting, data)


# ----- these tests can fail: without a protection, the canaries are found

IN_CONTENT = {
    "password among arguments",
    "header list among arguments",
    "JSON text among arguments",
    "secret in the name of an argument",
    "user info of a URL among arguments",
    "token in a URL among arguments",
    "JSON text of a result",
    "bearer token in a result",
    "secret in a structured result",
    "secret in the text of a tool error",
    "password among prompt variables",
    "secret in a prompt variable",
    "password in the baggage",
    "secret in a JSON-RPC error",
}


@pytest.mark.anyio
async def test_seen_without_the_policy(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "json", lambda self, value, limit=None: json.dumps(value, default=repr))
    monkeypatch.setattr(Policy, "structured", lambda self, value, limit=None: json.dumps(value, default=repr))
    monkeypatch.setattr(Policy, "text", lambda self, text, limit=None: text)
    monkeypatch.setattr(Policy, "attribute", lambda self, key, value: value)
    c = Canaries.make("memory", "legacy")
    with exports.instrumented(**options_of(EVERYTHING, c["key of the identity hashes"])):
        await support.run_workload(c, "memory", "legacy")
    assert set(c.found_in(exports.data())) >= IN_CONTENT


@pytest.mark.anyio
@pytest.mark.parametrize("transport", sdk.HTTP_TRANSPORTS)
async def test_seen_without_hashing(exports: Exports, transport: str) -> None:
    c = Canaries.make(transport, sdk.ERAS[-1])
    with exports.instrumented(identity="on"):
        await support.run_workload(c, transport, sdk.ERAS[-1])
    named = {"subject of the user", "e-mail of the user"} if support.has_claims() else {"OAuth client"}
    assert set(c.found_in(exports.data())) >= named


@pytest.mark.anyio
@pytest.mark.skipif(not sdk.SDK2, reason="SDK 1.x emits no spans of its own")
async def test_seen_without_cleaning(exports: Exports) -> None:
    c = Canaries.make("memory", "legacy")
    with exports.instrumented(native_spans="keep", clean_spans=False):
        await support.run_workload(c, "memory", "legacy")
    assert "secret in a JSON-RPC error" in c.found_in(exports.data())


def test_seen_in_whole_processes(tmp_path: Path) -> None:
    c = Canaries.make("stdio", "legacy")
    options = options_of(EVERYTHING, c["key of the identity hashes"])
    data, _ = run_processes(c, tmp_path, "legacy", {**options, "keep_keys": "password"})
    assert "password among arguments" in c.found_in(data)


def emit(exports: Exports, where: str, text: str) -> None:
    """Put ``text`` somewhere into what is exported."""
    if where == "metric":
        meter = exports.recorder.meter_provider.get_meter("test")
        meter.create_histogram("h").record(1, {"key": text})
    elif where == "event of a log":
        EventLog("test", exports.logger_provider).emit("event", {"key": text}, Context())
    elif where == "our log":
        our_logger.warning("%s", text)
    else:
        span = exports.recorder.tracer().start_span(text if where == "name" else "span")
        if where == "attribute":
            span.set_attribute("key", text)
        elif where == "key":
            span.set_attribute(text, 1)
        elif where == "event":
            span.add_event("event", {"key": text})
        elif where == "link":
            span.add_link(span.get_span_context(), {"key": text})
        elif where == "status":
            span.set_status(StatusCode.ERROR, text)
        span.end()


PLACES = ("name", "attribute", "key", "event", "link", "status", "metric", "event of a log", "our log")


@pytest.mark.parametrize("where", PLACES)
def test_the_search_sees(exports: Exports, where: str) -> None:
    c = Canaries.make("memory", "legacy")
    with exports.instrumented():
        emit(exports, where, f"before {c['tool argument']} after")
    assert c.found_in(exports.data()) == ["tool argument"]


def test_the_search_sees_disguises() -> None:
    c = Canaries.make("memory", "legacy")
    text = c["tool argument"]
    for disguise in (text.upper(), text[:-8], text[-8:]):
        assert c.found_in(disguise.encode()) == ["tool argument"], disguise
    for prefix in ("", "u", "us", "user:", "password="):
        assert c.found_in(base64.b64encode(f"{prefix}{text}!".encode())) == ["tool argument"], prefix
    assert c.found_in(b"CANARY-" + base64.b64encode(b"CANARY-")) == []


# ----- known leaks: what fails here is to be mended (expected failures are strict)


async def found_of(exports: Exports, options: Options, text: str, work: Any, server: Any = None) -> bool:
    """Whether ``text`` is exported when ``work`` is done with a client."""
    with exports.instrumented(**options):
        async with sdk.connect("memory", server=server) as peer:
            with suppress(sdk.McpError):
                await work(peer)
    return bool(Canaries({"": text}, {"": SECRET}).found_in(exports.data()))


CANARY = Canaries.make("memory", "legacy")["tool argument"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("uri", "options"),
    [
        (f"res://user:{CANARY}@host/", DEFAULTS),
        (f"res://host/?token={CANARY}", DEFAULTS),
        (f"res://host/?q={CANARY}", ERRORS_OFF),
        (f"res://user:{CANARY}@host/", EVERYTHING),
        (f"res://host/?token={CANARY}", EVERYTHING),
    ],
    ids=["user-info", "token", "query", "user-info-everything-on", "token-everything-on"],
)
async def test_resource_uri(exports: Exports, uri: str, options: str) -> None:
    async def read(peer: sdk.Peer) -> None:
        await peer.read(uri)

    assert not await found_of(exports, options_of(options, "the key of identities"), CANARY, read)


def raising_server(error: Exception) -> Any:
    server = sdk.build_server()

    async def answer(params: Any) -> None:
        raise error

    support.serve_low(server, "prompts/get", "GetPrompt", answer)
    return server


async def get_prompt(peer: sdk.Peer) -> None:
    await peer.session.get_prompt("greet", {"name": "x"})


@pytest.mark.anyio
async def test_no_error_text_by_stack_traces(exports: Exports) -> None:
    server = raising_server(sdk.mcp_error(-32050, f"lost {CANARY}"))
    assert not await found_of(exports, {"error_text": "off", "stacktraces": True}, CANARY, get_prompt, server)


@pytest.mark.anyio
async def test_refused_prompt_variable(exports: Exports) -> None:
    server = sdk.build_server()

    @server.prompt()
    def typed(count: int) -> str:
        return ""

    async def work(peer: sdk.Peer) -> None:
        await peer.session.get_prompt("typed", {"count": CANARY})

    assert not await found_of(exports, {}, CANARY, work, server)


@pytest.mark.anyio
async def test_no_exception_text_in_our_log(exports: Exports) -> None:
    def hook(span: Any, message: Any) -> None:
        raise ValueError(f"lost {CANARY}")

    async def work(peer: sdk.Peer) -> None:
        await peer.call("add", {"a": 1, "b": 1})

    assert not await found_of(exports, {"request_hook": hook}, CANARY, work)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["json", "sse"])
async def test_unreadable_answer(exports: Exports, form: str) -> None:
    """What a server answered is no error text, even if a client cannot read it."""
    app = garbling(sdk.http_app(sdk.build_server(), "http-json"), form)
    with exports.instrumented():
        async with sdk.serve(app) as url, sdk.connect("http", base_url=url) as peer:
            # SDK 1.x waits for another answer.
            with suppress(sdk.McpError), anyio.move_on_after(0.5):
                await peer.call("add", {"a": 1, "b": 1})
    assert exports.recorder.find("tools/call add", "CLIENT")
    assert not Canaries({"": CANARY}, {"": SECRET}).found_in(exports.data())


def garbling(app: Any, form: str) -> Any:
    """ASGI middleware that answers calls of tools with something that is no JSON-RPC."""
    body = f'{{"text": "{CANARY}'.encode()
    if form == "sse":
        body = b"event: message\ndata: " + body + b"\n\n"
    content_type = b"application/json" if form == "json" else b"text/event-stream"

    async def garbled(scope: Any, receive: Any, send: Any) -> None:
        garbles = False

        async def answer(event: Any) -> None:
            nonlocal garbles
            if event["type"] == "http.response.start":
                # SDK 1.9 redirects first.
                garbles = event["status"] == 200
            if not garbles:
                await send(event)
            elif event["type"] == "http.response.start":
                headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
                await send({**event, "headers": headers})
            else:
                await send({**event, "body": body})

        event = await receive() if scope["type"] == "http" else {}

        async def first() -> Any:
            nonlocal event
            taken, event = event, None
            return taken or await receive()

        if b"tools/call" in event.get("body", b""):
            await app(scope, first, answer)
        else:
            await app(scope, first if event else receive, send)

    return garbled
