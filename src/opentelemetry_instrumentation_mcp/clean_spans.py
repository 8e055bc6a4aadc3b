"""The payload policy for the spans of other MCP libraries, applied before any span processor sees their end.

One of the few rooms that touch OpenTelemetry: it has to stand between the end of a span and the processors of a
``TracerProvider``. Every SDK hands an ended span exactly once, as a read-only snapshot, to ``on_end`` of the provider's
one active span processor, which passes it to all that were added. :func:`install` puts the cleaning in front of that
method on the instance in use. So it reaches processors and tracers that exist already and those to come, sequential and
concurrent ones, and exporters of any kind; the live span keeps its values. Nothing else is as early and as complete:
``_on_ending`` does not exist in SDK 1.31 and comes when the span refuses changes already, a processor of our own would
not be the first, and exporters sit in private places that differ between releases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import trace

from .guard import report, report_once
from .span_cleaner import ALL_SCOPES, DEFAULT_SCOPES, SpanCleaner

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
else:
    SpanProcessor = object  # the SDK is no dependency of this package, and the processor is used by its methods only

__all__ = ["ALL_SCOPES", "DEFAULT_SCOPES", "CleaningSpanProcessor", "SpanCleaner", "install"]

_ACTIVE_PROCESSOR: Final = "_active_span_processor"
_SET_PROVIDER: Final = "_set_tracer_provider"

Uninstall = Callable[[], None]


class CleaningSpanProcessor(SpanProcessor):
    """A span processor that hands ``processor`` cleaned spans, for pipelines built in code.

    For example ``CleaningSpanProcessor(BatchSpanProcessor(exporter), SpanCleaner(policy))``.
    """

    def __init__(self, processor: SpanProcessor, cleaner: SpanCleaner) -> None:
        self._processor = processor
        self._cleaner = cleaner

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._processor.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        hook = getattr(self._processor, "_on_ending", None)
        if hook is not None:
            hook(span)

    def on_end(self, span: ReadableSpan) -> None:
        cleaned = self._cleaner.clean(span)
        if cleaned is not None:
            self._processor.on_end(cleaned)

    def shutdown(self) -> None:
        self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._processor.force_flush(timeout_millis)


def install(tracer_provider: trace.TracerProvider | None, cleaner: SpanCleaner) -> Uninstall:
    """Clean every span that ends under ``tracer_provider`` from now on, whatever its processors are.

    Args:
        tracer_provider: an SDK provider; None for the global one. If no global one is set yet, it is the one that
            will be set.
        cleaner: decides what is cleaned, and how.

    Returns:
        A function that undoes it. If the provider is none of the SDK's, one warning says so and nothing is changed.
    """
    provider = tracer_provider or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        return _install_when_set(cleaner)
    return _install_now(provider, cleaner)


def _install_now(provider: Any, cleaner: SpanCleaner) -> Uninstall:
    processor: Any = getattr(provider, _ACTIVE_PROCESSOR, None)
    forward: Callable[[ReadableSpan], None] | None = getattr(processor, "on_end", None)
    if forward is None or not hasattr(processor, "__dict__"):
        if not isinstance(provider, trace.NoOpTracerProvider):
            _report_unreachable(provider)
        return _nothing
    own = cast("dict[str, Any]", vars(processor))
    before = own.get("on_end")
    active = True

    def on_end(span: ReadableSpan) -> None:
        cleaned = cleaner.clean(span) if active else span
        if cleaned is not None:
            forward(cleaned)

    def uninstall() -> None:
        nonlocal active
        active = False
        # Whoever came after us keeps the place; then ours only passes on.
        if own.get("on_end") is on_end:
            if before is None:
                del processor.on_end
            else:
                processor.on_end = before

    try:
        processor.on_end = on_end
    except (AttributeError, TypeError):
        _report_unreachable(provider)
        return _nothing
    return uninstall


def _install_when_set(cleaner: SpanCleaner) -> Uninstall:
    original = getattr(trace, _SET_PROVIDER, None)
    if original is None:
        _report_unreachable(trace.get_tracer_provider())
        return _nothing
    undo: list[Uninstall] = []
    active = True

    def set_tracer_provider(tracer_provider: Any, *args: Any, **kwargs: Any) -> Any:
        if active:
            try:
                undo.append(_install_now(tracer_provider, cleaner))
            except Exception as error:
                report("clean the spans of a new tracer provider", error)
        return original(tracer_provider, *args, **kwargs)

    def uninstall() -> None:
        nonlocal active
        active = False
        if getattr(trace, _SET_PROVIDER) is set_tracer_provider:
            setattr(trace, _SET_PROVIDER, original)
        while undo:
            undo.pop()()

    setattr(trace, _SET_PROVIDER, set_tracer_provider)
    return uninstall


def _nothing() -> None:
    pass


def _report_unreachable(provider: object) -> None:
    report_once(
        "clean spans",
        "Spans of other MCP libraries cannot be cleaned: %s.%s is not the tracer provider of the OpenTelemetry SDK. "
        "Wrap its span processors in CleaningSpanProcessor.",
        type(provider).__module__,
        type(provider).__qualname__,
    )
