"""What is told of messages besides the ordinary: only what was asked for, redacted, on both sides, on both SDKs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from conftest import Instrument, Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor, pii
from opentelemetry_instrumentation_mcp.payload import Policy
from support import sdk
from support.wire import WireLog, tap_streams

pytestmark = pytest.mark.anyio

# Renamed in later releases.
InMemoryLogs: Any = getattr(log_export, "InMemoryLogRecordExporter", None) or log_export.InMemoryLogExporter

ToolError: Any
if sdk.SDK2:
    from mcp.server.mcpserver.exceptions import ToolError
else:
    from mcp.server.fastmcp.exceptions import ToolError

ARGUMENTS, RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"
VARIABLE = "gen_ai.prompt.variable."
SECRET = "hunter2-is-the-secret"
KEY = "a key of more than sixteen characters"


def build_server() -> Any:
    """A server whose payloads hold secrets and harmless things."""
    server = sdk.build_server()

    @server.tool()
    async def login(user: str, password: str) -> str:
        return json.dumps({"welcome": user, "session": {"api_key": password}})

    @server.tool()
    async def refuse() -> str:
        raise ToolError(f"no access with password={SECRET} today")

    return server


def both(recorder: Recorder, name: str) -> list[ReadableSpan]:
    return [recorder.one(name, "CLIENT"), recorder.one(name, "SERVER")]


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def content_of(span: ReadableSpan) -> dict[str, Any]:
    return {key: value for key, value in attributes_of(span).items() if key in (ARGUMENTS, RESULT) or VARIABLE in key}


async def exchange(transport: str = "memory", era: str = "legacy", **options: Any) -> None:
    async with sdk.connect(transport, era=era, server=build_server(), **options) as peer:
        await peer.call("login", {"user": "jane", "password": SECRET})
        await peer.call("add", {"a": 1, "b": 2})
        await peer.session.get_prompt("greet", {"name": "jane"})


# --- content --------------------------------------------------------------------------------------------------


async def test_nothing_by_default(instrumented: Recorder) -> None:
    await exchange()
    assert [content_of(span) for span in instrumented.ours if content_of(span)] == []
    assert SECRET not in "".join(span.to_json() for span in instrumented.spans)


@pytest.mark.parametrize("era", sdk.ERAS)
@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_content_on_spans(instrument: Instrument, recorder: Recorder, transport: str, era: str) -> None:
    recorder.content = True
    instrument(capture_content="span_only")
    await exchange(transport, era)
    for span in both(recorder, "tools/call login"):
        content = content_of(span)
        assert content[ARGUMENTS] == '{"user":"jane","password":"***"}'
        [item] = json.loads(content[RESULT])["content"]
        assert json.loads(item["text"]) == {"welcome": "jane", "session": {"api_key": "***"}}
    for span in both(recorder, "prompts/get greet"):
        assert content_of(span) == {VARIABLE + "name": "jane"}
    assert SECRET not in "".join(span.to_json() for span in recorder.spans)


async def test_a_failed_tool_tells_why(instrument: Instrument, recorder: Recorder) -> None:
    recorder.content = True
    instrument(capture_content="SPAN_ONLY")
    async with sdk.connect("memory", server=build_server()) as peer:
        await peer.call("refuse")
    for span in both(recorder, "tools/call refuse"):
        result = json.loads(content_of(span)[RESULT])
        assert result["isError"] is True
        assert "no access with password=***" in result["content"][0]["text"]
        assert SECRET not in span.to_json()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"login": (True, True), "add": (True, True)}),
        ({"capture_inputs": "log*"}, {"login": (True, True), "add": (False, True)}),
        ({"exclude_outputs": ["login"]}, {"login": (True, False), "add": (True, True)}),
        ({"capture_inputs": "*", "exclude_inputs": "*"}, {"login": (False, True), "add": (False, True)}),
        ({"capture_outputs": "a?d"}, {"login": (True, False), "add": (True, True)}),
        ({"capture_inputs": ["nothing"], "capture_outputs": ["add"]}, {"login": (False, False), "add": (False, True)}),
    ],
)
async def test_lists_of_names(
    instrument: Instrument, recorder: Recorder, options: dict[str, Any], expected: dict[str, tuple[bool, bool]]
) -> None:
    recorder.content = True
    instrument(capture_content="SPAN_ONLY", **options)
    await exchange()
    for tool, (has_input, has_output) in expected.items():
        for span in both(recorder, f"tools/call {tool}"):
            content = content_of(span)
            assert (ARGUMENTS in content, RESULT in content) == (has_input, has_output), (tool, span.kind)


class Events:
    """The events that were emitted."""

    def __init__(self) -> None:
        self.exporter = InMemoryLogs()
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(log_export.SimpleLogRecordProcessor(self.exporter))

    @property
    def records(self) -> list[Any]:
        return [each.log_record for each in self.exporter.get_finished_logs()]

    @staticmethod
    def name(record: Any) -> Any:
        return getattr(record, "event_name", None) or record.attributes.get("event.name")


@pytest.fixture
def events() -> Iterator[Events]:
    events = Events()
    yield events
    events.provider.shutdown()


@pytest.mark.parametrize("mode", ["EVENT_ONLY", "SPAN_AND_EVENT"])
async def test_content_in_events(instrument: Instrument, recorder: Recorder, events: Events, mode: str) -> None:
    recorder.content = True
    instrument(capture_content=mode, logger_provider=events.provider)
    await exchange()
    for span in both(recorder, "tools/call login"):
        assert bool(content_of(span)) is (mode == "SPAN_AND_EVENT")
        assert span.context is not None
        [record] = [
            each
            for each in events.records
            if each.span_id == span.context.span_id and each.trace_id == span.context.trace_id
        ]
        assert Events.name(record) == "gen_ai.client.inference.operation.details"
        found = dict(record.attributes)
        assert found["gen_ai.tool.name"] == "login" and found["gen_ai.operation.name"] == "execute_tool"
        arguments = found[ARGUMENTS]
        if isinstance(arguments, str):  # releases without structured attributes
            arguments = json.loads(arguments)
        assert dict(arguments) == {"user": "jane", "password": "***"}
    assert len(events.records) == 6, "each captured message, on both sides"
    assert SECRET not in str([dict(record.attributes) for record in events.records])


async def test_an_unsampled_message_costs_no_redaction(monkeypatch: pytest.MonkeyPatch, events: Events) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Policy, "json", lambda *arguments: asked.append(arguments) or "{}")
    provider = TracerProvider(sampler=ALWAYS_OFF)
    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=provider,
        logger_provider=events.provider,
        capture_content="SPAN_AND_EVENT",
        skip_dep_check=True,
    )
    try:
        await exchange()
    finally:
        instrumentor.uninstrument()
    assert asked == [] and events.records == []


async def test_the_host_gets_what_it_sent(instrument: Instrument, recorder: Recorder) -> None:
    recorder.content = True
    instrument(capture_content="SPAN_AND_EVENT")
    log = WireLog()
    async with sdk.connect("memory", server=build_server(), tap=lambda streams: tap_streams(log, *streams)) as peer:
        arguments = {"user": "jane", "password": SECRET}
        answer = await peer.text("login", arguments)
    assert json.loads(answer) == {"welcome": "jane", "session": {"api_key": SECRET}}
    assert arguments == {"user": "jane", "password": SECRET}
    assert log.select(kind="request", method="tools/call")[0].params["arguments"] == arguments


async def test_a_policy_that_fails_costs_its_content_only(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> str:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(Policy, "json", broken)
    instrumentor = McpInstrumentor()
    instrumentor.instrument(tracer_provider=recorder.tracer_provider, capture_content="SPAN_ONLY", skip_dep_check=True)
    try:
        async with sdk.connect("memory") as peer:
            assert await peer.text("add", {"a": 1, "b": 2}) == "3"
    finally:
        instrumentor.uninstrument()
    for span in both(recorder, "tools/call add"):
        assert content_of(span) == {} and SECRET not in span.to_json()


def test_capture_off_loads_nothing() -> None:
    """What is not asked for costs no import either."""
    code = """
