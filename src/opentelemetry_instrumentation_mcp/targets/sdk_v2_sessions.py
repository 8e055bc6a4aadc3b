"""SDK 2.x: how long sessions last, and the library's own telemetry giving way to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace

from .. import semconv
from ..guard import contained
from ..hooks import Around
from ..internal import native_client_method, note_native_span
from ..message import as_mapping
from ..telemetry import Telemetry
from .arguments import leading
from .sdk_v2_common import connection_of
from .sessions import SessionClock, session_clock


def enter_client_session(telemetry: Telemetry) -> Any:
    """``ClientSession.__aenter__``: from here on its dispatcher is known to be a client's."""

    @contained("begin a session")
    def begin(session: Any) -> SessionClock:
        connection = connection_of(session._dispatcher, server=False)
        connection.server = False
        return SessionClock(telemetry, connection)

    return session_clock(begin)


def run_dispatcher(telemetry: Telemetry) -> Any:
    """``JSONRPCDispatcher.run`` and ``DirectDispatcher.run``: on servers, a run is a session."""

    @contained("begin a session")
    def begin(dispatcher: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> SessionClock | None:
        connection = connection_of(dispatcher)
        return SessionClock(telemetry, connection) if connection.server else None

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        clock = begin(instance, args, kwargs)
        if clock is None:
            return await wrapped(*args, **kwargs)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            clock.stop(error)
            raise
        clock.stop(None)
        return result

    return wrapper


class _NoSpan:
    """Stands where the library would open a span; attaches nothing, so that ours stays current."""

    def __enter__(self) -> trace.Span:
        return trace.INVALID_SPAN

    def __exit__(self, *exception: object) -> None:
        return None


_NO_SPAN = _NoSpan()


def replace_client_span(telemetry: Telemetry) -> Any:
    """The dispatcher's ``otel_span``: the library's CLIENT spans."""

    keeps = telemetry.keeps_native_spans

    def build(call: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            if not telemetry.active or (keeps and not _has_native_client_span(kwargs)):
                return call(*args, **kwargs)
            return _NO_SPAN

        return function

    return Around(build)


@contained("see a library's own CLIENT span")
def _has_native_client_span(kwargs: Mapping[str, Any]) -> bool:
    """Whether another library has a CLIENT span of its own for the message that the SDK is about to make one for."""
    method = native_client_method()
    return method is not None and (as_mapping(kwargs.get("attributes")) or {}).get(semconv.METHOD) == method


def replace_server_span(telemetry: Telemetry) -> Any:
    """``OpenTelemetryMiddleware.__call__``: the library's SERVER spans."""
    keeps = telemetry.keeps_native_spans

    def build(call: Any) -> Any:
        def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if not telemetry.active:
                return call(self, *args, **kwargs)
            if keeps:
                note_native_span()
                return call(self, *args, **kwargs)
            ctx, call_next = args if len(args) == 2 else leading(args, kwargs, "ctx", "call_next")
            return call_next(ctx)

        return method

    return Around(build)
