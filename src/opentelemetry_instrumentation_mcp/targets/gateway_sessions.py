"""Messages of the gateway's own sessions.

Some of streamable HTTP it answers before the SDK sees them. Those of SSE it posts to itself, from the task that serves
the stream, which may be in another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

from .. import relay
from ..connection import Connection, http_request_of
from ..guard import contained
from ..hooks import Around
from ..message import CANCELLED, Outcome, as_mapping, describe, meta_of, outcome_of_error
from ..operation import Operation, current_context, within
from ..semconv import KNOWN_PROTOCOL_VERSIONS
from ..telemetry import Telemetry
from .arguments import argument, with_argument
from .gateway_facts import json_of, keep_correlation_id
from .transports import was_seen_by_sdk

# Beside the fields of JSON-RPC in a message on its way between two tasks of the gateway; it never leaves there.
_CARRIER: Final = "opentelemetry_instrumentation_mcp"
_MAX_BODY: Final = 1_048_576
# With this code the gateway answers a request that was cancelled, or whose client has gone.
_CANCELLED: Final = "-32800"
_ANSWERED: Final = frozenset({200, 202})


class _Post:
    """A POST that is being served, and the SERVER span of the message in it if nobody else makes that."""

    def __init__(self, telemetry: Telemetry, scope: Mapping[str, Any]) -> None:
        self.telemetry = telemetry
        self.scope: Mapping[str, Any] = scope
        self.body = bytearray()
        self.answer = bytearray()
        self.seen = False
        self.operation: Operation | None = None

    @contained("see the body of a request")
    def receive(self, event: Mapping[str, Any]) -> None:
        """Take note of what comes from the client."""
        if event.get("type") != "http.request" or len(self.body) > _MAX_BODY:
            return
        if not self.seen and not was_seen_by_sdk(self.scope):
            self.body += event.get("body", b"")

    @contained("see a message that is answered before the SDK sees it")
    def send(self, event: Mapping[str, Any]) -> None:
        """Take note of what goes to the client."""
        if event.get("type") == "http.response.start":
            is_answer = event.get("status") in _ANSWERED
            if is_answer and not self.seen and not was_seen_by_sdk(self.scope) and len(self.body) <= _MAX_BODY:
                self._begin()
        elif self.operation is not None and len(self.answer) <= _MAX_BODY:
            self.answer += event.get("body", b"")

    def _begin(self) -> None:
        body = as_mapping(json_of(self.body))
        if body is not None:
            pairs = self.scope.get("headers", ())
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
            self.operation = begin_message(self.telemetry, body, self.scope, headers)

    @contained("end a message that was answered before the SDK saw it")
    def end(self) -> None:
        """The POST has been served."""
        if self.operation is not None:
            answer = as_mapping(json_of(self.answer)) or {}
            self.operation.settle(outcome_of_answer(self.telemetry, self.operation, answer))

    def forget(self) -> None:
        """Keep nothing: a session that this POST began has this object in its context, for as long as it lasts."""
        self.body, self.answer, self.scope, self.operation = bytearray(), bytearray(), {}, None


_post: ContextVar[_Post | None] = ContextVar("otel_mcp_gateway_post", default=None)


def note_message() -> None:
    """A message of the POST that is being served gets its span elsewhere."""
    post = _post.get()
    if post is not None:
        post.seen = True


def begin_message(
    telemetry: Telemetry, body: Mapping[str, Any], scope: Mapping[str, Any], headers: Mapping[str, str]
) -> Operation | None:
    """Begin the SERVER span of the JSON-RPC message ``body`` of an HTTP request; None if it is none, or a response."""
    method, params, request_id = body.get("method"), body.get("params"), body.get("id")
    if not isinstance(method, str) or not method.strip():
        return None
    if isinstance(request_id, bool) or not isinstance(request_id, (str, int, type(None))):
        return None
    connection = Connection(server=True)
    version = headers.get("mcp-protocol-version")
    connection.protocol_version = version if version in KNOWN_PROTOCOL_VERSIONS else None
    # Only what one worker of the gateway tells another is known to be a session.
    is_forwarded = str(scope.get("path", "")).startswith("/_internal/")
    session_id = headers.get("x-mcp-session-id") if is_forwarded else None
    http = http_request_of(scope, current_context(), session_id)
    return telemetry.begin_server(describe(method, params, request_id), connection, meta_of(params), http)


def outcome_of_answer(telemetry: Telemetry, operation: Operation, answer: Mapping[str, Any]) -> Outcome:
    """The outcome that a JSON-RPC response tells."""
    error = as_mapping(answer.get("error"))
    if error is not None:
        outcome = outcome_of_error(error.get("code"), error.get("message"))
        return outcome._replace(error_type=CANCELLED.error_type) if outcome.status_code == _CANCELLED else outcome
    return telemetry.read_result(operation, answer.get("result"))


# ----- streamable HTTP


def handle_streamable_http(telemetry: Telemetry) -> Around:
    """``SessionManagerWrapper.handle_streamable_http``: some messages it answers itself."""

    @contained("see a POST")
    def begin(scope: MutableMapping[str, Any]) -> _Post | None:
        if not telemetry.active or not telemetry.records() or scope.get("method") != "POST":
            return None
        keep_correlation_id(scope)
        post = _Post(telemetry, scope)
        _post.set(post)
        return post

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, scope: Any, receive: Any, send: Any) -> Any:
            post = begin(scope)
            if post is None:
                return await call(self, scope, receive, send)

            async def receiving() -> Any:
                event = await receive()
                post.receive(event)
                return event

            async def sending(event: Any) -> None:
                post.send(event)
                await send(event)

            try:
                return await call(self, scope, receiving, sending)
            finally:
                post.end()
                post.forget()

        return method

    return Around(build)


# ----- SSE


def broadcast(telemetry: Telemetry) -> Around:
    """``SessionRegistry.broadcast``: a message posted to an SSE session, on its way to the task that serves it."""

    @contained("see a message of an SSE session")
    def with_context(message: Any) -> Any:
        body = as_mapping(message)
        if body is None or "method" not in body:
            return None
        carrier = relay.departing_within(telemetry)
        return {**body, _CARRIER: carrier} if carrier else None

    @contained("see a notification of an SSE session")
    def note(message: Any) -> None:
        body = as_mapping(message)
        # Notifications end here: the gateway answers requests only.
        if body is not None and "method" in body and "id" not in body:
            operation = begin_message(telemetry, body, {}, {})
            if operation is not None:
                operation.settle()

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if telemetry.active:
                message = argument(args, kwargs, 1, "message")
                note(message)
                carrying = with_context(message)
                if carrying is not None:
                    args, kwargs = with_argument(args, kwargs, 1, "message", carrying)  # type: ignore[assignment]
            return await call(self, *args, **kwargs)

        return method

    return Around(build)


def generate_response(telemetry: Telemetry) -> Around:
    """``SessionRegistry.generate_response``: the gateway posts the message to itself, and answers what it gets."""

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            # Also when switched off: what was on its way then must not be seen by the gateway.
            message = argument(args, kwargs, 0, "message")
            body = as_mapping(message)
            if body is None or _CARRIER not in body:
                return await call(self, *args, **kwargs)
            bare = {key: value for key, value in body.items() if key != _CARRIER}
            args, kwargs = with_argument(args, kwargs, 0, "message", bare)  # type: ignore[assignment]
            carrier = as_mapping(body[_CARRIER]) or {}
            return await within(relay.arriving_within(telemetry, carrier), call, (self, *args), kwargs)

        return method

    return Around(build)
