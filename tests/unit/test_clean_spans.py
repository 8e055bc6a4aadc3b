"""Spans of other libraries: what reaches the exporters of a real SDK once the policy stands before them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    SpanLimits,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from opentelemetry_instrumentation_mcp import guard
from opentelemetry_instrumentation_mcp.clean_spans import (
    ALL_SCOPES,
    CleaningSpanProcessor,
    SpanCleaner,
    Uninstall,
    install,
)
from opentelemetry_instrumentation_mcp.identity import identity_policy

CANARY = "canary-7f3a"
FOREIGN = "mcp-python-sdk"
OWN = "opentelemetry_instrumentation_mcp"

LINKED = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))


class FakePolicy:
    """Masks the canary wherever it stands, and what stands under a sensitive name; bounds texts like the real one."""

    def __init__(self) -> None:
        self.calls = 0

    def text(self, text: str, limit: int | None = None) -> str:
        self.calls += 1
        return text.replace(CANARY, "***")[: limit or 1_024]

    def attribute(self, key: str, value: object) -> object:
        self.calls += 1
        if "password" in key or "session" in key:
            return "***"
        return self.structured(value)

    def structured(self, value: object, limit: int | None = None) -> Any:
        if isinstance(value, str):
            return value.replace(CANARY, "***")[: limit or 32_768]
        if isinstance(value, bytes):
            return "(bytes)"
        if isinstance(value, dict):
            return {key: self.attribute(key, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.structured(item) for item in value]
        return value


class BrokenPolicy(FakePolicy):
    def text(self, text: str, limit: int | None = None) -> str:
        raise ValueError(CANARY)

    attribute = text  # type: ignore[assignment]


class Pipeline:
    """A provider, an exporter in memory, and what was exported in the bytes of OTLP."""

    def __init__(self, processor: Callable[..., SpanProcessor] = SimpleSpanProcessor, **kwargs: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **kwargs)
        self.provider.add_span_processor(processor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        assert self.provider.force_flush()
        return list(self.exporter.get_finished_spans())

    def one(self) -> ReadableSpan:
        spans = self.spans
        assert len(spans) == 1
        return spans[0]

    def otlp(self) -> bytes:
        spans = self.spans
        assert spans, "nothing was exported, so nothing was proved"
        return encode_spans(spans).SerializeToString()

    def tracer(self, scope: str = FOREIGN) -> trace.Tracer:
        return self.provider.get_tracer(scope)


@pytest.fixture(autouse=True)
def fresh_reports() -> Iterator[None]:
    guard.forget_reports()
    yield
    guard.forget_reports()


@pytest.fixture
def installed() -> Iterator[Callable[..., Uninstall]]:
    undo: list[Uninstall] = []

    def put(pipeline: Pipeline, policy: Any = None, *args: Any, **kwargs: Any) -> Uninstall:
        undo.append(install(pipeline.provider, SpanCleaner(policy or FakePolicy(), *args, **kwargs)))
        return undo[-1]

    yield put
    while undo:
        undo.pop()()


def leak_everywhere(tracer: trace.Tracer) -> None:
    """A span with the canary at every place where a library can put text, the SDK's own recording included."""
    with (
        pytest.raises(ValueError, match=CANARY),
        tracer.start_as_current_span(
            f"call {CANARY}",
            attributes={
                "plain": f"is {CANARY}",
                "password": "hunter2",
                "many": ["a", CANARY],
                "count": 3,
                "ratio": 0.5,
                "flag": True,
                CANARY: "key",
            },
            links=[Link(LINKED, {"note": CANARY})],
        ) as span,
    ):
        span.add_event(f"event {CANARY}", {"body": CANARY, "size": 7})
        raise ValueError(f"failed on {CANARY}")


PROCESSORS = pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
MULTIS = pytest.mark.parametrize("multi", [SynchronousMultiSpanProcessor, ConcurrentMultiSpanProcessor])


