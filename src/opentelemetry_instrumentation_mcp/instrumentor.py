"""The front door: configuration -> telemetry -> targets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from .config import McpConfig
from .guard import contained, forget_reports, report
from .hooks import Patcher, Target
from .rivals import report_rivals
from .targets import LIBRARIES, TARGETS

if TYPE_CHECKING:
    from .telemetry import Telemetry


class _Lazy:
    """The telemetry of one ``instrument()``, made when the first patch needs it: a program without MCP has none."""

    def __init__(self, make: Callable[[], Telemetry]) -> None:
        self._make = make
        self._made: Telemetry | None = None

    def __call__(self) -> Telemetry:
        if self._made is None:
            self._made = self._make()
        return self._made

    def is_active(self) -> bool:
        return self._made is not None and self._made.active

    def stop(self) -> None:
        if self._made is not None:
            self._made.active = False
            self._made.settle_dropped()


class McpInstrumentor(BaseInstrumentor):
    """Traces and measures every MCP message of this process.

    ``opentelemetry-instrument`` finds it by its entry point ``otel_mcp``; in code::

        McpInstrumentor().instrument()

    Keyword arguments of ``instrument()``, all optional: ``tracer_provider``, ``meter_provider``,
    ``logger_provider``, ``request_hook(span, message)``, ``response_hook(span, message, outcome)``, and every field
    of :class:`McpConfig`. What is not given comes from the environment, then from the defaults.
    """

    configuration = McpConfig

    _telemetry: _Lazy | None = None
    _patcher: Patcher | None = None
    _restore: tuple[Callable[[], None], ...] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """The libraries ``instrument()`` asks for; the bound is a pre-release so that pre-releases satisfy it."""
        return ("mcp >= 1.9.0a0",)

    def _instrument(self, **kwargs: Any) -> None:
        # Raising here would end the auto-instrumentation of every instrumentor after this one.
        try:
            forget_reports()
            config = McpConfig.load({field.name: kwargs.get(field.name) for field in fields(McpConfig)})
            disabled = config.unused_targets()
            targets = tuple(target for target in TARGETS if target.name not in disabled)
            self._telemetry = _Lazy(partial(_telemetry, config, targets, kwargs))
            self._patcher = Patcher(targets, self._telemetry, self._telemetry.is_active, LIBRARIES)
            self._patcher.apply()
            self._clean_spans(config, kwargs.get("tracer_provider"))
        except Exception as error:
            report("instrument", error)

    @contained("clean the spans of other libraries")
    def _clean_spans(self, config: McpConfig, tracer_provider: Any) -> None:
        if not config.clean_spans or self._telemetry is None:
            return
        from .clean_spans import DEFAULT_SCOPES, SpanCleaner, install

        disclosure = self._telemetry().telling.disclosure
        cleaner = SpanCleaner(
            disclosure.policy,
            tuple(config.clean_spans_scopes) or DEFAULT_SCOPES,
            keep_stacktraces=config.stacktraces,
            error_text=config.error_text != "off",
            identity=disclosure.identity_attribute,
            remembers_names=disclosure.is_steady,
        )
        # Other libraries use the global provider, whatever was given to us.
        providers = [None] if tracer_provider is None else [tracer_provider, None]
        self._restore = tuple(install(provider, cleaner) for provider in providers)

    def _uninstrument(self, **kwargs: Any) -> None:
        for restore in self._restore:
            restore()
        _restore_console_exporters()
        self._restore = ()
        if self._telemetry is not None:
            self._telemetry.stop()
        if self._patcher is not None:
            self._patcher.revert()
        self._telemetry = self._patcher = None


@contained("restore console exporters")
def _restore_console_exporters() -> None:
    console_exporters = sys.modules.get(f"{__package__}.console_exporters")
    if console_exporters is not None:
        console_exporters.restore()


def _telemetry(config: McpConfig, targets: tuple[Target, ...], options: dict[str, Any]) -> Telemetry:
    from .telemetry import Telemetry

    telemetry = Telemetry(
        config,
        options.get("tracer_provider"),
        options.get("meter_provider"),
        options.get("request_hook"),
        options.get("response_hook"),
        options.get("logger_provider"),
    )
    telemetry.on_first_operation = partial(report_rivals, targets)
    return telemetry
