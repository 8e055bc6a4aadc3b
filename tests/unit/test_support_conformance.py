"""The judge itself: conformant telemetry passes, and each of its rules can fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from support import conventions as conv
from support.conformance import (
    EXTRA_CLIENT_SPAN,
    EXTRA_SERVER_SPAN,
    GAPS,
    METRIC_RULES,
    NO_CLIENT_SPAN,
    NO_SERVER_SPAN,
    RULES,
    SCOPE,
    WRONG_META,
    WRONG_PARENT,
    KnownGap,
    assert_conformant,
    assert_message_spans,
    check_agreement,
    check_metrics,
    check_spans,
    compare_messages,
)
from support.wire import TO_CLIENT, TO_SERVER, WireLog

CLIENT, SERVER = SpanKind.CLIENT, SpanKind.SERVER
SCHEMA = "https://opentelemetry.io/schemas/1.40.0"

HTTP = {"network.transport": "tcp", "network.protocol.name": "http", "network.protocol.version": "1.1"}
CALL = {
    "mcp.method.name": "tools/call",
    "mcp.protocol.version": "2025-11-25",
    "jsonrpc.request.id": "0",
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "add",
}
LIST = {"mcp.method.name": "tools/list", "jsonrpc.request.id": "1"}
NOTE = {"mcp.method.name": "notifications/progress"}


# --- making telemetry ---------------------------------------------------------------------------------------


def span(
    attributes: Mapping[str, Any],
    kind: SpanKind = CLIENT,
    *,
    name: str | None = None,
    status: StatusCode | None = None,
    description: str | None = None,
    event: Mapping[str, Any] | None = None,
    link: SpanContext | None = None,
    parent: SpanContext | None = None,
    lasts: int = 1000,
    scope: str = SCOPE,
    version: str = "0.1",
    schema_url: str | None = SCHEMA,
) -> ReadableSpan:
    """A span out of the SDK. Without a name or a status of its own it gets those that fit the attributes."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    target = attributes.get("gen_ai.tool.name") or attributes.get("gen_ai.prompt.name")
    if name is None:
        name = f"{attributes.get('mcp.method.name')} {target}" if target else str(attributes.get("mcp.method.name"))
    if status is None:
        status = StatusCode.ERROR if "error.type" in attributes else StatusCode.UNSET
    one = provider.get_tracer(scope, version, schema_url=schema_url).start_span(
        name,
        context=set_span_in_context(NonRecordingSpan(parent)) if parent else None,
        kind=kind,
        attributes=dict(attributes),
        # The SDK drops a link to nothing unless it has attributes.
        links=[Link(link, {"why": "test"})] if link else (),
        start_time=5000,
    )
    one.set_status(status, description)
    if event is not None:
        one.add_event("exception", dict(event), timestamp=5001)
    one.end(end_time=5000 + lasts)
    return exporter.get_finished_spans()[0]


def metrics(
    *points: Mapping[str, Any],
    name: str = "mcp.client.operation.duration",
    unit: str = "s",
    bounds: Iterable[float] | None = conv.OPERATION_BOUNDS,
    counter: bool = False,
    scope: str = SCOPE,
    version: str = "0.1",
    schema_url: str | None = SCHEMA,
) -> Any:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader]).get_meter(scope, version, schema_url=schema_url)
    if counter:
        meter.create_counter(name, unit=unit).add(1, dict(points[0]))
    else:
        histogram = meter.create_histogram(
            name, unit=unit, explicit_bucket_boundaries_advisory=None if bounds is None else list(bounds)
        )
        for point in points:
            histogram.record(0.25, dict(point))
    return reader.get_metrics_data()


def tweaked(data: Any, **changes: Any) -> Any:
    """The same metrics with something no SDK would report in the first data point."""
    metric = data.resource_metrics[0].scope_metrics[0].metrics[0]
    metric.data.data_points[0] = replace(metric.data.data_points[0], **changes)
    return data


def without(attributes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names}


CODE = conv.STATUS_CODE
LONG = "x" * 300
URI = {"mcp.method.name": "resources/read", "jsonrpc.request.id": "2", "mcp.resource.uri": "file:///a"}
PROMPT = {"mcp.method.name": "prompts/get", "jsonrpc.request.id": "3", "gen_ai.prompt.name": "greet"}
COMPLETE = {
    "mcp.method.name": "completion/complete",
    "jsonrpc.request.id": "4",
    "gen_ai.prompt.name": "greet",
}
VALID = SpanContext(1, 2, True)
CONTENT = {
    "gen_ai.tool.call.arguments": '{"text":"' + "a" * 1000 + '"}',
    "gen_ai.tool.call.result": '{"content":[]}',
}