@PROCESSORS
@MULTIS
def test_nothing_of_the_canary_is_exported(installed: Any, processor: Any, multi: Any) -> None:
    pipeline = Pipeline(processor, active_span_processor=multi())
    late = InMemorySpanExporter()
    tracer = pipeline.tracer()
    installed(pipeline)
    pipeline.provider.add_span_processor(processor(late))
    leak_everywhere(tracer)

    assert CANARY.encode() not in pipeline.otlp()
    assert b"hunter2" not in pipeline.otlp()
    assert CANARY.encode() not in encode_spans(late.get_finished_spans()).SerializeToString()
    pipeline.provider.shutdown()


def test_without_it_the_canary_is_exported() -> None:
    pipeline = Pipeline()
    leak_everywhere(pipeline.tracer())
    assert pipeline.otlp().count(CANARY.encode()) >= 9


def test_what_is_harmless_survives(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline)
    leak_everywhere(pipeline.tracer())
    span = pipeline.one()

    assert span.name == "call ***"
    assert span.attributes == {
        "plain": "is ***",
        "password": "***",
        "many": ("a", "***"),
        "count": 3,
        "ratio": 0.5,
        "flag": True,
        "***": "key",
    }
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ValueError: failed on ***"
    assert [link.context for link in span.links] == [LINKED]
    assert [dict(link.attributes or {}) for link in span.links] == [{"note": "***"}]
    event, exception = span.events
    assert (event.name, dict(event.attributes or {})) == ("event ***", {"body": "***", "size": 7})
    assert dict(exception.attributes or {}) == {
        "exception.type": "ValueError",
        "exception.message": "failed on ***",
        "exception.escaped": "False",
    }


def test_the_rest_of_a_span_is_untouched(installed: Any) -> None:
    plain, cleaned = Pipeline(), Pipeline()
    installed(cleaned)

    class SameIds:
        def generate_span_id(self) -> int:
            return 7

        def generate_trace_id(self) -> int:
            return 9

        def is_trace_id_random(self) -> bool:
            return False

    encoded: list[bytes] = []
    for pipeline in (plain, cleaned):
        pipeline.provider.id_generator = SameIds()
        parent = trace.set_span_in_context(trace.NonRecordingSpan(LINKED))
        span = pipeline.provider.get_tracer(FOREIGN, "1.2", "https://example.org/schema").start_span(
            "tools/call add", parent, trace.SpanKind.SERVER, {"a": 1, "b": "two", "c": [1, 2]}, start_time=1_000
        )
        span.add_event("tick", {"n": 1}, timestamp=1_500)
        span.add_link(LINKED, {"x": "y"})
        span.set_status(Status(StatusCode.ERROR, "no"))
        span.end(2_000)
        encoded.append(pipeline.otlp())
    assert encoded[0] == encoded[1]
    assert cleaned.one()._instrumentation_info == plain.one()._instrumentation_info
    assert cleaned.one()._instrumentation_info is not None, "exporters of an older generation read it"


def test_a_live_span_keeps_its_values(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline)
    span = pipeline.tracer().start_span("work", attributes={"plain": CANARY})
    span.end()
    assert span.attributes["plain"] == CANARY, "the program may still look at it"
    assert pipeline.one().attributes == {"plain": "***"}


@pytest.mark.parametrize(
    "scope",
    [
        "mcp-python-sdk",
        "mcp-gateway",
        "mcpgateway.observability",
        "fastmcp",
        "FastMCP",
        "cpex.framework",
        "contextforge.mcp.otel",
        "opentelemetry.instrumentation.mcp.instrumentation",
        "logfire.mcp",
    ],
)
def test_scopes_of_mcp_libraries_are_cleaned_by_default(installed: Any, scope: str) -> None:
    pipeline = Pipeline()
    installed(pipeline)
    pipeline.tracer(scope).start_span(CANARY).end()
    assert pipeline.one().name == "***"


@pytest.mark.parametrize("scope", ["opentelemetry.instrumentation.httpx", "my_app", OWN])
def test_other_scopes_are_handed_on_as_they_are(installed: Any, scope: str) -> None:
    pipeline = Pipeline()
    policy = FakePolicy()
    installed(pipeline, policy)
    leak_everywhere(pipeline.tracer(scope))
    assert pipeline.otlp().count(CANARY.encode()) >= 9
    assert policy.calls == 0, "spans of no concern cost nothing"


