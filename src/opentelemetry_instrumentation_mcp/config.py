"""The configuration: one dataclass is keyword arguments, environment variables and declarative configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from . import environment_variables as env
from .guard import logger

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT = "NO_CONTENT", "SPAN_ONLY", "EVENT_ONLY", "SPAN_AND_EVENT"

LANGFUSE_PATH = "/api/public/otel"
OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "LANGFUSE_OTEL_ENDPOINT")

# The gateway's names of the spans that MCP messages are about.
_GATEWAY_SPANS = frozenset({"tool.invoke", "prompt.render", "mcp.client.call", "mcp.client.request"})

_PAYLOAD, _LEAST_PAYLOAD = 32_768, 256

Detector = Callable[[str], Iterable[tuple[int, int]]]


@dataclass(eq=False)  # to make __eq__ takes longer than anything else when a program starts
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
        capture_content: where arguments, results and prompt variables go: ``NO_CONTENT``, ``SPAN_ONLY``,
            ``EVENT_ONLY`` or ``SPAN_AND_EVENT`` (``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``).
        capture_inputs, exclude_inputs, capture_outputs, exclude_outputs: patterns (``*``, ``?``) of tool and prompt
            names whose input or output is captured, or is not (``OTEL_INSTRUMENTATION_MCP_CAPTURE_INPUTS``, ...).
        error_text: ``redacted`` or ``off``: the message of a JSON-RPC error as status text
            (``OTEL_INSTRUMENTATION_MCP_ERROR_TEXT``).
        stacktraces: whether exceptions become span events, with a redacted stack trace
            (``OTEL_INSTRUMENTATION_MCP_STACKTRACES``).
        max_payload: characters of captured content, at least 256 (``OTEL_INSTRUMENTATION_MCP_MAX_PAYLOAD``).
        max_error_text: characters of an error's text (``OTEL_INSTRUMENTATION_MCP_MAX_ERROR_TEXT``).
        redact_keys: names that are sensitive besides the policy's (``OTEL_INSTRUMENTATION_MCP_REDACT_KEYS``).
        keep_keys: names that are not, although the policy says so (``OTEL_INSTRUMENTATION_MCP_KEEP_KEYS``).
        redact_patterns: regular expressions whose matches are masked, one a line
            (``OTEL_INSTRUMENTATION_MCP_REDACT_PATTERNS``).
        pii_detector: ``presidio``, or ``module:function`` that finds ``(start, end)`` of what to mask in a text
            (``OTEL_INSTRUMENTATION_MCP_PII_DETECTOR``).
        clean_spans: whether spans of other MCP libraries are redacted too
            (``OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS``).
        clean_spans_scopes: whose, by the beginning of their scope's name; ``*`` for all; empty for the known ones
            (``OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS_SCOPES``).
        identity: ``off``, ``on`` or ``hashed`` (also ``hmac``): who a message is from
            (``OTEL_INSTRUMENTATION_MCP_IDENTITY``).
        identity_key: the secret of ``hashed``, at least 16 characters (``OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY``).
        langfuse: ``auto`` (by the OTLP endpoint), ``on`` or ``off`` (``OTEL_INSTRUMENTATION_MCP_LANGFUSE``).
        baggage_attributes: baggage entries (``name``, ``prefix.*``) that become attributes
            (``OTEL_INSTRUMENTATION_MCP_BAGGAGE_ATTRIBUTES``).
        baggage_outbound: the only baggage entries that leave with a message; ``*`` for all; ``auto`` for all, but
            none from a ContextForge gateway (``OTEL_INSTRUMENTATION_MCP_BAGGAGE_OUTBOUND``).
        stdio_children: ``off``, ``on`` or ``on+headers``: whether Python servers started over stdio are instrumented
            too, and get credentials for it (``OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN``).
    """

    disabled_targets: Iterable[str] = ()
    native_spans: str = "replace"
    excluded_methods: Iterable[str] = ()
    remote_parent: str = "parent"
    resource_uri_in_span_name: bool = False
    execute_tool_span: str = "reuse"
    capture_content: str = NO_CONTENT
    capture_inputs: Iterable[str] = ("*",)
    exclude_inputs: Iterable[str] = ()
    capture_outputs: Iterable[str] = ("*",)
    exclude_outputs: Iterable[str] = ()
    error_text: str = "redacted"
    stacktraces: bool = False
    max_payload: int = _PAYLOAD
    max_error_text: int = 1_024
    redact_keys: Iterable[str] = ()
    keep_keys: Iterable[str] = ()
    redact_patterns: Iterable[str] = ()
    pii_detector: str | Detector | None = None
    clean_spans: bool = False
    clean_spans_scopes: Iterable[str] = ()
    identity: str = "off"
    identity_key: str | None = field(default=None, repr=False)
    langfuse: str = "auto"
    baggage_attributes: Iterable[str] = ()
    baggage_outbound: Iterable[str] = ("auto",)
    stdio_children: str = "off"

    def __post_init__(self) -> None:
        from .targets import TARGET_NAMES

        self.disabled_targets = self._names("disabled_targets", TARGET_NAMES)
        self.native_spans = self._choice("native_spans", "replace", "keep")
        self.excluded_methods = self._names("excluded_methods")
        self.remote_parent = self._choice("remote_parent", "parent", "link", "ignore")
        self.resource_uri_in_span_name = self._flag("resource_uri_in_span_name")
        self.execute_tool_span = self._choice("execute_tool_span", "reuse", "separate")
        self.capture_content = self._choice(
            "capture_content", NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT, normal=str.upper
        )
        for name in ("capture_inputs", "exclude_inputs", "capture_outputs", "exclude_outputs", "redact_keys"):
            setattr(self, name, self._names(name))
        for name in ("keep_keys", "clean_spans_scopes", "baggage_attributes", "baggage_outbound"):
            setattr(self, name, self._names(name))
        # Whoever says anything of it wants less than the default.
        self.error_text = self._choice("error_text", "redacted", "off", fallback="off")
        self.stacktraces = self._flag("stacktraces")
        self.max_payload = self._number("max_payload", _PAYLOAD, least=_LEAST_PAYLOAD)
        self.max_error_text = self._number("max_error_text", 1_024, least=16)
        self.redact_patterns = self._parts("redact_patterns", "\n")
        self.clean_spans = self._flag("clean_spans")
        self.identity = self._choice("identity", "off", "on", "hashed", "hmac").replace("hmac", "hashed")
        self.langfuse = self._choice("langfuse", "auto", "on", "off")
        self.stdio_children = self._choice("stdio_children", "off", "on", "on+headers")
        if not (self.pii_detector is None or isinstance(self.pii_detector, str) or callable(self.pii_detector)):
            self._reject("pii_detector", self.pii_detector, None)
            self.pii_detector = None
        key: Any = self.identity_key
        if not isinstance(key, (str, type(None))):
            self._reject("identity_key", "(a secret)", None)
            self.identity_key = None

    @classmethod
    def load(cls, overrides: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> McpConfig:
        """Configuration from ``overrides``, where they say nothing from the environment, else the defaults."""
        values: dict[str, Any] = {}
        for option in fields(cls):
            if overrides.get(option.name) is not None:
                values[option.name] = overrides[option.name]
            elif environ.get(variable_of(option.name)):
                values[option.name] = environ[variable_of(option.name)]
        return cls(**{**_from_gateway(environ, values), **values})

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, McpConfig) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # what can change has none

    def unused_targets(self) -> frozenset[str]:
        """Names of targets that stay untouched: disabled, or of no use with these options."""
        unused = {"stdio_children"} if self.stdio_children == "off" else set[str]()
        return frozenset(self.disabled_targets) | unused

    def tells_more(self, environ: Mapping[str, str] = os.environ) -> bool:
        """Whether anything besides the ordinary may have to be told of an ordinary message."""
        if self.capture_content != NO_CONTENT or self.identity != "off" or self.baggage_attributes:
            return True
        return self.langfuse == "on" or (
            self.langfuse == "auto" and any(LANGFUSE_PATH in environ.get(name, "") for name in OTLP_ENDPOINTS)
        )

    def _reject(self, name: str, value: object, used: object) -> None:
        _reject(variable_of(name), value, used)

    def _choice(
        self,
        name: str,
        default: str,
        *others: str,
        normal: Callable[[str], str] = str.lower,
        fallback: str | None = None,
    ) -> str:
        value: object = getattr(self, name)
        chosen = normal(value.strip()) if isinstance(value, str) else value
        if chosen == default or chosen in others:
            return str(chosen)
        self._reject(name, value, fallback or default)
        return fallback or default

    def _flag(self, name: str) -> bool:
        value: object = getattr(self, name)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
            return value.strip().lower() in _TRUE
        self._reject(name, value, False)
        return False

    def _number(self, name: str, default: int, *, least: int) -> int:
        value: object = getattr(self, name)
        number = _as_number(value)
        if number >= least:
            return number
        self._reject(name, value, default)
        return default

    def _names(self, name: str, known: frozenset[str] | None = None) -> frozenset[str]:
        names = frozenset(self._parts(name, ","))
        if known is not None and names - known:
            self._reject(name, ",".join(sorted(names - known)), ",".join(sorted(names & known)))
            names &= known
        return names

    def _parts(self, name: str, separator: str) -> tuple[str, ...]:
        value: Any = getattr(self, name)
        parts = _strings(value.split(separator) if isinstance(value, str) else value)
        if parts is None:
            default: Any = type(self).__dataclass_fields__[name].default
            self._reject(name, value, ",".join(default))
            return tuple(default)
        return tuple(part.strip() for part in parts if part.strip())


