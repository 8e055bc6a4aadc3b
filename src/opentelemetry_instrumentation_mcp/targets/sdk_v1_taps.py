"""SDK 1.x: every JSON-RPC message of a session, seen at the two streams it talks through.

The SDK answers some messages by itself, writes others past ``send_request``, and forgets the context of most; only its
streams see each of them. A tap is a transparent proxy in the place of a stream.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import context as otel_context

from .. import propagation
from ..connection import Connection, HttpRequest
from ..guard import contained, report
from ..message import (
    CANCELLED,
    SUCCESS,
    Outcome,
    as_mapping,
    describe,
    meta_of,
    outcome_of_error,
)
from ..operation import Operation, outcome_of_failure, traced
from ..places import LISTINGS
from ..semconv import KNOWN_PROTOCOL_VERSIONS
from ..telemetry import Telemetry
from .transports import endpoint_of, http_request, is_dropped, keep_context

_TAPS = "_otel_mcp_taps"

# The SDK's models keep unknown fields: only their class tells a response with a method from a request.
_REQUEST = "JSONRPCRequest"
_CALLS = frozenset({_REQUEST, "JSONRPCNotification"})
_ANSWERS = frozenset({"JSONRPCResponse", "JSONRPCError"})


# FastMCP 3 makes SERVER spans for these.
_NATIVE_METHODS = LISTINGS | {"tools/call", "prompts/get", "resources/read"}


def _makes_spans(session: Any) -> bool:
    return type(session).__module__.startswith("fastmcp.") and "fastmcp.server.telemetry" in sys.modules


class Taps:
    """The messages under way in one session, both directions."""

    def __init__(self, telemetry: Telemetry, session: Any, *, server: bool) -> None:
        self.telemetry = telemetry
        self.connection = Connection(server=server, endpoint=endpoint_of(session._write_stream, session._read_stream))
        self.native = _NATIVE_METHODS if server and _makes_spans(session) else frozenset[str]()
        """The methods for which the library makes SERVER spans of its own."""
        self.outbound: dict[Any, Operation] = {}
        """Requests somebody waits for in ``send_request``, which also ends them."""
        self._unattended: dict[Any, Operation] = {}
        """Requests written by other ways (SEP-1686 tasks): their response ends them."""
        self.inbound: dict[Any, Operation] = {}
        self._handed_over: dict[int, tuple[Any, Operation]] = {}
        self._notification: Operation | None = None
        self.outer_context: Any = None
        """The receive loop's own context, while that of a message is current in it."""
        self.sees_inbound = False
        """False for the receive loop of a session older than ``instrument()``: it holds on to the bare stream."""

    # ----- inbound, in the session's receive loop: what happens until the next message belongs to the last one

    def arrived(self, item: Any) -> None:
        """A message came off the read stream; its operation becomes current in the receive loop."""
        self.sees_inbound = True
        root: Any = getattr(getattr(item, "message", None), "root", None)
        kind = type(root).__name__
        if kind in _ANSWERS:
            self._answer_arrived(root)
        if kind not in _CALLS:
            return
        method, request_id = root.method, root.id if kind == _REQUEST else None
        operation = self.begin_inbound(method, root.params, request_id, http_request(getattr(item, "metadata", None)))
        if operation is None:
            return
        if request_id is None:
            self._notification = operation
        self.outer_context = otel_context.get_current()
        otel_context.attach(operation.context)

    def begin_inbound(self, method: str, params: Any, request_id: Any, http: HttpRequest | None) -> Operation | None:
        """Begin the SERVER operation of a message; that of a request ends when its answer is written."""
        message = describe(method, params, request_id)
        if http is not None and self.connection.protocol_version is None:
            # A stateless server's connection lasts for one request; what it sends meanwhile is of this revision too.
            self.connection.protocol_version = _claimed_version(http)
        operation = self.telemetry.begin_server(
            message, self.connection, meta_of(params), http, native=method in self.native
        )
        if operation is not None and request_id is not None:
            superseded, self.inbound[request_id] = self.inbound.get(request_id), operation
            if superseded is not None:
                superseded.settle(CANCELLED)
        return operation

    @contained("leave an inbound message")
    def next_awaited(self) -> None:
        """The receive loop is done with the last message: its task gets its own context back."""
        if self.outer_context is not None:
            otel_context.attach(self.outer_context)
            self.outer_context = None
        operation, self._notification = self._notification, None
        if operation is not None:
            operation.settle()

    def _answer_arrived(self, root: Any) -> None:
        # A peer may answer "0" to the request 0; the SDK matches them too.
        if not self._answered(root.id, root) and isinstance(root.id, str):
            self._answered(_as_integer(root.id), root)

    def _answered(self, request_id: Any, root: Any) -> bool:
        operation = self.outbound.get(request_id)
        if operation is not None:
            operation.outcome = self._read_answer(operation, root)
            return True
        operation = self._unattended.pop(request_id, None)
        if operation is not None:
            operation.settle(self._read_answer(operation, root))
        return operation is not None

    def hand_over(self, notification: Any) -> None:
        """The notification being received is handled by another task, which will :meth:`take` it."""
        operation, self._notification = self._notification, None
        if operation is not None:
            # If nobody takes it, the operation goes with the notification, and settles itself then.
            key, pending = id(notification), self._handed_over
            pending[key] = (weakref.ref(notification, lambda _: pending.pop(key, None)), operation)

    def take(self, notification: Any) -> Operation | None:
        """The operation of a notification that was handed over."""
        entry = self._handed_over.pop(id(notification), None)
        return entry[1] if entry is not None else None

    # ----- outbound

    def leaving(self, item: Any) -> Operation | None:
        """A message goes to the write stream; the operation returned ends when the stream has taken it."""
        root: Any = getattr(getattr(item, "message", None), "root", None)
        kind = type(root).__name__
        if kind in _ANSWERS:
            operation = self.inbound.pop(root.id, None)
            if operation is not None:
                operation.outcome = self._read_answer(operation, root)
                keep_context(item, operation.context)
            return operation
        if kind not in _CALLS:
            return None
        method, request_id = root.method, root.id if kind == _REQUEST else None
        operation = self.outbound.get(request_id) if request_id is not None else None
        if request_id is None and is_dropped(self.connection, getattr(item.metadata, "related_request_id", None)):
            return None
        if operation is None:
            operation = self.telemetry.begin_client(describe(method, root.params, request_id), self.connection)
            if operation is not None and request_id is not None:
                self._unattended[request_id] = operation
        if method == "notifications/cancelled":
            self._cancelling(root.params)
        context = operation.context if operation is not None else self.telemetry.context_to_propagate()
        if context:
            params = propagation.with_injected_meta(root.params, context)
            if params is not None:
                root.params = params
            keep_context(item, context, operation if request_id is not None else None)
        return operation if request_id is None else None

    def _read_answer(self, operation: Operation, root: Any) -> Outcome:
        if type(root).__name__ == "JSONRPCError":
            error = root.error
            outcome = outcome_of_error(error.code, error.message)
            return outcome._replace(error_type=CANCELLED.error_type) if operation.outcome is CANCELLED else outcome
        return self.telemetry.read_result(operation, root.result)

    def _cancelling(self, params: Any) -> None:
        operation = self.outbound.get((as_mapping(params) or {}).get("requestId"))
        if operation is not None:
            operation.outcome = CANCELLED

    # ----- the end

    @contained("end the messages of a closed session")
    def close(self) -> None:
        """The session is over: what was not answered never will be."""
        self.next_awaited()
        for operation in (*self.inbound.values(), *self._unattended.values()):
            operation.settle(operation.outcome or CANCELLED)
        self.inbound.clear()
        self._unattended.clear()
        self._handed_over.clear()


