"""SDK 2.x, what is received: over streams by ``JSONRPCDispatcher``, otherwise by ``ServerRunner`` or ``ClientSession``.

Those two see every message, those of streams too: they look whether the message is already being traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

from opentelemetry import context as otel_context

from .. import semconv
from ..connection import Connection
from ..guard import contained, report
from ..message import (
    CANCELLED,
    SUCCESS,
    Outcome,
    describe,
    is_cancellation,
    meta_of,
    outcome_of_error,
    outcome_of_exception,
)
from ..operation import Operation, traced
from ..telemetry import Telemetry
from .arguments import argument, leading, with_argument
from .sdk_v2_common import (
    CONNECTION,
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    NOT_TRACED,
    OPERATION,
    NotTraced,
    connection_of,
    operation_of,
)
from .sdk_v2_modern_http import is_resolving_schema
from .transports import http_request


def handle_request(telemetry: Telemetry) -> Any:
    """``JSONRPCDispatcher._handle_request``: runs and answers one inbound request; every answer is made here."""

    def begin(dispatcher: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        request, dctx, _, on_request = (
            args if len(args) == 4 else leading(args, kwargs, "req", "dctx", "scope", "on_request")
        )
        params = request.params
        meta = meta_of(params)
        if not meta and not telemetry.records():
            setattr(dctx, OPERATION, NOT_TRACED)
            return None
        connection = connection_of(dispatcher)
        metadata = getattr(dctx, "message_metadata", None)
        http = http_request(metadata) if metadata is not None else None
        message = describe(request.method, params, request.id)
        operation = telemetry.begin_server(message, connection, meta, http, native=connection.server)
        setattr(dctx, OPERATION, operation or NOT_TRACED)
        if operation is not None:
            operation.owner = dctx
            observed = _observed_handler(telemetry, operation, dctx, on_request)
            operation.arguments = with_argument(args, kwargs, 3, "on_request", observed)
        return operation

    def read_result(operation: Operation, _: Any) -> Outcome:
        return CANCELLED if operation.owner.cancel_requested.is_set() else operation.outcome or SUCCESS

    def read_error(operation: Operation, error: BaseException) -> Outcome:
        return operation.outcome or outcome_of_exception(error)

    return traced("describe an inbound request", begin, read_result, read_error, telemetry)


def _observed_handler(telemetry: Telemetry, operation: Operation, dctx: Any, on_request: Any) -> Any:
    """``on_request`` that notes what the answer will be: only the SDK's own errors do not pass it."""

    async def observed(*args: Any, **kwargs: Any) -> Any:
        try:
            result = await on_request(*args, **kwargs)
        except BaseException as error:
            operation.outcome = _outcome_of_handler(error, dctx, unhandled_code=0)
            telemetry.telling.note_exception(operation, error)
            raise
        try:
            operation.outcome = telemetry.read_result(operation, result)
        except Exception as error:
            report("read a result", error)
        return result

    return observed


@contained("read the outcome of a handler")
def _outcome_of_handler(error: BaseException, dctx: Any, *, unhandled_code: int) -> Outcome:
    """The error response the library makes of what a handler raised."""
    if is_cancellation(error):
        requested = getattr(dctx, "cancel_requested", None)
        if requested is not None and not requested.is_set() and unhandled_code == 0:
            # Shutting down: the dispatcher answers with this code before it lets go.
            return outcome_of_error(CONNECTION_CLOSED, "Connection closed")
        return CANCELLED
    data: Any = getattr(error, "error", None)
    if isinstance(getattr(data, "code", None), int):
        return outcome_of_error(data.code, data.message)
    if any(
        kind.__name__ == "ValidationError" and kind.__module__.startswith("pydantic") for kind in type(error).__mro__
    ):
        return outcome_of_error(INVALID_PARAMS, "Invalid request parameters")
    if isinstance(error, Exception):
        return outcome_of_error(unhandled_code, None)
    return outcome_of_exception(error)