def _as_number(value: object) -> int:
    """``value`` as an integer; -1 if it is none."""
    try:
        return int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else -1
    except ValueError:
        return -1


def _reject(variable: str, value: object, used: object) -> None:
    logger.warning("%s: %r is not understood, %r is used instead", variable, value, used)


def _strings(value: Any) -> list[str] | None:
    try:
        parts: list[Any] = list(value)
    except TypeError:
        return None
    return parts if all(isinstance(part, str) for part in parts) else None


def variable_of(field_name: str) -> str:
    """The environment variable behind a field of :class:`McpConfig`."""
    if field_name == "capture_content":
        return env.OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT
    return str(getattr(env, f"OTEL_INSTRUMENTATION_MCP_{field_name.upper()}"))


def _from_gateway(environ: Mapping[str, str], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the ContextForge gateway's own variables say; what is ``said`` already wins, and is not looked for."""
    found: dict[str, Any] = {}
    if environ.get("OTEL_REDACT_FIELDS", "").strip():
        found["redact_keys"] = environ["OTEL_REDACT_FIELDS"]
    size = environ.get("OTEL_MAX_TRACE_PAYLOAD_SIZE", "").strip()
    if size and "max_payload" not in said:
        if _as_number(size) >= _LEAST_PAYLOAD:
            found["max_payload"] = size
        else:
            _reject("OTEL_MAX_TRACE_PAYLOAD_SIZE", size, _PAYLOAD)
    if environ.get("OTEL_CAPTURE_IDENTITY_ATTRIBUTES", "").strip().lower() in _TRUE:
        found["identity"] = "on"
    if all(
        environ.get(f"OTEL_BAGGAGE_{name}", "").strip().lower() in _TRUE
        for name in ("ENABLED", "PROPAGATE_TO_EXTERNAL")
    ):
        found["baggage_outbound"] = _baggage_keys(environ.get("OTEL_BAGGAGE_HEADER_MAPPINGS", ""))
    langfuse = environ.get("OTEL_EMIT_LANGFUSE_ATTRIBUTES", "").strip().lower()
    if langfuse in _TRUE | _FALSE:
        found["langfuse"] = "on" if langfuse in _TRUE else "off"
    elif langfuse and "langfuse" not in said:
        _reject("OTEL_EMIT_LANGFUSE_ATTRIBUTES", langfuse, "auto")
    inputs, outputs = (_captured_spans(environ.get(f"OTEL_CAPTURE_{way}_SPANS", "")) for way in ("INPUT", "OUTPUT"))
    if inputs or outputs:
        found["capture_content"] = SPAN_ONLY
        found["capture_inputs"] = "*" if inputs else ()
        found["capture_outputs"] = "*" if outputs else ()
    return found


def _baggage_keys(mappings: str) -> list[str]:
    """The baggage entries that the gateway makes of HTTP headers, by its setting; a JSON list."""
    import json  # not for those who do without

    try:
        entries: list[Any] = json.loads(mappings or "[]")
        return [entry["baggage_key"] for entry in entries]
    except (ValueError, TypeError, KeyError):
        return []


def _captured_spans(names: str) -> bool:
    """Whether a list of the gateway's span names has one whose payload is that of an MCP message."""
    return not _GATEWAY_SPANS.isdisjoint(name.strip() for name in names.split(","))