def _as_integer(request_id: Any) -> Any:
    is_integer = isinstance(request_id, str) and request_id.isdecimal() and len(request_id) < 20
    return int(request_id) if is_integer else request_id


def _claimed_version(http: HttpRequest) -> str | None:
    """The revision in the HTTP header, which stateless servers have instead of a negotiation."""
    for name, value in http.headers:
        if name == b"mcp-protocol-version":
            version = value.decode("latin-1")
            return version if version in KNOWN_PROTOCOL_VERSIONS else None
    return None


def taps_of(telemetry: Telemetry, session: Any) -> Taps:
    """The taps of a session, put in place when first asked for; they serve the telemetry that asked last."""
    taps: Taps | None = getattr(session, _TAPS, None)
    if taps is None:
        taps = Taps(telemetry, session, server=is_server_session(session))
        session._read_stream = _TappedStream(session._read_stream, taps)
        session._write_stream = _TappedStream(session._write_stream, taps)
        setattr(session, _TAPS, taps)
    taps.telemetry = telemetry
    return taps


def taps_while_recording(telemetry: Telemetry, session: Any) -> Taps | None:
    """The taps of a session, if it has any or there is something to record: without, its streams are left alone."""
    if _TAPS in session.__dict__ or (telemetry.records() and _is_a(session, "BaseSession")):
        return taps_of(telemetry, session)
    return None  # so is what a test gives to a server in place of a session: it has no streams