def dispatch_notification(telemetry: Telemetry) -> Any:
    """``JSONRPCDispatcher._dispatch_notification``: runs in the receive loop and spawns what handles the message.

    Whatever it spawns (progress callback, handler) starts in a copy of the sender's context in which our span is
    current. The span ends with the handler; if none is ever started, with the last reference to ours.
    """

    @contained("describe an inbound notification")
    def begin(dispatcher: Any, notification: Any, metadata: Any, sender_context: Any) -> Operation | None:
        http = http_request(metadata)
        if http is not None and http.context is None and sender_context is not None:
            http = http._replace(context=sender_context.run(otel_context.get_current))
        connection = connection_of(dispatcher)
        return telemetry.begin_server(
            describe(notification.method, notification.params),
            connection,
            meta_of(notification.params),
            http,
            native=connection.server,
        )

    @contained("prepare the context of a notification")
    def context_for(operation: Operation, sender_context: Any) -> Any:
        context = sender_context.copy() if sender_context is not None else copy_context()
        context.run(otel_context.attach, operation.context)
        return context

    @contained("read the outcome of a handler")
    def fail(operation: Operation, error: BaseException) -> None:
        operation.settle(outcome_of_exception(error))

    @contained("mark a message as traced")
    def mark(dctx: Any, operation: Operation) -> None:
        setattr(dctx, OPERATION, operation)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sender_context = argument(args, kwargs, 3, "sender_ctx")
        operation = begin(
            instance, argument(args, kwargs, 0, "msg"), argument(args, kwargs, 1, "metadata"), sender_context
        )
        if operation is None:
            return wrapped(*args, **kwargs)
        on_notify = argument(args, kwargs, 2, "on_notify")

        async def observed(dctx: Any, *rest: Any, **named: Any) -> Any:
            mark(dctx, operation)
            try:
                result = await on_notify(dctx, *rest, **named)
            except BaseException as error:
                fail(operation, error)
                raise
            operation.settle()
            return result

        context = context_for(operation, sender_context) or sender_context
        args, named = with_argument(args, kwargs, 2, "on_notify", observed)
        args, named = with_argument(args, named, 3, "sender_ctx", context)
        return wrapped(*args, **named)

    return wrapper


# ----- inbound at the endpoints: ServerRunner, ClientSession


def handle_at_server(telemetry: Telemetry) -> Any:
    """``ServerRunner._on_request`` and ``_on_notify``."""
    return _handle_at_endpoint(telemetry, _server_connection, _server_version)


def handle_at_client(telemetry: Telemetry) -> Any:
    """``ClientSession._on_request`` and ``_on_notify``."""
    return _handle_at_endpoint(telemetry, _client_connection, _client_version)


def _server_version(runner: Any) -> str | None:
    return getattr(getattr(runner, "connection", None), "protocol_version", None)


def _client_version(session: Any) -> str | None:
    return getattr(session, "_negotiated_version", None)


def _server_connection(runner: Any) -> Connection:
    """Without a dispatcher the messages of one server and one revision share a description."""
    known: dict[str | None, Connection] = runner.server.__dict__.setdefault(CONNECTION, {})
    version = _server_version(runner)
    connection = known.get(version)
    if connection is None:
        connection = Connection(server=True)
        connection.protocol_version = version
        if len(known) < len(semconv.KNOWN_PROTOCOL_VERSIONS):
            known[version] = connection
    return connection


def _client_connection(session: Any) -> Connection:
    return connection_of(session._dispatcher, server=False)


def _handle_at_endpoint(
    telemetry: Telemetry, connection_for: Callable[[Any], Connection], version_of: Callable[[Any], str | None]
) -> Any:
    def begin(endpoint: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        dctx, method, params = args if len(args) == 3 else leading(args, kwargs, "dctx", "method", "params")
        under_way = operation_of(dctx)
        if under_way is not None:
            # An initialize is seen with the version before the negotiation.
            if (
                isinstance(under_way, Operation)
                and under_way.connection.protocol_version is None
                and method != "initialize"
            ):
                under_way.connection.protocol_version = version_of(endpoint)
            return None
        meta = meta_of(params)
        if is_resolving_schema() or not (meta or telemetry.records()):
            return None
        http = http_request(getattr(dctx, "message_metadata", None))
        if http is not None and http.context is None:
            http = http._replace(context=otel_context.get_current())
        connection = connection_for(endpoint)
        message = describe(method, params, getattr(dctx, "request_id", None))
        operation = telemetry.begin_server(message, connection, meta, http, native=connection.server)
        if operation is not None:
            setattr(dctx, OPERATION, operation)
            operation.owner = dctx
        return operation

    def passes(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        found: Operation | NotTraced | None = getattr(args[0] if args else kwargs["dctx"], OPERATION, None)
        return found is NOT_TRACED or (isinstance(found, Operation) and found.connection.protocol_version is not None)

    def read_error(operation: Operation, error: BaseException) -> Outcome | None:
        return _outcome_of_handler(error, operation.owner, unhandled_code=INTERNAL_ERROR) or SUCCESS

    around = traced("describe an inbound message", begin, telemetry.read_result, read_error, telemetry)
    return around.unless(passes, "find the operation of a message")
