"""Transports of both SDK generations: what they connect to, and which HTTP request carries which message."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opentelemetry import context as otel_context

from .. import propagation
from ..connection import Connection, Endpoint, HttpRequest, http_request_of
from ..guard import contained
from ..message import as_mapping, is_cancellation, outcome_of_exception
from ..operation import Operation
from ..telemetry import Telemetry
from .arguments import argument

_ENDPOINT = "_otel_mcp_endpoint"
_CONTEXT = "_otel_mcp_context"
_OPERATION = "_otel_mcp_operation"
_SCOPE_KEY = "opentelemetry_instrumentation_mcp"
_GET_STREAM = "_GET_stream"
_MAX_WRAPPERS = 8

# Set while the POST of one outbound message is prepared: its headers are to carry that message's context.
_posting: ContextVar[bool] = ContextVar("otel_mcp_posting", default=False)


# ----- which transport is behind a stream


def _keeper(stream: Any) -> Any:
    """The innermost of streams that wrap one another: those of SDK 2.x have slots, and users wrap them again."""
    for _ in range(_MAX_WRAPPERS):
        inner = getattr(stream, "_inner", None)
        if inner is None:
            break
        stream = inner
    return stream


def set_endpoint(stream: Any, endpoint: Endpoint) -> Endpoint:
    """Remember what is behind a stream handed to a session; returns the description that counts."""
    keeper = _keeper(stream)
    known: Endpoint | None = getattr(keeper, _ENDPOINT, None)
    if known is None:
        # A user's stream may have no place for it: then only the session that asks knows its endpoint.
        with suppress(AttributeError, TypeError):
            setattr(keeper, _ENDPOINT, endpoint)
        return endpoint
    known.become(endpoint)
    return known


def endpoint_of(write_stream: Any, read_stream: Any) -> Endpoint:
    """What is behind the streams of a session; an empty description, to be filled, if that is not known yet."""
    for stream in (write_stream, read_stream):
        endpoint: Endpoint | None = getattr(_keeper(stream), _ENDPOINT, None)
        if endpoint is not None:
            return endpoint
    return set_endpoint(write_stream, Endpoint()) if write_stream is not None else Endpoint()


def observe_pipe(telemetry: Telemetry) -> Any:
    """``stdio_client`` and ``stdio_server``."""

    def observe(streams: Any, generator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for stream in streams[:2]:
            set_endpoint(stream, Endpoint("pipe"))

    return observe


def observe_websocket_client(telemetry: Telemetry) -> Any:
    """``websocket_client`` of SDK 1.x."""

    def observe(streams: Any, generator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        set_endpoint(streams[1], Endpoint.of_url(str(argument(args, kwargs, 0, "url")), "websocket"))

    return observe


def observe_websocket_server(telemetry: Telemetry) -> Any:
    """``websocket_server`` of SDK 1.x."""

    def observe(streams: Any, generator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        set_endpoint(streams[0], Endpoint("tcp", "websocket"))

    return observe


class _FixedSession:
    """A session id that is known once and for all."""

    __slots__ = ("session_id",)

    def __init__(self, session_id: str | None) -> None:
        self.session_id = session_id


def observe_sse_client(telemetry: Telemetry) -> Any:
    """``sse_client``: all its POSTs are sent by one task of its own, by closures no patch can reach.

    What those closures hold is read from the suspended generator: the endpoint (with the session id), the stream they
    read from (SDK 1.x: without the sender's context, so the message's context is made current in that task), and the
    HTTP client (whose request hook adds the context headers).
    """

    def observe(streams: Any, generator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        variables: dict[str, Any] = dict(generator.ag_frame.f_locals)
        query = parse_qs(urlsplit(str(variables.get("endpoint_url", ""))).query)
        session_ids = query.get("session_id") or query.get("sessionId") or [None]
        endpoint = Endpoint.of_url(str(argument(args, kwargs, 0, "url")), "http", _FixedSession(session_ids[0]))
        set_endpoint(streams[1], endpoint)
        state = getattr(streams[1], "_state", None)
        for value in variables.values():
            if state is not None and value is not streams[1] and getattr(value, "_state", None) is state:
                make_context_follow(value)
            hooks = as_mapping(getattr(value, "event_hooks", None))  # of a caller's mock it is another mock
            if hooks is not None:
                hooks["request"].append(_inject_into_post(telemetry))

    return observe


def _inject_into_post(telemetry: Telemetry) -> Any:
    @contained("inject into HTTP headers")
    def inject(request: Any) -> None:
        if telemetry.active and request.method == "POST":
            written: dict[str, Any] = {}
            if propagation.inject(written):
                request.headers.update(written)

    async def hook(request: Any) -> None:
        inject(request)

    return hook


def make_context_follow(receiver: Any) -> None:
    """Let the task that receives from ``receiver`` always run in the context of the message it received last."""
    receive = receiver.receive

    async def receive_with_context() -> Any:
        item = await receive()
        follow(item)
        return item

    @contained("follow the context of a message")
    def follow(item: Any) -> None:
        context = context_of(item)
        if context is not None:
            otel_context.attach(context)

    receiver.receive = receive_with_context


# ----- the context a message was sent in (SDK 1.x: its transports send from a task of their own)


def keep_context(session_message: Any, context: Any, operation: Operation | None = None) -> None:
    """Remember the context in which a message was given to its transport, and the operation it is of."""
    setattr(session_message, _CONTEXT, context)
    if operation is not None:
        setattr(session_message, _OPERATION, operation)


def context_of(session_message: Any) -> Any:
    """The context remembered by :func:`keep_context`, None if there is none."""
    return getattr(session_message, _CONTEXT, None)


def post_message(telemetry: Telemetry) -> Any:
    """``StreamableHTTPTransport._handle_post_request``: the POST belongs to the message it carries."""

    @contained("find the context of a POST")
    def find_context(request_context: Any) -> Any:
        return context_of(getattr(request_context, "session_message", None))

    async def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        context = find_context(argument(args, kwargs, 0, "ctx"))
        posting = _posting.set(True)
        token = otel_context.attach(context) if context is not None else None
        try:
            result = await wrapped(*args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as error:
            _leave(token, posting)
            note_failure(argument(args, kwargs, 0, "ctx"), error)
            raise
        _leave(token, posting)
        return result

    @contained("note why a POST failed")
    def note_failure(request_context: Any, error: BaseException) -> None:
        operation = getattr(getattr(request_context, "session_message", None), _OPERATION, None)
        # Its sender is cancelled, and does not hear of the reason.
        if operation is not None and operation.outcome is None and not is_cancellation(error):
            operation.outcome = outcome_of_exception(error)

    def _leave(token: Any, posting: Any) -> None:
        if token is not None:
            otel_context.detach(token)
        _posting.reset(posting)

    return wrapper


def is_posting() -> bool:
    """Whether the HTTP request that is being made carries a message, whose context is in its headers already."""
    return _posting.get()


def prepare_headers(telemetry: Telemetry) -> Any:
    """The method that builds the headers of a POST; a fresh dictionary, which HTTP instrumentations overwrite."""

    @contained("inject into HTTP headers")
    def add_context(headers: dict[str, Any]) -> None:
        if _posting.get():
            propagation.inject(headers)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        headers = wrapped(*args, **kwargs)
        add_context(headers)
        return headers

    return wrapper


def write_posts(telemetry: Telemetry) -> Any:
    """``StreamableHTTPTransport.post_writer``: ties the stream a session writes to, to this transport."""

    @contained("recognise a streamable HTTP transport")
    def recognise(transport: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        endpoint = Endpoint.of_url(str(transport.url), "http", transport)
        setattr(transport, _ENDPOINT, set_endpoint(argument(args, kwargs, 3, "write_stream"), endpoint))

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        recognise(instance, args, kwargs)
        return wrapped(*args, **kwargs)

    return wrapper


def see_response(telemetry: Telemetry) -> Any:
    """``StreamableHTTPTransport._handle_json_response`` and ``_handle_sse_response``: which HTTP version it is."""

    @contained("read the HTTP version")
    def learn(transport: Any, response: Any) -> None:
        endpoint = getattr(transport, _ENDPOINT, None)
        if endpoint is not None and endpoint.http_version is None:
            endpoint.http_version = str(response.http_version).removeprefix("HTTP/")

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        learn(instance, argument(args, kwargs, 0, "response"))
        return wrapped(*args, **kwargs)

    return wrapper


# ----- servers: the HTTP request that carried a message


def serve_post(telemetry: Telemetry) -> Any:
    """``StreamableHTTPServerTransport._handle_post_request``: keep this request's context beside the message."""

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _keep_request(argument(args, kwargs, 0, "scope"), getattr(instance, "mcp_session_id", None), instance)
        return wrapped(*args, **kwargs)

    return wrapper