CONFORMANT: dict[str, tuple[list[ReadableSpan], dict[str, Any]]] = {
    "call over HTTP": (
        [span({**CALL, **HTTP, "mcp.session.id": "s", "server.address": "localhost", "server.port": 8000})],
        {},
    ),
    "served over HTTP": ([span({**CALL, **HTTP, "client.address": "::1", "client.port": 65535}, SERVER)], {}),
    "over a pipe": ([span({**CALL, "network.transport": "pipe"})], {}),
    "in process": ([span(CALL), span(LIST, SERVER), span(NOTE), span(NOTE, SERVER)], {}),
    "without sessions": ([span({**LIST, **HTTP, "mcp.protocol.version": "2026-07-28"})], {}),
    "resource": ([span(URI), span({**URI}, name="resources/read")], {}),
    "resource in the name": (
        [span(URI), span(URI, name="resources/read file:///a")],
        {"resource_uri_in_name": True},
    ),
    "prompt": ([span(PROMPT), span(COMPLETE), span(COMPLETE, name="completion/complete")], {}),
    "tool error": ([span({**CALL, "error.type": "tool_error"}, kind) for kind in (CLIENT, SERVER)], {}),
    "error code": (
        [span({**CALL, "error.type": "-32603", CODE: "-32603"}, kind, description="Boom") for kind in (CLIENT, SERVER)],
        {},
    ),
    "caller's fault": (
        [
            span({**LIST, "error.type": "-32602", CODE: "-32602"}, CLIENT),
            *(span({**LIST, CODE: code}, SERVER) for code in sorted(conv.CALLERS_FAULT)),
        ],
        {},
    ),
    "call of nothing": (
        [
            span(
                {**without(CALL, "gen_ai.tool.name"), CODE: "-32602", "error.type": "-32602"},
                CLIENT,
            )
        ],
        {},
    ),
    "ended by us": (
        [
            span({**CALL, "error.type": "timeout"}),
            span({**CALL, "error.type": "cancelled", CODE: "0"}),
            span({**CALL, "error.type": "httpx.ConnectError"}),
        ],
        {},
    ),
    "foreign method": (
        [span({"mcp.method.name": "vendor/thing"}), span({**LIST, "mcp.method.name": "a/b"})],
        {},
    ),
    "long names": (
        [
            span({**CALL, "gen_ai.tool.name": LONG[:256]}, name=f"tools/call {LONG}"[:128]),
            span({**CALL, "gen_ai.tool.name": LONG[:256]}, name=f"tools/call {LONG}"[:125] + "..."),
        ],
        {},
    ),
    "content": (
        [
            span({**CALL, **CONTENT}),
            span({**PROMPT, "gen_ai.prompt.variable.name": "two\nlines"}),
            span({**CALL, "error.type": "tool_error"}, description="division by zero"),
        ],
        {"content": True},
    ),
    "extra": ([span({**LIST, "fastmcp.server.name": "s", "enduser.id": "u"})], {"extra": conv.HARVESTED}),
    "link and event": ([span(LIST, link=VALID, event={"exception.type": "ValueError"})], {}),
    "other scopes": ([span({"whatever": 1}, SpanKind.INTERNAL, scope="app", version="")], {}),
}

