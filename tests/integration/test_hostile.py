"""A hostile peer: whatever it writes, the answers are those of an uninstrumented server, byte for byte.

Every message goes to a server without the instrumentation and to one with it, as raw JSON-RPC: over memory
streams, to real processes over stdio, and as HTTP POSTs.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import Process
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from opentelemetry import propagate
from opentelemetry.sdk.trace import SpanProcessor

from conftest import Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from support import sdk
from support.conformance import Violation, check_metrics, check_spans
from support.health import SLOW

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
CONTEXT_KEYS = ("traceparent", "tracestate", "baggage")
PATIENCE = 0.4  # for an answer that does not come


# --- what a hostile peer sends ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """Messages sent at once, and what they try."""

    label: str
    payloads: tuple[Any, ...]
    """Decoded JSON, or ``bytes`` that are none."""

    @property
    def ids(self) -> list[str]:
        """The ids of what is well-formed enough to be answered, each as often as it was used."""
        return [plain(payload["id"]) for payload in self.payloads if wants_answer(payload)]


def plain(request_id: Any) -> str:
    """An id without its type: SDK 1.9 takes "007" for 7."""
    text = str(request_id)
    return str(int(text)) if text.isdecimal() and text.isascii() and len(text) < 4000 else text


def wants_answer(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.get("jsonrpc") == "2.0"
        and isinstance(payload.get("method"), str)
        and type(payload.get("id")) in (int, str)
        and isinstance(payload.get("params"), (dict, type(None)))
        and not {"result", "error"} & payload.keys()
        and not has_surrogates(payload)
    )


def has_surrogates(payload: Any) -> bool:
    try:
        json.dumps(payload, ensure_ascii=False, default=repr).encode()
    except UnicodeEncodeError:
        return True
    return False


def request(method: Any, params: Any = ..., request_id: Any = 77) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": request_id, "method": method}
    return message if params is ... else {**message, "params": params}


def notification(method: Any, params: Any = ...) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "method": method}
    return message if params is ... else {**message, "params": params}


def add(request_id: Any = 77, **params: Any) -> dict[str, Any]:
    return request("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}, **params}, request_id)


HOSTILE_TEXTS = {
    "nothing": "",
    "controls": "\x00\x1b[31mred\r\n\t\x7f\x9f\u2028",
    "bidi": "\u202eevil\u202c\ufeff",
    "tags": "hidden\U000e0041\U000e0042",
    "astral": "\U0001f600" * 300,
    "10 kB": "x" * 10_000,
    "surrogate": "lone \ud800 surrogate",
    "format": "%s %d {0} {name} ${jndi:ldap://x}",
}
HOSTILE_VALUES: dict[str, Any] = {
    "number": 123,
    "float": 1.5e300,
    "list": [TRACEPARENT, [1, {}]],
    "dict": {"traceparent": TRACEPARENT},
    "null": None,
    "true": True,
    "1 MB": "a" * 1_000_000,
    "almost": TRACEPARENT[:-1],
    "zeros": f"00-{'0' * 32}-{'0' * 16}-00",
    **{f"text {name}": text for name, text in HOSTILE_TEXTS.items()},
}
META_SHAPES: dict[str, Any] = {
    **{f"is {name}": value for name, value in HOSTILE_VALUES.items() if name != "dict"},
    "is empty": {},
    **{
        f"{key} {name}": {"traceparent": TRACEPARENT, key: value}
        for key in CONTEXT_KEYS
        for name, value in HOSTILE_VALUES.items()
    },
    "10,000 keys": {f"key{number}": number for number in range(10_000)},
    "nested": {"a": {"b": {"c": {"d": [[[[[{"e": {}}]]]]]}}}},
    "tracestate members": {"traceparent": TRACEPARENT, "tracestate": ",".join(f"k{n}=v" for n in range(200))},
    "tracestate injection": {"traceparent": TRACEPARENT, "tracestate": "a=b\r\nx-evil: 1"},
    "baggage members": {"baggage": ",".join(f"k{n}=v" for n in range(500))},
    "baggage malformed": {"baggage": "=,;;==,k=%zz,%=%,k=v;p;=,\t"},
    "baggage surrogate escapes": {"traceparent": TRACEPARENT, "baggage": "k=%ED%A0%80"},
    "progress token": {"progressToken": {"a": 1}},
    "revision number": {"io.modelcontextprotocol/protocolVersion": 20260728},
    "revision unknown": {"io.modelcontextprotocol/protocolVersion": "1999-01-01\n"},
    "revision of another era": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    "odd keys": {"": 1, "\x00": 2, "Traceparent": TRACEPARENT, " traceparent": TRACEPARENT},
}
PARAMS_SHAPES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "list": [1, "two", None],
    "text": "params",
    "number": 7,
    "empty": {},
    "null members": {"name": None, "arguments": None, "uri": None, "_meta": None, "cursor": None},
    "wrong types": {"name": 5, "arguments": [1], "uri": {"a": 1}, "_meta": "x", "cursor": 3},
}
IDS: dict[str, Any] = {
    "0": 0,
    "nothing": "",
    "negative": -1,
    "huge": 10**30,
    "huge negative": -(10**30),
    "text 0": "0",
    "text number": "007",
    "superscript": "\N{SUPERSCRIPT TWO}",
    "long": "i" * 10_000,
    "long number": "9" * 5000,
    "null": None,
    "true": True,
    "float": 1.5,
    "whole float": 1.0,
    "list": [1],
    "dict": {"id": 1},
    **{f"text {name}": text for name, text in HOSTILE_TEXTS.items() if name not in ("nothing", "10 kB")},
}
METHODS_WITH_PARAMS = ("tools/call", "tools/list", "prompts/get", "resources/read", "ping", "completion/complete")


def meta_probes() -> Iterator[Probe]:
    for name, meta in META_SHAPES.items():
        yield Probe(f"_meta {name}: call", (add(_meta=meta),))
        yield Probe(f"_meta {name}: list", (request("tools/list", {"_meta": meta}),))
        yield Probe(f"_meta {name}: note", (notification("notifications/roots/list_changed", {"_meta": meta}),))


def params_probes() -> Iterator[Probe]:
    for name, params in PARAMS_SHAPES.items():
        for method in METHODS_WITH_PARAMS:
            yield Probe(f"params {name}: {method}", (request(method, params),))
        yield Probe(f"params {name}: progress", (notification("notifications/progress", params),))
        yield Probe(f"params {name}: cancelled", (notification("notifications/cancelled", params),))


def id_probes() -> Iterator[Probe]:
    for name, value in IDS.items():
        yield Probe(f"id {name}: call", (add(value),))
        yield Probe(f"id {name}: unknown method", (request("no/such/method", {}, value),))
        yield Probe(f"id {name}: cancelled", (notification("notifications/cancelled", {"requestId": value}),))
        yield Probe(f"id {name}: answer", ({"jsonrpc": "2.0", "id": value, "result": {"isError": True}},))
        error = {"code": value, "message": value}
        yield Probe(f"id {name}: error answer", ({"jsonrpc": "2.0", "id": value, "error": error},))


def name_probes() -> Iterator[Probe]:
    for name, text in HOSTILE_TEXTS.items():
        yield Probe(f"name {name}: request", (request(text, {}),))
        yield Probe(f"name {name}: notification", (notification(text, {}),))
        yield Probe(f"name {name}: tool", (request("tools/call", {"name": text, "arguments": {}}),))
        yield Probe(f"name {name}: prompt", (request("prompts/get", {"name": text}),))
        yield Probe(f"name {name}: resource", (request("resources/read", {"uri": text}),))
    for method in (None, 5, ["tools/call"], {"method": "ping"}):
        yield Probe(f"method {method!r}", (request(method, {}),))


def repetition_probes() -> Iterator[Probe]:
    yield Probe("the same message again", (add(),))
    yield Probe("an id used before", (request("tools/call", {"name": "fail"}),))
    yield Probe("a known tool fails", (request("tools/call", {"name": "reject", "arguments": {"code": -1}}),))
    yield Probe("a batch", ([add(1), add(2), notification("notifications/initialized")],))
    yield Probe("an empty batch", ([],))
    yield Probe("no object", ("tools/call",))
    yield Probe("an empty object", ({},))
    yield Probe("another JSON-RPC", ({**add(), "jsonrpc": "1.0"},))
    yield Probe("no JSON", (b'{"jsonrpc": "2.0", "id": 1, ',))
    yield Probe(
        "a key twice", (b'{"jsonrpc":"2.0","id":77,"method":"ping","params":{"_meta":{},"_meta":{"traceparent":7}}}',)
    )


def pipelined_probes() -> Iterator[Probe]:
    """Several messages at once: over HTTP the SDK itself cannot tell them apart."""
    yield Probe("an id twice at once", (add(5), request("tools/call", {"name": "fail"}, 5)))
    yield Probe("an id many times at once", tuple(request("tools/call", {"name": f"random-{n}"}, 5) for n in range(9)))
    yield Probe("answered ids", (add(1), add(2), {"jsonrpc": "2.0", "id": 1, "result": {}}))


PROBES = [*meta_probes(), *params_probes(), *id_probes(), *name_probes(), *repetition_probes()]
PIPELINED = list(pipelined_probes())


INITIALIZE = request(
    "initialize",
    {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "hostile", "version": "0"},
    },
    "init",
)
INITIALIZED = notification("notifications/initialized")


def encode(payload: Any) -> bytes:
    return payload if isinstance(payload, bytes) else json.dumps(payload, separators=(",", ":")).encode()


# --- what comes back ----------------------------------------------------------------------------------------


def normal(line: bytes) -> bytes:
    """An answer as it is; of what the server says by itself, all but the context that we add."""
    message = json.loads(line)
    if "method" not in message:
        return line
    params = message.get("params") or {}
    meta = {key: value for key, value in (params.get("_meta") or {}).items() if key not in CONTEXT_KEYS}
    params = {**params, "_meta": meta}
    return json.dumps({**message, "params": params}, sort_keys=True).encode()


def id_of(line: bytes) -> str | None:
    message = json.loads(line)
    return plain(message.get("id")) if "method" not in message else None


Answers = dict[str, list[bytes]]
Line = Callable[[bytes], Awaitable[None]]


class Conversation:
    """Sends probes one after the other and sorts what comes back by what it answers."""

    def __init__(self, send: Line) -> None:
        self._send = send
        self._arrived: list[bytes] = []
        self._news = anyio.Event()
        self._barriers = 0

    def arrived(self, line: bytes) -> None:
        self._arrived.append(line)
        self._news.set()

    async def _until(self, done: Callable[[], bool], patience: float) -> bool:
        with anyio.move_on_after(patience):
            while not done():
                self._news = anyio.Event()
                if not done():
                    await self._news.wait()
        return done()

    def _answered(self, ids: Iterable[str]) -> bool:
        answered = [id_of(line) for line in self._arrived]
        return all(answered.count(one) >= list(ids).count(one) for one in ids)

    async def ask(self, probe: Probe) -> list[bytes]:
        """Everything the server writes between this probe and the next."""
        for payload in probe.payloads:
            await self._send(encode(payload))
        self._barriers += 1
        barrier = f"barrier-{self._barriers}"
        await self._send(encode(request("ping", request_id=barrier)))
        alive = await self._until(lambda: self._answered([barrier]), 20)
        assert alive, f"the server did not survive {probe.label}"
        await self._until(lambda: self._answered(probe.ids), PATIENCE)
        answers = sorted(normal(line) for line in self._arrived if id_of(line) != barrier)
        self._arrived.clear()
        return answers

    async def open(self) -> None:
        assert await self.ask(Probe("initialize", (INITIALIZE,)))
        await self._send(encode(INITIALIZED))

    async def ask_all(self, probes: Iterable[Probe]) -> Answers:
        await self.open()
        answers = {probe.label: await self.ask(probe) for probe in probes}
        [last] = await self.ask(Probe("afterwards", (add("afterwards"),)))
        assert json.loads(last)["result"]["content"][0]["text"] == "3"
        return answers


def assert_same(without: Mapping[str, Any], with_us: Mapping[str, Any]) -> None:
    assert without, "nothing was asked"
    assert with_us.keys() == without.keys()
    different = [
        f"{label}\n    without us {str(without[label])[:300]}\n    with us    {str(with_us[label])[:300]}"
        for label in without
        if with_us[label] != without[label]
    ]
    assert not different, f"{len(different)} answers differ:\n" + "\n".join(different[:10])


# --- the transports -----------------------------------------------------------------------------------------


def bare_server() -> Any:
    """The test server without telemetry of any kind.

    SDK 2.x traces by itself, and fails requests whose baggage is no text; ours takes the place of that code.
    """
    server = sdk.build_server()
    if sdk.SDK2:
        middleware = sdk.lowlevel(server).middleware
        native = [one for one in middleware if type(one).__name__ == "OpenTelemetryMiddleware"]
        assert len(native) == 1
        middleware.remove(native[0])
    return server


def accept(line: bytes) -> Any:
    """What a transport hands to a session: the message, or why it is none."""
    from mcp.shared.message import SessionMessage

    try:
        payload = json.loads(line)
        if sdk.SDK2:
            return SessionMessage(sdk.types.jsonrpc_message_adapter.validate_python(payload, by_name=False))
        return SessionMessage(sdk.types.JSONRPCMessage.model_validate(payload))
    except ValueError as error:
        return error


def written(item: Any) -> bytes:
    return encode(item.message.model_dump(by_alias=True, exclude_none=True))


async def over_memory(
    probes: Iterable[Probe], server: Any = None, at_the_end: Callable[[], None] | None = None
) -> Answers:
    """The server behind memory streams."""
    async with sdk.memory_streams(server or sdk.build_server()) as (read, write), anyio.create_task_group() as tasks:

        async def send(line: bytes) -> None:
            await write.send(accept(line))

        conversation = Conversation(send)

        async def listen() -> None:
            async for item in read:
                conversation.arrived(written(item))

        tasks.start_soon(listen)
        answers = await conversation.ask_all(probes)
        if at_the_end is not None:
            at_the_end()
        tasks.cancel_scope.cancel()
    return answers


@asynccontextmanager
async def stdio_process(script: str) -> AsyncIterator[Process]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(Path(sdk.__file__).with_name(script))]
    process = await anyio.open_process(command, env=environment)
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            process.kill()
            await process.aclose()


async def over_stdio(script: str, probes: Iterable[Probe]) -> tuple[Answers, str]:
    """The answers of a server process, and what it wrote to stderr."""
    errors: list[bytes] = []
    async with stdio_process(script) as process, anyio.create_task_group() as tasks:
        assert process.stdin and process.stdout and process.stderr
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr

        async def send(line: bytes) -> None:
            await stdin.send(line + b"\n")

        conversation = Conversation(send)

        async def listen() -> None:
            rest = b""
            async for chunk in stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    conversation.arrived(line)

        async def listen_to_errors() -> None:
            async for chunk in stderr:
                errors.append(chunk)

        tasks.start_soon(listen)
        tasks.start_soon(listen_to_errors)
        answers = await conversation.ask_all(probes)
        assert process.returncode is None
        tasks.cancel_scope.cancel()
    return answers, b"".join(errors).decode(errors="replace")


@dataclass
class Http:
    """How a client talks to one of the HTTP servers."""

    transport: str
    modern: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def dress(self, payload: Any) -> tuple[Any, dict[str, str]]:
        """A message as this server's revision wants it, but for what is hostile about it."""
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json", **self.headers}
        if not self.modern or not isinstance(payload, dict):
            return payload, headers
        method, params = payload.get("method"), payload.get("params")
        headers["mcp-protocol-version"] = sdk.MODERN
        if isinstance(method, str) and method.isascii() and method.isprintable():
            headers["mcp-method"] = method
        if isinstance(params, dict):
            name = params.get("name") or params.get("uri")
            if isinstance(name, str) and name.isascii() and name.isprintable():
                headers["mcp-name"] = name
            if isinstance(params.get("_meta", {}), dict):
                payload = {**payload, "params": {**params, "_meta": {**ENVELOPE, **params.get("_meta", {})}}}
        return payload, headers


ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": sdk.MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "hostile", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def over_http(http: Http, probes: Iterable[Probe], server: Any = None) -> dict[str, Any]:
    """Status, type and body of the answers to one POST each."""
    answers: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        app = sdk.http_app(server or sdk.build_server(), http.transport)
        await stack.enter_async_context(app.router.lifespan_context(app))
        url = "http://127.0.0.1:8000/mcp"
        # SDK 1.9 redirects to /mcp/.
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), follow_redirects=True)
        await stack.enter_async_context(client)

        async def post(payload: Any) -> Any:
            payload, texts = http.dress(payload)
            headers: Any = {name: value.encode("latin-1") for name, value in texts.items()}
            try:
                with anyio.fail_after(20):
                    response = await client.post(url, content=encode(payload), headers=headers)
            except TimeoutError:
                return "no answer"
            session_id = response.headers.get("mcp-session-id")
            if session_id:
                http.headers["mcp-session-id"] = session_id
            return response.status_code, response.headers.get("content-type"), response.content

        if not http.modern:
            status, _, _ = await post(INITIALIZE)
            assert status == 200
            status, _, _ = await post(INITIALIZED)
            assert status == 202
        for probe in probes:
            answers[probe.label] = [await post(payload) for payload in probe.payloads]
        status, _, body = await post(add("afterwards"))
        assert status == 200, body
        assert b'"text":"3"' in body
    return answers


