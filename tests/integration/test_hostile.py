"""A hostile peer: whatever it writes, the answers are those of an uninstrumented server, byte for byte.

Every message goes to a server without the instrumentation and to one with it, as raw JSON-RPC: over memory
streams, to real processes over stdio, and as HTTP POSTs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import Process

from conftest import Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from support import sdk
from support.conformance import assert_conformant

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
        return [str(payload["id"]) for payload in self.payloads if wants_answer(payload)]


def wants_answer(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and payload.get("jsonrpc") == "2.0"
        and isinstance(payload.get("method"), str)
        and type(payload.get("id")) in (int, str)
        and isinstance(payload.get("params"), (dict, type(None)))
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
    return str(message.get("id")) if "method" not in message else None


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
        alive = await self._until(lambda: self._answered([barrier]), 10)
        assert alive, f"the server did not survive {probe.label}"
        await self._until(lambda: self._answered(probe.ids), PATIENCE)
        answers = sorted(normal(line) for line in self._arrived if id_of(line) != barrier)
        self._arrived.clear()
        return answers

    async def ask_all(self, probes: Iterable[Probe]) -> Answers:
        assert await self.ask(Probe("initialize", (INITIALIZE,)))
        await self._send(encode(INITIALIZED))
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


async def over_memory(probes: Iterable[Probe], server: Any = None) -> Answers:
    """The server behind memory streams; what its transports would not accept reaches it as they would hand it on."""
    from mcp.shared.message import SessionMessage

    def accept(line: bytes) -> Any:
        try:
            payload = json.loads(line)
            if sdk.SDK2:
                return SessionMessage(sdk.types.jsonrpc_message_adapter.validate_python(payload, by_name=False))
            return SessionMessage(sdk.types.JSONRPCMessage.model_validate(payload))
        except ValueError as error:
            return error

    def written(item: Any) -> bytes:
        return encode(item.message.model_dump(by_alias=True, exclude_none=True))

    async with sdk.memory_streams(server or sdk.build_server()) as (read, write), anyio.create_task_group() as tasks:

        async def send(line: bytes) -> None:
            await write.send(accept(line))

        conversation = Conversation(send)

        async def listen() -> None:
            async for item in read:
                conversation.arrived(written(item))

        tasks.start_soon(listen)
        answers = await conversation.ask_all(probes)
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
            payload, headers = http.dress(payload)
            try:
                with anyio.fail_after(PATIENCE):
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


@contextmanager
def watched(caplog: pytest.LogCaptureFixture | None = None, **options: Any) -> Iterator[Recorder]:
    """The instrumentation on, with a recorder; at the end what was recorded must conform, and nothing failed."""
    recorder, heard = Recorder(), _Heard()
    instrumentor = McpInstrumentor()
    our_logger.addHandler(heard)
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider, meter_provider=recorder.meter_provider, skip_dep_check=True, **options
    )
    try:
        yield recorder
    finally:
        instrumentor.uninstrument()
        our_logger.removeHandler(heard)
    assert heard.messages == []
    assert_conformant(recorder.ours, recorder.metrics(), tools=KNOWN_TOOLS, prompts={"greet"})
    recorder.tracer_provider.shutdown()
    recorder.meter_provider.shutdown()


KNOWN_TOOLS = {
    "add", "fail", "reject", "slow", "die", "context", "sample", "roots", "ping_client", "progress", "log", "change",
    "outbound",
}  # fmt: skip


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.mark.anyio
async def test_memory() -> None:
    probes = PROBES + PIPELINED
    without = await over_memory(probes, bare_server())
    with watched() as recorder:
        assert_same(without, await over_memory(probes))
    assert len(recorder.ours) > len(probes)


@pytest.mark.anyio
async def test_stdio() -> None:
    """Real processes: one for each line would cost too much, so they live through all of it."""
    # Not for this transport: lone surrogates are no JSON to its parser, and SDK 2.x reads the baggage itself here.
    probes = [
        probe
        for probe in PROBES[::2] + PIPELINED
        if not has_surrogates(probe.payloads) and not (sdk.SDK2 and probe.label.startswith("_meta baggage"))
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
