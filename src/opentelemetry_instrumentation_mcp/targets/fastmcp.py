"""FastMCP 3 and 4: what their own spans tell goes onto ours; servers inside a server get INTERNAL spans.

All their spans are opened by four context managers. In these, a message is addressed to a server, which may delegate it
to servers mounted into it, and call tools by itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace

from .. import places, semconv
from ..guard import contained, report
from ..hooks import Around
from ..internal import around, begin, current_place, native_client, note_native_span
from ..message import TOOL_ERROR, Outcome, outcome_of_error, outcome_of_exception
from ..places import Place
from ..telemetry import Telemetry
from .arguments import leading
from .sdk_v2_modern_http import is_resolving_schema

SERVER_NAME = "fastmcp.server.name"
COMPONENT_TYPE = "fastmcp.component.type"
COMPONENT_KEY = "fastmcp.component.key"
PROVIDER_TYPE = "fastmcp.provider.type"

# What FastMCP says about a component; the rest of what it would put on a span, ours has already.
_TOLD = frozenset(
    {
        COMPONENT_TYPE,
        COMPONENT_KEY,
        PROVIDER_TYPE,
        "fastmcp.delegate.original_name",
        "fastmcp.delegate.original_uri",
        "fastmcp.delegate.original_uri_template",
        "fastmcp.proxy.backend_name",
        "fastmcp.proxy.backend_uri",
        "fastmcp.proxy.backend_uri_template",
    }
)

# What FastMCP's own methods are called, for those of their calls that are no messages.
_CALL_NAMES = {
    "tools/call": semconv.EXECUTE_TOOL,
    "prompts/get": "render_prompt",
    "resources/read": "read_resource",
    "tools/list": "list_tools",
    "prompts/list": "list_prompts",
    "resources/list": "list_resources",
    "resources/templates/list": "list_resource_templates",
}

_URIS = frozenset(name for name in _TOLD if name.endswith(("_uri", "_uri_template")))
# ``resource:data://x@1.0``: kind, identifier, version.
_KEY_OF_URI = re.compile(r"(resource|template):(.*)@([\w.+-]*)", re.DOTALL)
_ENDS_WITH_USER_INFO = re.compile(r"//[^/?#@]*:[^/?#@]*")

_Generators = Callable[..., Generator[Any, None, None]]


class _Told(trace.NonRecordingSpan):
    """What FastMCP writes on: of all that it says, a span of ours gets what only FastMCP knows."""

    def __init__(self, telemetry: Telemetry, span: trace.Span | None) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self._telemetry = telemetry
        self._span = span

    @contained("ask a span whether it records")
    def _records(self) -> bool:
        return self._span is not None and self._span.is_recording()

    def is_recording(self) -> bool:
        return bool(self._records())

    def set_attribute(self, key: str, value: Any) -> None:
        self.set_attributes({key: value})

    @contained("take over attributes of FastMCP")
    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if self._span is not None:
            self._span.set_attributes(_cleaned(self._telemetry, attributes))


_NOTHING = trace.INVALID_SPAN


def _cleaned(telemetry: Telemetry, attributes: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: semconv.clean(_without_secrets(telemetry, key, value))
        for key, value in attributes.items()
        if key in _TOLD and isinstance(value, str) and value
    }


def _without_secrets(telemetry: Telemetry, key: str, value: str) -> str:
    if key in _URIS:
        return telemetry.telling.shown_uri(value)
    if key != COMPONENT_KEY or not value.startswith(("resource:", "template:")):
        return value
    found = _KEY_OF_URI.fullmatch(value)
    kind, _, uri = value.partition(":")
    # What looks like a version may be the host behind a password.
    if found is None or (found[3] and _ENDS_WITH_USER_INFO.search(found[2])):
        return f"{kind}:{telemetry.telling.shown_uri(uri)}"
    return f"{kind}:{telemetry.telling.shown_uri(found[2])}@{found[3]}"


def outcome_of(error: BaseException) -> Outcome:
    """What an exception inside a server says about the work it ended."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"McpError", "MCPError"}:
        data = getattr(error, "error", None)
        return outcome_of_error(getattr(data, "code", None), getattr(data, "message", None))
    if "ToolError" in kinds:
        return TOOL_ERROR
    return outcome_of_exception(error)


def _emits(telemetry: Telemetry) -> bool:
    """Whether FastMCP would make a span: it has a setting against it, and ``suppress_fastmcp_telemetry()``."""
    enabled = getattr(sys.modules.get("fastmcp.telemetry"), "native_spans_enabled", None)
    return telemetry.active and telemetry.records() and (enabled is None or bool(enabled()))