# --- with and without us ------------------------------------------------------------------------------------

KNOWN_TOOLS = {
    "add", "fail", "reject", "slow", "die", "context", "sample", "roots", "ping_client", "progress", "log", "change",
    "outbound",
}  # fmt: skip


@contextmanager
def quietly_instrumented() -> Iterator[Recorder]:
    """The instrumentation on, with a recorder; none of it may fail."""
    recorder, heard = Recorder(), _Heard()
    instrumentor = McpInstrumentor()
    our_logger.addHandler(heard)
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider, meter_provider=recorder.meter_provider, skip_dep_check=True
    )
    try:
        yield recorder
    finally:
        instrumentor.uninstrument()
        our_logger.removeHandler(heard)
    assert heard.messages == []
    recorder.tracer_provider.shutdown()


@contextmanager
def watched(tools: Collection[str] | None = KNOWN_TOOLS) -> Iterator[Recorder]:
    """The same; what was recorded must conform, and no metric may name a tool that does not exist."""
    with quietly_instrumented() as recorder:
        yield recorder
    assert recorder.ours
    violations = check_spans(recorder.ours) + check_metrics(recorder.metrics(), tools=tools, prompts={"greet"})
    assert [str(one) for one in violations if not is_the_peers_fault(one)] == []


def is_the_peers_fault(violation: Violation) -> bool:
    """A peer may leave out ids and names, give an id to a notification, make up error codes, name no method."""
    return (
        violation.rule in ("request-id", "attribute-expected")
        or violation.subject.startswith("SERVER ''")
        or (violation.rule == "code-format" and ("_OTHER" in violation.message or "notification" in violation.message))
    )


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_memory() -> None:
    probes = PROBES + PIPELINED
    without = await over_memory(probes, bare_server())
    with watched() as recorder:
        assert_same(without, await over_memory(probes))
    assert len(recorder.ours) > len(probes)


