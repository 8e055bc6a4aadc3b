"""The configuration: one dataclass is keyword arguments, environment variables and declarative configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from . import environment_variables as env
from .guard import logger

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass
class McpConfig:
    """Options of the instrumentation; a value that makes no sense gets one warning and its default.

    Attributes:
        disabled_targets: names of targets that stay untouched (``OTEL_INSTRUMENTATION_MCP_DISABLED_TARGETS``).
        native_spans: ``replace`` or ``keep`` (``OTEL_INSTRUMENTATION_MCP_NATIVE_SPANS``).
        excluded_methods: methods without spans and metrics; context still travels
            (``OTEL_INSTRUMENTATION_MCP_EXCLUDED_METHODS``).
        remote_parent: ``parent``, ``link`` or ``ignore`` (``OTEL_INSTRUMENTATION_MCP_REMOTE_PARENT``).
        resource_uri_in_span_name: whether a resource URI ends the span name
            (``OTEL_INSTRUMENTATION_MCP_RESOURCE_URI_IN_SPAN_NAME``).
        execute_tool_span: ``reuse`` or ``separate`` (``OTEL_INSTRUMENTATION_MCP_EXECUTE_TOOL_SPAN``).
    """

    disabled_targets: Iterable[str] = ()
    native_spans: str = "replace"
    excluded_methods: Iterable[str] = ()
    remote_parent: str = "parent"
    resource_uri_in_span_name: bool = False
    execute_tool_span: str = "reuse"

    def __post_init__(self) -> None:
        from .targets import TARGET_NAMES

        self.disabled_targets = self._names("disabled_targets", TARGET_NAMES)
        self.native_spans = self._choice("native_spans", "replace", "keep")
        self.excluded_methods = self._names("excluded_methods")
        self.remote_parent = self._choice("remote_parent", "parent", "link", "ignore")
        self.resource_uri_in_span_name = self._flag("resource_uri_in_span_name")
        self.execute_tool_span = self._choice("execute_tool_span", "reuse", "separate")

    @classmethod
    def load(cls, overrides: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> McpConfig:
        """Configuration from ``overrides``, where they say nothing from the environment, else the defaults."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            if overrides.get(field.name) is not None:
                values[field.name] = overrides[field.name]
            elif environ.get(variable_of(field.name)):
                values[field.name] = environ[variable_of(field.name)]
        return cls(**values)

    def _reject(self, name: str, value: object, used: object) -> None:
        logger.warning("%s: %r is not understood, %r is used instead", variable_of(name), value, used)

    def _choice(self, name: str, default: str, *others: str) -> str:
        value: object = getattr(self, name)
        normal = value.strip().lower() if isinstance(value, str) else value
        if normal == default or normal in others:
            return str(normal)
        self._reject(name, value, default)
        return default

    def _flag(self, name: str) -> bool:
        value: object = getattr(self, name)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
            return value.strip().lower() in _TRUE
        self._reject(name, value, False)
        return False

    def _names(self, name: str, known: frozenset[str] | None = None) -> frozenset[str]:
        value: Any = getattr(self, name)
        parts = _strings(value.split(",") if isinstance(value, str) else value)
        if parts is None:
            self._reject(name, value, "")
            return frozenset()
        names = frozenset(part.strip() for part in parts if part.strip())
        if known is not None and names - known:
            self._reject(name, ",".join(sorted(names - known)), ",".join(sorted(names & known)))
            names &= known
        return names


def _strings(value: Any) -> list[str] | None:
    try:
        parts: list[Any] = list(value)
    except TypeError:
        return None
    return parts if all(isinstance(part, str) for part in parts) else None


def variable_of(field_name: str) -> str:
    """The environment variable behind a field of :class:`McpConfig`."""
    return str(getattr(env, f"OTEL_INSTRUMENTATION_MCP_{field_name.upper()}"))
