"""Plugins in other processes: the trace goes on in the plugin server.

Over MCP their calls are messages, which have spans. Over gRPC the context is metadata of the call. What goes over a
Unix socket is one protobuf message and nothing beside it: there the context is a field that the message does not
declare. Parsers skip such a field: a server without us is sent what it understands, and no plugin ever sees it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .. import relay
from ..guard import contained
from ..hooks import Around
from ..message import as_mapping
from ..operation import within
from ..proxy import FunctionWrapper
from ..telemetry import Telemetry
from .arguments import argument, with_argument

CONTEXT_FIELD: Final = 0x1C0FFEE
"""The number of the undeclared field: far above those that a schema counts up from 1, below the largest allowed."""

# wrapt keeps attributes of this prefix to the wrapper: whose it is.
_SERVED: Final = "_self_otel_mcp_telemetry"

_LENGTH_DELIMITED: Final = 2
_FIXED: Final = {1: 8, 5: 4}
_VARINT: Final = 0
_MAX_VARINT_BYTES: Final = 10
_MAX_CONTEXT: Final = 16384
# The framework refuses messages of more than 16 MiB: one that is almost as long goes without a context.
_MAX_MESSAGE: Final = 16 * 1024 * 1024 - 2 * _MAX_CONTEXT


# ----- gRPC


def call_over_grpc(telemetry: Telemetry) -> Any:
    """``GrpcExternalPlugin.invoke_hook``: calls a method of a stub, which exists per connection."""

    def with_context(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        metadata = _metadata(telemetry, kwargs.get("metadata"))
        return wrapped(*args, **kwargs) if metadata is None else wrapped(*args, **{**kwargs, "metadata": metadata})

    @contained("let a gRPC call carry the trace")
    def prepare(plugin: Any) -> None:
        stub: Any = getattr(plugin, "_stub", None)
        method = getattr(stub, "InvokeHook", None)
        served = getattr(method, _SERVED, None)
        if method is None or served is telemetry:
            return
        if served is not None:
            method = method.__wrapped__  # what an instrumentation that was switched off has left
        stub.InvokeHook = FunctionWrapper(method, with_context, enabled=telemetry.is_active)
        setattr(stub.InvokeHook, _SERVED, telemetry)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        prepare(instance)
        return wrapped(*args, **kwargs)

    return wrapper


@contained("write a trace context into gRPC metadata")
def _metadata(telemetry: Telemetry, metadata: Any) -> tuple[tuple[str, Any], ...] | None:
    """``metadata`` with the current context; None to leave it. An instrumentation of gRPC writes its own over it."""
    given: tuple[tuple[str, Any], ...] = tuple(metadata or ())
    names = {str(pair[0]).lower() for pair in given}
    # gRPC takes lower-case names only, and printable ASCII.
    carrier = {key.lower(): value for key, value in (relay.departing(telemetry) or {}).items()}
    if not carrier or names & carrier.keys():
        return None
    return (*given, *((key, value) for key, value in carrier.items() if value.isascii() and value.isprintable()))


def serve_over_grpc(telemetry: Telemetry) -> Around:
    """``GrpcPluginServicer.InvokeHook``: a call has arrived."""

    @contained("read the trace context of a gRPC call")
    def context_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        metadata: Iterable[Any] = argument(args, kwargs, 1, "context").invocation_metadata() or ()
        pairs: dict[str, Any] = {str(name): value for name, value in metadata}
        return relay.arriving(telemetry, pairs)

    return _served(telemetry, context_of)


# ----- Unix sockets


def call_over_socket(telemetry: Telemetry) -> Any:
    """``UnixSocketExternalPlugin._send_request``: the message is complete."""

    @contained("write a trace context into a message")
    def with_context(request: Any) -> Any:
        carrier = relay.departing(telemetry)
        if not carrier or request.ByteSize() > _MAX_MESSAGE:
            return None
        text = json.dumps(carrier).encode()
        if len(text) > _MAX_CONTEXT:
            return None
        message = type(request)()
        message.CopyFrom(request)
        message.MergeFromString(_field(CONTEXT_FIELD, text))
        return message

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        message = with_context(argument(args, kwargs, 0, "request"))
        if message is not None:
            args, kwargs = with_argument(args, kwargs, 0, "request", message)  # type: ignore[assignment]
        return wrapped(*args, **kwargs)

    return wrapper


def serve_over_socket(telemetry: Telemetry) -> Around:
    """``UnixSocketPluginServer._handle_message``: a message has arrived, still in its encoded form."""

    @contained("read the trace context of a message")
    def context_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return relay.arriving(telemetry, _carrier_in(argument(args, kwargs, 0, "data")))

    return _served(telemetry, context_of)


def _carrier_in(data: bytes) -> Mapping[str, Any]:
    """What a sender wrote into the undeclared field; anybody may have sent the message."""
    try:
        text = _find_field(data, CONTEXT_FIELD)
        return (as_mapping(json.loads(text)) if text and len(text) <= _MAX_CONTEXT else None) or {}
    except (ValueError, RecursionError):
        return {}


def _served(telemetry: Telemetry, context_of: Callable[..., Any]) -> Around:
    """What takes the place of a coroutine method that runs in the context of the call it serves."""

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            context = context_of(args, kwargs) if telemetry.active else None
            return await within(context, call, (self, *args), kwargs)

        return method

    return Around(build)


# ----- the wire format of protobuf, as far as it is needed to find a field


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _find_field(data: bytes, number: int) -> bytes | None:
    """The last length-delimited field of that number at the top of a message; None if there is none.

    Raises:
        ValueError: ``data`` is no message.
    """
    found, at = None, 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, at = _read_varint(data, at)
            if tag >> 3 == number:
                found = data[at : at + length]
            at += length
        elif kind == _VARINT:
            _, at = _read_varint(data, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= len(data):
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("an unfinished number")
