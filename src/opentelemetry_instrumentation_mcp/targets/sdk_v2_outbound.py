"""SDK 2.x, what is sent: requests and notifications through either dispatcher, and on modern HTTP responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from .. import propagation, semconv
from ..connection import Connection
from ..guard import contained, report
from ..hooks import Around
from ..message import (
    SUCCESS,
    TIMED_OUT,
    Message,
    Outcome,
    describe,
    meta_of,
    outcome_of_error,
    outcome_of_exception,
)
from ..operation import Operation, ReadResult, outcome_of_failure, traced
from ..telemetry import Telemetry
from .arguments import argument, leading, with_argument
from .sdk_v2_common import CONNECTION_CLOSED, REQUEST_TIMEOUT, connection_of, error_code, operation_of
from .sdk_v2_rounds import Rounds
from .transports import is_dropped

_Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
_Described = tuple[Message, Connection]

_LOST = "_otel_mcp_lost"
# What anyio raises when a stream is gone; the SDK turns it into a JSON-RPC error that nobody sent.
_BROKEN = frozenset({"BrokenResourceError", "ClosedResourceError"})


def send_raw_request(telemetry: Telemetry) -> Any:
    """``JSONRPCDispatcher.send_raw_request``: every outbound request over streams, of either side."""
    rounds = Rounds()

    def begin(dispatcher: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        if not telemetry.records():
            return None
        method, params, opts = args[:3] if len(args) > 2 else leading(args, kwargs, "method", "params", "opts")
        request_id = _next_request_id(dispatcher, opts, "_pending")
        if getattr(dispatcher, "_closed", False):
            dispatcher.__dict__.setdefault(_LOST, set()).add(str(request_id))
        message = describe(method, params, request_id)
        link = rounds.previous(message, params)
        operation = telemetry.begin_client(message, connection_of(dispatcher), link=link, native=True)
        if operation is not None:
            operation.owner = dispatcher
        return operation

    def read_error(operation: Operation, error: BaseException) -> Outcome:
        return _outcome_for_sender(error, lost=_lost(operation.owner, operation.message.request_id))

    return traced("describe an outbound request", begin, _result_reader(telemetry, rounds), read_error, telemetry)


def _result_reader(telemetry: Telemetry, rounds: Rounds) -> ReadResult:
    def read(operation: Operation, result: Any) -> Outcome:
        rounds.remember(operation, result)
        return telemetry.read_result(operation, result)

    return read


def _next_request_id(dispatcher: Any, opts: Any, in_use: str) -> Any:
    """The id the dispatcher is about to give out: nothing is awaited between this and its own choice."""
    supplied = opts.get("request_id") if opts else None
    if supplied is not None:
        return supplied
    taken = getattr(dispatcher, in_use, ())
    request_id = dispatcher._next_id + 1
    while request_id in taken:
        request_id += 1
    return request_id


def _outcome_for_sender(error: BaseException, *, lost: bool) -> Outcome:
    """How a request ended for its sender: by the wire's error, or by what happened instead of an answer."""
    data = getattr(error, "error", None)
    code = getattr(data, "code", None)
    if not isinstance(code, int) or not isinstance(error, Exception):
        return outcome_of_exception(error)
    if code == REQUEST_TIMEOUT and isinstance(error.__context__, TimeoutError):
        return TIMED_OUT
    if lost or type(error.__context__).__name__ in _BROKEN:
        return outcome_of_exception(error)
    return outcome_of_error(code, getattr(data, "message", None))


def close_pending(telemetry: Telemetry) -> Any:
    """``JSONRPCDispatcher._fan_out_closed``: tells requests lost with the connection from those the peer answered."""

    @contained("note lost requests")
    def note(dispatcher: Any) -> None:
        unanswered = (
            key for key, pending in dispatcher._pending.items() if not pending.receive.statistics().current_buffer_used
        )
        dispatcher.__dict__.setdefault(_LOST, set()).update(str(key) for key in unanswered)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        note(instance)
        return wrapped(*args, **kwargs)

    return wrapper


def _lost(dispatcher: Any, request_id: Any) -> bool:
    """Whether the connection closed before the peer answered this request, or was closed already."""
    lost: set[str] | None = getattr(dispatcher, _LOST, None)
    return lost is not None and str(request_id) in lost