# By rule: spans that break this rule and no other, and how the check was asked.
BROKEN_SPANS: dict[str, list[tuple[ReadableSpan, dict[str, Any]]]] = {
    rule: [(case, {}) if isinstance(case, ReadableSpan) else case for case in cases]
    for rule, cases in {
        "scope-version": [span(LIST, version="")],
        "scope-schema": [span(LIST, schema_url=None), span(LIST, schema_url="https://example.com/1.0")],
        "span-kind": [span(LIST, kind) for kind in SpanKind if kind not in (CLIENT, SERVER)],
        "span-time": [span(LIST, lasts=-1)],
        "span-name": [
            span(CALL, name="tools/call"),
            span(CALL, name="tools/call add "),
            span(CALL, name="MCP send tools/call add"),
            span(CALL, name="add"),
            span(LIST, name="tools/list add"),
            span(PROMPT, name="prompts/get"),
            span(URI, name="resources/read file:///a"),
            span({**CALL, "gen_ai.tool.name": LONG[:256]}, name="tools/call"),
            span({**CALL, "gen_ai.tool.name": LONG[:256]}, name="tools/call " + "y" * 117),
            (span(URI, name="resources/read file:///b"), {"resource_uri_in_name": True}),
        ],
        "span-name-text": [
            span({**CALL, "gen_ai.tool.name": LONG[:250]}),
        ],
        "method-required": [span(without(LIST, "mcp.method.name")), span({"mcp.method.name": ""})],
        "attribute-unknown": [
            span({**LIST, "mcp.request.id": "1"}),
            span({**LIST, "fastmcp.server.name": "s"}),
            (span({**LIST, "fastmcp": "s"}), {"extra": ("fastmcp.*",)}),
        ],
        "attribute-kind": [
            span({**LIST, "server.address": "a"}, SERVER),
            span({**LIST, "client.address": "a"}, CLIENT),
        ],
        "attribute-method": [
            span({**LIST, "gen_ai.operation.name": "execute_tool"}),
            span({**LIST, "gen_ai.tool.name": "add"}, name="tools/list"),
            span({**LIST, "gen_ai.prompt.name": "greet"}, name="tools/list"),
            span({**CALL, "gen_ai.prompt.name": "greet"}),
            span({**CALL, "mcp.resource.uri": "file:///a"}),
            span(
                {
                    "mcp.method.name": "subscriptions/listen",
                    "jsonrpc.request.id": "1",
                    "mcp.resource.uri": "a:b",
                }
            ),
            (span({**LIST, "gen_ai.tool.call.arguments": "{}"}), {"content": True}),
            (span({**CALL, "gen_ai.prompt.variable.name": "x"}), {"content": True}),
        ],
        "content-opt-in": [
            span({**CALL, "gen_ai.tool.call.arguments": "{}"}),
            span({**CALL, "gen_ai.tool.call.result": "{}"}, SERVER),
            span({**PROMPT, "gen_ai.prompt.variable.name": "x"}),
        ],
        "attribute-expected": [
            span(without(CALL, "gen_ai.tool.name")),
            span(without(PROMPT, "gen_ai.prompt.name"), SERVER),
            *(
                span(
                    {
                        "mcp.method.name": method,
                        **({} if conv.is_notification(method) else {"jsonrpc.request.id": "1"}),
                    }
                )
                for method in sorted(conv.URI_METHODS)
            ),
        ],
        "attribute-type": [
            span({**LIST, "jsonrpc.request.id": 1}),
            span({**LIST, "jsonrpc.request.id": 0}),
            span({**LIST, "server.address": "a", "server.port": "80"}),
            span({**LIST, "client.address": "a", "client.port": True}, SERVER),
            span({**LIST, "error.type": "-32000", CODE: -32000}, status=StatusCode.ERROR, name="tools/list"),
            span({**LIST, "mcp.protocol.version": ("2025-11-25",)}),
        ],
        "attribute-value": [
            span({**CALL, "gen_ai.operation.name": "chat"}),
            span({**LIST, "network.transport": "udp"}),
            span({**LIST, "network.transport": "unix"}),
            span({**LIST, "network.transport": "inproc"}),
            span({**LIST, **HTTP, "network.protocol.name": "HTTP"}),
        ],
        "text-length": [
            span({**URI, "mcp.resource.uri": "x" * 257}),
            (span({**CALL, "gen_ai.tool.call.result": f'"{"x" * 40000}"'}), {"content": True}),
            (span({**PROMPT, f"gen_ai.prompt.variable.{LONG}": "x"}), {"content": True}),
        ],
        "text-control": [
            span({**URI, "mcp.resource.uri": "a\nb"}),
            span({**LIST, "error.type": "a\x00b"}),
            span({**LIST, "jsonrpc.request.id": "\x85"}),
            (span({**PROMPT, "gen_ai.prompt.variable.a\tb": "x"}), {"content": True}),
        ],
        "text-encoding": [
            span({**URI, "mcp.resource.uri": "\ud800"}),
            (span({**PROMPT, "gen_ai.prompt.variable.a": "\udfff"}), {"content": True}),
        ],
        "content-json": [
            (span({**CALL, "gen_ai.tool.call.arguments": "{'a': 1}"}), {"content": True}),
            (span({**CALL, "gen_ai.tool.call.result": '{"a": NaN}'}), {"content": True}),
        ],
        "operation-name": [span(without(CALL, "gen_ai.operation.name"))],
        "request-id": [
            span({**NOTE, "jsonrpc.request.id": "1"}),
            span(without(LIST, "jsonrpc.request.id")),
            span({**LIST, "jsonrpc.request.id": "None"}),
        ],
        "protocol-version": [
            span({**LIST, "mcp.protocol.version": version})
            for version in ("2.0", "latest", "2025-13-01", "2025-6-18", "20250618", "")
        ],
        "session-revision": [
            span({**LIST, **HTTP, "mcp.protocol.version": "2026-07-28", "mcp.session.id": "s"}),
        ],
        "session-transport": [
            span({**LIST, "mcp.session.id": "s"}),
            span({**LIST, "mcp.session.id": "s", "network.transport": "pipe"}),
        ],
        "jsonrpc-version": [span({**LIST, "jsonrpc.protocol.version": "2.0"})],
        "protocol-transport": [
            span({**LIST, "network.protocol.name": "http"}),
            span({**LIST, "network.protocol.name": "websocket", "network.transport": "pipe"}),
        ],
        "protocol-version-name": [span({**LIST, "network.transport": "tcp", "network.protocol.version": "1.1"})],
        "port-address": [span({**LIST, "server.port": 80}), span({**LIST, "client.port": 80}, SERVER)],
        "port-range": [
            span({**LIST, "server.address": "a", "server.port": 0}),
            span({**LIST, "client.address": "a", "client.port": 65536}, SERVER),
        ],
        "pipe-address": [span({**LIST, "network.transport": "pipe", "server.address": "a"})],
        "error-status": [
            span({**LIST, "error.type": "timeout"}, status=StatusCode.UNSET),
            span(LIST, status=StatusCode.ERROR),
        ],
        "status-ok": [span(LIST, status=StatusCode.OK)],
        "status-text": [
            span({**LIST, "error.type": "x"}, description="a\nb"),
            span({**LIST, "error.type": "x"}, description="a" * 1025),
            span({**LIST, "error.type": "x"}, description="\ud800"),
            span({**CALL, "error.type": "tool_error"}, description="division by zero"),
        ],
        "code-format": [
            span({**LIST, CODE: "INTERNAL", "error.type": "INTERNAL"}),
            span({**NOTE, CODE: "-32603", "error.type": "-32603"}),
        ],
        "callers-fault": [
            span({**LIST, CODE: code, "error.type": code}, SERVER) for code in sorted(conv.CALLERS_FAULT)
        ],
        "code-is-error": [
            span({**LIST, CODE: "-32602"}, CLIENT),
            span({**LIST, CODE: "-32603"}, SERVER),
            span({**LIST, CODE: "0"}, SERVER),
        ],
        "error-type-code": [
            span({**LIST, "error.type": "-32603"}),
            span({**LIST, "error.type": "-32603", CODE: "-32000"}),
            span({**LIST, "error.type": "404"}),
        ],
        "code-names-error": [
            span({**LIST, "error.type": "ValueError", CODE: "-32603"}, SERVER),
            span({**CALL, "error.type": "tool_error", CODE: "-32603"}),
        ],
        "tool-error": [span({**LIST, "error.type": "tool_error"})],
        "exception-event": [
            span(LIST, event={"exception.type": "ValueError", "exception.message": "secret"}),
            span(LIST, event={"exception.stacktrace": "at secret"}),
        ],
        "link-context": [span(LIST, link=SpanContext(0, 0, True)), span(LIST, link=SpanContext(1, 0, True))],
    }.items()
}