def test_scopes_are_a_setting(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline, None, ["my_"])
    pipeline.tracer("my_app").start_span(CANARY).end()
    pipeline.tracer(FOREIGN).start_span(CANARY).end()
    assert [span.name for span in pipeline.spans] == ["***", CANARY]


@pytest.mark.parametrize("scopes", [ALL_SCOPES, [ALL_SCOPES], iter(["fastmcp", ALL_SCOPES])])
def test_all_scopes(installed: Any, scopes: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline, None, scopes)
    for scope in ("my_app", FOREIGN, OWN):
        pipeline.tracer(scope).start_span(CANARY).end()
    assert [span.name for span in pipeline.spans] == ["***"] * 3


def test_stack_traces_are_dropped_unless_kept(installed: Any) -> None:
    dropped, kept = Pipeline(), Pipeline()
    installed(dropped)
    installed(kept, keep_stacktraces=True)
    attributes = {"exception.stacktrace": CANARY, "error.stack_trace": "at", "error.stack": ["at"], "call_stack": 3}
    for pipeline in (dropped, kept):
        leak_everywhere(pipeline.tracer())
        pipeline.tracer().start_span("more", attributes=attributes).end()
    first, more = dropped.spans
    assert "exception.stacktrace" not in (first.events[1].attributes or {})
    assert dict(more.attributes or {}) == {"call_stack": 3}
    first, more = kept.spans
    assert str((first.events[1].attributes or {})["exception.stacktrace"]).startswith("Traceback")
    assert more.attributes == {**attributes, "exception.stacktrace": "***", "error.stack": ("at",)}
    assert CANARY.encode() not in kept.otlp()


def test_a_long_stack_trace_is_not_cut_like_a_message(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline, keep_stacktraces=True)
    pipeline.tracer().start_span("deep", attributes={"exception.stacktrace": "x" * 100_000}).end()
    assert len(str((pipeline.one().attributes or {})["exception.stacktrace"])) == 16_384


def test_error_texts_can_be_left_out(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline, error_text=False)
    leak_everywhere(pipeline.tracer())
    span = pipeline.one()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert dict(span.events[1].attributes or {}) == {"exception.type": "ValueError", "exception.escaped": "False"}


def test_a_text_in_the_status_or_an_exception_is_bounded(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline)
    span = pipeline.tracer().start_span("work" * 1_000)
    span.record_exception(ValueError("x" * 50_000))
    span.set_status(Status(StatusCode.ERROR, "y" * 50_000))
    span.end()
    exported = pipeline.one()
    assert len(exported.status.description or "") == 1_024
    assert len(str((exported.events[0].attributes or {})["exception.message"])) == 1_024
    assert len(exported.name) == 256


def test_identifiers_of_the_conventions_are_no_secrets(installed: Any) -> None:
    pipeline = Pipeline()
    installed(pipeline)
    attributes = {"mcp.session.id": f"s-1 {CANARY}", "session.id": "s-2", "my.session": "s-3"}
    pipeline.tracer().start_span("work", attributes=attributes).end()
    assert pipeline.one().attributes == {"mcp.session.id": "s-1 ***", "session.id": "s-2", "my.session": "***"}


@pytest.mark.parametrize("mode", ["off", "on", "hashed"])
def test_identities_of_foreign_spans_follow_the_identity_setting(installed: Any, mode: str) -> None:
    pipeline = Pipeline()
    identity = identity_policy(mode, "k" * 32)
    installed(pipeline, None, [ALL_SCOPES], identity=identity.attribute)
    attributes = {"enduser.id": "alice", "user": "alice@example.org", "auth.method": "jwt", "other": "alice"}
    pipeline.tracer("fastmcp").start_span("work", attributes=attributes).end()
    pipeline.tracer(OWN).start_span("work", attributes={"enduser.id": "alice"}).end()
    foreign, own = pipeline.spans
    shown = dict(foreign.attributes or {})
    assert shown.pop("other") == "alice"
    if mode == "off":
        assert shown == {}
    else:
        assert shown.pop("auth.method") == "jwt"
        assert (shown == {"enduser.id": "alice", "user": "alice@example.org"}) is (mode == "on")
        assert len(shown) == 2
    assert own.attributes == {"enduser.id": "alice"}, "ours say what they may: hashed once is enough"


