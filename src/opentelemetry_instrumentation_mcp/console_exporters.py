"""Console exporters of the OpenTelemetry SDK write to stdout, which is the protocol stream of a stdio server.

From :func:`redirect` on they write to stderr, those that exist and those that will.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import wrapt

from .guard import contained, report_once
from .hooks import attribute_of

_CLASSES = {
    "opentelemetry.sdk.trace.export": ("ConsoleSpanExporter",),
    "opentelemetry.sdk.metrics.export": ("ConsoleMetricExporter",),
    "opentelemetry.sdk._logs.export": ("ConsoleLogRecordExporter", "ConsoleLogExporter"),
}
_ORIGINAL = "_otel_mcp_original"
_STDOUT = 1

# What is wrapped once in a process asks this; None: console exporters are left alone.
_is_active: Callable[[], bool] | None = None
_pending: set[str] = set()


def redirect(is_active: Callable[[], bool] = lambda: True) -> None:
    """Make the SDK's console exporters write to stderr as long as ``is_active()``; never raises."""
    global _is_active
    _is_active = is_active
    for name in _CLASSES:
        if name in sys.modules:
            _wrap(sys.modules[name])
        elif name not in _pending:
            _pending.add(name)
            wrapt.register_post_import_hook(_wrap, name)


def restore() -> None:
    """Give the SDK's classes their own methods back; an exporter that was redirected stays so."""
    global _is_active
    _is_active = None
    for name in _CLASSES:
        for exporter in _classes(sys.modules.get(name)):
            original = getattr(attribute_of(exporter, "export"), _ORIGINAL, None)
            if original is not None:
                exporter.export = original


@contained("redirect console exporters")
def _wrap(module: ModuleType) -> None:
    if _is_active is None:
        return
    for exporter in _classes(module):
        export = attribute_of(exporter, "export")
        if export is not None and not hasattr(export, _ORIGINAL):
            exporter.export = _redirected(export)


def _classes(module: ModuleType | None) -> list[Any]:
    names = _CLASSES[module.__name__] if module is not None else ()
    return [found for name in names if isinstance(found := getattr(module, name, None), type)]


def _redirected(export: Any) -> Any:
    @functools.wraps(export)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_active is not None and _is_active():
            _leave_stdout(self)
        return export(self, *args, **kwargs)

    setattr(wrapper, _ORIGINAL, export)
    return wrapper


@contained("redirect a console exporter")
def _leave_stdout(exporter: Any) -> None:
    if not _is_stdout(exporter.out):
        return
    exporter.out = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # as long as the process lives
    report_once(
        "console exporter",
        "A console exporter of this process (%s) wrote to stdout, which is the protocol stream of a stdio MCP server. "
        "It writes to stderr now. OTEL_TRACES_EXPORTER=mcp_tree always does.",
        type(exporter).__qualname__,
    )


def _is_stdout(stream: Any) -> bool:
    if stream is sys.__stdout__:
        return stream is not None
    try:
        return stream.fileno() == _STDOUT
    except (AttributeError, OSError, ValueError):
        return False