OPERATION = {
    **without(CALL, "jsonrpc.request.id"),
    **HTTP,
    "server.address": "localhost",
    "server.port": 8000,
}
SERVED = without(OPERATION, "server.address", "server.port")
SERVER_METRIC: dict[str, Any] = {"name": "mcp.server.operation.duration"}
SESSION = {"mcp.protocol.version": "2025-11-25", "network.protocol.name": "http"}
CLIENT_SESSION: dict[str, Any] = {"name": "mcp.client.session.duration", "bounds": None}
SERVER_SESSION: dict[str, Any] = {"name": "mcp.server.session.duration", "bounds": None}

CONFORMANT_METRICS: dict[str, tuple[Any, dict[str, Any]]] = {
    "client": (metrics(OPERATION, {**OPERATION, CODE: "-32602", "error.type": "-32602"}), {}),
    "server": (metrics(SERVED, {**SERVED, CODE: "-32602"}, **SERVER_METRIC), {}),
    "other method": (metrics({"mcp.method.name": "_OTHER"}), {}),
    "admitted method": (metrics({"mcp.method.name": "vendor/thing"}), {"methods": ["vendor/thing"]}),
    "admitted tool": (metrics(OPERATION), {"tools": ["add"], "prompts": []}),
    "tool withheld": (metrics(without(SERVED, "gen_ai.tool.name"), **SERVER_METRIC), {"tools": []}),
    "client session": (
        metrics(
            {**SESSION, "server.address": "a", "server.port": 1},
            {"error.type": "ConnectionError"},
            **CLIENT_SESSION,
        ),
        {},
    ),
    "server session": (metrics(SESSION, **SERVER_SESSION), {}),
    "session of 2026-07-28 on stdio": (metrics({"mcp.protocol.version": "2026-07-28"}, **CLIENT_SESSION), {}),
}

