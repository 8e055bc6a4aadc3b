"""OpenTelemetry instrumentation of the Model Context Protocol (MCP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .config import McpConfig
    from .instrumentor import McpInstrumentor
    from .message import Message, Outcome

__all__ = ["McpConfig", "McpInstrumentor", "Message", "Outcome", "__version__"]

# Loaded when asked for: the launcher imports this package only to read the names of its environment variables.
_HOMES = {"McpConfig": "config", "McpInstrumentor": "instrumentor", "Message": "message", "Outcome": "message"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
