"""One JSON-RPC message and how it ended: frozen descriptions, filled by adapters, read by telemetry."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import semconv
from .semconv import PROTOCOL_VERSION_META_KEY, TARGET_FIELDS


class Message(NamedTuple):
    """A JSON-RPC request or notification of MCP.

    ``request_id`` is None exactly for notifications; ``target`` is a tool or prompt name, ``uri`` a resource's;
    ``arguments`` are those of a tool or prompt as they were sent, of any shape.
    """

    method: str
    request_id: str | int | None = None
    target: str | None = None
    uri: str | None = None
    protocol_version: str | None = None
    arguments: Any = None

    @property
    def is_request(self) -> bool:
        return self.request_id is not None


class Outcome(NamedTuple):
    """How a message ended, as the wire says it where the wire says anything.

    ``status_code`` is the JSON-RPC error code in string form, ``text`` its message, ``protocol_version`` what an
    ``initialize`` result negotiated.
    """

    error_type: str | None = None
    status_code: str | None = None
    text: str | None = None
    protocol_version: str | None = None


SUCCESS = Outcome()
TIMED_OUT = Outcome(semconv.TIMEOUT)
CANCELLED = Outcome(semconv.CANCELLED)
TOOL_ERROR = Outcome(semconv.TOOL_ERROR)


def describe(method: str, params: object, request_id: str | int | None = None) -> Message:
    """Describe a message from its raw ``params``, which may be of any shape a peer likes."""
    mapping = as_mapping(params) if params else None
    if not mapping:
        return Message(method, request_id)
    target = uri = version = arguments = None
    field = TARGET_FIELDS.get(method)
    if field == "name":
        target = _text(mapping.get("name"))
        arguments = mapping.get("arguments")
    elif field == "uri":
        uri = _text(mapping.get("uri"))
    elif field == "ref":
        target = _text(_prompt_in(mapping).get("name"))
    meta = mapping.get("_meta")
    if meta and (meta := as_mapping(meta)):
        claimed = meta.get(PROTOCOL_VERSION_META_KEY)
        if claimed is not None and isinstance(claimed, str) and claimed in semconv.KNOWN_PROTOCOL_VERSIONS:
            version = claimed
    return Message(method, request_id, target, uri, version, arguments)


def describe_model(request: Any, request_id: str | int | None = None) -> Message:
    """Describe a message from a typed model of SDK 1.x, reading two fields instead of dumping all."""
    model = getattr(request, "root", request)
    method = str(model.method)
    params = getattr(model, "params", None)
    if as_mapping(params) is not None:
        return describe(method, params, request_id)
    target = uri = arguments = None
    if params is not None:
        if method == "completion/complete":
            reference = getattr(params, "ref", None)
            target = _text(getattr(reference, "name", None)) if _is_prompt(getattr(reference, "type", None)) else None
        elif semconv.target_attribute(method) is not None:
            target = _text(getattr(params, "name", None))
            arguments = getattr(params, "arguments", None)
        elif semconv.carries_uri(method):
            value = getattr(params, "uri", None)
            uri = None if value is None else str(value)
    return Message(method, request_id, target, uri, None, arguments)


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """``value`` if it is a mapping, None otherwise: what a peer sends may be of any shape."""
    # Asking for a dict's type is much cheaper than asking an abstract class about it.
    return value if type(value) is dict or isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownVariableType]  # any mapping will do


def meta_of(params: object) -> Any:
    """The ``_meta`` of raw params, of any shape; None if there is none."""
    mapping = as_mapping(params) if params else None
    return mapping.get("_meta") if mapping is not None else None


def _prompt_in(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The reference in the params of ``completion/complete``, if it is one to a prompt."""
    reference = as_mapping(params.get("ref")) or {}
    return reference if _is_prompt(reference.get("type")) else {}


def _is_prompt(reference_type: Any) -> bool:
    return isinstance(reference_type, str) and reference_type == "ref/prompt"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def outcome_of_error(code: object, text: object) -> Outcome:
    """The outcome of a JSON-RPC error response."""
    is_code = isinstance(code, int) and not isinstance(code, bool) and abs(code) < 10**9
    status_code = str(code) if is_code else semconv.OTHER
    return Outcome(status_code, status_code, text if isinstance(text, str) else None)


def outcome_of_result(method: str, result: object) -> Outcome:
    """The outcome of a JSON-RPC result, in its raw (wire) form or as a model of the SDK."""
    if method == "tools/call":
        mapping = as_mapping(result)
        failed = mapping.get("isError") if mapping is not None else getattr(result, "is_error", None)
        return TOOL_ERROR if failed is True else SUCCESS
    if method == "initialize":
        version = (as_mapping(result) or {}).get("protocolVersion")
        if isinstance(version, str):
            return Outcome(protocol_version=version)
    return SUCCESS


def outcome_of_exception(error: BaseException) -> Outcome:
    """The outcome of a message whose sending or handling ended in an exception that is no JSON-RPC error."""
    if is_cancellation(error):
        return CANCELLED
    kind = type(error)
    module = kind.__module__
    return Outcome(kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}")


def is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` is the cancellation of asyncio or trio; neither is imported for the question."""
    if isinstance(error, (Exception, GeneratorExit, KeyboardInterrupt, SystemExit)):
        return isinstance(error, GeneratorExit)
    for module, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return True
    return False