BROKEN_METRICS: dict[str, list[tuple[Any, dict[str, Any]]]] = {
    rule: [case if isinstance(case, tuple) else (case, {}) for case in cases]
    for rule, cases in {
        "metric-name": [metrics(OPERATION, name="mcp.client.request.duration")],
        "metric-unit": [metrics(OPERATION, unit="ms"), metrics(SESSION, unit="", **SERVER_SESSION)],
        "metric-type": [metrics(OPERATION, counter=True)],
        "metric-bounds": [metrics(OPERATION, bounds=None), metrics(OPERATION, bounds=[1.0, 2.0])],
        "metric-value": [
            tweaked(metrics(OPERATION), sum=-0.5),
            tweaked(metrics(OPERATION), min=-0.5),
            tweaked(metrics(OPERATION), count=0),
            tweaked(metrics(OPERATION), count=2),
            tweaked(metrics(OPERATION), bucket_counts=[1]),
        ],
        "metric-attribute": [
            *(
                metrics({**OPERATION, name: "x"})
                for name in ("mcp.session.id", "jsonrpc.request.id", "client.address", "fastmcp.server.name")
            ),
            metrics({**OPERATION, "gen_ai.tool.call.arguments": "{}"}),
            metrics({"mcp.method.name": "resources/read", "mcp.resource.uri": "file:///a"}),
            metrics({**SERVED, "server.address": "a"}, **SERVER_METRIC),
            metrics({**SERVED, "client.address": "a", "client.port": 1}, **SERVER_METRIC),
            metrics({**SESSION, "server.address": "a"}, **SERVER_SESSION),
            metrics({**SESSION, "network.transport": "tcp"}, **SERVER_SESSION),
            metrics({**SESSION, "mcp.method.name": "initialize"}, **SERVER_SESSION),
        ],
        "metric-method": [metrics({"mcp.method.name": "vendor/thing"})],
        "metric-target": [
            (metrics(OPERATION), {"tools": ["sub"]}),
            (metrics({"mcp.method.name": "prompts/get", "gen_ai.prompt.name": "x"}), {"prompts": []}),
        ],
        "session-revision": [metrics({**SESSION, "mcp.protocol.version": "2026-07-28"}, **SERVER_SESSION)],
        # The rules about attributes hold for metrics too.
        "scope-version": [metrics(OPERATION, version="")],
        "scope-schema": [metrics(OPERATION, schema_url=None)],
        "method-required": [metrics({"network.transport": "pipe"})],
        "attribute-type": [metrics({**OPERATION, "server.port": "8000"})],
        "attribute-value": [metrics({**OPERATION, "network.transport": "udp", "network.protocol.name": "http"})],
        "attribute-method": [metrics({**OPERATION, "mcp.method.name": "tools/list"})],
        "operation-name": [metrics(without(OPERATION, "gen_ai.operation.name"))],
        "text-length": [metrics({**OPERATION, "gen_ai.tool.name": LONG})],
        "text-control": [metrics({**OPERATION, "gen_ai.tool.name": "\x1b[0m"})],
        "port-address": [metrics(without(OPERATION, "server.address"))],
        "callers-fault": [metrics({**SERVED, CODE: "-32602", "error.type": "-32602"}, **SERVER_METRIC)],
        "code-is-error": [metrics({**OPERATION, CODE: "-32602"})],
        "error-type-code": [metrics({**OPERATION, "error.type": "-32602"})],
        "tool-error": [metrics({"mcp.method.name": "tools/list", "error.type": "tool_error"})],
    }.items()
}

# Where one mistake cannot but break a second rule.
ALSO = {
    "attribute-type": {
        "attribute-value",
        "error-type-code",
        "code-names-error",
        "code-is-error",
        "request-id",
    },
    "attribute-value": {"protocol-transport"},
    "attribute-method": {"span-name"},
    "span-name-text": {"span-name"},
    "status-ok": {"error-status"},
    "metric-attribute": {"attribute-kind", "content-opt-in"},
}


# --- single spans and data points ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONFORMANT)
def test_conformant_spans_pass(case: str) -> None:
    spans, options = CONFORMANT[case]
    assert check_spans(spans, **options) == []


@pytest.mark.parametrize(
    ("rule", "broken", "options"),
    [
        pytest.param(rule, broken, options, id=f"{rule}-{number}")
        for rule, cases in BROKEN_SPANS.items()
        for number, (broken, options) in enumerate(cases)
    ],
)
def test_a_span_that_breaks_a_rule_is_found(rule: str, broken: ReadableSpan, options: dict[str, Any]) -> None:
    found = {violation.rule for violation in check_spans([broken], **options)}
    assert rule in found
    assert found <= {rule} | ALSO.get(rule, set())


