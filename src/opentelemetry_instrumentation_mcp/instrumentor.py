"""The front door: configuration -> telemetry -> targets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from functools import partial
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from .config import McpConfig
from .guard import forget_reports, report
from .hooks import Patcher
from .rivals import report_rivals
from .targets import LIBRARIES, TARGETS
from .telemetry import Telemetry


class McpInstrumentor(BaseInstrumentor):
    """Traces and measures every MCP message of this process.

    ``opentelemetry-instrument`` finds it by its entry point ``otel_mcp``; in code::

        McpInstrumentor().instrument()

    Keyword arguments of ``instrument()``, all optional: ``tracer_provider``, ``meter_provider``,
    ``request_hook(span, message)``, ``response_hook(span, message, outcome)``, and every field of
    :class:`McpConfig`. What is not given comes from the environment, then from the defaults.
    """

    configuration = McpConfig

    _telemetry: Telemetry | None = None
    _patcher: Patcher | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """The libraries ``instrument()`` asks for; the bound is a pre-release so that pre-releases satisfy it."""
        return ("mcp >= 1.9.0a0",)

    def _instrument(self, **kwargs: Any) -> None:
        # Raising here would end the auto-instrumentation of every instrumentor after this one.
        try:
            forget_reports()
            config = McpConfig.load({field.name: kwargs.get(field.name) for field in fields(McpConfig)})
            self._telemetry = Telemetry(
                config,
                kwargs.get("tracer_provider"),
                kwargs.get("meter_provider"),
                kwargs.get("request_hook"),
                kwargs.get("response_hook"),
            )
            disabled = frozenset(config.disabled_targets)
            targets = tuple(target for target in TARGETS if target.name not in disabled)
            self._telemetry.on_first_operation = partial(report_rivals, targets)
            self._patcher = Patcher(targets, self._telemetry, self._telemetry.is_active, LIBRARIES)
            self._patcher.apply()
        except Exception as error:
            report("instrument", error)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._telemetry is not None:
            self._telemetry.active = False
            self._telemetry.settle_dropped()
        if self._patcher is not None:
            self._patcher.revert()
        self._telemetry = self._patcher = None