def test_twice_is_once(installed: Any) -> None:
    """A span that meets the same cleaner in the provider and in a pipeline is cleaned, and hashed, once."""
    policy, exporter = FakePolicy(), InMemorySpanExporter()
    cleaner = SpanCleaner(policy, identity=identity_policy("hashed", "k" * 32).attribute)
    pipeline = Pipeline()
    pipeline.provider.add_span_processor(CleaningSpanProcessor(SimpleSpanProcessor(exporter), cleaner))
    undo = install(pipeline.provider, cleaner)
    pipeline.tracer().start_span("work", attributes={"enduser.id": "alice", "plain": CANARY}).end()
    undo()
    (cleaned,) = exporter.get_finished_spans()
    assert cleaned is pipeline.one()
    assert (cleaned.attributes or {})["enduser.id"] == identity_policy("hashed", "k" * 32).attribute("user.id", "alice")


def test_limits_of_the_sdk_stay_visible(installed: Any) -> None:
    pipeline = Pipeline(
        span_limits=SpanLimits(
            max_span_attributes=2,
            max_events=1,
            max_links=1,
            max_event_attributes=1,
            max_link_attributes=1,
            max_span_attribute_length=20,
        )
    )
    installed(pipeline)
    links = [Link(LINKED, {"a": 1, "b": 2}), Link(LINKED, {"a": CANARY, "b": CANARY})]
    span = pipeline.tracer().start_span("work", attributes={"a": 1, "b": 2, "c": CANARY * 10}, links=links)
    for number in range(3):
        span.add_event("tick", {"n": number, "m": number, "canary": CANARY})
    span.end()
    exported = pipeline.one()
    assert (exported.dropped_attributes, exported.dropped_events, exported.dropped_links) == (1, 2, 1)
    assert len(exported.attributes or {}) == 2
    assert (exported.events[0].dropped_attributes, exported.links[0].dropped_attributes) == (2, 1)
    assert CANARY.encode() not in pipeline.otlp()


def test_a_span_of_no_scope_is_of_no_concern_unless_all_are() -> None:
    span = ReadableSpan(CANARY, LINKED)
    assert SpanCleaner(FakePolicy()).clean(span) is span
    cleaned = SpanCleaner(FakePolicy(), ALL_SCOPES).clean(span)
    assert cleaned is not None and cleaned.name == "***"


def test_values_of_newer_sdks() -> None:
    """Bytes, mappings and nested sequences, as given to the exporter by whatever made the span."""
    made = TracerProvider(shutdown_on_exit=False).get_tracer(FOREIGN).start_span("work")
    span = ReadableSpan(
        "work",
        made.get_span_context(),
        attributes={
            "raw": CANARY.encode(),
            "map": {"password": "x", "note": CANARY},
            "nested": [[CANARY], "a"],
            "nothing": None,
        },
        instrumentation_scope=made.instrumentation_scope,
    )
    made.end()
    values: dict[str, Any] = {}

    class Spy(FakePolicy):
        def structured(self, value: object, limit: int | None = None) -> Any:
            result = super().structured(value, limit)
            if isinstance(value, dict) and len(value) == 1:
                values.update(result)
            return result

    cleaned = SpanCleaner(Spy()).clean(span)
    assert cleaned is not None and CANARY not in repr(dict(cleaned.attributes or {}))
    assert values == {"raw": "(bytes)", "map": {"password": "***", "note": "***"}, "nested": [["***"], "a"]}