@pytest.mark.parametrize("case", CONFORMANT_METRICS)
def test_conformant_metrics_pass(case: str) -> None:
    data, options = CONFORMANT_METRICS[case]
    assert check_metrics(data, **options) == []


@pytest.mark.parametrize(
    ("rule", "broken", "options"),
    [
        pytest.param(rule, broken, options, id=f"{rule}-{number}")
        for rule, cases in BROKEN_METRICS.items()
        for number, (broken, options) in enumerate(cases)
    ],
)
def test_a_metric_that_breaks_a_rule_is_found(rule: str, broken: Any, options: dict[str, Any]) -> None:
    found = {violation.rule for violation in check_metrics(broken, **options)}
    assert rule in found
    assert found <= {rule} | ALSO.get(rule, set())


def test_every_rule_has_an_example_that_breaks_it() -> None:
    assert BROKEN_SPANS.keys() | BROKEN_METRICS.keys() == RULES.keys() | METRIC_RULES


def test_every_attribute_of_the_table_is_accepted_somewhere() -> None:
    used = {name for spans, _ in CONFORMANT.values() for one in spans for name in one.attributes or {}}
    unused = {row.name for row in conv.ATTRIBUTES if not any(conv.matches(name, row.name) for name in used)}
    # Whoever speaks another version than 2.0 of JSON-RPC does not speak MCP.
    assert unused == {"jsonrpc.protocol.version"}


def test_a_violation_names_rule_span_and_fault() -> None:
    (violation,) = check_spans([span({**LIST, "server.port": 80}, CLIENT)])
    assert str(violation).startswith("[port-address] CLIENT 'tools/list' ")
    assert str(violation).endswith(": server.port without server.address")


# --- all together -------------------------------------------------------------------------------------------


def test_conformant_telemetry_is_accepted() -> None:
    assert_conformant([span(CALL), span(CALL, SERVER)], metrics(OPERATION))
    assert_conformant([], metrics(OPERATION))


def test_every_violation_is_told() -> None:
    with pytest.raises(AssertionError) as raised:
        assert_conformant([span(LIST, SpanKind.INTERNAL), span(CALL, name="x")], metrics(OPERATION, unit="ms"))
    assert "(3)" in str(raised.value)
    for rule in ("span-kind", "span-name", "metric-unit"):
        assert f"[{rule}]" in str(raised.value)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([[]], id="no span"),
        pytest.param([[span(LIST, scope="other")]], id="no span of ours"),
        pytest.param([[span(LIST, scope="other")], metrics(OPERATION)], id="no span of ours, but metrics"),
        pytest.param([[span(LIST)], metrics()], id="no metric"),
        pytest.param([[span(LIST)], metrics(OPERATION, scope="other")], id="no metric of ours"),
    ],
)
def test_nothing_to_check_is_a_failure(arguments: list[Any]) -> None:
    with pytest.raises(AssertionError, match="nothing was checked"):
        assert_conformant(*arguments)


def test_an_exception_needs_a_reason_and_has_to_occur() -> None:
    broken = [span({**LIST, "server.port": 80})]
    assert_conformant(broken, known={"port-address": "the test says so"})
    with pytest.raises(ValueError, match="no reason"):
        assert_conformant(broken, known={"port-address": " "})
    with pytest.raises(AssertionError, match=r"port-address.* is not broken any more: the test says so"):
        assert_conformant([span(LIST)], known={"port-address": "the test says so"})
    with pytest.raises(AssertionError, match=r"\[span-kind\]"):
        assert_conformant([*broken, span(LIST, SpanKind.INTERNAL)], known={"port-address": "the test says so"})


