"""Begins and ends operations: makes the spans of messages; knows no library."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import cached_property, partial
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from . import propagation, semconv
from .config import McpConfig
from .connection import Attributes, Connection, HttpRequest, Prepared, View
from .guard import contained
from .internal import native_client_method, placed
from .measures import Measures
from .message import (
    SUCCESS,
    Message,
    Outcome,
    as_mapping,
    outcome_of_result,
)
from .operation import Operation
from .places import Place
from .telling import RequestHook, ResponseHook, Telling
from .version import __version__

if TYPE_CHECKING:
    from .baggage import BaggageRules

SCOPE = __name__.partition(".")[0]

_ALL_BAGGAGE = frozenset({"*", "auto"})
_LISTINGS = frozenset({"tools/list", "prompts/list"})


class Telemetry:
    """Spans and metrics of one ``instrument()``; without providers of its own it uses the global ones."""

    def __init__(
        self,
        config: McpConfig | None = None,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        request_hook: RequestHook | None = None,
        response_hook: ResponseHook | None = None,
        logger_provider: Any = None,
    ) -> None:
        self.config = config or McpConfig()
        self.active = True
        self.keeps_native_spans = self.config.native_spans == "keep"
        self.tracks_places = self.keeps_native_spans
        """Whether contexts of inbound messages tell their :class:`Place`: a library asks for it."""
        self.dropped: deque[Operation] = deque()
        """Operations the garbage collector found; appending is all that is safe to do in its place."""
        self.tracer = trace.get_tracer(SCOPE, __version__, tracer_provider, schema_url=semconv.SCHEMA_URL)
        meter = metrics.get_meter(SCOPE, __version__, meter_provider, schema_url=semconv.SCHEMA_URL)
        self._measures = Measures(meter)
        self.telling = Telling(SCOPE, self.config, request_hook, response_hook, logger_provider)
        self._has_own_providers = tracer_provider is not None or meter_provider is not None
        self._configured = self._has_own_providers
        self.on_first_operation: Callable[[], None] | None = None
        """Called once, when the first span is about to be made: by then every instrumentation is in place."""
        self._excluded = frozenset(self.config.excluded_methods)
        self._reuses_tool_span = self.config.execute_tool_span == "reuse"
        self._filters_baggage = _ALL_BAGGAGE.isdisjoint(self.config.baggage_outbound)
        self._baggage_by_name = frozenset(self.config.baggage_outbound) - _ALL_BAGGAGE

    def is_active(self) -> bool:
        """Whether wrappers of this instance do anything; False from ``uninstrument()`` on."""
        return self.active

    @cached_property
    def _outbound_rules(self) -> BaggageRules:
        from .baggage import BaggageRules

        return BaggageRules(self._baggage_by_name)

    def records(self) -> bool:
        """Whether spans or metrics go anywhere: an SDK is configured, or was given to ``instrument()``."""
        if not self._configured and (
            _TRACE_API.get("_TRACER_PROVIDER", True) or _METRICS_API.get("_METER_PROVIDER", True)
        ):
            # No API tells whether an SDK is there; a proxy provider means that there is none yet.
            self._configured = not (
                isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
                and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider"
            )
        return self._configured

    def context_to_propagate(self) -> Context | None:
        """What an outbound message without an operation carries: the current context, None if suppressed."""
        return self.outbound(otel_context.get_current()) if is_instrumentation_enabled() else None

    def context_within(self) -> Context | None:
        """What a call of a program to itself carries: the current context with all its baggage; None if suppressed."""
        return otel_context.get_current() if is_instrumentation_enabled() else None

    def keep_baggage(self) -> None:
        """Let no baggage leave, unless the configuration says otherwise: this program is a gateway."""
        self._filters_baggage = "*" not in self.config.baggage_outbound

    def outbound(self, context: Context) -> Context:
        """``context`` with only such baggage as may leave with a message."""
        if not self._filters_baggage or not context:
            return context
        from .baggage import outbound_context

        return outbound_context(self._outbound_rules, context)

    def carry(self, message: Message, connection: Connection) -> Operation | None:
        """An operation that does nothing but propagate the current context with an outbound ``message``."""
        context = self.context_to_propagate()
        return self._unmeasured(message, connection, context, server=False) if context else None

    def _unmeasured(self, message: Message, connection: Connection, context: Context, *, server: bool) -> Operation:
        operation = Operation(self, message, connection, context, None, server)
        operation.settled = True
        return operation

    def begin_client(
        self,
        message: Message,
        connection: Connection,
        *,
        link: trace.SpanContext | None = None,
        native: bool = False,
    ) -> Operation | None:
        """Begin sending ``message``; None if nothing is to be recorded or propagated.

        Args:
            link: the span of the round before, in an input-required round trip.
            native: the library makes a CLIENT span of its own for this message.
        """
        current = otel_context.get_current()
        if self._filters_baggage:
            current = self.outbound(current)
        if connection.claimed_version is not None and message.method == "notifications/initialized":
            # A client that goes on after initialize has accepted the revision.
            connection.protocol_version, connection.claimed_version = connection.claimed_version, None
        if not (self._configured or self.records()) or (current and not is_instrumentation_enabled()):
            return None
        method = message.method
        if method in self._excluded:
            return self._unmeasured(message, connection, current, server=False)
        if self.keeps_native_spans and (native or native_client_method() == method):
            return Operation(self, message, connection, current, None, False)
        if current and method == "tools/call" and self._reuses_tool_span:
            outer = _outer_tool_span(message, current)
            if outer is not None:
                view = connection.view(False, None, message.protocol_version)
                outer.set_attributes(self._prepare(message, view).attributes)
                if message.request_id is not None:
                    outer.set_attribute(semconv.REQUEST_ID, semconv.request_id_text(message.request_id))
                if self.telling.is_asked_for_more:
                    self.telling.tell_beginning(outer, message, current, None)
                operation = Operation(self, message, connection, current, outer, False)
                operation.owned = False
                return operation
        links = [Link(link)] if link is not None else None
        return self._begin(message, connection, current, links, None, SpanKind.CLIENT)

    def begin_server(
        self,
        message: Message,
        connection: Connection,
        meta: object,
        http: HttpRequest | None = None,
        *,
        native: bool = False,
    ) -> Operation | None:
        """Begin handling an inbound ``message``; None if nothing is to be recorded or propagated.

        Args:
            meta: the raw ``params._meta``, of any shape.
            http: the HTTP request that carried the message.
            native: the library makes a SERVER span of its own for this message.
        """
        if not (self._configured or self.records()) and not as_mapping(meta):
            return None
        current = otel_context.get_current()
        if current and not is_instrumentation_enabled():
            return None
        context, links = propagation.receive(meta, http, self.config.remote_parent, current)
        if not self._configured or message.method in self._excluded:
            if self.tracks_places:
                context = placed(context, Place(None, message.method))
            return self._unmeasured(message, connection, context, server=True)
        if native and self.keeps_native_spans:
            place = Place(None, message.method)
            operation = Operation(self, message, connection, placed(context, place), None, True)
            operation.http = http
            operation.stand_in = partial(self._stand_in, place, context, links, time_ns())
            return operation
        return self._begin(message, connection, context, links, http, SpanKind.SERVER)

    def context_before(self, method: str, meta: object, http: HttpRequest | None) -> Context | None:
        """Where what a library does about an inbound message belongs, before it is one; None if instrumentation is off.

        The arguments are those of :meth:`begin_server`.
        """
        if not is_instrumentation_enabled():
            return None
        context, _ = propagation.receive(meta, http, self.config.remote_parent)
        return placed(context, Place(None, method))

    def _stand_in(
        self, place: Place, parent: Context, links: list[Link] | None, started_ns: int, operation: Operation
    ) -> None:
        """Give ``operation`` a span at its end if the library turned out to have made none for it."""
        if place.native:
            return
        message, connection = operation.message, operation.connection
        begun = self._begin(message, connection, parent, links, operation.http, SpanKind.SERVER, started_ns)
        operation.span, operation.prepared = begun.span, begun.prepared
        operation.known_attributes, operation.context = begun.known_attributes, begun.context
        begun.settled = True

    def _begin(
        self,
        message: Message,
        connection: Connection,
        parent: Context,
        links: list[Link] | None,
        http: HttpRequest | None,
        kind: SpanKind,
        started_ns: int | None = None,
    ) -> Operation:
        if self.dropped or self.on_first_operation is not None:
            self._catch_up(started_ns)
        server = kind is SpanKind.SERVER
        view = connection.view(server, http, message.protocol_version)
        prepared = view.prepared.get((message.method, message.target, message.uri))
        if prepared is None or view.prepared_by is not self:
            prepared = self._prepare(message, view)
        attributes = prepared.attributes.copy()  # samplers may change it
        request_id = message.request_id
        if request_id is not None:
            attributes[semconv.REQUEST_ID] = semconv.request_id_text(request_id)
        if self.telling.is_asked_for_more:
            attributes = {**(self.telling.baggage_attributes(parent) or {}), **attributes}
        span = self.tracer.start_span(
            prepared.span_name,
            parent,
            kind,
            attributes,
            links,
            started_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
        context = trace.set_span_in_context(span, parent)
        if server and self.tracks_places:
            context = placed(context, Place(span, message.method, target=message.target))
        if self.telling.adds_to_spans and span.is_recording():
            self.telling.at_beginning(span, message, parent, http)
        operation = Operation(self, message, connection, context, span, server)
        operation.prepared, operation.known_attributes = prepared, view.attributes
        if http is not None:
            operation.http = http
        return operation

    def _catch_up(self, started_ns: int | None) -> None:
        if self.dropped and started_ns is None:
            self.settle_dropped()  # which may begin what stands in for the library's
        if self.on_first_operation is not None:
            self.on_first_operation, call = None, self.on_first_operation
            call()

    def _prepare(self, message: Message, view: View) -> Prepared:
        """What this message has in common with others of its method and target, kept for them."""
        if view.prepared_by is not self:
            view.prepared_by, view.prepared = self, {}
        method, target, uri = message.method, message.target, message.uri
        shown_uri = self.telling.shown_uri(uri) if uri else None
        in_name = shown_uri if shown_uri and self.config.resource_uri_in_span_name else target
        prepared = Prepared(semconv.span_name(method, in_name), _attributes(message, view, shown_uri))
        if not uri or self.config.pii_detector is None:  # a detector may be late, and back later
            view.prepare((method, target, uri), prepared)
        return prepared

    def read_result(self, operation: Operation, result: object) -> Outcome:
        """The outcome that a raw result tells; notes what of it is wanted later."""
        message = operation.message
        method = message.method
        if self.telling.is_asked_for_more and self.telling.disclosure.captures_output(message):
            operation.result = result
        if method in _LISTINGS:
            self._measures.admit_names(method, result)
        return outcome_of_result(method, result)

    def finish(self, operation: Operation, outcome: Outcome, elapsed: float) -> None:
        """Write the end of ``operation`` into its span and the duration (seconds) into its histogram."""
        message, connection, span = operation.message, operation.connection, operation.span
        if message.protocol_version is not None and not operation.server and outcome.error_type is None:
            connection.protocol_version = message.protocol_version
        # One that succeeds as others did before has nothing new to tell.
        attributes = operation.prepared.success if outcome is SUCCESS and operation.prepared is not None else None
        view = error_type = None
        if attributes is None:
            if outcome.protocol_version is not None:
                _negotiated(connection, outcome.protocol_version)
            error_type = outcome.error_type and _error_type_of(operation, outcome)
            view = connection.view(operation.server, operation.http, message.protocol_version)
            if span is not None and span.is_recording():
                self._describe_end(span, operation, view, outcome, error_type)
        if span is not None:
            if self.telling.adds_to_spans and span.is_recording():
                self.telling.at_end(span, operation, outcome, error_type)
            if operation.owned:
                span.end(operation.dropped_ns)
        if operation.dropped_ns is not None:
            elapsed = max(0.0, elapsed - (time_ns() - operation.dropped_ns) / 1e9)
        if view is not None:
            attributes = self._measures.attributes(operation, view, error_type, outcome)
        measures = self._measures
        (measures.of_server if operation.server else measures.of_client).record(elapsed, attributes, operation.context)

    def _describe_end(
        self, span: Span, operation: Operation, view: View, outcome: Outcome, error_type: str | None
    ) -> None:
        known = operation.known_attributes
        if known is not None and view.attributes is not known:
            # What became known of the connection since the beginning: negotiated version, session id.
            span.set_attributes({key: value for key, value in view.attributes.items() if key not in known})
        if outcome.status_code is not None:
            span.set_attribute(semconv.STATUS_CODE, outcome.status_code)
        if error_type is not None:
            span.set_attribute(semconv.ERROR_TYPE, semconv.clean(error_type))
            span.set_status(Status(StatusCode.ERROR, self.telling.status_text(outcome)))

    @contained("end dropped operations")
    def settle_dropped(self) -> None:
        """End what was dropped without an end: a notification nobody handled, a request nobody answered."""
        while self.dropped:
            self.dropped.popleft().settle_dropped()

    @contained("end a session")
    def end_session(self, connection: Connection, seconds: float, error_type: str | None) -> None:
        """Record that a session of ``connection`` ended after ``seconds``, with an error if ``error_type`` is given."""
        self.settle_dropped()
        self._measures.end_session(connection, seconds, error_type)


# The getters of the global providers look into the environment each time, too long for every message. Where these
# names do not exist, the getters are asked nevertheless.
_TRACE_API = vars(trace)
_METRICS_API = vars(sys.modules.get("opentelemetry.metrics._internal", metrics))


def _negotiated(connection: Connection, version: str) -> None:
    """Note the revision of an ``initialize`` result: a server's own choice, or what a server told a client."""
    if version in semconv.KNOWN_PROTOCOL_VERSIONS or (connection.server and semconv.is_revision(version)):
        connection.protocol_version = version
    elif semconv.is_revision(version):
        connection.claimed_version = version