def _in_place_of(
    place: str, telemetry: Telemetry, names: tuple[str, ...], replace: _Generators, keep: _Generators
) -> Around:
    """What takes the place of one of FastMCP's context managers, as long as that would make a span.

    Args:
        place: what is done, for the report of its failure.
        names: the parameters that ``replace`` and ``keep`` get, which are its first.
        replace: returns what runs in its stead.
        keep: gets its generator before the parameters, returns what runs if it stays.
    """

    telemetry.tracks_places = True

    def build(generator_function: _Generators) -> _Generators:
        def generators(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            try:
                if _emits(telemetry):
                    given = leading(args, kwargs, *names)
                    if not telemetry.keeps_native_spans:
                        # Before a call over HTTP some SDKs list the tools, for themselves: nobody asked for that.
                        return _just(_NOTHING) if is_resolving_schema() else replace(*given)
                    return keep(generator_function(*args, **kwargs), *given)
            except Exception as error:
                report(place, error)
            return generator_function(*args, **kwargs)

        return generators

    return Around(build)


def _note_and_keep(generator: Generator[Any, None, None], *_: Any) -> Generator[Any, None, None]:
    note_native_span()
    return generator


def _keep(generator: Generator[Any, None, None], *_: Any) -> Generator[Any, None, None]:
    return generator


def _just(value: Any) -> Generator[Any, None, None]:
    yield value


def seam_span(telemetry: Telemetry) -> Around:
    """``seam_span`` (4.x): a request has reached the server it is addressed to."""

    def replace(_method: str, server_name: Any) -> Generator[Any, None, None]:
        place = current_place()
        if place is not None:
            _address(place, server_name)
        return _just(_NOTHING)

    return _in_place_of("see a request reach a server", telemetry, ("method", "server_name"), replace, _note_and_keep)


def _address(place: Place, server_name: Any) -> None:
    if place.server_name is None and isinstance(server_name, str):
        place.server_name = server_name
        if place.span is not None and place.span.is_recording():
            place.span.set_attribute(SERVER_NAME, semconv.clean(server_name))


def server_span(telemetry: Telemetry) -> Around:
    """``server_span``: a server begins to work on a message, a delegation or a call."""
    names = (
        "name",
        "method",
        "server_name",
        "component_type",
        "component_key",
        "resource_uri",
        "tool_name",
        "prompt_name",
    )

    def replace(
        name: str, method: str, server_name: Any, kind: Any, key: Any, uri: Any, tool: Any, prompt: Any
    ) -> Generator[Any, None, None]:
        shown_key = telemetry.telling.shown_uri(key) if uri is not None and isinstance(key, str) else key
        told = {COMPONENT_TYPE: kind, COMPONENT_KEY: shown_key} if key else {}
        # Before 3.2 only the span's name, "tools/call add", has the name of the tool.
        named = semconv.target_attribute(method) and name.removeprefix(method).strip()
        return work(telemetry, method, server_name, tool or prompt or named or None, uri, told)

    return _in_place_of("see a server at work", telemetry, names, replace, _note_and_keep)


def work(
    telemetry: Telemetry,
    method: str,
    server_name: Any,
    target: Any,
    uri: Any,
    told: Mapping[str, Any],
    *,
    passes_calls_on: bool = False,
) -> Generator[Any, None, None]:
    """The generator behind a server's work on ``method``.

    Args:
        target: the name of the tool or prompt, None if there is none.
        uri: that of the resource, None if there is none.
        told: attributes of the component.
        passes_calls_on: see :func:`places.role`.
    """
    place = current_place()
    role = places.role(place, server_name, method, target, passes_calls_on=passes_calls_on)
    if role == places.ADDRESSED and place is not None and not _has_ended(place.span):
        return _addressed(telemetry, place, server_name, told)
    if role == places.UNSEEN:
        return _just(_NOTHING)
    attributes = _cleaned(telemetry, told)
    if isinstance(server_name, str):
        attributes[SERVER_NAME] = semconv.clean(server_name)
    if role == places.MOUNTED:
        name = f"delegate {target or method}"
    else:
        name = _describe_call(telemetry, attributes, method, target, uri)
    inner = Place(None, method, server_name, target=target, taken=True)
    internal = begin(telemetry, name, attributes, inner)
    return around(internal, outcome_of, _Told(telemetry, inner.span))


def _has_ended(span: trace.Span) -> bool:
    """Whether the message of ``span`` is over: a task that outlives it calls by itself."""
    return not span.is_recording() and span.get_span_context().trace_flags.sampled


def _describe_call(telemetry: Telemetry, attributes: dict[str, str], method: str, target: Any, uri: Any) -> str:
    """The name of a call in process; what it is about goes to ``attributes``, which must not make a message of it."""
    if method == "tools/call":
        attributes[semconv.OPERATION_NAME] = semconv.EXECUTE_TOOL
    attribute = semconv.target_attribute(method)
    if attribute is not None and isinstance(target, str):
        attributes[attribute] = semconv.clean(target)
    if isinstance(uri, str):
        attributes[semconv.RESOURCE_URI] = semconv.clean(telemetry.telling.shown_uri(uri))
    return semconv.span_name(_CALL_NAMES.get(method, method), target)


def _addressed(
    telemetry: Telemetry, place: Place, server_name: Any, told: Mapping[str, Any]
) -> Generator[Any, None, None]:
    _address(place, server_name)
    span = _Told(telemetry, place.span)
    span.set_attributes(told)
    return _at_work(place, span)


def _at_work(place: Place, span: Any) -> Generator[Any, None, None]:
    place.taken = True
    try:
        yield span
    finally:
        place.taken = False


def handle_request(telemetry: Telemetry) -> Any:
    """``LowLevelServer._handle_request`` (2.x, 3.x): also the methods without a span of FastMCP reach a server."""

    @contained("see a request reach a server")
    def address(server: Any) -> None:
        place = current_place()
        if place is not None:
            _address(place, server.name)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        address(instance)
        return wrapped(*args, **kwargs)

    return wrapper


def delegate_span(telemetry: Telemetry) -> Around:
    """``delegate_span``: a server hands a message on to one that is mounted into it."""

    def replace(name: Any, provider_type: Any, key: Any, method: Any) -> Generator[Any, None, None]:
        place = current_place()
        if place is not None and place.span is None:
            return _just(_NOTHING)
        # Before 3.1 nobody says what it is about.
        about_uri = method == "resources/read" or (":" if method is None else "://") in str(name)
        shown_key = telemetry.telling.shown_uri(key) if about_uri and isinstance(key, str) else key
        inner = Place(None, method if isinstance(method, str) else None, target=None if about_uri else name)
        internal = begin(
            telemetry,
            f"delegate {'resources/read' if about_uri else name}",
            _cleaned(telemetry, {PROVIDER_TYPE: provider_type, COMPONENT_KEY: shown_key}),
            inner,
        )
        return around(internal, outcome_of, _Told(telemetry, inner.span))

    names = ("name", "provider_type", "component_key", "method")
    return _in_place_of("see a delegation", telemetry, names, replace, _keep)


def client_span(telemetry: Telemetry) -> Around:
    """``client_span``: a client, or a proxy, is about to send a request; that has a span of ours."""

    def replace(_name: str, _method: str) -> Generator[Any, None, None]:
        return _just(_NOTHING)

    def keep(generator: Generator[Any, None, None], _name: str, method: str) -> Generator[Any, None, None]:
        return native_client(generator, method)

    return _in_place_of("see a client at work", telemetry, ("name", "method"), replace, keep)


class _SamplingTracer(trace.NoOpTracer):
    """The tracer of FastMCP's sampling loop: its request is a message, its tools are called in process."""

    def __init__(self, telemetry: Telemetry, tracer: trace.Tracer) -> None:
        self._telemetry = telemetry
        self._tracer = tracer

    def start_as_current_span(
        self, name: str, *args: Any, kind: trace.SpanKind = trace.SpanKind.INTERNAL, **kwargs: Any
    ) -> Any:
        try:
            is_message = kind is not trace.SpanKind.INTERNAL
            if self._telemetry.keeps_native_spans:
                native = self._tracer.start_as_current_span(name, *args, kind=kind, **kwargs)
                return contextmanager(_native_request)(native) if is_message else native
            return contextmanager(_just)(_NOTHING) if is_message else contextmanager(self._tool)(name)
        except Exception as error:
            report("see a sampling loop at work", error)
        return self._tracer.start_as_current_span(name, *args, kind=kind, **kwargs)

    def _tool(self, name: str) -> Generator[Any, None, None]:
        tool = name.removeprefix("sampling tool ")
        attributes = {semconv.OPERATION_NAME: semconv.EXECUTE_TOOL, semconv.TOOL_NAME: semconv.clean(tool)}
        place = Place(None, "tools/call", taken=True)
        internal = begin(self._telemetry, f"{semconv.EXECUTE_TOOL} {tool}", attributes, place)
        return around(internal, outcome_of, _Told(self._telemetry, place.span))


def _native_request(native: Any) -> Generator[Any, None, None]:
    def generator() -> Generator[Any, None, None]:
        with native as span:
            yield span

    return native_client(generator(), "sampling/createMessage")


def sampling_tracer(telemetry: Telemetry) -> Around:
    """``get_tracer`` of the sampling loop (late 3.x)."""

    def build(get_tracer: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            tracer = get_tracer(*args, **kwargs)
            try:
                return _SamplingTracer(telemetry, tracer) if _emits(telemetry) else tracer
            except Exception as error:
                report("see a sampling loop at work", error)
                return tracer

        return replaced

    return Around(build)