@pytest.mark.parametrize(
    ("name", "attributes", "rule"),
    [
        ("delegate add", {"fastmcp.server.name": "child"}, None),
        ("execute_tool add", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"}, None),
        ("delegate add", {"error.type": "tool_error"}, None),
        ("tools/call add", {}, "span-kind"),
        ("delegate add", {"mcp.method.name": "tools/call"}, "attribute-unknown"),
        ("delegate add", {"fastmcp.server.name": "x" * 300}, "attribute-type"),
        ("delegate " + "x" * 200, {}, "span-name-text"),
    ],
)
def test_internal_spans(name: str, attributes: dict[str, Any], rule: str | None) -> None:
    internal = span(attributes, SpanKind.INTERNAL, name=name)
    assert {violation.rule for violation in check_spans([internal])} == ({rule} if rule else set())


def test_spans_and_metrics_agree() -> None:
    failed = {"error.type": "timeout"}
    spans = [span(CALL), span(CALL), span({**CALL, **failed})]
    assert check_agreement(spans, metrics(OPERATION, OPERATION, {**OPERATION, **failed})) == []


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([OPERATION], id="one too few"),
        pytest.param([OPERATION] * 3, id="one too many"),
        pytest.param([OPERATION, {**OPERATION, "error.type": "timeout"}], id="another error"),
        pytest.param([OPERATION, {**OPERATION, "gen_ai.tool.name": "sub"}], id="another tool"),
    ],
)
def test_spans_and_metrics_that_disagree_are_found(points: list[dict[str, Any]]) -> None:
    assert {one.rule for one in check_agreement([span(CALL), span(CALL)], metrics(*points))} == {"agreement"}


# --- spans and messages -------------------------------------------------------------------------------------