def _error_type_of(operation: Operation, outcome: Outcome) -> str | None:
    """The ``error.type`` of this side: not everything that went wrong is an error of a SERVER span."""
    error_type, status_code = outcome.error_type, outcome.status_code
    if (
        operation.server
        and status_code is not None
        and error_type == status_code
        and not semconv.is_error(status_code, server=True)
    ):
        return None
    if error_type == semconv.CANCELLED and operation.message.method in semconv.ENDED_BY_CANCELLING:
        return None
    return error_type


def _outer_tool_span(message: Message, context: Context) -> Span | None:
    """The current span, if an agent framework opened it for the very tool that is called now."""
    span = trace.get_current_span(context)
    attributes = as_mapping(getattr(span, "attributes", None))
    if (
        attributes is not None
        and message.target
        and attributes.get(semconv.OPERATION_NAME) == semconv.EXECUTE_TOOL
        and attributes.get(semconv.TOOL_NAME) == message.target
        and semconv.METHOD not in attributes
        and getattr(getattr(span, "instrumentation_scope", None), "name", None) != SCOPE
        and span.is_recording()
    ):
        return span
    return None


def _attributes(message: Message, view: View, uri: str | None) -> Attributes:
    """What the attributes of all messages of this method and target have in common."""
    method, target = message.method, message.target
    attributes: Attributes = {semconv.METHOD: semconv.clean(method), **view.attributes}
    if method == "tools/call":
        attributes[semconv.OPERATION_NAME] = semconv.EXECUTE_TOOL
        if target:
            attributes[semconv.TOOL_NAME] = semconv.clean(target)
    elif target:
        attributes[semconv.PROMPT_NAME] = semconv.clean(target)
    elif uri:
        attributes[semconv.RESOURCE_URI] = semconv.clean(uri)
    return attributes