def misses_nothing(telemetry: Telemetry, session: Any) -> bool:
    """Whether the taps of a session see what it receives, or there are none and none are wanted."""
    taps: Taps | None = getattr(session, _TAPS, None)
    if taps is None:
        return not telemetry.records()
    taps.telemetry = telemetry
    return taps.sees_inbound


def is_server_session(session: Any) -> bool:
    """Whether a session is a server's."""
    return _is_a(session, "ServerSession")


def _is_a(session: Any, class_name: str) -> bool:
    """Whether a class of that name is among those of ``session``: the library is not imported for the question."""
    return any(kind.__name__ == class_name for kind in type(session).__mro__)


def _given(_: Any, args: tuple[Any, ...], __: Mapping[str, Any]) -> Operation:
    operation: Operation = args[1]
    return operation


def _outcome_on_wire(operation: Operation, _: Any) -> Outcome:
    return operation.outcome or SUCCESS


@traced("trace an outbound message", _given, _outcome_on_wire, outcome_of_failure).build
def _send_within(stream: Any, item: Any, operation: Operation) -> Any:
    """Send ``item`` as the end of ``operation``."""
    return stream.send(item)


class _TappedStream:
    """A stream of a session that shows its taps what passes; in everything else the stream itself."""

    # A general proxy would do the same; this one is on the way of every message.
    __slots__ = ("__weakref__", "_otel_mcp_stream", "_otel_mcp_taps")

    _otel_mcp_stream: Any
    _otel_mcp_taps: Taps

    def __init__(self, stream: Any, taps: Taps) -> None:
        object.__setattr__(self, "_otel_mcp_stream", stream)
        object.__setattr__(self, "_otel_mcp_taps", taps)

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # nobody sets it
        return self._otel_mcp_stream.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._otel_mcp_stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._otel_mcp_stream, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._otel_mcp_stream, name)

    def __dir__(self) -> Any:
        return dir(self._otel_mcp_stream)

    def __repr__(self) -> str:
        return repr(self._otel_mcp_stream)

    def __enter__(self) -> Any:
        self._otel_mcp_stream.__enter__()
        return self

    def __exit__(self, *exception: Any) -> Any:
        return self._otel_mcp_stream.__exit__(*exception)

    async def __aenter__(self) -> Any:
        await self._otel_mcp_stream.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> Any:
        return await self._otel_mcp_stream.__aexit__(*exception)

    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return _receive(self._otel_mcp_taps, self._otel_mcp_stream.__anext__)

    def receive(self) -> Any:
        return _receive(self._otel_mcp_taps, self._otel_mcp_stream.receive)

    def send(self, item: Any) -> Any:
        stream, taps, operation = self._otel_mcp_stream, self._otel_mcp_taps, None
        if taps.telemetry.active:
            try:
                operation = taps.leaving(item)
            except Exception as error:
                report("trace an outbound message", error)
        return stream.send(item) if operation is None else _send_within(stream, item, operation)


async def _receive(taps: Taps, receive: Callable[[], Any]) -> Any:
    if taps.outer_context is not None:
        taps.next_awaited()
    item = await receive()
    if taps.telemetry.active:
        try:
            taps.arrived(item)
        except Exception as error:
            report("trace an inbound message", error)
    return item
