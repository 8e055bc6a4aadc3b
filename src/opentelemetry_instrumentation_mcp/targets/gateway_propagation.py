"""Which way the gateway goes, which is as without tracing, and the context it sends along, which is the current one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from .. import propagation
from ..guard import contained
from ..hooks import Around
from ..message import as_mapping
from ..telemetry import Telemetry
from .arguments import argument
from .gateway import current_work
from .gateway_facts import stands_down
from .gateway_upstream import note_failed_request
from .transports import is_posting

# Where the gateway calls itself.
_LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LOOPBACK_PATHS: Final = ("/rpc", "/_internal/mcp/rpc")


def context_active(telemetry: Telemetry) -> Any:
    """``otel_context_active`` in the tool service: if it says yes, the gateway does without its pool of sessions.

    It does so because the HTTP headers of a pooled session cannot carry the context of each call; ``_meta`` does, if
    the messages of the SDK are traced.
    """
    has_messages = "sdk_v1" not in telemetry.config.unused_targets()

    @contained("ask whose way it is")
    def is_ours() -> bool:
        return has_messages and telemetry.records() and not stands_down(telemetry)

    def wrapper(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return False if is_ours() else wrapped(*args, **kwargs)

    return wrapper


def inject_headers(telemetry: Telemetry) -> Any:
    """``inject_trace_context_headers``: the headers of an upstream session; no baggage but what is allowed."""

    @contained("take baggage back")
    def without_baggage(headers: Any) -> None:
        allowed: dict[str, Any] = {}
        context = telemetry.context_to_propagate()
        if context is not None:
            propagation.inject(allowed, context)
        if "baggage" in headers and "baggage" not in allowed:
            del headers["baggage"]
        headers.update(allowed)

    def wrapper(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = as_mapping(argument(args, kwargs, 0, "headers")) or {}
        headers = wrapped(*args, **kwargs)
        if "baggage" not in given and not stands_down(telemetry):
            without_baggage(headers)
        return headers

    return wrapper


def prepare_plan(telemetry: Telemetry) -> Around:
    """``prepare_rust_mcp_tool_execution``: plans are cached, so the context of one request must not be in them."""

    @contained("take the trace context out of a plan")
    def without_context(plan: Any) -> None:
        headers = plan.get("headers")
        for name in [name for name in headers or () if name.lower() in propagation.propagation_fields()]:
            del headers[name]

    def build(prepare: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            plan = await prepare(self, *args, **kwargs)
            if telemetry.active:
                without_context(plan)
            return plan

        return method

    return Around(build)


@contained("inject into an HTTP request")
def _inject(telemetry: Telemetry, request: Any) -> None:
    if is_posting():
        return
    is_loopback = _is_loopback(str(request.url))
    if not is_loopback and current_work() is None:
        return
    context = telemetry.context_within() if is_loopback else telemetry.context_to_propagate()
    carrier: dict[str, Any] = {}
    if context is not None and propagation.inject(carrier, context):
        for name in propagation.propagation_fields():
            if name not in carrier and name in request.headers:
                del request.headers[name]
        request.headers.update(carrier)


def send_http(telemetry: Telemetry) -> Around:
    """``httpx.AsyncClient.send``: requests to REST tools, to agents, and to the gateway itself carry the context."""

    def build(send: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if telemetry.active:
                _inject(telemetry, argument(args, kwargs, 0, "request"))
            try:
                return await send(self, *args, **kwargs)
            except Exception as error:
                note_failed_request(error)
                raise

        return method

    return Around(build)


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.hostname in _LOOPBACK_HOSTS and parts.path.endswith(_LOOPBACK_PATHS)
