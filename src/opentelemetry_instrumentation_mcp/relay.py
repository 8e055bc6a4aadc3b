"""The trace context on the way to another process where no MCP message carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from . import propagation
from .guard import contained

if TYPE_CHECKING:
    from .telemetry import Telemetry


@contained("inject a trace context")
def departing(telemetry: Telemetry) -> dict[str, str]:
    """What a call to another process takes along; empty if there is nothing to propagate."""
    written: dict[str, Any] = {}
    context = telemetry.context_to_propagate() if telemetry.active else None
    if not context or not trace.get_current_span(context).get_span_context().is_valid:
        return {}
    propagation.inject(written, context)
    return {key: value for key, value in written.items() if isinstance(value, str)}


@contained("extract a trace context")
def arriving(telemetry: Telemetry, carrier: Mapping[str, Any]) -> Context | None:
    """The context in which a call from another process is served; None: in the one that is current.

    A server's tasks have the context in which the server was started, which is not that of the call. If another
    instrumentation continues the trace of the call already, that is left alone.
    """
    if not (carrier and telemetry.active and is_instrumentation_enabled()):
        return None
    if telemetry.config.remote_parent != propagation.PARENT:
        return None
    current = otel_context.get_current()
    extracted, remote = propagation.extract(carrier, current)
    if not remote.is_valid or _continues(trace.get_current_span(current), remote):
        return None
    return extracted


def _continues(span: trace.Span, remote: trace.SpanContext) -> bool:
    """Whether ``span`` is one that was begun for the call whose sender is ``remote``."""
    context = span.get_span_context()
    if not context.is_valid or context.trace_id != remote.trace_id:
        return False
    # One that is not recorded does not tell its parent.
    return not span.is_recording() or getattr(getattr(span, "parent", None), "span_id", None) == remote.span_id


@contained("inject a trace context")
def departing_within(telemetry: Telemetry) -> dict[str, str]:
    """What goes from one task of a program to another of it: all baggage, too; empty if there is nothing."""
    written: dict[str, Any] = {}
    context = telemetry.context_within() if telemetry.active else None
    if context:
        propagation.inject(written, context)
    return {key: value for key, value in written.items() if isinstance(value, str)}


@contained("extract a trace context")
def arriving_within(telemetry: Telemetry, carrier: Mapping[str, Any]) -> Context | None:
    """The context that :func:`departing_within` wrote; None: the one that is current."""
    if not (carrier and telemetry.active and is_instrumentation_enabled()):
        return None
    return propagation.extract(carrier, otel_context.get_current())[0]