@PROCESSORS
def test_a_policy_that_fails_lets_no_text_out(installed: Any, processor: Any, caplog: Any) -> None:
    pipeline = Pipeline(processor)
    installed(pipeline, BrokenPolicy())
    with caplog.at_level(logging.WARNING, guard.logger.name):
        for _ in range(3):
            leak_everywhere(pipeline.tracer())
    otlp = pipeline.otlp()
    assert CANARY.encode() not in otlp and b"hunter2" not in otlp
    spans = pipeline.spans
    assert len(spans) == 3, "that something happened is still told"
    assert all(span.status.status_code is StatusCode.ERROR and span.name == "(withheld)" for span in spans)
    assert [link.context for link in spans[0].links] == [LINKED]
    assert spans[0].end_time and spans[0].start_time
    messages = [record.getMessage() for record in caplog.records if record.name == guard.logger.name]
    assert len(messages) == 1 and CANARY not in messages[0]
    pipeline.provider.shutdown()


def test_a_span_that_cannot_be_copied_is_not_exported(
    installed: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from opentelemetry_instrumentation_mcp import span_cleaner

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise TypeError("an SDK of the future")

    monkeypatch.setattr(span_cleaner, "_copy", fail)
    pipeline = Pipeline()
    installed(pipeline)
    with caplog.at_level(logging.WARNING, guard.logger.name):
        pipeline.tracer().start_span(CANARY).end()
        pipeline.tracer("my_app").start_span("fine").end()
    assert [span.name for span in pipeline.spans] == ["fine"]
    assert caplog.records


class OnEndReader(SpanProcessor):
    """A processor without an exporter: it reads what it is handed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.seen.append(span.to_json())


def test_processors_without_an_exporter_get_clean_spans_too(installed: Any) -> None:
    pipeline, first, last = Pipeline(), OnEndReader(), OnEndReader()
    pipeline.provider.add_span_processor(first)
    installed(pipeline)
    pipeline.provider.add_span_processor(last)
    leak_everywhere(pipeline.tracer())
    assert first.seen == last.seen and len(first.seen) == 1
    assert CANARY not in first.seen[0]


def test_uninstalling_restores_the_provider(installed: Any) -> None:
    pipeline = Pipeline()
    before = dict(vars(pipeline.provider._active_span_processor))
    undo = installed(pipeline)
    assert dict(vars(pipeline.provider._active_span_processor)) != before
    undo()
    undo()
    assert dict(vars(pipeline.provider._active_span_processor)) == before
    pipeline.tracer().start_span(CANARY).end()
    assert pipeline.one().name == CANARY


def test_two_installations_are_undone_in_any_order(installed: Any) -> None:
    for first_out in (0, 1):
        pipeline = Pipeline()
        undo = [installed(pipeline, None, [FOREIGN]), installed(pipeline, None, ["my_app"])]
        pipeline.tracer(FOREIGN).start_span(CANARY).end()
        pipeline.tracer("my_app").start_span(CANARY).end()
        undo[first_out]()
        pipeline.tracer(FOREIGN).start_span(CANARY).end()
        pipeline.tracer("my_app").start_span(CANARY).end()
        undo[1 - first_out]()
        pipeline.tracer(FOREIGN).start_span(CANARY).end()
        left = ["***", CANARY] if first_out else [CANARY, "***"]
        assert [span.name for span in pipeline.spans] == ["***", "***", *left, CANARY]
        in_order = first_out == 1
        assert ("on_end" in vars(pipeline.provider._active_span_processor)) is not in_order


def test_a_provider_of_somebody_else_is_reported(caplog: Any) -> None:
    class Slots:
        __slots__ = ()

        def on_end(self, span: Any) -> None: ...

    class Frozen:
        def __init__(self) -> None:
            vars(self)["frozen"] = True

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(name)

        def on_end(self, span: Any) -> None: ...

    class Foreign(trace.TracerProvider):
        def __init__(self, processor: Any = None) -> None:
            self._active_span_processor = processor

        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return trace.NoOpTracer()

    with caplog.at_level(logging.WARNING, guard.logger.name):
        for provider in (Foreign(), Foreign(Slots()), Foreign(Frozen()), trace.NoOpTracerProvider()):
            install(provider, SpanCleaner(FakePolicy()))()
            guard.forget_reports()
    assert len(caplog.records) == 3 and all("Foreign" in record.getMessage() for record in caplog.records)


def test_a_pipeline_built_in_code() -> None:
    raw, exporter = Pipeline(), InMemorySpanExporter()
    inner = BatchSpanProcessor(exporter)
    raw.provider.add_span_processor(CleaningSpanProcessor(inner, SpanCleaner(FakePolicy())))
    leak_everywhere(raw.tracer())
    assert raw.provider.force_flush()
    assert CANARY.encode() not in encode_spans(exporter.get_finished_spans()).SerializeToString()
    assert CANARY.encode() in raw.otlp(), "the others are not cleaned"
    raw.provider.shutdown()
    assert exporter._stopped, "shutdown is passed on"


def test_every_hook_of_a_wrapped_processor_is_called() -> None:
    called: list[str] = []

    class Inner(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            called.append(f"on_start {otel_context.get_value('x', parent_context)}")

        def _on_ending(self, span: Any) -> None:
            called.append("_on_ending")

        def on_end(self, span: Any) -> None:
            called.append("on_end")

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            called.append(f"force_flush {timeout_millis}")
            return False

        def shutdown(self) -> None:
            called.append("shutdown")

    processor = CleaningSpanProcessor(Inner(), SpanCleaner(FakePolicy()))
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer(FOREIGN).start_span("work")
    processor.on_start(span, otel_context.set_value("x", "y"))  # type: ignore[arg-type]
    processor._on_ending(span)  # type: ignore[arg-type]
    processor.on_end(span)  # type: ignore[arg-type]
    assert processor.force_flush(5) is False
    processor.shutdown()
    span.end()
    assert called == ["on_start y", "_on_ending", "on_end", "force_flush 5", "shutdown"]


def test_a_wrapped_processor_older_than_a_hook() -> None:
    class Old:
        def on_end(self, span: Any) -> None: ...

    CleaningSpanProcessor(Old(), SpanCleaner(FakePolicy()))._on_ending(None)  # type: ignore[arg-type]


def test_many_threads(installed: Any) -> None:
    pipeline = Pipeline(BatchSpanProcessor)
    installed(pipeline)
    tracer = pipeline.tracer()
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for index in range(50):
            tracer.start_span(f"{CANARY} {number} {index}", attributes={f"key.{number}.{index}": CANARY}).end()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(pipeline.spans) == 200
    assert CANARY.encode() not in pipeline.otlp()
    pipeline.provider.shutdown()


def test_keys_and_scopes_are_remembered_within_bounds() -> None:
    cleaner = SpanCleaner(FakePolicy())
    provider = TracerProvider(shutdown_on_exit=False)
    for number in range(1_200):
        span = provider.get_tracer(f"mcp-{number}").start_span("work", attributes={f"k{number}": 1, CANARY: 2})
        span.end()
        cleaned = cleaner.clean(span)  # type: ignore[arg-type]
        assert cleaned is not None and dict(cleaned.attributes or {}) == {f"k{number}": 1, "***": 2}
    assert len(cleaner._keys) == len(cleaner._concerned) == 1_000


GLOBAL_PROVIDER = """
import sys
from opentelemetry import trace
from opentelemetry_instrumentation_mcp.clean_spans import SpanCleaner, install

class Policy:
    def text(self, text, limit=None): return text.replace("canary", "***")
    def attribute(self, key, value): return value
    def structured(self, value, limit=None): return value

undo = install(None, SpanCleaner(Policy()))
early = trace.get_tracer("fastmcp")
assert "opentelemetry.sdk.trace" not in sys.modules, "the SDK is loaded by nobody but its user"

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import set_tracer_provider

exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
set_tracer_provider(provider)
assert trace.get_tracer_provider() is provider
early.start_span("canary").end()
trace.get_tracer("mcp-gateway").start_span("canary").end()
undo()
trace.get_tracer("mcp-gateway").start_span("canary").end()
assert [span.name for span in exporter.get_finished_spans()] == ["***", "***", "canary"]
assert trace._set_tracer_provider.__module__ == "opentelemetry.trace"
print("fine", file=sys.stderr)
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60, env=environ
    )


def test_a_global_provider_that_comes_later() -> None:
    done = run_python(GLOBAL_PROVIDER)
    assert done.returncode == 0 and done.stderr.strip().endswith("fine"), done.stderr
    assert done.stdout == ""
