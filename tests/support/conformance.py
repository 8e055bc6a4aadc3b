"""Judges spans and metrics of the instrumentation by the conventions, and spans by the messages on the wire.

``check_spans`` and ``check_metrics`` list what is wrong, ``assert_conformant`` raises it,
``assert_message_spans`` compares spans with a wire log. Only what was emitted under ``SCOPE`` is looked at.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from support import conventions as conv
from support.conventions import CLIENT, SCOPE, SERVER
from support.wire import WireMessage

__all__ = [
    "RULES",
    "SCOPE",
    "KnownGap",
    "Violation",
    "assert_conformant",
    "assert_message_spans",
    "check_agreement",
    "check_metrics",
    "check_spans",
    "compare_messages",
    "message_spans",
]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_ELLIPSES = ". …"


class SpanLike(Protocol):
    """What is read of a span: an SDK ``ReadableSpan`` or a span of the OTLP sink."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> SpanKind: ...
    @property
    def context(self) -> Any: ...
    @property
    def parent(self) -> SpanContext | None: ...
    @property
    def status(self) -> Any: ...
    @property
    def attributes(self) -> Mapping[str, Any] | None: ...
    @property
    def events(self) -> Sequence[Any]: ...
    @property
    def links(self) -> Sequence[Any]: ...
    @property
    def start_time(self) -> int | None: ...
    @property
    def end_time(self) -> int | None: ...
    @property
    def instrumentation_scope(self) -> Any: ...


@dataclass(frozen=True)
class Violation:
    rule: str
    subject: str
    message: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.subject}: {self.message}"


@dataclass(frozen=True)
class Options:
    """What the test switched on, or knows of the server under test."""

    content: bool = False
    resource_uri_in_name: bool = False
    extra: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    tools: frozenset[str] | None = None
    prompts: frozenset[str] | None = None


@dataclass(frozen=True)
class Subject:
    """A span, or one data point of a metric: the rules about attributes are the same for both."""

    label: str
    kind: SpanKind
    attributes: Mapping[str, Any]
    options: Options
    scope: Any
    span: Any = None
    metric: str | None = None

    @property
    def method(self) -> Any:
        return self.attributes.get("mcp.method.name")

    @property
    def code(self) -> Any:
        return self.attributes.get(conv.STATUS_CODE)

    @property
    def error(self) -> Any:
        return self.attributes.get("error.type")

    @property
    def has_method(self) -> bool:
        return self.metric not in conv.SESSIONS

    @property
    def code_is_error(self) -> bool:
        return self.code is not None and (self.kind is CLIENT or self.code not in conv.CALLERS_FAULT)


Rule = Callable[[Subject], Iterator[str]]
RULES: dict[str, Rule] = {}
"""Every rule about one span or one data point, by its name."""

# The rules about a metric as a whole.
METRIC_RULES = frozenset({"metric-name", "metric-unit", "metric-type", "metric-bounds", "metric-value"})


