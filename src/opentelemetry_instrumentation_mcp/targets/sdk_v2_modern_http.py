"""SDK 2.x, revision 2026-07-28 over HTTP: one POST, one exchange, no dispatcher.

Requests that pass the SDK's checks reach ``ServerRunner`` and are traced there; here are those it answers before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from ..connection import Connection, HttpRequest
from ..guard import contained
from ..message import SUCCESS, as_mapping, describe, meta_of, outcome_of_error
from ..operation import within
from ..telemetry import Telemetry
from .arguments import argument
from .transports import http_request_behind

_resolving_schema: ContextVar[bool] = ContextVar("otel_mcp_resolving_schema", default=False)


def is_resolving_schema() -> bool:
    """Whether the SDK is listing tools for itself: no such message is on the wire."""
    return _resolving_schema.get()


def resolve_schema(telemetry: Telemetry) -> Any:
    """``_tool_input_schema``: an internal ``tools/list`` that is nobody's message."""

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        token = _resolving_schema.set(True)
        try:
            return await wrapped(*args, **kwargs)
        finally:
            _resolving_schema.reset(token)

    return wrapper


def classify_request(telemetry: Telemetry) -> Any:
    """``classify_inbound_request``: rejects unsupported revisions, bad envelopes and headers that do not match."""

    @contained("trace a rejected request")
    def trace(body: Any, verdict: Any) -> None:
        # A rejection is told from a route by the error code it carries.
        message = as_mapping(body)
        if isinstance(getattr(verdict, "code", None), int) and message is not None:
            _trace_answer(telemetry, message, HttpRequest(otel_context.get_current()), verdict)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        verdict = wrapped(*args, **kwargs)
        trace(args[0] if args else kwargs.get("body"), verdict)
        return verdict

    return wrapper


def reject_parameters(telemetry: Telemetry) -> Any:
    """``_mcp_param_rejection``: ``Mcp-Param-*`` headers that contradict the arguments.

    To know, the SDK may list tools for itself, which makes a gateway ask its upstreams: in their caller's trace.
    """

    @contained("find the trace of a request")
    def arrived(request: Any, message: Any) -> Context | None:
        if not telemetry.records():
            return None
        http = http_request_behind(request)
        if http is not None and http.context is None:
            http = http._replace(context=otel_context.get_current())
        return telemetry.context_before(message.method, meta_of(message.params), http)

    @contained("trace a rejected request")
    def trace(request: Any, message: Any, rejection: Any) -> None:
        if rejection is not None:
            body = {"method": message.method, "params": message.params, "id": message.id}
            _trace_answer(telemetry, body, http_request_behind(request), rejection)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request, message = argument(args, kwargs, 1, "request"), argument(args, kwargs, 2, "req")
        rejection = await within(arrived(request, message), wrapped, args, kwargs)
        trace(request, message, rejection)
        return rejection

    return wrapper


def acknowledge_notification(telemetry: Telemetry) -> Any:
    """``_acknowledge_notification``: client notifications, which the SDK accepts (202) and drops."""

    @contained("trace a dropped notification")
    def trace(body: Any, request: Any) -> None:
        if isinstance(body.get("method"), str):
            _trace_answer(telemetry, body, http_request_behind(request), None)

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        trace(argument(args, kwargs, 0, "decoded"), argument(args, kwargs, 1, "request"))
        return await wrapped(*args, **kwargs)

    return wrapper


def _trace_answer(telemetry: Telemetry, body: Mapping[str, Any], http: HttpRequest | None, rejection: Any) -> None:
    method, params = body.get("method"), body.get("params")
    if not isinstance(method, str):
        return
    if http is not None and http.context is None:
        http = http._replace(context=otel_context.get_current())
    operation = telemetry.begin_server(
        describe(method, params, body.get("id")), Connection(server=True), meta_of(params), http
    )
    if operation is not None:
        operation.settle(SUCCESS if rejection is None else outcome_of_error(rejection.code, rejection.message))
