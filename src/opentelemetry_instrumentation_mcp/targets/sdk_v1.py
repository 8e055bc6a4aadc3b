"""SDK 1.x: who waits for a message, who handles it, and how long a session lasts. The messages: ``sdk_v1_taps``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context

from ..connection import Connection
from ..guard import contained
from ..message import (
    CANCELLED,
    SUCCESS,
    TIMED_OUT,
    Outcome,
    describe_model,
    outcome_of_error,
    outcome_of_exception,
)
from ..operation import Operation, outcome_of_failure, traced
from ..telemetry import Telemetry
from .arguments import leading
from .sdk_v1_taps import is_server_session, misses_nothing, taps_of, taps_while_recording
from .sessions import SessionClock, session_clock
from .transports import http_request

# The SDK reports its own timeouts as HTTP's 408 and a lost connection as this code; neither was on the wire.
_REQUEST_TIMEOUT = 408
_CONNECTION_CLOSED = -32000


def send_request(telemetry: Telemetry) -> Any:
    """``BaseSession.send_request``: every request somebody waits for, either direction."""

    def begin(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        if not telemetry.records():
            if otel_context.get_current():
                taps_of(telemetry, session)  # it injects
            return None
        taps = taps_of(telemetry, session)
        message = describe_model(args[0] if args else kwargs.get("request"), session._request_id)
        operation = telemetry.begin_client(message, taps.connection)
        if operation is not None:
            operation.owner = taps
            taps.outbound[message.request_id] = operation
        return operation

    def read(operation: Operation, error: BaseException | None) -> Outcome:
        outbound, request_id = operation.owner.outbound, operation.message.request_id
        if outbound.get(request_id) is operation:
            del outbound[request_id]
        return outcome_for_sender(operation.outcome, error)

    def read_result(operation: Operation, _: Any) -> Outcome:
        return read(operation, None)

    return traced("describe an outbound request", begin, read_result, read, telemetry)


def outcome_for_sender(answer: Outcome | None, error: BaseException | None) -> Outcome:
    """How a request ended for its sender: as the peer answered, else by what happened instead."""
    if answer is not None:
        return answer
    if error is None:
        return SUCCESS
    data = getattr(error, "error", None)
    code = getattr(data, "code", None)
    if code == _REQUEST_TIMEOUT and isinstance(error.__context__, TimeoutError):
        return TIMED_OUT
    if isinstance(code, int) and code != _CONNECTION_CLOSED:
        return outcome_of_error(code, getattr(data, "message", None))
    return outcome_of_exception(error)


def cancel_request(telemetry: Telemetry) -> Any:
    """``RequestResponder.cancel``: the peer cancelled a request; the error response that follows says less."""

    @contained("note a cancellation")
    def note(responder: Any) -> None:
        taps = taps_while_recording(telemetry, responder._session)
        operation = taps.inbound.get(responder.request_id) if taps is not None else None
        if operation is not None:
            operation.outcome = CANCELLED

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        note(instance)
        return wrapped(*args, **kwargs)

    return wrapper


def receive_request(telemetry: Telemetry) -> Any:
    """``_received_request`` of both sessions: catches the requests of sessions older than ``instrument()``."""

    def begin(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        taps = taps_while_recording(telemetry, session)
        if taps is None or taps.sees_inbound:
            return None
        responder = args[0] if args else kwargs["responder"]
        http = http_request(getattr(responder, "message_metadata", None))
        return taps.begin_inbound(*_raw(responder.request), responder.request_id, http)

    def passes(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        return misses_nothing(telemetry, session)

    around = traced("describe an inbound request", begin, _answer_will_tell, _failure_before_answer, telemetry)
    return around.unless(passes, "find the operation of a message")


def _answer_will_tell(_: Operation, __: Any) -> Outcome | None:
    return None


def _failure_before_answer(operation: Operation, error: BaseException) -> Outcome | None:
    if operation.outcome is None and not isinstance(error, GeneratorExit):
        operation.outcome = outcome_of_exception(error)
    return None


def receive_notification(telemetry: Telemetry) -> Any:
    """``_received_notification`` of both sessions: what a server accepts is handled by another task.

    Catches the notifications of sessions older than ``instrument()``, too.
    """

    def begin(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        taps = taps_while_recording(telemetry, session)
        if taps is None:
            return None
        notification = args[0] if args else kwargs["notification"]
        if not taps.sees_inbound:
            return taps.begin_inbound(*_raw(notification), None, None)
        if taps.connection.server:
            taps.hand_over(notification.root)
        return None

    return traced("describe an inbound notification", begin, _succeed, outcome_of_failure, telemetry)


def _succeed(_: Operation, __: Any) -> Outcome:
    return SUCCESS


def _raw(message: Any) -> tuple[str, Any]:
    params = getattr(message.root, "params", None)
    return message.root.method, params.model_dump(by_alias=True, mode="json") if params is not None else None


def handle_message(telemetry: Telemetry) -> Any:
    """``Server._handle_message``: runs the handler of one message in a task whose context is the session's."""

    def begin(server: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Operation | None:
        message, session = args[:2] if len(args) > 1 else leading(args, kwargs, "message", "session")
        taps = taps_while_recording(telemetry, session)
        if taps is None:
            return _carried(telemetry, message)
        if not hasattr(message, "request_id"):
            return taps.take(getattr(message, "root", None))
        operation = taps.inbound.get(message.request_id)
        if operation is not None:
            operation.owner = taps
        return operation

    def read_result(operation: Operation, _: Any) -> Outcome | None:
        if operation.message.request_id is None:
            return SUCCESS
        inbound: dict[Any, Operation] = operation.owner.inbound if operation.owner is not None else {}
        if inbound.get(operation.message.request_id) is not operation:
            return None
        # Still there: no answer was written, and none will be.
        del inbound[operation.message.request_id]
        return operation.outcome or CANCELLED

    def read_error(operation: Operation, error: BaseException) -> Outcome | None:
        if operation.message.request_id is None:
            return outcome_of_exception(error)
        _failure_before_answer(operation, error)
        return read_result(operation, None)

    return traced("find the operation of a message", begin, read_result, read_error, telemetry)


def _carried(telemetry: Telemetry, message: Any) -> Operation | None:
    """Without an OpenTelemetry SDK, a context that came with a request still reaches its handler."""
    request = getattr(getattr(message, "request", message), "root", None)
    meta = getattr(getattr(request, "params", None), "meta", None)
    if meta is None:
        return None
    http = http_request(getattr(message, "message_metadata", None))
    return telemetry.begin_server(describe_model(request), Connection(server=True), meta.model_extra, http)


def enter_session(telemetry: Telemetry) -> Any:
    """``BaseSession.__aenter__``: the taps must be in place before the receive loop starts."""

    @contained("begin a session")
    def begin(session: Any) -> SessionClock | None:
        taps = taps_while_recording(telemetry, session)
        if taps is None:
            return None
        # A stateless server has a session object for each request, and no session.
        stateless = getattr(getattr(session, "_initialization_state", None), "name", "") == "Initialized"
        return None if is_server_session(session) and stateless else SessionClock(telemetry, taps.connection)

    return session_clock(begin)


def leave_session(telemetry: Telemetry) -> Any:
    """``BaseSession.__aexit__``: ends what was never answered, then the session itself."""
    from .sessions import leave_session as stop_clock

    stop = stop_clock(telemetry)

    @contained("end the messages of a closed session")
    def close(session: Any) -> None:
        taps = taps_while_recording(telemetry, session)
        if taps is not None:
            taps.close()

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return await stop(wrapped, instance, args, kwargs)
        finally:
            close(instance)

    return wrapper
