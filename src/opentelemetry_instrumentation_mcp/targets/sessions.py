"""Durations of sessions, the same way for both SDK generations."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from .. import semconv
from ..connection import Connection
from ..guard import contained
from ..message import is_cancellation, outcome_of_exception
from ..telemetry import Telemetry

_CLOCK = "_otel_mcp_session_clock"


class SessionClock:
    """Measures one session of one side; :meth:`stop` counts once."""

    __slots__ = ("_connection", "_started", "_telemetry")

    def __init__(self, telemetry: Telemetry, connection: Connection) -> None:
        self._telemetry: Telemetry | None = telemetry
        self._connection = connection
        self._started = perf_counter()

    @contained("end a session")
    def stop(self, error: BaseException | None) -> None:
        """Record the duration; being cancelled is how sessions are closed, not an error."""
        telemetry, self._telemetry = self._telemetry, None
        if telemetry is None or not _is_session(self._connection):
            return
        error_type = None
        if error is not None and not is_cancellation(error):
            error_type = outcome_of_exception(error).error_type
        telemetry.end_session(self._connection, perf_counter() - self._started, error_type)


def _is_session(connection: Connection) -> bool:
    """HTTP without a session id (stateless servers) and HTTP at 2026-07-28 have no session to measure."""
    http = connection.last_http
    if connection.protocol_version in semconv.SESSIONLESS_PROTOCOL_VERSIONS:
        return http is None and connection.endpoint.protocol != "http"
    return http is None or bool(http.session_id)


def session_clock(begin: Callable[[Any], SessionClock | None]) -> Any:
    """A wrapper for ``__aenter__`` that keeps a running clock on the session."""

    @contained("keep the clock of a session")
    def keep(session: Any, clock: SessionClock) -> None:
        setattr(session, _CLOCK, clock)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        clock = begin(instance)
        result = await wrapped(*args, **kwargs)
        if clock is not None:
            keep(instance, clock)
        return result

    return wrapper


def leave_session(telemetry: Telemetry) -> Any:
    """A wrapper for ``__aexit__``: stops the clock that :func:`session_clock` started."""

    @contained("end a session")
    def stop(session: Any, error: BaseException | None) -> None:
        clock: SessionClock | None = getattr(session, _CLOCK, None)
        if clock is not None:
            clock.stop(error)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        error = args[1] if len(args) > 1 else kwargs.get("exc_val")
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as raised:
            stop(instance, error or raised)
            raise
        stop(instance, error)
        return result

    return wrapper