def rule(name: str, *, spans_only: bool = False, metrics_only: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule: it yields what is wrong."""

    def register(check: Rule) -> Rule:
        assert name not in RULES, f"two rules are called {name}"

        def applied(it: Subject) -> Iterator[str]:
            other = metrics_only if it.metric is None else spans_only
            return iter(()) if other else check(it)

        RULES[name] = applied
        return check

    return register


def text_faults(text: str, limit: int) -> dict[str, str]:
    """What makes a text unfit for an exporter or a screen, by the rule it breaks."""
    faults = {}
    if len(text) > limit:
        faults["length"] = f"{len(text)} characters, more than {limit}"
    if any(unicodedata.category(char) == "Cc" for char in text):
        faults["control"] = f"control characters in {text[:80]!r}"
    try:
        text.encode()
    except UnicodeEncodeError:
        faults["encoding"] = f"cannot be written as UTF-8: {text[:80]!r}"
    return faults


# --- scope, kind, time, name --------------------------------------------------------------------------------


@rule("scope-version")
def _scope_version(it: Subject) -> Iterator[str]:
    if not it.scope.version:
        yield "the scope has no version"


@rule("scope-schema")
def _scope_schema(it: Subject) -> Iterator[str]:
    if not (it.scope.schema_url or "").startswith(conv.SCHEMA_URL_PREFIX):
        yield f"the scope's schema URL is {it.scope.schema_url!r}"


@rule("span-kind", spans_only=True)
def _span_kind(it: Subject) -> Iterator[str]:
    if it.span.kind not in (CLIENT, SERVER):
        yield f"kind {it.span.kind.name}, neither CLIENT nor SERVER"


@rule("span-time", spans_only=True)
def _span_time(it: Subject) -> Iterator[str]:
    if it.span.start_time is None or it.span.end_time is None:
        yield "not started or not ended"
    elif it.span.end_time < it.span.start_time:
        yield f"ended {it.span.start_time - it.span.end_time} ns before it started"


@rule("span-name", spans_only=True)
def _span_name(it: Subject) -> Iterator[str]:
    if isinstance(it.method, str) and not any(_is_name(it.span.name, full) for full in _names(it)):
        yield f"name {it.span.name!r} is none of {list(_names(it))!r}"


def _names(it: Subject) -> tuple[str, ...]:
    """The names a span may have, not yet cut to length."""
    attributes, plain = it.attributes, it.method
    if it.method == conv.TOOLS_CALL and "gen_ai.tool.name" in attributes:
        return (f"{plain} {attributes['gen_ai.tool.name']}",)
    prompt = attributes.get("gen_ai.prompt.name")
    if it.method == conv.PROMPTS_GET and prompt is not None:
        return (f"{plain} {prompt}",)
    if it.method == conv.COMPLETE and prompt is not None:
        return (plain, f"{plain} {prompt}")
    uri = attributes.get("mcp.resource.uri")
    if it.options.resource_uri_in_name and it.method in conv.URI_METHODS and uri is not None:
        return (plain, f"{plain} {uri}")
    return (plain,)


def _is_name(name: str, full: str) -> bool:
    if len(full) <= conv.MAX_SPAN_NAME:
        return name == full
    stem = name.rstrip(_ELLIPSES)
    return len(stem) > conv.MAX_SPAN_NAME - 28 and full.startswith(stem)


@rule("span-name-text", spans_only=True)
def _span_name_text(it: Subject) -> Iterator[str]:
    yield from text_faults(it.span.name, conv.MAX_SPAN_NAME).values()


# --- which attributes ---------------------------------------------------------------------------------------


@rule("method-required")
def _method_required(it: Subject) -> Iterator[str]:
    if it.has_method and not it.method:
        yield "no mcp.method.name"


@rule("attribute-unknown", spans_only=True)
def _attribute_unknown(it: Subject) -> Iterator[str]:
    for name in it.attributes:
        if conv.lookup(name) is None and not any(conv.matches(name, known) for known in it.options.extra):
            yield f"{name} is not an attribute of MCP spans"


@rule("attribute-kind", spans_only=True)
def _attribute_kind(it: Subject) -> Iterator[str]:
    for name, row in _rows(it):
        if it.kind in (CLIENT, SERVER) and it.kind not in row.kinds:
            yield f"{name} does not belong on a {it.kind.name} span"


@rule("attribute-method")
def _attribute_method(it: Subject) -> Iterator[str]:
    for name, row in _rows(it):
        if row.methods is not None and it.method not in row.methods:
            yield f"{name} does not belong to {it.method}"


@rule("content-opt-in", spans_only=True)
def _content_opt_in(it: Subject) -> Iterator[str]:
    for name, row in _rows(it):
        if row.content and not it.options.content:
            yield f"{name} without having asked for content"


@rule("attribute-expected", spans_only=True)
def _attribute_expected(it: Subject) -> Iterator[str]:
    # Whatever went wrong may have been that very attribute of the message.
    if it.error is None and it.code is None:
        for row in conv.ATTRIBUTES:
            if it.method in row.expected_on and row.name not in it.attributes:
                yield f"{it.method} without {row.name}"


@rule("metric-attribute", metrics_only=True)
def _metric_attribute(it: Subject) -> Iterator[str]:
    for name in it.attributes:
        row = conv.lookup(name)
        if row is None or it.metric not in row.metrics:
            yield f"{name} does not belong on this metric"


def _rows(it: Subject) -> Iterator[tuple[str, conv.Attribute]]:
    for name in it.attributes:
        row = conv.lookup(name)
        if row is not None:
            yield name, row


# --- what attributes hold -----------------------------------------------------------------------------------


@rule("attribute-type")
def _attribute_type(it: Subject) -> Iterator[str]:
    for name, row in _rows(it):
        value = it.attributes[name]
        if type(value) is not row.type:
            yield f"{name} is {type(value).__name__} {value!r:.80}, not {row.type.__name__}"


@rule("attribute-value")
def _attribute_value(it: Subject) -> Iterator[str]:
    for name, row in _rows(it):
        if row.values is not None and it.attributes[name] not in row.values:
            yield f"{name} is {it.attributes[name]!r}, none of {sorted(row.values)}"


def _texts(it: Subject) -> Iterator[tuple[str, str, int, bool]]:
    """Every text of the attributes, their names included: (name, text, limit, is content)."""
    for name, value in it.attributes.items():
        yield f"the name {name[:80]!r}", name, conv.MAX_ATTRIBUTE, False
        row = conv.lookup(name)
        content = row is not None and row.content
        for text in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(text, str):
                yield name, text, conv.MAX_CONTENT if content else conv.MAX_ATTRIBUTE, content


@rule("text-length")
def _text_length(it: Subject) -> Iterator[str]:
    for name, text, limit, _ in _texts(it):
        if "length" in (faults := text_faults(text, limit)):
            yield f"{name}: {faults['length']}"


@rule("text-control")
def _text_control(it: Subject) -> Iterator[str]:
    for name, text, limit, content in _texts(it):
        if not content and "control" in (faults := text_faults(text, limit)):
            yield f"{name}: {faults['control']}"


@rule("text-encoding")
def _text_encoding(it: Subject) -> Iterator[str]:
    for name, text, limit, _ in _texts(it):
        if "encoding" in (faults := text_faults(text, limit)):
            yield f"{name}: {faults['encoding']}"


@rule("content-json", spans_only=True)
def _content_json(it: Subject) -> Iterator[str]:
    for name in conv.JSON_CONTENT & set(it.attributes):
        try:
            json.loads(it.attributes[name], parse_constant=_no_constant)
        except (TypeError, ValueError) as error:
            yield f"{name} is not JSON: {error}"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@rule("operation-name")
def _operation_name(it: Subject) -> Iterator[str]:
    if it.method == conv.TOOLS_CALL and "gen_ai.operation.name" not in it.attributes:
        yield "tools/call without gen_ai.operation.name"


@rule("request-id", spans_only=True)
def _request_id(it: Subject) -> Iterator[str]:
    value = it.attributes.get("jsonrpc.request.id")
    if not isinstance(it.method, str):
        return
    if conv.is_notification(it.method) and value is not None:
        yield f"a notification with jsonrpc.request.id {value!r}"
    if it.method in conv.KNOWN_REQUESTS and value is None:
        yield "a request without jsonrpc.request.id"
    if value in ("None", "null"):
        yield "an id that is null is not set"


@rule("protocol-version")
def _protocol_version(it: Subject) -> Iterator[str]:
    version = it.attributes.get("mcp.protocol.version")
    if isinstance(version, str) and not _is_date(version):
        yield f"mcp.protocol.version {version!r} is no date"


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


@rule("session-revision")
def _session_revision(it: Subject) -> Iterator[str]:
    if it.attributes.get("mcp.protocol.version") != conv.SESSIONLESS_PROTOCOL:
        return
    if "mcp.session.id" in it.attributes:
        yield f"mcp.session.id at revision {conv.SESSIONLESS_PROTOCOL}, which has no sessions"
    if it.metric in conv.SESSIONS and "network.protocol.name" in it.attributes:
        yield f"a session over the network at revision {conv.SESSIONLESS_PROTOCOL}, which has no sessions"


@rule("session-transport", spans_only=True)
def _session_transport(it: Subject) -> Iterator[str]:
    if "mcp.session.id" in it.attributes and not _is_network(it):
        yield f"mcp.session.id over {it.attributes.get('network.transport')}, which has no session ids"


@rule("jsonrpc-version")
def _jsonrpc_version(it: Subject) -> Iterator[str]:
    if it.attributes.get("jsonrpc.protocol.version") == "2.0":
        yield "jsonrpc.protocol.version is only set when it is not 2.0"


# --- the network --------------------------------------------------------------------------------------------


def _is_network(it: Subject) -> bool:
    return it.attributes.get("network.transport") in ("tcp", "quic")


@rule("protocol-transport")
def _protocol_transport(it: Subject) -> Iterator[str]:
    if it.has_method and "network.protocol.name" in it.attributes and not _is_network(it):
        name, transport = it.attributes["network.protocol.name"], it.attributes.get("network.transport")
        yield f"network.protocol.name {name!r} over network.transport {transport!r}"


@rule("protocol-version-name")
def _protocol_version_name(it: Subject) -> Iterator[str]:
    if "network.protocol.version" in it.attributes and "network.protocol.name" not in it.attributes:
        yield "network.protocol.version without network.protocol.name"


@rule("port-address")
def _port_address(it: Subject) -> Iterator[str]:
    for side in ("server", "client"):
        if f"{side}.port" in it.attributes and not it.attributes.get(f"{side}.address"):
            yield f"{side}.port without {side}.address"


@rule("port-range")
def _port_range(it: Subject) -> Iterator[str]:
    for side in ("server", "client"):
        port = it.attributes.get(f"{side}.port")
        if type(port) is int and not 0 < port < 65536:
            yield f"{side}.port is {port}"


@rule("pipe-address")
def _pipe_address(it: Subject) -> Iterator[str]:
    for side in ("server", "client"):
        if it.attributes.get("network.transport") == "pipe" and f"{side}.address" in it.attributes:
            yield f"{side}.address of a pipe"


# --- errors -------------------------------------------------------------------------------------------------


@rule("error-status", spans_only=True)
def _error_status(it: Subject) -> Iterator[str]:
    code = it.span.status.status_code
    if (it.error is not None) != (code is StatusCode.ERROR):
        yield f"status {code.name} and error.type {it.error!r}"


@rule("status-ok", spans_only=True)
def _status_ok(it: Subject) -> Iterator[str]:
    if it.span.status.status_code is StatusCode.OK:
        yield "status OK is for the application to set"


@rule("status-text", spans_only=True)
def _status_text(it: Subject) -> Iterator[str]:
    text = it.span.status.description
    if text is not None:
        yield from text_faults(text, conv.MAX_STATUS_TEXT).values()
        if text and it.error == conv.TOOL_ERROR and not it.options.content:
            yield f"the text of a tool's result as status: {text[:80]!r}"


@rule("code-format")
def _code_format(it: Subject) -> Iterator[str]:
    if isinstance(it.code, str) and not _INTEGER.fullmatch(it.code):
        yield f"{conv.STATUS_CODE} {it.code!r} is no JSON-RPC error code"
    if it.code is not None and isinstance(it.method, str) and conv.is_notification(it.method):
        yield f"a notification has no answer, but {conv.STATUS_CODE} {it.code!r}"


@rule("callers-fault")
def _callers_fault(it: Subject) -> Iterator[str]:
    if it.kind is SERVER and it.code in conv.CALLERS_FAULT and it.error is not None:
        yield f"{it.code} is the caller's fault, but the SERVER has error.type {it.error!r}"


@rule("code-is-error")
def _code_is_error(it: Subject) -> Iterator[str]:
    if it.code_is_error and it.error is None:
        yield f"{conv.STATUS_CODE} {it.code!r} without error.type"


@rule("error-type-code")
def _error_type_code(it: Subject) -> Iterator[str]:
    if isinstance(it.error, str) and _INTEGER.fullmatch(it.error) and it.error != it.code and it.has_method:
        yield f"error.type {it.error!r} looks like a code, but {conv.STATUS_CODE} is {it.code!r}"


@rule("code-names-error")
def _code_names_error(it: Subject) -> Iterator[str]:
    other = it.error is not None and it.error != it.code and it.error not in conv.LOCAL_ERRORS
    # If it is another code: that is error-type-code.
    if it.code_is_error and other and not _INTEGER.fullmatch(str(it.error)):
        yield f"answered with {it.code!r}, but error.type is {it.error!r}"


@rule("tool-error")
def _tool_error(it: Subject) -> Iterator[str]:
    if it.error == conv.TOOL_ERROR and it.method != conv.TOOLS_CALL:
        yield f"{conv.TOOL_ERROR} on {it.method}"


@rule("exception-event", spans_only=True)
def _exception_event(it: Subject) -> Iterator[str]:
    for event in it.span.events:
        for name in ("exception.message", "exception.stacktrace"):
            if name in (event.attributes or {}) and not it.options.content:
                yield f"event {event.name!r} carries {name}"


@rule("link-context", spans_only=True)
def _link_context(it: Subject) -> Iterator[str]:
    for link in it.span.links:
        if not link.context.is_valid:
            yield f"link to {link.context.trace_id:032x}/{link.context.span_id:016x}"


# --- metrics ------------------------------------------------------------------------------------------------


@rule("metric-method", metrics_only=True)
def _metric_method(it: Subject) -> Iterator[str]:
    admitted = conv.KNOWN_METHODS | it.options.methods | {conv.OTHER_METHOD}
    if isinstance(it.method, str) and it.method not in admitted:
        yield f"method {it.method!r} is neither well known, nor admitted, nor {conv.OTHER_METHOD}"


@rule("metric-target", metrics_only=True)
def _metric_target(it: Subject) -> Iterator[str]:
    for name, admitted in (
        ("gen_ai.tool.name", it.options.tools),
        ("gen_ai.prompt.name", it.options.prompts),
    ):
        if admitted is not None and it.attributes.get(name) not in {None, *admitted}:
            yield f"{name} {it.attributes[name]!r} is not one of the server's"


# --- the checks ---------------------------------------------------------------------------------------------


def _judge(it: Subject) -> list[Violation]:
    return [Violation(name, it.label, message) for name, check in RULES.items() for message in check(it)]


def _own_spans(spans: Iterable[SpanLike]) -> list[Any]:
    return [span for span in spans if span.instrumentation_scope and span.instrumentation_scope.name == SCOPE]


def message_spans(spans: Iterable[SpanLike]) -> list[Any]:
    """The spans that the instrumentation itself emitted for messages."""
    return [span for span in _own_spans(spans) if span.kind is not SpanKind.INTERNAL]


def _internal_faults(span: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with a span about something that is no message."""
    if conv.INTERNAL_NAMES.fullmatch(span.name) is None:
        yield "span-kind", f"an INTERNAL span of the name {span.name!r}"
        return
    for fault in text_faults(span.name, conv.MAX_SPAN_NAME).values():
        yield "span-name-text", fault
    if span.end_time is None or span.end_time < span.start_time:
        yield "span-time", "not ended, or before it started"
    attributes = dict(span.attributes or {})
    for name, value in attributes.items():
        if not any(conv.matches(name, known) for known in conv.INTERNAL_ATTRIBUTES):
            yield "attribute-unknown", f"{name} does not belong on an INTERNAL span"
        is_typed = type(value) is conv.INTERNAL_TYPES.get(name, str)
        limit = conv.INTERNAL_TEXTS.get(name, conv.MAX_ATTRIBUTE)
        if not is_typed or (isinstance(value, str) and text_faults(value, limit)):
            yield "attribute-type", f"{name} is {value!r:.80}"
    if (span.status.status_code.name == "ERROR") is not ("error.type" in attributes):
        yield "error-status", "status and error.type do not agree"


def _options(
    *,
    content: bool = False,
    resource_uri_in_name: bool = False,
    extra: Collection[str] = (),
    methods: Collection[str] = (),
    tools: Collection[str] | None = None,
    prompts: Collection[str] | None = None,
) -> Options:
    return Options(
        content=content,
        resource_uri_in_name=resource_uri_in_name,
        extra=tuple(extra),
        methods=frozenset(methods),
        tools=None if tools is None else frozenset(tools),
        prompts=None if prompts is None else frozenset(prompts),
    )


def check_spans(
    spans: Iterable[SpanLike],
    *,
    content: bool = False,
    resource_uri_in_name: bool = False,
    extra: Collection[str] = (),
) -> list[Violation]:
    """What is wrong with the spans of the instrumentation, each span by itself.

    ``content``: capture of payloads was asked for. ``extra``: further attributes a span may have, such as
    ``fastmcp.*``.
    """
    options = _options(content=content, resource_uri_in_name=resource_uri_in_name, extra=extra)
    violations = []
    for span in _own_spans(spans):
        label = f"{span.kind.name} {span.name[:80]!r} {span.context.span_id:016x}"
        if span.kind is SpanKind.INTERNAL:
            violations += [Violation(name, label, text) for name, text in _internal_faults(span)]
            continue
        attributes = dict(span.attributes or {})
        violations += _judge(
            Subject(label, span.kind, attributes, options, scope=span.instrumentation_scope, span=span)
        )
    return violations


def _own_metrics(metrics_data: Any) -> Iterator[tuple[Any, Any]]:
    for resource in metrics_data.resource_metrics if metrics_data is not None else ():
        for scope_metrics in resource.scope_metrics:
            if scope_metrics.scope.name == SCOPE:
                for metric in scope_metrics.metrics:
                    yield scope_metrics.scope, metric


def check_metrics(
    metrics_data: Any,
    *,
    methods: Collection[str] = (),
    tools: Collection[str] | None = None,
    prompts: Collection[str] | None = None,
) -> list[Violation]:
    """What is wrong with the metrics of the instrumentation (``MetricsData`` of the SDK or of the sink).

    ``methods``: further methods admitted by name. ``tools``, ``prompts``: the only names that may be on a
    metric.
    """
    options = _options(methods=methods, tools=tools, prompts=prompts)
    violations: list[Violation] = []
    for scope, metric in _own_metrics(metrics_data):
        if metric.name not in conv.METRICS:
            violations.append(Violation("metric-name", metric.name, "not a metric of the conventions"))
            continue
        if metric.unit != conv.METRIC_UNIT:
            violations.append(Violation("metric-unit", metric.name, f"unit {metric.unit!r}"))
        if type(metric.data).__name__ != "Histogram":
            kind = type(metric.data).__name__
            violations.append(Violation("metric-type", metric.name, f"a {kind}, not an explicit histogram"))
            continue
        for point in metric.data.data_points:
            violations += _check_point(scope, metric.name, point, options)
    return violations


def _check_point(scope: Any, name: str, point: Any, options: Options) -> Iterator[Violation]:
    attributes = dict(point.attributes or {})
    label = f"{name} {attributes!r:.200}"
    if name in conv.OPERATIONS and tuple(point.explicit_bounds) != conv.OPERATION_BOUNDS:
        yield Violation("metric-bounds", label, f"bounds {tuple(point.explicit_bounds)}")
    for fault in _value_faults(point):
        yield Violation("metric-value", label, fault)
    yield from _judge(Subject(label, conv.METRIC_KIND[name], attributes, options, scope=scope, metric=name))


def _value_faults(point: Any) -> Iterator[str]:
    if point.count < 1 or sum(point.bucket_counts) != point.count:
        yield f"{point.count} values counted, {sum(point.bucket_counts)} in the buckets"
    if len(point.bucket_counts) != len(point.explicit_bounds) + 1:
        yield f"{len(point.bucket_counts)} buckets for {len(point.explicit_bounds)} bounds"
    for name in ("sum", "min"):
        if getattr(point, name) is not None and getattr(point, name) < 0:
            yield f"{name} {getattr(point, name)} is negative"


def check_agreement(spans: Iterable[SpanLike], metrics_data: Any) -> list[Violation]:
    """Each operation is counted once in the metrics, with its span's kind, tool, prompt, code and error.

    Only for spans and metrics of the same operations, all of them sampled, methods and targets all admitted.
    """
    keys = ("mcp.method.name", "gen_ai.tool.name", "gen_ai.prompt.name", conv.STATUS_CODE, "error.type")

    def key(kind: SpanKind, attributes: Mapping[str, Any] | None) -> tuple[Any, ...]:
        return (kind.name, *((attributes or {}).get(name) for name in keys))

    spanned = Counter(key(span.kind, span.attributes) for span in message_spans(spans))
    measured: Counter[tuple[Any, ...]] = Counter()
    for _, metric in _own_metrics(metrics_data):
        if metric.name in conv.OPERATIONS:
            for point in metric.data.data_points:
                measured[key(conv.METRIC_KIND[metric.name], point.attributes)] += point.count
    return [
        Violation("agreement", str(one), f"{spanned[one]} spans, {measured[one]} values of the metric")
        for one in sorted(spanned.keys() | measured.keys(), key=str)
        if spanned[one] != measured[one]
    ]


NOT_ASKED: Any = object()


def assert_conformant(
    spans: Iterable[SpanLike],
    metrics: Any = NOT_ASKED,
    *,
    content: bool = False,
    resource_uri_in_name: bool = False,
    extra: Collection[str] = (),
    methods: Collection[str] = (),
    tools: Collection[str] | None = None,
    prompts: Collection[str] | None = None,
    known: Mapping[str, str] | None = None,
) -> None:
    """Raise what ``check_spans`` and ``check_metrics`` find, and if there is nothing to look at.

    ``metrics`` that are given must not be None: that is what a reader returns when nothing was recorded.
    ``known`` maps the name of a rule that is broken for a reason to that reason; a rule that is not broken
    any more does not belong there and fails too.
    """
    spans = list(spans)
    known = dict(known or {})
    _need_reasons(known.items())
    if not message_spans(spans) and (spans or metrics is NOT_ASKED):
        raise AssertionError(f"none of {len(spans)} spans has the scope {SCOPE}: nothing was checked")
    violations = check_spans(spans, content=content, resource_uri_in_name=resource_uri_in_name, extra=extra)
    if metrics is not NOT_ASKED:
        if not any(True for _ in _own_metrics(metrics)):
            raise AssertionError(f"no metric has the scope {SCOPE}: nothing was checked")
        violations += check_metrics(metrics, methods=methods, tools=tools, prompts=prompts)
    found = {violation.rule for violation in violations}
    lines = [str(violation) for violation in violations if violation.rule not in known]
    lines += [f"[{name}] is not broken any more: {reason}" for name, reason in known.items() if name not in found]
    if lines:
        raise AssertionError(_listing("the conventions are broken", lines))


def _need_reasons(reasons: Iterable[tuple[str, str]]) -> None:
    for name, reason in reasons:
        if not reason.strip():
            raise ValueError(f"the exception {name!r} has no reason")


def _listing(title: str, lines: Sequence[str]) -> str:
    return f"{title} ({len(lines)}):\n" + "\n".join(f"  - {line}" for line in lines)


# --- spans and messages -------------------------------------------------------------------------------------

NO_CLIENT_SPAN = "no-client-span"
NO_SERVER_SPAN = "no-server-span"
EXTRA_CLIENT_SPAN = "extra-client-span"
EXTRA_SERVER_SPAN = "extra-server-span"
WRONG_PARENT = "wrong-parent"
WRONG_META = "wrong-meta"
GAPS = frozenset({NO_CLIENT_SPAN, NO_SERVER_SPAN, EXTRA_CLIENT_SPAN, EXTRA_SERVER_SPAN, WRONG_PARENT, WRONG_META})

MessageKey = tuple[str, str | None]


@dataclass(frozen=True)
class Gap:
    """One way in which spans and messages differ."""

    kind: str
    method: str
    id: str | None
    detail: str = ""

    def __str__(self) -> str:
        who = self.method if self.id is None else f"{self.method} #{self.id}"
        return f"[{self.kind}] {who}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class KnownGap:
    """A difference that is expected, and why. It has to occur: ``times`` times, or else at least once."""

    kind: str
    method: str
    reason: str
    times: int | None = None
    id: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _need_reasons([(f"{self.kind} {self.method}", self.reason)])
        if self.kind not in GAPS:
            raise ValueError(f"{self.kind!r} is none of {sorted(GAPS)}")

    def covers(self, gap: Gap) -> bool:
        return (self.kind, self.method) == (gap.kind, gap.method) and self.id in (None, gap.id)


def assert_message_spans(
    wire: Iterable[WireMessage], spans: Iterable[SpanLike], known: Sequence[KnownGap] = ()
) -> None:
    """One CLIENT span and one SERVER span for each request and each notification on the wire, and no others.

    Both have the message's method and id, and the CLIENT span is the parent of the SERVER span. Give it the
    log of one hop or of several, but each message once; all spans must have ended.
    """
    wire, spans = list(wire), list(spans)
    if not any(message.is_call for message in wire):
        raise AssertionError("no request and no notification on the wire: nothing was checked")
    gaps = compare_messages(wire, spans)
    lines = [str(gap) for gap in gaps if not any(one.covers(gap) for one in known)]
    for one in known:
        count = sum(one.covers(gap) for gap in gaps)
        if not count or one.times not in (None, count):
            expected = "" if one.times is None else f", not {one.times} times"
            lines.append(f"the exception {one.kind} {one.method} occurred {count} times{expected}: {one.reason}")
    if lines:
        raise AssertionError(_listing("spans and messages differ", lines) + "\n" + _overview(wire, spans))


def compare_messages(wire: Iterable[WireMessage], spans: Iterable[SpanLike]) -> list[Gap]:
    """All differences between the messages on the wire and the instrumentation's spans."""
    messages = [message for message in wire if message.is_call]
    ours = message_spans(spans)
    clients = {_where(span.context): span for span in ours if span.kind is CLIENT}
    servers = [span for span in ours if span.kind is SERVER]
    return [
        *_count_gaps(messages, list(clients.values()), servers),
        *_parent_gaps(clients, servers),
        *_meta_gaps(messages, clients),
    ]


def _count_gaps(messages: list[WireMessage], clients: list[Any], servers: list[Any]) -> Iterator[Gap]:
    on_wire = Counter(_message_key(message) for message in messages)
    for spans, missing, extra in (
        (clients, NO_CLIENT_SPAN, EXTRA_CLIENT_SPAN),
        (servers, NO_SERVER_SPAN, EXTRA_SERVER_SPAN),
    ):
        spanned = Counter(_span_key(span) for span in spans)
        for key in {**on_wire, **spanned}:
            surplus = spanned[key] - on_wire[key]
            for _ in range(abs(surplus)):
                detail = f"{on_wire[key]} on the wire, {spanned[key]} spans"
                yield Gap(extra if surplus > 0 else missing, key[0], key[1], detail)


def _parent_gaps(clients: Mapping[tuple[int, int], Any], servers: list[Any]) -> Iterator[Gap]:
    taken: set[tuple[int, int]] = set()
    for server in servers:
        method, request_id = key = _span_key(server)
        where = _where(server.parent) if server.parent is not None else None
        client = clients.get(where) if where is not None else None
        if where is None:
            detail = "the SERVER span is a root"
        elif client is None:
            detail = f"the SERVER span's parent {where[1]:016x} is no CLIENT span of the same trace"
        elif _span_key(client) != key:
            detail = f"the SERVER span is a child of the CLIENT span of {_span_key(client)}"
        elif where in taken:
            detail = f"a second SERVER span under the CLIENT span {where[1]:016x}"
        else:
            taken.add(where)
            continue
        yield Gap(WRONG_PARENT, method, request_id, detail)


def _meta_gaps(messages: list[WireMessage], clients: Mapping[tuple[int, int], Any]) -> Iterator[Gap]:
    """Where a message names a span, that must be the CLIENT span of its method and id, and of it alone."""
    taken: set[tuple[int, int]] = set()
    for message in messages:
        traceparent = message.meta.get("traceparent")
        if traceparent is None:
            continue
        method, request_id = key = _message_key(message)
        where = _parse_traceparent(traceparent)
        client = clients.get(where) if where is not None else None
        if client is None:
            detail = f"traceparent {traceparent!r} names no CLIENT span"
        elif _span_key(client) != key:
            detail = f"traceparent names the CLIENT span of {_span_key(client)}"
        elif where in taken:
            detail = f"traceparent {traceparent!r} for the second time"
        else:
            taken.add(_where(client.context))
            continue
        yield Gap(WRONG_META, method, request_id, detail)


def _where(context: SpanContext) -> tuple[int, int]:
    return context.trace_id, context.span_id


def _span_key(span: SpanLike) -> MessageKey:
    attributes = span.attributes or {}
    return attributes.get("mcp.method.name", ""), attributes.get("jsonrpc.request.id")


def _message_key(message: WireMessage) -> MessageKey:
    return message.method, None if message.id is None else str(message.id)


def _parse_traceparent(value: Any) -> tuple[int, int] | None:
    found = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    return (int(found[1], 16), int(found[2], 16)) if found else None


def _overview(wire: list[WireMessage], spans: list[Any]) -> str:
    lines = ["on the wire:", *(f"  {message}" for message in wire if message.is_call), "spans:"]
    for span in message_spans(spans):
        parent = f"{span.parent.span_id:016x}" if span.parent is not None else "-"
        method, request_id = _span_key(span)
        own = f"{span.context.trace_id:032x}/{span.context.span_id:016x}"
        lines.append(f"  {span.kind.name} {method} #{request_id} {own} parent {parent}")
    return "\n".join(lines)
