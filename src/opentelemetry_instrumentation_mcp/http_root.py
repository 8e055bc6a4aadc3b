"""The SERVER span of an HTTP request where nothing else makes it, by the stable HTTP semantic conventions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from . import propagation, semconv
from .connection import http_request_of
from .guard import contained
from .internal import Internal, begin
from .message import Outcome

if TYPE_CHECKING:
    from .telemetry import Telemetry

REQUEST_METHOD: Final = "http.request.method"
ROUTE: Final = "http.route"
STATUS_CODE: Final = "http.response.status_code"
SCHEME: Final = "url.scheme"
PATH: Final = "url.path"
USER_AGENT: Final = "user_agent.original"

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})


_SCOPE: Final = otel_context.create_key("otel-mcp-http-scope")


def has_live_span(scope: Mapping[str, Any]) -> bool:
    """Whether a span of this process that has not ended is the current one, be it sampled or not, for this request.

    What is current may be of another request: a server can begin one in the context of that before it on the same
    connection, and a program can make requests to itself.
    """
    served: Any = otel_context.get_value(_SCOPE)
    if served is not None and served is not scope:
        return False
    span = trace.get_current_span()
    context = span.get_span_context()
    # One that is not sampled does not tell whether it has ended.
    is_open = span.is_recording() or isinstance(span, trace.NonRecordingSpan)
    return context.is_valid and not context.is_remote and is_open


class HttpRoot:
    """The span of one request, and the status it was answered with."""

    __slots__ = ("internal", "status")

    def __init__(self, internal: Internal) -> None:
        self.internal = internal
        self.status: int | None = None

    @contained("see an HTTP response")
    def see(self, event: Mapping[str, Any]) -> None:
        """Take note of an ASGI event on its way to the client."""
        if event.get("type") == "http.response.start" and isinstance(event.get("status"), int):
            self.status = event["status"]
            self.internal.tell({STATUS_CODE: self.status})

    def outcome(self, error: Outcome | None = None) -> Outcome:
        """How the request ended: by what was raised if no answer was begun; answers from 500 on are errors."""
        if error is not None and self.status is None:
            return error
        return Outcome(str(self.status)) if self.status is not None and self.status >= 500 else Outcome()


@contained("begin the span of an HTTP request")
def begin_http_root(telemetry: Telemetry, scope: Mapping[str, Any], route: str) -> HttpRoot | None:
    """Begin the span of the request of an ASGI ``scope`` (``http`` or ``websocket``); None if nothing is recorded.

    Args:
        route: the path with placeholders for what varies.
    """
    is_websocket = scope.get("type") == "websocket"
    method = "GET" if is_websocket else str(scope.get("method", ""))
    known = method if method in _METHODS else semconv.OTHER
    http = http_request_of(scope, None, None)
    host, port = _authority(scope)
    attributes = {
        REQUEST_METHOD: known,
        ROUTE: route,
        SCHEME: {"ws": "http", "wss": "https"}.get(scope.get("scheme", "http"), scope.get("scheme", "http")),
        PATH: telemetry.telling.disclosure.of_peer(PATH, scope.get("path")),
        semconv.NETWORK_PROTOCOL_NAME: "websocket" if is_websocket else None,
        semconv.NETWORK_PROTOCOL_VERSION: http.http_version,
        semconv.SERVER_ADDRESS: host,
        semconv.SERVER_PORT: port,
        semconv.CLIENT_ADDRESS: http.client_address,
        semconv.CLIENT_PORT: http.client_port,
        USER_AGENT: telemetry.telling.disclosure.of_peer(USER_AGENT, _header(http.headers, b"user-agent")),
    }
    policy = propagation.PARENT if propagation.is_own(http.headers) else telemetry.config.remote_parent
    with_nothing = otel_context.attach(Context())  # what is current is not of this request
    try:
        context, links = propagation.receive(None, http, policy)
    finally:
        otel_context.detach(with_nothing)
    context = otel_context.set_value(_SCOPE, scope, context)
    name = f"{'HTTP' if known == semconv.OTHER else known} {route}"
    internal = begin(telemetry, name, attributes, parent=context, kind=SpanKind.SERVER, links=links)
    return HttpRoot(internal) if internal is not None else None


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    for key, value in headers:
        if key.lower() == name:
            return value.decode("latin-1")
    return None


def _authority(scope: Mapping[str, Any]) -> tuple[str | None, int | None]:
    server = scope.get("server") or (None, None)
    return server[0], server[1]
