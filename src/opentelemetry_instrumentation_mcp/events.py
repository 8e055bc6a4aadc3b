"""Events as OpenTelemetry log records, whichever API the installed release has for them."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from opentelemetry import _logs as logs
from opentelemetry import trace
from opentelemetry.context import Context

from . import semconv
from .version import __version__


class EventLog:
    """Emits events of this instrumentation.

    Args:
        scope: the name of the instrumentation.
        logger_provider: whose events they are; None for the global provider.
    """

    def __init__(self, scope: str, logger_provider: Any = None) -> None:
        self._scope = scope
        self._provider = logger_provider
        self._has_event_names = "event_name" in inspect.signature(logs.LogRecord.__init__).parameters

    def emit(self, name: str, attributes: Mapping[str, Any], context: Context) -> None:
        """Emit one event that belongs to the span of ``context``.

        Releases whose log records have no event name get the older kind of event, with structured values as JSON text.
        """
        if self._has_event_names:
            logger = logs.get_logger(self._scope, __version__, self._provider, semconv.SCHEMA_URL)
            logger.emit(
                logs.LogRecord(
                    event_name=name,
                    attributes=dict(attributes),
                    context=context,
                    severity_number=logs.SeverityNumber.INFO,
                )
            )
        else:
            self._emit_older(name, attributes, context)

    def _emit_older(self, name: str, attributes: Mapping[str, Any], context: Context) -> None:
        # Only these releases have this module; later ones deprecate it.
        older: Any = importlib.import_module("opentelemetry._events")
        span_context = trace.get_current_span(context).get_span_context()
        provider = self._provider
        if provider is not None and not hasattr(provider, "get_event_logger"):
            sdk: Any = importlib.import_module("opentelemetry.sdk._events")
            provider = sdk.EventLoggerProvider(provider)
        event_logger = older.get_event_logger(
            self._scope, __version__, semconv.SCHEMA_URL, event_logger_provider=provider
        )
        event_logger.emit(
            older.Event(
                name,
                trace_id=span_context.trace_id,
                span_id=span_context.span_id,
                trace_flags=span_context.trace_flags,
                severity_number=logs.SeverityNumber.INFO,
                attributes={
                    key: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
                    for key, value in attributes.items()
                },
            )
        )