def serve_sse_post(telemetry: Telemetry) -> Any:
    """``SseServerTransport.handle_post_message``: the same; the session id is in the query."""

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scope = argument(args, kwargs, 0, "scope")
        _keep_request(scope, _session_in_query(scope))
        return wrapped(*args, **kwargs)

    return wrapper


@contained("read the query of an SSE message")
def _session_in_query(scope: Any) -> str | None:
    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_id")
    return values[0] if values else None


@contained("keep the context of an HTTP request")
def _keep_request(scope: Any, session_id: str | None, transport: Any = None) -> None:
    scope[_SCOPE_KEY] = http_request_of(scope, otel_context.get_current(), session_id, transport)


def was_seen_by_sdk(scope: Mapping[str, Any]) -> bool:
    """Whether the request of an ASGI ``scope`` has reached the SDK, which then sees the message in it."""
    return _SCOPE_KEY in scope


def is_dropped(connection: Connection, related_request_id: Any) -> bool:
    """Whether a server's notification goes nowhere: its streamable HTTP transport has no stream to put it on."""
    transport = connection.last_http.transport if connection.server and connection.last_http is not None else None
    streams = getattr(transport, "_request_streams", None)
    if streams is None or getattr(transport, "_event_store", None) is not None:
        return False
    if related_request_id is None:
        return _GET_STREAM not in streams
    return bool(getattr(transport, "is_json_response_enabled", False)) or str(related_request_id) not in streams


def http_request(metadata: Any) -> HttpRequest | None:
    """The HTTP request behind the metadata of an inbound message, None on other transports."""
    request = getattr(metadata, "request_context", None)
    return http_request_behind(request) if request is not None else None


def http_request_behind(request: Any) -> HttpRequest | None:
    """What is known of a Starlette request: what was kept when its POST came in, else its scope."""
    scope = getattr(request, "scope", None)
    if scope is None:
        return None
    kept: HttpRequest | None = scope.get(_SCOPE_KEY)
    if kept is not None:
        return kept
    return http_request_of(scope, None, None) if scope.get("type") == "http" else None
