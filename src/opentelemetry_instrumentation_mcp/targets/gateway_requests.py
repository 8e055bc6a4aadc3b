"""What the gateway is asked: HTTP requests, and the MCP messages that come to ``/rpc`` and past the SDK."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..guard import contained
from ..hooks import Around
from ..http_root import HttpRoot, begin_http_root, has_live_span
from ..internal import around
from ..message import Outcome, as_mapping, outcome_of_error
from ..operation import Operation, traced
from ..telemetry import Telemetry
from .gateway_facts import json_of, native_tracing, outcome_of, stands_down
from .gateway_sessions import begin_message, note_message, outcome_of_answer

# JSON-RPC codes with which the gateway answers if a plugin forbids a call, and if one fails.
_VIOLATION_CODE: Final = -32602
_PLUGIN_FAILURE_CODE: Final = -32603

_ROUTES: Final = frozenset({"/rpc", "/mcp", "/mcp/sse", "/mcp/message", "/sse", "/message", "/ws"})
_SERVER_ROUTE: Final = re.compile(r"/servers/[^/]+/(mcp|sse|message)")
_INTERNAL_ROUTE: Final = re.compile(r"/_internal/mcp/[a-zA-Z]+(/[a-zA-Z]+)*")
_OBJECT_ROUTES: Final = (
    (re.compile(r"/a2a/[^/]+/invoke"), "/a2a/{agent_name}/invoke"),
    (re.compile(r"/resources/[^/]+"), "/resources/{resource_id}"),
    (re.compile(r"/prompts/[^/]+"), "/prompts/{prompt_id}"),
)
_MAX_ERROR_BODY: Final = 65_536


# ----- messages


def handle_rpc(telemetry: Telemetry) -> Around:
    """``_handle_rpc_authenticated``: one JSON-RPC message in the body of an HTTP request."""

    def start(request: Any, _: tuple[Any, ...], __: Mapping[str, Any]) -> Operation | None:
        body = as_mapping(json_of(getattr(request, "_body", None)))
        note_message()
        return begin_message(telemetry, body, request.scope, request.headers) if body is not None else None

    def read_result(operation: Operation, response: Any) -> Outcome:
        answer = as_mapping(response)
        if answer is None:
            content = getattr(response, "body", b"")
            answer = as_mapping(json_of(content)) if len(content) <= _MAX_ERROR_BODY else None
        return outcome_of_answer(telemetry, operation, answer or {})

    def read_error(_: Operation, error: BaseException) -> Outcome:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "PluginViolationError" in kinds:
            code = getattr(getattr(error, "violation", None), "mcp_error_code", None)
            return outcome_of_error(code or _VIOLATION_CODE, None)
        if "PluginError" in kinds:
            return outcome_of_error(_PLUGIN_FAILURE_CODE, None)
        return outcome_of(error)

    spanned = traced("describe a message of /rpc", start, read_result, read_error, telemetry)

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        method = spanned.build(call)

        async def handler(request: Any, /, *args: Any, **kwargs: Any) -> Any:
            if telemetry.active and telemetry.records():
                # The request keeps its body at the first look. A failure comes again, to the gateway's own look.
                with suppress(Exception):
                    await request.body()
            return await method(request, *args, **kwargs)

        return handler

    return Around(build)


# ----- HTTP requests


def route_of(path: str) -> str | None:
    """The route that ``path`` belongs to, if messages come there, or what is about as much as a message."""
    normal = path.rstrip("/")
    if normal in _ROUTES:
        return normal
    if found := _SERVER_ROUTE.fullmatch(normal):
        return f"/servers/{{server_id}}/{found[1]}"
    for pattern, route in _OBJECT_ROUTES:
        if pattern.fullmatch(normal):
            return route
    return normal if _INTERNAL_ROUTE.fullmatch(normal) else None


def serve(telemetry: Telemetry) -> Around:
    """``FastAPI.__call__``: the HTTP request, if nothing else makes a span of it."""

    @contained("see an HTTP request")
    def start(app: Any, scope: Mapping[str, Any]) -> HttpRoot | None:
        if scope.get("type") not in ("http", "websocket") or not telemetry.records():
            return None
        path = str(scope.get("path", ""))
        route = route_of(path.removeprefix(str(scope.get("root_path") or "")))
        if route is None or has_live_span(scope) or _has_own_span(app, scope) or stands_down(telemetry):
            return None
        return begin_http_root(telemetry, scope, route)

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, scope: Any, receive: Any, send: Any) -> None:
            root = start(self, scope) if telemetry.active else None
            if root is None:
                await call(self, scope, receive, send)
                return

            async def seen(event: Any) -> None:
                root.see(event)
                await send(event)

            with contextmanager(around)(root.internal, lambda error: root.outcome(outcome_of(error)), None):
                await call(self, scope, receive, seen)
                root.internal.settle(root.outcome())

        return method

    return Around(build)


def _has_own_span(app: Any, scope: Mapping[str, Any]) -> bool:
    """Whether FastAPI, or another instrumentation of it, makes the span of this request."""
    if "fastapi.telemetry" in scope or getattr(app, "_is_instrumented_by_opentelemetry", False):
        return True
    native = getattr(app, "_native_telemetry", None)
    return native is not None and bool(native.config.get("tracing")) and bool(native.enabled())


def serve_with_native_span(telemetry: Telemetry) -> Around:
    """``OpenTelemetryRequestMiddleware.__call__``: makes a second root, beside a span that the request has already."""

    @contained("see a second span of an HTTP request")
    def is_second(scope: Mapping[str, Any]) -> bool | None:
        return telemetry.active and native_tracing() and not telemetry.keeps_native_spans and has_live_span(scope)

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, scope: Any, receive: Any, send: Any) -> None:
            await (self.app(scope, receive, send) if is_second(scope) else call(self, scope, receive, send))

        return method

    return Around(build)
