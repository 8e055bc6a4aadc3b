"""SDK 2.x: what its adapters share. State is kept on the library's own objects and dies with them."""

from __future__ import annotations

from typing import Any

from ..connection import Connection
from ..operation import Operation
from .transports import endpoint_of

CONNECTION = "_otel_mcp_connection"
OPERATION = "_otel_mcp_operation"

REQUEST_TIMEOUT = -32001
CONNECTION_CLOSED = -32000
INTERNAL_ERROR = -32603
INVALID_PARAMS = -32602


class NotTraced:
    """Takes the place of an operation where it was decided that there is none, so that nobody begins one again."""


NOT_TRACED = NotTraced()


def connection_of(owner: Any, *, server: bool = True) -> Connection:
    """The connection of a dispatcher, described when first asked for."""
    connection: Connection | None = getattr(owner, CONNECTION, None)
    if connection is None:
        endpoint = endpoint_of(getattr(owner, "_write_stream", None), getattr(owner, "_read_stream", None))
        connection = Connection(server=server, endpoint=endpoint)
        setattr(owner, CONNECTION, connection)
    return connection


def operation_of(dctx: Any) -> Operation | NotTraced | None:
    """The operation under way for a dispatch context, or for the one it delegates to."""
    found = getattr(dctx, OPERATION, None)
    if found is None:
        found = getattr(getattr(dctx, "_inner", None), OPERATION, None)
    return found


def error_code(error: BaseException) -> Any:
    """The JSON-RPC code an exception of the SDK carries, None for any other."""
    return getattr(getattr(error, "error", None), "code", None)
