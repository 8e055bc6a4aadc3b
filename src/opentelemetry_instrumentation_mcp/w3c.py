"""The short way for what OpenTelemetry's default propagators do most of the time: one ``traceparent``, nothing else.

They take three times as long for it. Whatever is not this very case is theirs: other propagators, ``tracestate``,
``baggage``, other versions of the header, anything malformed.
Format: W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT: Final = "traceparent"

_DEFAULT = [TraceContextTextMapPropagator, W3CBaggagePropagator]
_VERSION_00 = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def is_default(propagator: TextMapPropagator) -> bool:
    """Whether ``propagator`` is the one OpenTelemetry configures by default."""
    # No API tells the parts; where this name is unknown, the answer is no.
    parts = getattr(propagator, "_propagators", ()) if type(propagator) is CompositePropagator else ()
    return [type(part) for part in parts] == _DEFAULT


def traceparent(span_context: SpanContext, context: Context) -> str | None:
    """What is to be sent for ``context``, whose span has ``span_context``; None if that is not all."""
    # Where a context has one entry only, that is the span.
    if not span_context.is_valid or span_context.trace_state or (len(context) > 1 and baggage.get_all(context)):
        return None
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{span_context.trace_flags:02x}"


def span_context(carrier: Mapping[str, Any]) -> SpanContext | None:
    """The remote span context in ``carrier``; None if that may not be all there is, or none."""
    received = carrier.get(TRACEPARENT)
    if type(received) is not str or carrier.get("tracestate") is not None or carrier.get("baggage") is not None:
        return None
    match = _VERSION_00.fullmatch(received)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    found = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    return found if found.is_valid else None
