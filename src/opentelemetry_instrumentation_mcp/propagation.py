"""Trace context in ``params._meta`` and HTTP headers, and the rule that turns it into parents and links.

Keys and their placement follow SEP-414 (unprefixed ``traceparent``, ``tracestate``, ``baggage`` in ``_meta``).
Everything read here was written by a peer: a value that is not a short string counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, TextMapPropagator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext

from . import w3c
from .connection import HttpRequest
from .guard import report
from .message import as_mapping

# W3C Baggage allows 8192 bytes; nothing the propagators read may be longer.
_MAX_VALUE = 8192
_MAX_KEYS = 256

PARENT, LINK, IGNORE = "parent", "link", "ignore"


class _MetaGetter(Getter[Mapping[str, Any]]):
    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if value is not None and _is_sane(value) else None

    def keys(self, carrier: Mapping[Any, Any]) -> list[str]:
        return [key for key in islice(carrier, _MAX_KEYS) if isinstance(key, str)]


def _is_sane(value: Any) -> bool:
    # The propagators quote in the log what they cannot read, and some cannot encode lone surrogates.
    return (
        isinstance(value, str)
        and len(value) <= _MAX_VALUE
        and (value.isprintable() or value.replace("\t", " ").isprintable())
    )


_META_GETTER = _MetaGetter()


class _Configured:
    """What is known of a configured propagator."""

    __slots__ = ("fields", "is_default", "propagator")

    def __init__(self, propagator: TextMapPropagator) -> None:
        self.propagator = propagator
        self.fields = frozenset(propagator.fields)
        self.is_default = w3c.is_default(propagator)


_configured: _Configured | None = None


def _propagator() -> _Configured:
    global _configured
    propagator = propagate.get_global_textmap()
    if _configured is None or _configured.propagator is not propagator:
        _configured = _Configured(propagator)
    return _configured


def propagation_fields() -> frozenset[str]:
    """The carrier keys that the configured propagators write."""
    return _propagator().fields


def inject(carrier: dict[str, Any], context: Context | None = None) -> bool:
    """Write ``context`` (default: the current one) into ``carrier``; whether there was anything to write.

    A context with a span replaces all that a previous sender left at the propagators' keys (a gateway forwards what
    it received); without one, only the keys written now are replaced.
    """
    if context is None:
        context = otel_context.get_current()
    configured = _propagator()
    span_context = _span_context(context)
    traceparent = w3c.traceparent(span_context, context) if configured.is_default else None
    written: dict[str, Any] = {}
    if traceparent is not None:
        written[w3c.TRACEPARENT] = traceparent
    else:
        propagate.inject(written, context)
    if not written:
        return False
    if carrier and span_context.is_valid:
        for field in configured.fields.intersection(carrier):
            del carrier[field]
    carrier.update(written)
    return True


def with_injected_meta(params: Mapping[str, Any] | None, context: Context | None = None) -> dict[str, Any] | None:
    """A copy of ``params`` whose ``_meta`` carries ``context``, None if ``params`` can go out as they are.

    A ``_meta`` that is no mapping is left alone: it is the caller's mistake to make.
    """
    meta = params.get("_meta") if params else None
    received = as_mapping(meta) if meta is not None else None
    if meta is not None and received is None:
        return None
    carrier = dict(received or {})
    return {**(params or {}), "_meta": carrier} if inject(carrier, context) else None


def _span_context(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def extract(carrier: Mapping[str, Any] | None, base: Context) -> tuple[Context, SpanContext]:
    """``base`` with the span and the baggage found in ``carrier``, and that span's context, invalid if there is none.

    What span ``base`` may have is not passed on: a stale one is not allowed to become a parent.
    """
    configured = _propagator()
    if carrier is None or configured.fields.isdisjoint(carrier):
        return _rootless(base), trace.INVALID_SPAN_CONTEXT
    remote = w3c.span_context(carrier) if configured.is_default else None
    if remote is not None:
        return trace.set_span_in_context(NonRecordingSpan(remote), base), remote
    base = _rootless(base)
    try:
        extracted = propagate.extract(carrier, base, _META_GETTER)
        return extracted, _span_context(extracted)
    except Exception as error:
        report("extract a trace context", error)
        return base, trace.INVALID_SPAN_CONTEXT


def _carrier_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    fields = propagation_fields()
    return {
        name: value.decode("latin-1") for raw, value in headers if (name := raw.decode("latin-1").lower()) in fields
    }


# The contexts with which this process has called itself last; a program's own are no remote ones.
_MAX_OWN = 1024
_own: dict[str, None] = {}


def remember_own(carrier: Mapping[str, Any]) -> None:
    """The context in ``carrier`` goes to this very program."""
    traceparent = carrier.get(w3c.TRACEPARENT)
    if isinstance(traceparent, str):
        _own[traceparent] = None
        while len(_own) > _MAX_OWN:
            del _own[next(iter(_own))]


def is_own(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether HTTP headers have a context of :func:`remember_own`."""
    return any(name.lower() == b"traceparent" and value.decode("latin-1") in _own for name, value in headers)


def _rootless(context: Context) -> Context:
    """``context`` without its span: what is left of a stale one is not allowed to become a parent."""
    if not context or not _span_context(context).is_valid:
        return context
    return trace.set_span_in_context(trace.INVALID_SPAN, context)


def receive(
    meta: object, http: HttpRequest | None, policy: str = PARENT, current: Context | None = None
) -> tuple[Context, list[Link] | None]:
    """The context in which an inbound message is handled, and the links of its SERVER span.

    Rules, first match wins: the context in ``_meta`` is the parent and a live HTTP span is linked; else the HTTP
    span of the request that carried the message is the parent; else that request's headers; else the message
    starts a new trace. What is current in the receiving task is never the parent: it may belong to another message.

    Args:
        meta: the raw ``params._meta``.
        http: the HTTP request that carried the message, None on other transports.
        policy: what a remote context may do: be the ``parent``, be a ``link`` only, or ``ignore``.
        current: the current context, if it is at hand.
    """
    ambient: Context | None = http.context if http is not None else None
    base = ambient if ambient is not None else current if current is not None else otel_context.get_current()
    http_span = _span_context(ambient) if ambient else trace.INVALID_SPAN_CONTEXT
    links: list[Link] = []
    if policy == IGNORE:
        context = _rootless(base)
    else:
        context, remote = extract(as_mapping(meta) if meta else None, base)
        if not remote.is_valid and not http_span.is_valid and http is not None and http.headers:
            context, remote = extract(_carrier_of(http.headers), context)
        if policy == PARENT and remote.is_valid:
            if http_span.is_valid and http_span.span_id != remote.span_id:
                links.append(Link(http_span))
            return context, links or None
        if remote.is_valid:
            links.append(Link(remote))
        if policy != PARENT:
            context = _rootless(base)
    if http_span.is_valid and ambient is not None:
        context = trace.set_span_in_context(trace.get_current_span(ambient), context)
    return context, links or None
