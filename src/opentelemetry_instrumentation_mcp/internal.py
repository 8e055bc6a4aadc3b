"""INTERNAL spans: what happens for a message inside a process, where nothing goes over a wire."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from . import semconv
from .guard import contained, report
from .message import SUCCESS, Outcome
from .places import Place

if TYPE_CHECKING:
    from .telemetry import Telemetry

_PLACE = otel_context.create_key("otel-mcp-place")

OutcomeOf = Callable[[BaseException], Outcome]


def current_place() -> Place | None:
    """Where the current context is."""
    place: Any = otel_context.get_value(_PLACE)
    return place


# The method and the object of the CLIENT span that a library has opened by itself.
_native_client: ContextVar[tuple[str, Span] | None] = ContextVar("otel_mcp_native_client", default=None)


def native_client_method() -> str | None:
    """The method of the library's CLIENT span, if that is the current span."""
    native = _native_client.get()
    return native[0] if native is not None and trace.get_current_span() is native[1] else None


def native_client(generator: Generator[Any, None, None], method: str) -> Generator[Any, None, None]:
    """The generator of a library's CLIENT span, with which ours for ``method`` stand down."""
    with contextmanager(lambda: generator)() as value:
        token = _native_client.set((method, trace.get_current_span()))
        try:
            yield value
        except GeneratorExit:
            raise  # closed in a foreign context, which has nothing of ours
        except BaseException:
            _native_client.reset(token)
            raise
        _native_client.reset(token)


def placed(context: Context, place: Place) -> Context:
    """``context``, at ``place``."""
    return otel_context.set_value(_PLACE, place, context)


def note_native_span() -> None:
    """The library makes a span of its own for the message that is being handled."""
    place = current_place()
    if place is not None:
        place.native = True


class Internal:
    """One INTERNAL span and the context in which it is current; ends with the first outcome it is told."""

    __slots__ = ("arguments", "context", "settled", "span", "telemetry")

    def __init__(self, telemetry: Telemetry, span: Span, context: Context) -> None:
        self.telemetry = telemetry
        self.span = span
        self.context = context
        self.settled = False
        self.arguments: None = None
        """For :func:`~.operation.traced`: what is called is called with its caller's arguments."""

    def is_current(self) -> bool:
        """Whether the span is the current one."""
        return trace.get_current_span() is self.span

    @contained("describe an internal span")
    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Add ``attributes``; texts are cleaned and at most 256 characters long, None is passed over."""
        if self.span.is_recording():
            self.span.set_attributes(cleaned(attributes))

    def conclude(self, read: Callable[[Any, Any], Outcome | None], value: Any) -> None:
        """End the span with the outcome that ``read`` finds in ``value``, if it finds one; never raises."""
        try:
            outcome = read(self, value)
        except Exception as error:
            report("read the outcome of an internal span", error)
            outcome = SUCCESS
        if outcome is not None:
            self.settle(outcome)

    @contained("end an internal span")
    def settle(self, outcome: Outcome = SUCCESS, ended_ns: int | None = None) -> None:
        """End the span with ``outcome``, at ``ended_ns`` (nanoseconds since the epoch; None: now)."""
        if self.settled:
            return
        self.settled = True
        try:
            if outcome.error_type is not None and self.span.is_recording():
                self.span.set_attribute(semconv.ERROR_TYPE, semconv.clean(outcome.error_type))
                if outcome.status_code is not None:
                    self.span.set_attribute(semconv.STATUS_CODE, outcome.status_code)
                # The text never went over a wire: nobody but the protocol itself may be quoted.
                phrase = semconv.protocol_phrase(outcome.status_code, outcome.text)
                self.span.set_status(Status(StatusCode.ERROR, phrase))
        finally:
            self.span.end(ended_ns)


def cleaned(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """``attributes`` as they may be set: without those that are None, texts bounded and free of control characters."""
    return {
        key: semconv.clean(value) if isinstance(value, str) else value
        for key, value in attributes.items()
        if value is not None
    }


@contained("begin an internal span")
def begin(
    telemetry: Telemetry,
    name: str,
    attributes: Mapping[str, Any],
    place: Place | None = None,
    *,
    parent: Context | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] | None = None,
) -> Internal | None:
    """Begin the span ``name``; None if nothing is to be recorded.

    Args:
        place: is given the span.
        parent: the context to begin it in; None: the current one.
        kind: another kind than INTERNAL, for what is no message either.
        links: what it is linked to.
    """
    current = otel_context.get_current() if parent is None else parent
    if not telemetry.records() or (current and not is_instrumentation_enabled()):
        return None
    span = telemetry.tracer.start_span(
        semconv.clean(name, semconv.MAX_NAME),
        current,
        kind,
        cleaned(attributes),
        links,
        record_exception=False,
        set_status_on_exception=False,
    )
    context = trace.set_span_in_context(span, current)
    if place is not None:
        place.span = span
        context = placed(context, place)
    return Internal(telemetry, span, context)


def around(internal: Internal | None, outcome_of: OutcomeOf, value: Any) -> Generator[Any, None, None]:
    """What a ``contextmanager`` runs: yields ``value`` with the span of ``internal`` being current, then ends it."""
    if internal is None:
        yield value
        return

    def read_error(_: Internal, error: BaseException) -> Outcome:
        return outcome_of(error)

    token = otel_context.attach(internal.context)
    try:
        yield value
    except GeneratorExit as error:
        # An abandoned block is closed in a foreign context, where there is nothing of ours to detach.
        internal.conclude(read_error, error)
        raise
    except BaseException as error:
        otel_context.detach(token)
        internal.telemetry.telling.note_exception(internal, error)
        internal.conclude(read_error, error)
        raise
    otel_context.detach(token)
    internal.settle()