import anyio, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry_instrumentation_mcp import McpInstrumentor
McpInstrumentor().instrument(tracer_provider=TracerProvider(), skip_dep_check=True)
from support import sdk
async def main():
    async with sdk.connect("memory") as peer:
        assert await peer.text("add", {"a": 1, "b": 2}) == "3"
anyio.run(main)
ours = "opentelemetry_instrumentation_mcp."
late = ["payload", "disclosure", "events", "identity", "langfuse", "baggage", "clean_spans"]
print([name for name in late if ours + name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def first_names(text: str) -> list[tuple[int, int]]:
    """A detector of personal data, as users name it in the configuration."""
    return [(at, at + 4) for at in range(len(text)) if text.startswith("jane", at)]


class Presidio:
    """What the adapter uses of ``presidio_analyzer``."""

    class AnalyzerEngine:
        registry = SimpleNamespace(recognizers=[])

        def __init__(self, nlp_engine: Any) -> None:
            pass

        def analyze(self, text: str, language: str) -> list[Any]:
            assert language == "en"
            return [SimpleNamespace(start=start, end=end) for start, end in first_names(text)]

    class nlp_engine:  # noqa: N801
        class NlpEngineProvider:
            nlp_configuration: ClassVar[Any] = {"models": []}

            def create_engine(self) -> None:
                pass


@pytest.mark.parametrize("detector", [first_names, f"{__name__}:first_names", "presidio"])
async def test_personal_data(
    instrument: Instrument, recorder: Recorder, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", Presidio)
    monkeypatch.setattr(pii, "PATIENCE", 60.0)
    recorder.content = True
    instrument(capture_content="SPAN_ONLY", pii_detector=detector)
    await exchange()
    for span in both(recorder, "tools/call login"):
        assert content_of(span)[ARGUMENTS] == '{"user":"***","password":"***"}'
    for span in both(recorder, "prompts/get greet"):
        assert content_of(span) == {VARIABLE + "name": "***"}
    assert "jane" not in "".join(span.to_json() for span in recorder.ours)


async def test_without_its_detector_nothing_is_shown(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider,
        capture_content="SPAN_ONLY",
        pii_detector="no_such_module:detect",
        skip_dep_check=True,
    )
    try:
        await exchange()
    finally:
        instrumentor.uninstrument()
    assert "jane" not in "".join(span.to_json() for span in recorder.ours)
    [warning] = [record.getMessage() for record in caplog.records if "personal data" in record.getMessage()]
    assert "no_such_module" in warning


async def test_a_detector_that_hangs(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr(pii, "PATIENCE", 0.05)
    recorder.content = True
    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider,
        capture_content="SPAN_ONLY",
        pii_detector=lambda text: released.wait(60) and [],
        skip_dep_check=True,
    )
    try:
        await exchange()
    finally:
        instrumentor.uninstrument()
        released.set()
    for span in both(recorder, "tools/call login"):
        assert content_of(span)[ARGUMENTS] == '{"***":"***","***#1":"***"}'
    assert "jane" not in "".join(span.to_json() for span in recorder.ours)
    [warning] = [record.getMessage() for record in caplog.records if "personal data" in record.getMessage()]
    assert "no answer within" in warning


async def test_own_rules(instrument: Instrument, recorder: Recorder) -> None:
    recorder.content = True
    instrument(capture_content="SPAN_ONLY", redact_keys="user", keep_keys="password", redact_patterns=[r"ja[a-z]e"])
    await exchange()
    for span in both(recorder, "tools/call login"):
        assert json.loads(content_of(span)[ARGUMENTS]) == {"user": "***", "password": SECRET}
        assert "welcome" in content_of(span)[RESULT] and "jane" not in content_of(span)[RESULT]


@pytest.mark.parametrize(
    ("mode", "shown"), [("NO_CONTENT", "https://***@host/x?***"), ("SPAN_ONLY", "https://***@host/x?page=2&token=***")]
)
async def test_uris_of_resources(recorder: Recorder, mode: str, shown: str) -> None:
    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider,
        capture_content=mode,
        resource_uri_in_span_name=True,
        skip_dep_check=True,
    )
    try:
        async with sdk.connect("memory") as peer:
            with pytest.raises(sdk.McpError):
                await peer.read(f"https://me:{SECRET}@host/x?page=2&token={SECRET}")
    finally:
        instrumentor.uninstrument()
    for span in both(recorder, f"resources/read {shown}"):
        assert attributes_of(span)["mcp.resource.uri"] == shown
    assert SECRET not in "".join(span.to_json() for span in recorder.ours)


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sdk.SDK2, reason="SDK 1.x answers for its handlers; no exception passes ours")
async def test_stack_traces_of_handlers(instrument: Instrument, recorder: Recorder) -> None:
    from mcp.server.lowlevel.server import Server

    async def get_prompt(ctx: Any, params: Any) -> Any:
        raise ValueError(f"password={SECRET}, says the handler")

    server: Any = Server("failing", on_get_prompt=get_prompt)
    recorder.content = True
    instrument(stacktraces=True)
    async with sdk.connect("memory", server=type("High", (), {"_lowlevel_server": server})()) as peer:
        with pytest.raises(sdk.McpError):
            await peer.session.get_prompt("greet", {"name": "x"})
    events = {span.kind.name: span.events for span in both(recorder, "prompts/get greet")}
    [event] = events["SERVER"]
    found = dict(event.attributes or {})
    assert event.name == "exception" and found["exception.type"] == "ValueError"
    assert found["exception.message"] == "password=***, says the handler"
    assert "in get_prompt" in str(found["exception.stacktrace"])
    assert SECRET not in str(found)
    [event] = events["CLIENT"]
    assert SECRET not in str(dict(event.attributes or {}))


async def test_no_exception_events_by_default(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:
        await peer.call("fail")
        with pytest.raises(sdk.McpError):
            await peer.request("no/such/method")
    assert [event for span in instrumented.ours for event in span.events] == []


# --- identity -------------------------------------------------------------------------------------------------


def authenticated(app: Any) -> Any:
    """An ASGI application whose requests are all authenticated, as by the SDK's own middleware."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    known = AccessToken.model_fields
    extra = {"subject": "user-17", "claims": {"email": "jane@example.org"}} if "claims" in known else {}
    token = AccessToken(token=SECRET, client_id="client-9", scopes=["read", "write"], **extra)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["user"] = AuthenticatedUser(token)
        await app(scope, receive, send)

    return middleware


IDENTITY = ("user.id", "user.email", "enduser.id", "enduser.scope", "auth.method", "session.id")


@pytest.mark.parametrize("mode", ["off", "on", "hashed"])
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_identity(recorder: Recorder, mode: str, era: str) -> None:
    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider, identity=mode, identity_key=KEY, skip_dep_check=True
    )
    try:
        async with sdk.connect("http", era=era, middleware=authenticated) as peer:
            await peer.call("add", {"a": 1, "b": 2})
    finally:
        instrumentor.uninstrument()
    client, server = (attributes_of(span) for span in both(recorder, "tools/call add"))
    assert not set(IDENTITY) & set(client), "a client does not know"
    shown = {key: server[key] for key in IDENTITY if key in server}
    exported = "".join(span.to_json() for span in recorder.spans)
    assert SECRET not in exported
    if mode == "off":
        assert shown == {} and "jane@example.org" not in exported
        return
    assert shown["enduser.scope"] == "read write" and shown["auth.method"] == "oauth"
    named = shown["enduser.id"] in ("user-17", "client-9")
    assert named is (mode == "on")
    if mode == "hashed":
        assert len(shown["enduser.id"]) == 32
        for name in ("user-17", "client-9", "jane@example.org"):
            assert name not in exported


# --- Langfuse -------------------------------------------------------------------------------------------------


async def test_langfuse(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://langfuse.example.org/api/public/otel")
    instrumentor = McpInstrumentor()
    instrumentor.instrument(tracer_provider=recorder.tracer_provider, skip_dep_check=True)
    try:
        async with sdk.connect("memory") as peer:
            await peer.call("add", {"a": 1, "b": 2})
            await peer.call("fail")
    finally:
        instrumentor.uninstrument()
    client, _ = both(recorder, "tools/call add")
    assert attributes_of(client)["langfuse.trace.name"] == "Tool: add"
    for span in both(recorder, "tools/call add"):
        assert attributes_of(span)["langfuse.observation.type"] == "tool"
        assert "langfuse.observation.level" not in attributes_of(span)
    for span in both(recorder, "tools/call fail"):
        assert attributes_of(span)["langfuse.observation.level"] == "ERROR"
    assert "langfuse.trace.name" not in attributes_of(recorder.one("tools/call add", "SERVER"))


async def test_no_langfuse_attributes_elsewhere(instrumented: Recorder) -> None:
    await exchange()
    assert [key for span in instrumented.ours for key in attributes_of(span) if key.startswith("langfuse")] == []


# --- baggage --------------------------------------------------------------------------------------------------


def with_baggage(entries: dict[str, str]) -> Any:
    current = context.get_current()
    for name, value in entries.items():
        current = baggage.set_baggage(name, value, current)
    return context.attach(current)


ENTRIES = {"tenant.id": "acme", "app.plan": "gold", "other": "kept out", "app.password": SECRET}


async def test_baggage_becomes_attributes_by_allow_list(recorder: Recorder) -> None:
    instrumentor = McpInstrumentor()
    instrumentor.instrument(
        tracer_provider=recorder.tracer_provider, baggage_attributes="tenant.id,app.*,mcp.*", skip_dep_check=True
    )
    try:
        async with sdk.connect("memory") as peer:
            token = with_baggage({**ENTRIES, "mcp.method.name": "forged"})
            await peer.call("add", {"a": 1, "b": 2})
            context.detach(token)
    finally:
        instrumentor.uninstrument()
    for span in both(recorder, "tools/call add"):
        found = attributes_of(span)
        assert (found["tenant.id"], found["app.plan"]) == ("acme", "gold")
        assert found["app.password"] == "***"
        assert found["mcp.method.name"] == "tools/call", "what is ours wins"
        assert "other" not in found


@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_baggage_leaves_by_allow_list(instrument: Instrument, recorder: Recorder, transport: str) -> None:
    instrument(baggage_outbound="tenant.id")
    async with sdk.connect(transport) as peer:
        token = with_baggage(ENTRIES)
        seen = await peer.handler_context()
        assert dict(baggage.get_all()) == ENTRIES, "the program's own baggage is its own"
        context.detach(token)
    assert seen["baggage"] == {"tenant.id": "acme"}


# --- spans of others ------------------------------------------------------------------------------------------


def names(spans: Sequence[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


@pytest.mark.parametrize("clean", [True, False])
async def test_spans_of_others(recorder: Recorder, clean: bool) -> None:
    """Of the other MCP libraries: cleaned if asked for; of everybody else: never touched."""
    late = recorder.tracer_provider
    instrumentor = McpInstrumentor()
    instrumentor.instrument(tracer_provider=late, clean_spans=clean, skip_dep_check=True)
    try:
        late.add_span_processor(SimpleSpanProcessor(recorder.exporter))
        for scope in ("fastmcp", "my-app"):
            with (
                pytest.raises(ValueError, match="password"),
                late.get_tracer(scope).start_as_current_span(scope) as span,
            ):
                span.set_attribute("db_password", SECRET)
                raise ValueError(f"password={SECRET}")
    finally:
        instrumentor.uninstrument()
    by_name: dict[str, str] = {}
    for span in recorder.spans:
        by_name[span.name] = by_name.get(span.name, "") + span.to_json()
    assert (SECRET in by_name["fastmcp"]) is not clean
    assert SECRET in by_name["my-app"]
