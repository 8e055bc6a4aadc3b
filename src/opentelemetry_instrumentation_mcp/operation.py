"""One message seen from one side, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Span

from .connection import Attributes, Connection, HttpRequest, View
from .guard import report
from .message import CANCELLED, SUCCESS, Message, Outcome

if TYPE_CHECKING:
    from .telemetry import Telemetry


class Operation:
    """One message seen from one side: its span (if any), its context, its clock.

    ``context`` is what has to be current while the message is sent or handled. ``settle`` may be called any number
    of times and from anywhere; the first call counts. One that is dropped unsettled is settled by the next that begins.
    """

    __slots__ = (
        "_http",
        "_known_attributes",
        "_owned",
        "_started",
        "_telemetry",
        "connection",
        "context",
        "dropped_ns",
        "message",
        "outcome",
        "server",
        "settled",
        "span",
    )

    def __init__(
        self,
        telemetry: Telemetry,
        message: Message,
        connection: Connection,
        context: Context,
        span: Span | None,
        *,
        server: bool,
        http: HttpRequest | None = None,
        known_attributes: Attributes | None = None,
        owned: bool = True,
        measured: bool = True,
    ) -> None:
        self._telemetry = telemetry
        self.message = message
        self.connection = connection
        self.context = context
        self.span = span
        self.server = server
        self.settled = not measured and span is None
        self.outcome: Outcome | None = None
        """What is known of the end before the end: the wire's answer, or that somebody cancelled."""
        self.dropped_ns: int | None = None
        """When it was dropped, in nanoseconds since the epoch; None if it was not."""
        self._http = http
        self._owned = owned
        self._known_attributes = known_attributes
        self._started = perf_counter()

    def settle(self, outcome: Outcome = SUCCESS) -> None:
        """End the operation with ``outcome``; never raises."""
        if self.settled:
            return
        self.settled = True
        try:
            self._telemetry.finish(self, outcome, perf_counter() - self._started)
        except Exception as error:
            report("end an operation", error)

    def view(self) -> View:
        """What is known of the connection now, seen by this message."""
        return self.connection.view(
            inbound=self.server, http=self._http, protocol_version=self.message.protocol_version
        )

    def late_attributes(self, view: View) -> Attributes | None:
        """What became known of the connection since the beginning: negotiated version, session id."""
        known = self._known_attributes
        if known is None or view.attributes is known:
            return None
        return {key: value for key, value in view.attributes.items() if key not in known}

    @property
    def owned(self) -> bool:
        """Whether the span is ours to end (it is not if an outer ``execute_tool`` span is reused)."""
        return self._owned

    async def run(
        self,
        call: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        read_result: Callable[[Any], Outcome],
        read_error: Callable[[BaseException], Outcome],
    ) -> Any:
        """Await ``call(*args, **kwargs)`` with this operation current, settle it, and return or raise as it did."""
        token = otel_context.attach(self.context)
        try:
            result = await call(*args, **kwargs)
        except GeneratorExit as error:
            # An abandoned coroutine is closed in a foreign context, where there is nothing of ours to detach.
            self.settle(_judge(read_error, error))
            raise
        except BaseException as error:
            otel_context.detach(token)
            self.settle(_judge(read_error, error))
            raise
        otel_context.detach(token)
        self.settle(_judge(read_result, result))
        return result

    def __del__(self) -> None:
        # The garbage collector may come while the SDK holds a lock: ending a span here could wait for it forever.
        if not self.settled:
            self.dropped_ns = time_ns()
            self._telemetry.dropped.append(self)

    def settle_dropped(self) -> None:
        """End an operation of which nobody told how it ended."""
        self.settle(self.outcome or (CANCELLED if self.message.is_request else SUCCESS))


def _judge(read: Callable[[Any], Outcome], value: Any) -> Outcome:
    try:
        return read(value)
    except Exception as error:
        report("read the outcome of a message", error)
        return SUCCESS