@pytest.mark.anyio
async def test_stdio() -> None:
    """Real processes: one for each line would cost too much, so they live through all of it."""
    # Not for this transport: lone surrogates are no JSON to its parser, SDK 2.x reads the baggage itself here, and
    # a traceback of a long name keeps the server's log busy for seconds.
    not_here = ("_meta baggage",) * sdk.SDK2 + ("name 10 kB: prompt",)
    probes = [
        probe
        for probe in PROBES[::2] + PIPELINED
        if not has_surrogates(probe.payloads) and not probe.label.startswith(not_here)
    ]
    results: dict[str, Any] = {}

    async def ask(script: str) -> None:
        results[script] = await over_stdio(script, probes)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "stdio_server.py")
        tasks.start_soon(ask, "instrumented_stdio_server.py")
    without, _ = results["stdio_server.py"]
    with_us, errors = results["instrumented_stdio_server.py"]
    assert_same(without, with_us)
    assert "Failed to" not in errors.replace("Failed to validate", "").replace("Failed to parse", "")
    assert our_logger.name not in errors


@pytest.mark.anyio
async def test_the_instrumented_process_is_instrumented() -> None:
    """What the comparison above stands on."""
    call = request("tools/call", {"name": "context", "arguments": {}, "_meta": {"traceparent": TRACEPARENT}})
    answers, _ = await over_stdio("instrumented_stdio_server.py", [Probe("context", (call,))])
    seen = json.loads(json.loads(answers["context"][0])["result"]["content"][0]["text"])
    assert seen["trace_id"] == TRACE_ID
    assert seen["span_id"] not in (SPAN_ID, "0" * 16)


