"""One message seen from one side, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from .connection import Attributes, Connection, HttpRequest, Prepared
from .guard import report
from .hooks import Around
from .message import CANCELLED, SUCCESS, Message, Outcome, outcome_of_exception

if TYPE_CHECKING:
    from .telemetry import Telemetry


class Operation:
    """One message seen from one side: its span (if any), its context, its clock.

    ``context`` is what has to be current while the message is sent or handled. ``settle`` may be called any number
    of times and from anywhere; the first call counts. One that is dropped unsettled is settled by the next that begins.
    """

    # Not in __slots__: most of these are never set, and a default of the class costs nothing.
    http: HttpRequest | None = None
    prepared: Prepared | None = None
    known_attributes: Attributes | None = None
    """What the view said when the span began; None if it did not begin here."""
    owned = True
    """Whether the span is ours to end (it is not if an outer ``execute_tool`` span is reused)."""
    settled = False
    outcome: Outcome | None = None
    """What is known of the end before the end: the wire's answer, or that somebody cancelled."""
    result: object = None
    """The raw result, where it is wanted at the end."""
    dropped_ns: int | None = None
    """When it was dropped, in nanoseconds since the epoch; None if it was not."""
    owner: Any = None
    """The library's object that tells how the message ended; until then."""
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
    """What the library's method is called with in place of its caller's arguments; None to leave those."""
    stand_in: Callable[[Operation], None] | None = None
    """Called at the end if the library was expected to make the span; None if it is made here."""

    def __init__(
        self,
        telemetry: Telemetry,
        message: Message,
        connection: Connection,
        context: Context,
        span: Span | None,
        server: bool,
    ) -> None:
        self.telemetry = telemetry
        self.message = message
        self.connection = connection
        self.context = context
        self.span = span
        self.server = server
        self._started = perf_counter()

    def settle(self, outcome: Outcome = SUCCESS) -> None:
        """End the operation with ``outcome``; never raises."""
        self.conclude(_as_told, outcome)

    def conclude(self, read: Callable[[Operation, Any], Outcome | None], value: Any) -> None:
        """End the operation with the outcome that ``read`` finds in ``value``, if it finds one; never raises."""
        elapsed = perf_counter() - self._started
        try:
            outcome = read(self, value)
        except Exception as error:
            report("read the outcome of a message", error)
            outcome = SUCCESS
        self.owner = None  # which may hold on to this
        if outcome is None or self.settled:
            return
        self.settled = True
        try:
            if self.stand_in is not None:
                self.stand_in(self)
            self.telemetry.finish(self, outcome, elapsed)
        except Exception as error:
            report("end an operation", error)

    def __del__(self) -> None:
        # The garbage collector may come while the SDK holds a lock: ending a span here could wait for it forever.
        if not self.settled:
            self.dropped_ns = time_ns()
            self.telemetry.dropped.append(self)

    def settle_dropped(self) -> None:
        """End an operation of which nobody told how it ended."""
        self.settle(self.outcome or (CANCELLED if self.message.is_request else SUCCESS))


def _as_told(_: Operation, outcome: Outcome) -> Outcome:
    return outcome


# What :func:`traced` keeps around a call: an Operation, or an Internal span.
Traced = Any
Begin = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Traced | None]
ReadResult = Callable[[Traced, Any], Outcome | None]
ReadError = Callable[[Traced, BaseException], Outcome | None]


def outcome_of_failure(_: Operation, error: BaseException) -> Outcome:
    """For :func:`traced`: what was raised is all that is known."""
    return outcome_of_exception(error)


class _Always:
    active = True


def traced(
    place: str,
    begin: Begin,
    read_result: ReadResult,
    read_error: ReadError,
    telemetry: Telemetry | None = None,
) -> Around:
    """What takes the place of a coroutine method whose call is one operation.

    The operation is current while the method runs, and ends as the method returns or raises, which it does as ever.

    Args:
        place: what ``begin`` does, for the report of its failure.
        begin: gets ``self``, positional and named arguments. None: the call goes on untraced.
        read_result: the outcome behind what the method returned. None: somebody else ends the operation.
        read_error: the outcome behind what the method raised; None as before.
        telemetry: whose being switched off makes the method untraced; None if ``begin`` sees to it.
    """
    switch = telemetry if telemetry is not None else _Always

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        # A coroutine function: the message begins when it is awaited, not when its coroutine is made.
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            operation = None
            if switch.active:
                try:
                    operation = begin(self, args, kwargs)
                except Exception as error:
                    report(place, error)
            if operation is None:
                return await call(self, *args, **kwargs)
            if operation.arguments is not None:
                (args, kwargs), operation.arguments = operation.arguments, None
            token = otel_context.attach(operation.context)
            try:
                result = await call(self, *args, **kwargs)
            except GeneratorExit as error:
                # An abandoned coroutine is closed in a foreign context, where there is nothing of ours to detach.
                operation.conclude(read_error, error)
                raise
            except BaseException as error:
                otel_context.detach(token)
                operation.telemetry.telling.note_exception(operation, error)
                operation.conclude(read_error, error)
                raise
            otel_context.detach(token)
            operation.conclude(read_result, result)
            return result

        return method

    return Around(build)


def current_context() -> Context:
    """The context this runs in."""
    return otel_context.get_current()


def attached(context: Context) -> Any:
    """Make ``context`` the current one; what is returned is for :func:`detached`."""
    return otel_context.attach(context)


def detached(attachment: Any) -> None:
    """Make the context current that was so before."""
    otel_context.detach(attachment)


def outside_spans(call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What ``call`` returns if there is no current span, as without any tracing."""
    token = otel_context.attach(trace.set_span_in_context(trace.INVALID_SPAN))
    try:
        return call(*args, **kwargs)
    finally:
        otel_context.detach(token)


async def within(
    context: Context | None, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Await ``call`` with ``context`` being current; None: with what is."""
    if context is None:
        return await call(*args, **kwargs)
    token = otel_context.attach(context)
    try:
        result = await call(*args, **kwargs)
    except GeneratorExit:
        raise  # closed in a foreign context, where there is nothing of ours to detach
    except BaseException:
        otel_context.detach(token)
        raise
    otel_context.detach(token)
    return result
