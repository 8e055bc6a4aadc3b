"""Which way the gateway goes, which is as without tracing, and the context it sends along, which is the current one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from .. import propagation
from ..guard import contained
from ..hooks import Around
from ..operation import outside_spans, within
from ..telemetry import Telemetry
from .arguments import argument
from .gateway import is_at_work
from .gateway_facts import stands_down
from .gateway_upstream import note_failed_request
from .transports import is_posting

# Where the gateway calls itself.
_LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LOOPBACK_PATHS: Final = frozenset({"/rpc", "/_internal/mcp/rpc"})


@contained("ask whose way it is")
def _takes_over(telemetry: Telemetry) -> bool:
    """Whether the context of an upstream call is ours to send: in ``_meta``, with the messages of the SDK."""
    return telemetry.records() and not stands_down(telemetry) and "sdk_v1" not in telemetry.config.unused_targets()


def _as_without_spans(telemetry: Telemetry) -> Any:
    """The wrapper of a function that looks for a current span: it finds none."""

    def wrapper(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return outside_spans(wrapped, args, kwargs) if _takes_over(telemetry) else wrapped(*args, **kwargs)

    return wrapper


context_active = _as_without_spans
"""``otel_context_active`` in the tool service: if it says yes, the gateway does without its pool of sessions.

It does so because the HTTP headers of a pooled session cannot carry the context of each call; ``_meta`` does.
"""

inject_headers = _as_without_spans
"""``inject_trace_context_headers``: it would freeze a context in the headers of a session, and make others go along.

What is sent gets its context when it is sent.
"""


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
def _context_for(telemetry: Telemetry, request: Any) -> Any:
    """Write the context into the headers of ``request``, if it belongs there; returns that to send the request in."""
    if _is_loopback(request.url):
        _write(request, telemetry.context_within(), is_own=True)
        return None
    context = telemetry.context_to_propagate()
    if not is_posting() and is_at_work():
        _write(request, context)
    # Without its baggage: other instrumentations write the current context.
    return context


def _write(request: Any, context: Any, *, is_own: bool = False) -> None:
    carrier: dict[str, Any] = {}
    if context is None or not propagation.inject(carrier, context):
        return
    for name in propagation.propagation_fields() - {"baggage", *carrier}:
        if name in request.headers:
            del request.headers[name]
    request.headers.update(carrier)
    if is_own:
        propagation.remember_own(carrier)


def send_http(telemetry: Telemetry) -> Around:
    """``httpx.AsyncClient.send``: requests to REST tools, to agents and to the gateway itself carry the context.

    No request of the gateway carries baggage that may not leave it, whoever writes it.
    """

    def build(send: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            context = _context_for(telemetry, argument(args, kwargs, 0, "request")) if telemetry.active else None
            try:
                return await within(context, send, (self, *args), kwargs)
            except Exception as error:
                note_failed_request(error)
                raise

        return method

    return Around(build)


def _is_loopback(url: Any) -> bool:
    """Whether ``url`` (of httpx) is where the gateway sends messages to itself."""
    settings = getattr(sys.modules.get("mcpgateway.config"), "settings", None)
    if url.host not in _LOOPBACK_HOSTS or url.port != getattr(settings, "port", None):
        return False
    root = str(getattr(settings, "app_root_path", "") or "").rstrip("/")
    return url.path in _LOOPBACK_PATHS or url.path == f"{root}/rpc"