HTTP_KINDS = {
    "http-json": Http("http-json"),
    "http": Http("http"),
    "http-stateless": Http("http-stateless"),
}
if sdk.SDK2:
    HTTP_KINDS |= {"modern": Http("http", modern=True), "modern-json": Http("http-json", modern=True)}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", HTTP_KINDS)
async def test_http(kind: str) -> None:
    http = HTTP_KINDS[kind]
    probes = PROBES if kind in ("http-json", "modern") else PROBES[::5]
    without = await over_http(Http(http.transport, http.modern), probes, bare_server())
    with watched() as recorder:
        assert_same(without, await over_http(Http(http.transport, http.modern), probes))
    assert recorder.ours


HOSTILE_HEADERS: dict[str, bytes] = {
    "nonsense": b"nonsense",
    "not ASCII": b"\xff\xfe" + TRACEPARENT.encode(),
    "long": b"k=v," * 5000,
    "repeated": b",".join([TRACEPARENT.encode()] * 3),
    "spaces": b"  " + TRACEPARENT.encode() + b"\t",
    "escapes": b"k=%ED%A0%80,%zz=%zz",
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http-json", "modern-json"] if sdk.SDK2 else ["http-json"])
async def test_http_headers(kind: str) -> None:
    """Where `_meta` has no context, the headers are read: by whom they were written is not known either."""

    async def ask(server: Any = None) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for name, value in HOSTILE_HEADERS.items():
            for header in CONTEXT_KEYS:
                way = HTTP_KINDS[kind]
                http = Http(way.transport, way.modern, {header: value.decode("latin-1")})
                answers |= await over_http(http, [Probe(f"{header}: {name}", (add(),))], server)
        return answers

    without = await ask()
    with watched() as recorder:
        assert_same(without, await ask())
    # Each with its "afterwards".
    assert len(recorder.find("tools/call add", "SERVER")) == 2 * len(without)


@pytest.mark.anyio
async def test_a_peer_does_not_write_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The propagators quote what they cannot read: a line break in it would begin a line of the host's log."""
    with quietly_instrumented():
        caplog.clear()
        await over_memory(meta_probes())
    written = [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]
    assert not [text[:200] for text in written if not text.isprintable()]
    assert not [text[:200] for text in written if len(text) > 10_000]


# --- nothing piles up ---------------------------------------------------------------------------------------


class OpenSpans(SpanProcessor):
    """Our spans that began and did not end yet."""

    def __init__(self) -> None:
        self.open: dict[int, str] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open[span.context.span_id] = span.name

    def on_end(self, span: Any) -> None:
        self.open.pop(span.context.span_id, None)


@pytest.mark.anyio
async def test_no_message_stays_open() -> None:
    """What is answered, or cannot be, is over: while the session lasts, not only when it ends."""
    odd_ids = [1.5, True, None, [1], {"a": 1}, "\N{SUPERSCRIPT TWO}", 10**30, ""]
    flood = [
        message
        for number in range(10)
        for odd in odd_ids
        for message in (
            {**notification("notifications/roots/list_changed"), "id": odd},
            {**notification(f"random/{number}"), "id": odd},
            {"jsonrpc": "2.0", "id": odd, "result": {}},
            {"jsonrpc": "2.0", "id": f"r{number}", "result": {}, "method": "x", "params": {}},
            {"jsonrpc": "2.0", "id": f"e{number}", "error": {"code": 1, "message": ""}, "method": "x", "params": {}},
            request("tools/call", {"name": f"random-{number}"}, odd),
        )
    ]
    spans = OpenSpans()
    left: list[str] = []
    probes = [Probe(str(number), (message,)) for number, message in enumerate(flood)]
    with watched() as recorder:
        recorder.tracer_provider.add_span_processor(spans)
        await over_memory(probes, at_the_end=lambda: left.extend(spans.open.values()))
    assert left == []
    assert len(recorder.ours) > 10 * len(odd_ids)


def random_text(number: int) -> str:
    return f"{'xyz'[number % 3] * (number % 300)}\x00{number}\ud7ff\u202e"


def metric_points(recorder: Recorder) -> list[dict[str, Any]]:
    data = recorder.metrics()
    return [
        dict(point.attributes)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


@pytest.mark.anyio
async def test_metrics_stay_few_whatever_is_asked_for() -> None:
    names = [f"{random_text(number)}-{number}" for number in range(300)]
    flood = [
        message
        for number, name in enumerate(names)
        for message in (
            request(name, {}, number),
            notification(name, {}),
            notification(f"notifications/{name}", {}),
            request("tools/call", {"name": name, "arguments": {}}, f"t{number}"),
            request("prompts/get", {"name": name}, f"p{number}"),
            request("resources/read", {"uri": f"res://{number}"}, f"r{number}"),
            {**add(f"v{number}"), "params": {"name": "add", "arguments": {"a": 1, "b": name}}},
        )
    ]
    batches = [Probe(f"batch {start}", tuple(flood[start : start + 70])) for start in range(0, len(flood), 70)]
    with watched() as recorder:
        await over_memory(batches)
    points = metric_points(recorder)
    assert len(recorder.ours) > len(flood)
    assert len(points) < 25, points
    texts = {text for point in points for text in point.values() if isinstance(text, str)}
    assert not [text for text in texts if len(text) > 64]


@pytest.mark.anyio
async def test_a_server_that_knows_every_tool_keeps_metrics_few() -> None:
    """A catch-all server, such as a gateway: every name succeeds, so every name is good."""
    server = sdk.build_server()
    succeed_with_every_tool(server)
    calls = [
        request("tools/call", {"name": f"{number}{'x' * 500}\x1b", "arguments": {}}, number) for number in range(1500)
    ]
    batches = [Probe(f"batch {start}", tuple(calls[start : start + 100])) for start in range(0, len(calls), 100)]
    with quietly_instrumented() as recorder:
        async with sdk.memory_streams(server) as (read, write), anyio.create_task_group() as tasks:
            conversation = Conversation(lambda line: write.send(accept(line)))

            async def listen() -> None:
                async for item in read:
                    conversation.arrived(written(item))

            tasks.start_soon(listen)
            await conversation.open()
            for batch in batches:
                answers = await conversation.ask(batch)
                assert all(b"every tool" in answer for answer in answers)
            tasks.cancel_scope.cancel()
    points = metric_points(recorder)
    assert 900 < len(points) < 1100
    for point in points:
        for text in point.values():
            assert len(str(text)) <= 256
            assert str(text).isprintable()


def succeed_with_every_tool(server: Any) -> None:
    low = sdk.lowlevel(server)
    content = [sdk.types.TextContent(type="text", text="every tool")]
    result = sdk.types.CallToolResult(content=content)
    if sdk.SDK2:

        async def call(context: Any, params: Any) -> Any:
            return result

        low.add_request_handler("tools/call", sdk.types.CallToolRequestParams, call)
    else:

        async def handle(message: Any) -> Any:
            return sdk.types.ServerResult(result)

        low.request_handlers[sdk.types.CallToolRequest] = handle


@pytest.mark.anyio
async def test_error_codes_on_metrics_stay_few() -> None:
    calls = [
        Probe(f"code {code}", (request("tools/call", {"name": "reject", "arguments": {"code": code}}, code),))
        for code in [*range(-33000, -32700), 10**9, -(10**12)]
    ]
    with quietly_instrumented() as recorder:
        await over_memory(calls)
    assert len(metric_points(recorder)) < 125


# --- a hostile server ---------------------------------------------------------------------------------------

RESULTS: dict[str, dict[str, Any]] = {
    "fine": {"result": {"content": [{"type": "text", "text": "fine"}]}},
    "no result": {"result": {}},
    "odd error flag": {"result": {"content": [], "isError": "maybe"}},
    "odd _meta": {"result": {"content": [], "_meta": {"traceparent": 7, "baggage": [1]}}},
    "more of everything": {"result": {"content": [], "tools": 5, "resultType": ["input_required"], "requestState": {}}},
    "input required": {"result": {"resultType": "input_required", "requestState": "x" * 10_000}},
    "huge code": {"error": {"code": 10**30, "message": "m"}},
    "negative code": {"error": {"code": -(10**12), "message": "\x1b[31m"}},
    "code 0": {"error": {"code": 0, "message": ""}},
    "code 408": {"error": {"code": 408, "message": "Timed out"}},
    "closed": {"error": {"code": -32000, "message": "Connection closed"}},
    "data": {"error": {"code": -32603, "message": "x" * 10_000, "data": {"a": [None] * 100}}},
}
NOISE: list[dict[str, Any]] = [
    {"jsonrpc": "2.0", "id": "\N{SUPERSCRIPT TWO}", "result": {}},
    {"jsonrpc": "2.0", "id": "9" * 5000, "result": {}},
    {"jsonrpc": "2.0", "id": 10**30, "error": {"code": 1, "message": "m"}},
    notification("notifications/progress", {"progressToken": 10**30, "progress": 1}),
    notification("notifications/message", {"level": "info", "data": None, "_meta": {"traceparent": [7]}}),
    notification("notifications/\x00\u202e", {"_meta": 7}),
    notification("notifications/resources/updated", {"uri": "x" * 10_000}),
    notification("notifications/cancelled", {"requestId": [1]}),
    notification("notifications/tools/list_changed", None),
    request("ping", {"_meta": {"traceparent": {}, "baggage": 7}}, 0),
    request("roots/list", {"_meta": None}, ""),
    request("sampling/createMessage", {"messages": 7}, -1),
    request("no/such/method", {}, 10**30),
]


async def against_hostile_server(
    revision: Any = "2025-03-26",
    results: Mapping[str, dict[str, Any]] = RESULTS,
    noise: Sequence[dict[str, Any]] = NOISE,
) -> list[Any]:
    """What a client gets from a server that answers as it likes, between noise of all kinds."""
    from mcp.shared.memory import create_client_server_memory_streams

    seen: list[Any] = []
    answers: list[bytes] = []
    labels = iter(results)

    async with create_client_server_memory_streams() as (streams, (read, write)), anyio.create_task_group() as tasks:

        async def send(*payloads: Any) -> None:
            for payload in payloads:
                await write.send(accept(encode(payload)))

        def reply(request_id: Any, **result_or_error: Any) -> dict[str, Any]:
            return {"jsonrpc": "2.0", "id": request_id, **result_or_error}

        async def serve() -> None:
            async for item in read:
                message = json.loads(written(item))
                if "method" not in message:
                    answers.append(encode(message))
                elif message["method"] == "initialize":
                    info = {"name": "hostile", "version": ""}
                    result = {"protocolVersion": revision, "capabilities": {}, "serverInfo": info}
                    tasks.start_soon(send, reply(message["id"], result=result))
                elif message["method"] == "tools/list":
                    tools = [{"name": f"\x00{n}" + "x" * 400, "inputSchema": {"type": "object"}} for n in range(50)]
                    tools.append({"name": "add", "inputSchema": {"type": "object"}})
                    tasks.start_soon(send, reply(message["id"], result={"tools": tools}))
                elif "id" in message:
                    tasks.start_soon(send, *noise, reply(message["id"], **results[next(labels)]))

        tasks.start_soon(serve)
        try:
            async with sdk._session(streams, sdk.Callbacks(), "legacy") as peer:
                for label in results:
                    try:
                        result = await peer.call("add", {"a": 1}, timeout=5)
                        seen.append((label, result.model_dump(mode="json")))
                    except Exception as error:
                        seen.append((label, type(error).__qualname__, str(error)))
                await anyio.wait_all_tasks_blocked()
                for number in range(len(peer.callbacks.seen)):
                    seen.append(peer.callbacks.seen[number][0])
        except Exception as error:
            seen.append(described(error))
        tasks.cancel_scope.cancel()
    return [*seen, *sorted(answers)]


def described(error: BaseException) -> list[Any]:
    nested = getattr(error, "exceptions", ())
    return [type(error).__name__, *map(described, nested)] if nested else [type(error).__name__, str(error)]


@pytest.mark.anyio
async def test_a_client_of_a_hostile_server() -> None:
    without = await against_hostile_server()
    assert len(without) > len(RESULTS) + 5 * len(RESULTS)
    with watched(tools=None) as recorder:
        assert await against_hostile_server() == without
    assert len(recorder.find("tools/call add", "CLIENT")) == len(RESULTS)
    assert len(metric_points(recorder)) < 40


@pytest.mark.anyio
async def test_a_server_cannot_invent_revisions() -> None:
    """What a server claims to have negotiated counts once the SDK has agreed."""
    revisions = [f"{2000 + number}-01-01" for number in range(20)] + ["\x1b" * 500, "", 7]
    without = [await against_hostile_server(revision) for revision in revisions]
    with watched(tools=None) as recorder:
        assert [await against_hostile_server(revision) for revision in revisions] == without
    claimed = {point.get("mcp.protocol.version") for point in metric_points(recorder)}
    assert claimed <= {None, "2025-03-26"}, "each is a time series"


if sdk.SDK2:

    @pytest.mark.anyio
    async def test_a_server_cannot_fill_the_memory_of_a_client() -> None:
        """Answers that ask for another round are remembered until it comes, which it need not."""
        from opentelemetry_instrumentation_mcp.targets.sdk_v2_rounds import Rounds

        unfinished = {"resultType": "input_required", "requestState": "s" * 100_000}
        replies = {str(number): {"result": {**unfinished, "number": number}} for number in range(50)}
        for number, reply in enumerate(replies.values()):
            reply["result"]["requestState"] += str(number)
        with watched(tools=None):
            await against_hostile_server(results=replies, noise=[])
            kept = [key for rounds in gc.get_objects() if isinstance(rounds, Rounds) for key in rounds._open]
        assert len(kept) <= 1000
        assert sum(map(sys.getsizeof, kept)) < 1_000_000


# --- what a handler does with what a peer sent --------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("hostile", ["k=\ud800", "\ud800=v", "k=v\r\nx-evil: 1", "k=\x00", "=", "k=\xff"], ids=ascii)
async def test_a_handler_can_call_others(hostile: str) -> None:
    """A peer's baggage reaches the handler, and leaves with its own HTTP calls: it must not break them."""
    server = sdk.build_server()
    carriers: list[dict[str, str]] = []

    @server.tool()
    async def outbound() -> str:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        carriers.append(carrier)
        return "called"

    call = request(
        "tools/call", {"name": "outbound", "arguments": {}, "_meta": {"traceparent": TRACEPARENT, "baggage": hostile}}
    )
    # Of the SDK's JSON parsers these let lone surrogates pass.
    http = Http("http-json", modern=sdk.SDK2)
    with watched() as recorder:
        answers = await over_http(http, [Probe("call", (call,))], server)
    assert b'"text":"called"' in answers["call"][0][2]
    [carrier] = carriers
    assert TRACE_ID in carrier["traceparent"]
    "".join(carrier.values()).encode("ascii")
    assert "\n" not in "".join(carrier.values())
    handled = [span for span in recorder.ours if span.name == "tools/call outbound"]
    assert [span.kind.name for span in handled] == ["SERVER"]
    assert handled[0].context is not None
    assert f"{handled[0].context.span_id:016x}" in carrier["traceparent"]


# --- anything at all ----------------------------------------------------------------------------------------

any_text = st.text(max_size=20) | st.sampled_from([*HOSTILE_TEXTS.values(), TRACEPARENT])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
methods = any_text | st.sampled_from(
    [
        "tools/call", "tools/list", "prompts/get", "prompts/list", "resources/read", "ping", "completion/complete",
        "notifications/progress", "notifications/cancelled", "notifications/roots/list_changed", "logging/setLevel",
    ]
)  # fmt: skip
metas = st.dictionaries(st.sampled_from([*CONTEXT_KEYS, "progressToken", "x"]), json_values, max_size=4) | json_values
params = json_values | st.fixed_dictionaries(
    {},
    optional={
        "_meta": metas,
        "name": st.sampled_from(["add", "fail", "greet"]) | json_values,
        "arguments": json_values,
        "uri": json_values,
        "requestId": json_values,
    },
)
messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers() | any_text | json_values,
        "method": methods,
        "params": params,
        "result": json_values,
        "error": st.fixed_dictionaries({"code": st.integers() | json_values, "message": any_text}) | json_values,
    },
)
# Without shrinking: each example is a conversation with two servers.
few = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=SLOW,
)


@given(st.lists(messages, min_size=5, max_size=15))
@few
def test_anything_over_memory(payloads: list[dict[str, Any]]) -> None:
    probes = [Probe(str(number), (payload,)) for number, payload in enumerate(payloads)]
    without = anyio.run(over_memory, probes, bare_server())
    with watched():
        assert_same(without, anyio.run(over_memory, probes))


@given(st.lists(messages, min_size=5, max_size=15), st.sampled_from(sorted(HTTP_KINDS)))
@few
def test_anything_over_http(payloads: list[dict[str, Any]], kind: str) -> None:
    http = HTTP_KINDS[kind]
    probes = [Probe(str(number), (payload,)) for number, payload in enumerate(payloads)]
    without = anyio.run(over_http, Http(http.transport, http.modern), probes, bare_server())
    with watched():
        assert_same(without, anyio.run(over_http, Http(http.transport, http.modern), probes))