class Exchange:
    """Messages and their spans, as they should be; each test then breaks something."""

    def __init__(self) -> None:
        self.wire = WireLog()
        self.spans: list[ReadableSpan] = []

    def client(self, method: str, request_id: Any = None, **options: Any) -> ReadableSpan:
        attributes = {"mcp.method.name": method}
        if request_id is not None:
            attributes["jsonrpc.request.id"] = str(request_id)
        self.spans.append(span(attributes, **options))
        return self.spans[-1]

    def server(self, method: str, request_id: Any, parent: ReadableSpan | None) -> ReadableSpan:
        return self.client(method, request_id, kind=SERVER, parent=parent.context if parent else None)

    def message(self, method: str, request_id: Any, client: ReadableSpan | None, to: Any = TO_SERVER) -> None:
        raw: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if request_id is not None:
            raw["id"] = request_id
        if client is not None:
            context = client.context
            raw["params"] = {"_meta": {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-03"}}
        self.wire.add(to, raw)
        if request_id is not None:
            answer = TO_CLIENT if to == TO_SERVER else TO_SERVER
            self.wire.add(answer, {"jsonrpc": "2.0", "id": request_id, "result": {}})

    def call(self, method: str, request_id: Any = None, to: Any = TO_SERVER) -> None:
        client = self.client(method, request_id)
        self.message(method, request_id, client, to)
        self.server(method, request_id, client)

    @property
    def gaps(self) -> list[str]:
        return sorted(gap.kind for gap in compare_messages(self.wire, self.spans))


@pytest.fixture
def exchange() -> Exchange:
    """A session in which the ids of the two directions collide, as they do in mcp 1.x."""
    exchange = Exchange()
    exchange.call("initialize", 0)
    exchange.call("notifications/initialized")
    exchange.call("ping", 1)
    exchange.call("ping", 1, TO_CLIENT)
    exchange.call("ping", "one")
    exchange.call("notifications/progress", to=TO_CLIENT)
    exchange.call("notifications/progress", to=TO_CLIENT)
    return exchange


def test_messages_with_their_spans_are_accepted(exchange: Exchange) -> None:
    assert_message_spans(exchange.wire, exchange.spans)


def test_spans_of_other_scopes_do_not_count(exchange: Exchange) -> None:
    exchange.client("ping", 1, scope="http")
    assert_message_spans(exchange.wire, exchange.spans)


def test_messages_without_trace_context_are_compared_by_parent_alone() -> None:
    exchange = Exchange()
    client = exchange.client("ping", 0)
    exchange.message("ping", 0, None)
    exchange.server("ping", 0, client)
    assert_message_spans(exchange.wire, exchange.spans)


def _drop(exchange: Exchange, kind: SpanKind) -> None:
    exchange.spans.remove(next(one for one in exchange.spans if one.kind is kind))


def _double_server(exchange: Exchange) -> None:
    """Two SERVER spans for the first progress notification, none for the second: the numbers are right."""
    last = exchange.spans.pop()
    first = next(one for one in exchange.spans if one.name == "notifications/progress" and one.kind is CLIENT)
    exchange.server(last.name, None, first)


BREAKS: dict[str, tuple[Any, list[str]]] = {
    "a message without spans": (lambda it: it.message("ping", 2, None), [NO_CLIENT_SPAN, NO_SERVER_SPAN]),
    "no CLIENT span": (lambda it: _drop(it, CLIENT), [NO_CLIENT_SPAN, WRONG_META, WRONG_PARENT]),
    "no SERVER span": (lambda it: _drop(it, SERVER), [NO_SERVER_SPAN]),
    "a CLIENT span too many": (lambda it: it.client("ping", 1), [EXTRA_CLIENT_SPAN]),
    "a SERVER span that is a root": (
        lambda it: it.server("ping", 1, None),
        [EXTRA_SERVER_SPAN, WRONG_PARENT],
    ),
    "a second SERVER span": (
        lambda it: it.server("initialize", 0, it.spans[0]),
        [EXTRA_SERVER_SPAN, WRONG_PARENT],
    ),
    "a SERVER span for another message": (_double_server, [WRONG_PARENT]),
    "a SERVER span under another's CLIENT": (
        lambda it: (it.spans.pop(), it.server("notifications/progress", None, it.spans[0])),
        [WRONG_PARENT],
    ),
    "another id": (
        lambda it: (it.message("ping", 7, c := it.client("ping", 8)), it.server("ping", 8, c)),
        [EXTRA_CLIENT_SPAN, EXTRA_SERVER_SPAN, NO_CLIENT_SPAN, NO_SERVER_SPAN, WRONG_META],
    ),
    "an id that is text against a number": (
        lambda it: (it.message("ping", None, c := it.client("ping", "None")), it.server("ping", "None", c)),
        [EXTRA_CLIENT_SPAN, EXTRA_SERVER_SPAN, NO_CLIENT_SPAN, NO_SERVER_SPAN, WRONG_META],
    ),
    "a trace context that is none": (
        lambda it: it.wire.add(TO_SERVER, {"method": "x", "params": {"_meta": {"traceparent": 1}}}),
        [NO_CLIENT_SPAN, NO_SERVER_SPAN, WRONG_META],
    ),
    "a trace context used twice": (
        lambda it: it.message("ping", 1, it.spans[4]),
        [NO_CLIENT_SPAN, NO_SERVER_SPAN, WRONG_META],
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_difference_between_messages_and_spans_is_found(exchange: Exchange, case: str) -> None:
    act, expected = BREAKS[case]
    act(exchange)
    assert exchange.gaps == expected
    with pytest.raises(AssertionError, match="spans and messages differ"):
        assert_message_spans(exchange.wire, exchange.spans)


def test_every_kind_of_difference_has_an_example() -> None:
    assert {kind for _, kinds in BREAKS.values() for kind in kinds} == GAPS


def test_a_child_of_a_span_with_the_same_id_in_another_trace_is_no_child(exchange: Exchange) -> None:
    server = exchange.spans.pop()
    parent = server.parent
    exchange.client(
        server.name,
        kind=SERVER,
        parent=SpanContext(parent.trace_id ^ 1, parent.span_id, True, TraceFlags(1)),
    )
    assert exchange.gaps == [WRONG_PARENT]


def test_an_empty_wire_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="nothing was checked"):
        assert_message_spans(WireLog(), [span(CALL)])


def test_a_known_gap_is_accepted_where_it_occurs(exchange: Exchange) -> None:
    _drop(exchange, SERVER)
    assert_message_spans(exchange.wire, exchange.spans, [KnownGap(NO_SERVER_SPAN, "initialize", "the test says so")])
    assert_message_spans(
        exchange.wire, exchange.spans, [KnownGap(NO_SERVER_SPAN, "initialize", "the test says so", 1, id="0")]
    )


@pytest.mark.parametrize(
    "known",
    [
        KnownGap(NO_SERVER_SPAN, "ping", "another method"),
        KnownGap(NO_CLIENT_SPAN, "initialize", "another kind"),
        KnownGap(NO_SERVER_SPAN, "initialize", "another id", id="5"),
        KnownGap(NO_SERVER_SPAN, "initialize", "another number", 2),
    ],
    ids=lambda known: known.reason,
)
def test_a_known_gap_that_does_not_occur_is_a_failure(exchange: Exchange, known: KnownGap) -> None:
    _drop(exchange, SERVER)
    with pytest.raises(AssertionError, match=f"occurred . times.*: {known.reason}"):
        assert_message_spans(exchange.wire, exchange.spans, [known])


def test_a_known_gap_does_not_cover_others(exchange: Exchange) -> None:
    _drop(exchange, SERVER)
    exchange.client("ping", 1)
    with pytest.raises(AssertionError, match=EXTRA_CLIENT_SPAN):
        assert_message_spans(
            exchange.wire, exchange.spans, [KnownGap(NO_SERVER_SPAN, "initialize", "the test says so")]
        )


def test_a_known_gap_needs_a_reason_and_a_kind() -> None:
    with pytest.raises(ValueError, match="no reason"):
        KnownGap(NO_SERVER_SPAN, "ping", "")
    with pytest.raises(ValueError, match="none of"):
        KnownGap("no-span", "ping", "the test says so")
