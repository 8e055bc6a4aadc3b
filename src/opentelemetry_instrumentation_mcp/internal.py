"""INTERNAL spans: what happens for a message inside a process, where nothing goes over a wire."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from . import semconv
from .guard import contained
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
    """One INTERNAL span and the context in which it is current."""

    __slots__ = ("context", "settled", "span", "telemetry")

    def __init__(self, telemetry: Telemetry, span: Span, context: Context) -> None:
        self.telemetry = telemetry
        self.span = span
        self.context = context
        self.settled = False

    @contained("end an internal span")
    def conclude(self, outcome_of: OutcomeOf, error: BaseException | None) -> None:
        """End the span; ``error`` is what was raised inside it."""
        try:
            outcome = outcome_of(error) if error is not None else SUCCESS
            if outcome.error_type is not None and self.span.is_recording():
                self.span.set_attribute(semconv.ERROR_TYPE, semconv.clean(outcome.error_type))
                if outcome.status_code is not None:
                    self.span.set_attribute(semconv.STATUS_CODE, outcome.status_code)
                # The text never went over a wire: nobody but the protocol itself may be quoted.
                phrase = semconv.protocol_phrase(outcome.status_code, outcome.text)
                self.span.set_status(Status(StatusCode.ERROR, phrase))
        finally:
            self.settled = True
            self.span.end()


@contained("begin an internal span")
def begin(telemetry: Telemetry, name: str, attributes: dict[str, Any], place: Place) -> Internal | None:
    """Begin the span ``name``, which ``place`` is given; None if nothing is to be recorded."""
    current = otel_context.get_current()
    if not telemetry.records() or (current and not is_instrumentation_enabled()):
        return None
    span = telemetry.tracer.start_span(
        semconv.clean(name, semconv.MAX_NAME),
        current,
        SpanKind.INTERNAL,
        attributes,
        record_exception=False,
        set_status_on_exception=False,
    )
    place.span = span
    return Internal(telemetry, span, placed(trace.set_span_in_context(span, current), place))


def around(internal: Internal | None, outcome_of: OutcomeOf, value: Any) -> Generator[Any, None, None]:
    """What a ``contextmanager`` runs: yields ``value`` with the span of ``internal`` being current, then ends it."""
    if internal is None:
        yield value
        return
    token = otel_context.attach(internal.context)
    try:
        yield value
    except GeneratorExit as error:
        # An abandoned block is closed in a foreign context, where there is nothing of ours to detach.
        internal.conclude(outcome_of, error)
        raise
    except BaseException as error:
        otel_context.detach(token)
        internal.telemetry.note_exception(internal, error)
        internal.conclude(outcome_of, error)
        raise
    otel_context.detach(token)
    internal.conclude(outcome_of, None)