def notify(telemetry: Telemetry) -> Any:
    """``JSONRPCDispatcher.notify``: every outbound notification over streams, of either side."""

    def describe_notification(dispatcher: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Described | None:
        connection = connection_of(dispatcher)
        method, params = leading(args, kwargs, "method", "params")
        related = kwargs.get("_related_request_id")
        if (
            getattr(dispatcher, "_closed", False)
            or _is_aborted_post(method, connection)
            or is_dropped(connection, related)
        ):
            return None
        return describe(method, params), connection

    return _notifier(telemetry, describe_notification)


def _is_aborted_post(method: Any, connection: Connection) -> bool:
    """On modern HTTP the SDK turns a cancellation into an aborted POST: no message reaches the wire."""
    return (
        method == "notifications/cancelled"
        and not connection.server
        and connection.endpoint.protocol == "http"
        and connection.protocol_version in semconv.SESSIONLESS_PROTOCOL_VERSIONS
    )


def notify_single_exchange(telemetry: Telemetry) -> Any:
    """``_SingleExchangeDispatchContext.notify``: server to client on the response of a modern HTTP request."""

    def describe_notification(dctx: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Described | None:
        if dctx.sink is None:
            return None
        inbound = operation_of(dctx)
        connection = inbound.connection if isinstance(inbound, Operation) else Connection(server=True)
        return describe(*leading(args, kwargs, "method", "params")), connection

    return _notifier(telemetry, describe_notification)


def _notifier(telemetry: Telemetry, describe_notification: Callable[..., _Described | None]) -> Any:
    def begin(instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        described = describe_notification(instance, args, kwargs)
        if described is None:
            return None
        operation = telemetry.begin_client(*described) or telemetry.carry(*described)
        if operation is not None:
            operation.arguments = _inject_params(operation.context, args, kwargs)
        return operation

    return traced("describe an outbound notification", begin, _always_success, outcome_of_failure, telemetry)


def _always_success(_: Operation, __: Any) -> Outcome:
    return SUCCESS


@contained("inject into params._meta")
def _inject_params(context: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Arguments:
    params = propagation.with_injected_meta(argument(args, kwargs, 1, "params"), context)
    return with_argument(args, kwargs, 1, "params", params) if params is not None else (args, kwargs)


def inject_trace_context(telemetry: Telemetry) -> Any:
    """The dispatcher's ``inject_trace_context``: ours also removes what a forwarded ``_meta`` brought along."""

    def build(call: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            if not telemetry.active:
                return call(*args, **kwargs)
            try:
                context = otel_context.get_current()
                if context:
                    propagation.inject(args[0] if args else kwargs["meta"], telemetry.outbound(context))
            except Exception as error:
                report("inject into params._meta", error)
            return None

        return function

    return Around(build)


# ----- in process: DirectDispatcher


def dispatch_direct_request(telemetry: Telemetry) -> Any:
    """``DirectDispatcher._dispatch_request``: called on the receiver, in the task of the sender, either direction."""
    rounds = Rounds()

    def begin(receiver: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        method, params, opts = leading(args, kwargs, "method", "params", "opts")
        message = describe(method, params, _next_request_id(receiver, opts, "_in_flight_ids"))
        link = rounds.previous(message, params)
        operation = telemetry.begin_client(message, _sender_connection(receiver), link=link)
        if operation is not None:
            operation.owner = receiver
            operation.arguments = _inject_params(operation.context, args, kwargs)
        return operation

    def read_error(operation: Operation, error: BaseException) -> Outcome:
        return _outcome_for_sender(error, lost=_closed_before_handling(operation.owner, error))

    return traced("describe an in-process request", begin, _result_reader(telemetry, rounds), read_error, telemetry)


def _closed_before_handling(receiver: Any, error: BaseException) -> bool:
    return bool(getattr(receiver, "_closed", False)) and error_code(error) == CONNECTION_CLOSED


def _sender_connection(receiver: Any) -> Connection:
    sender = getattr(receiver, "_peer", None)
    return connection_of(sender if sender is not None else receiver)


def dispatch_direct_notification(telemetry: Telemetry) -> Any:
    """``DirectDispatcher._dispatch_notify``: in-process notifications, either direction."""

    def describe_notification(receiver: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Described | None:
        if getattr(receiver, "_closed", False):
            return None
        _receiver.set(connection_of(receiver))
        return describe(*leading(args, kwargs, "method", "params")), _sender_connection(receiver)

    return _notifier(telemetry, describe_notification)


# Whose notification is being dispatched in process, for those that reach no handler.
_receiver: ContextVar[Connection | None] = ContextVar("otel_mcp_receiver", default=None)


def intercept_direct_notification(telemetry: Telemetry) -> Any:
    """The in-process dispatcher's ``run_notify_intercept``: what the client consumes for a subscription of its own."""

    @contained("trace a consumed notification")
    def trace(method: str, params: Any) -> None:
        connection = _receiver.get() or Connection(server=False)
        operation = telemetry.begin_server(describe(method, params), connection, meta_of(params))
        if operation is not None:
            operation.settle()

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        consumed = wrapped(*args, **kwargs)
        if consumed:
            trace(argument(args, kwargs, 1, "method"), argument(args, kwargs, 2, "params"))
        return consumed

    return wrapper
