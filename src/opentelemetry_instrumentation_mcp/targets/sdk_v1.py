"""SDK 1.x: who waits for a message, who handles it, and how long a session lasts. The messages: ``sdk_v1_taps``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context

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
from ..operation import Operation
from ..telemetry import Telemetry
from .arguments import argument
from .sdk_v1_taps import Taps, is_server_session, taps_of
from .sessions import SessionClock, session_clock
from .transports import http_request

# The SDK reports its own timeouts as HTTP's 408 and a lost connection as this code; neither was on the wire.
_REQUEST_TIMEOUT = 408
_CONNECTION_CLOSED = -32000


def send_request(telemetry: Telemetry) -> Any:
    """``BaseSession.send_request``: every request somebody waits for, either direction."""

    @contained("describe an outbound request")
    def begin(session: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Taps, Operation] | None:
        taps = taps_of(telemetry, session)
        if not telemetry.records():
            return None
        message = describe_model(argument(args, kwargs, 0, "request"), session._request_id)
        operation = telemetry.begin_client(message, taps.connection)
        if operation is None:
            return None
        taps.outbound[message.request_id] = operation
        return taps, operation

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        begun = begin(instance, args, kwargs)
        if begun is None:
            return await wrapped(*args, **kwargs)
        taps, operation = begun
        request_id = operation.message.request_id

        def end(error: BaseException | None) -> Outcome:
            if taps.outbound.get(request_id) is operation:
                del taps.outbound[request_id]
            return _outcome_for_sender(operation.outcome, error)

        return await operation.run(wrapped, args, kwargs, lambda _: end(None), end)

    return wrapper


def _outcome_for_sender(answer: Outcome | None, error: BaseException | None) -> Outcome:
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
        operation = taps_of(telemetry, responder._session).inbound.get(responder.request_id)
        if operation is not None:
            operation.outcome = CANCELLED

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        note(instance)
        return wrapped(*args, **kwargs)

    return wrapper


def receive_request(telemetry: Telemetry) -> Any:
    """``_received_request`` of both sessions: catches the requests of sessions older than ``instrument()``."""

    @contained("describe an inbound request")
    def begin(session: Any, responder: Any) -> Operation | None:
        taps = taps_of(telemetry, session)
        if taps.sees_inbound:
            return None
        http = http_request(getattr(responder, "message_metadata", None))
        return taps.begin_inbound(*_raw(responder.request), responder.request_id, http)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = begin(instance, argument(args, kwargs, 0, "responder"))
        if operation is None:
            return await wrapped(*args, **kwargs)
        return await _within(operation, wrapped, args, kwargs)

    return wrapper


def receive_notification(telemetry: Telemetry) -> Any:
    """``_received_notification`` of both sessions: what a server accepts is handled by another task.

    Catches the notifications of sessions older than ``instrument()``, too.
    """

    @contained("describe an inbound notification")
    def begin(session: Any, notification: Any) -> Operation | None:
        taps = taps_of(telemetry, session)
        if taps.sees_inbound:
            return None
        return taps.begin_inbound(*_raw(notification), None, None)

    @contained("hand a notification over")
    def hand_over(session: Any, notification: Any) -> None:
        if is_server_session(session):
            taps_of(telemetry, session).hand_over(notification.root)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        notification = argument(args, kwargs, 0, "notification")
        operation = begin(instance, notification)
        if operation is not None:
            return await operation.run(wrapped, args, kwargs, lambda _: SUCCESS, outcome_of_exception)
        result = await wrapped(*args, **kwargs)
        hand_over(instance, notification)
        return result

    return wrapper


def _raw(message: Any) -> tuple[str, Any]:
    params = getattr(message.root, "params", None)
    return message.root.method, params.model_dump(by_alias=True, mode="json") if params is not None else None


def handle_message(telemetry: Telemetry) -> Any:
    """``Server._handle_message``: runs the handler of one message in a task whose context is the session's."""

    @contained("find the operation of a message")
    def find(message: Any, taps: Taps) -> Operation | None:
        if hasattr(message, "request_id"):
            return taps.inbound.get(message.request_id)
        return taps.take(getattr(message, "root", None))

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        taps = _taps_or_none(telemetry, argument(args, kwargs, 1, "session"))
        operation = find(argument(args, kwargs, 0, "message"), taps) if taps is not None else None
        if operation is None or taps is None:
            return await wrapped(*args, **kwargs)
        if not operation.message.is_request:
            return await operation.run(wrapped, args, kwargs, lambda _: SUCCESS, outcome_of_exception)
        try:
            return await _within(operation, wrapped, args, kwargs)
        finally:
            # Still there: no answer was written, and none will be.
            if taps.inbound.get(operation.message.request_id) is operation:
                del taps.inbound[operation.message.request_id]
                operation.settle(operation.outcome or CANCELLED)

    return wrapper


@contained("find the taps of a session")
def _taps_or_none(telemetry: Telemetry, session: Any) -> Taps | None:
    return taps_of(telemetry, session)


async def _within(operation: Operation, call: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Await ``call`` with the operation current, without ending it: its answer does."""
    token = otel_context.attach(operation.context)
    try:
        result = await call(*args, **kwargs)
    except GeneratorExit:
        raise
    except BaseException as error:
        otel_context.detach(token)
        _note_failure(operation, error)
        raise
    otel_context.detach(token)
    return result


@contained("read the outcome of a handler")
def _note_failure(operation: Operation, error: BaseException) -> None:
    if operation.outcome is None:
        operation.outcome = outcome_of_exception(error)


def enter_session(telemetry: Telemetry) -> Any:
    """``BaseSession.__aenter__``: the taps must be in place before the receive loop starts."""

    @contained("begin a session")
    def begin(session: Any) -> SessionClock | None:
        taps = taps_of(telemetry, session)
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
        taps_of(telemetry, session).close()

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return await stop(wrapped, instance, args, kwargs)
        finally:
            close(instance)

    return wrapper
