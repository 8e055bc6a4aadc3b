"""What Langfuse needs besides the conventions' attributes to show an MCP operation as what it is. Pure.

Its OpenTelemetry ingestion maps ``gen_ai.*`` by itself. What it does not know is added, and only where its rules want
it: attributes of the trace on the local root alone (on any other span they would change the trace again), a level only
for errors (it beats the span's status), a payload only where it is not on the span already.

Source of the rules: the attribute mapping of Langfuse's OpenTelemetry endpoint (documentation "OpenTelemetry" of
Langfuse, ``packages/shared/src/server/otel`` of its repository).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from . import identity as who
from . import semconv
from .config import LANGFUSE_PATH

AUTO: Final = "auto"
ON: Final = "on"
OFF: Final = "off"
MODES: Final = (AUTO, ON, OFF)

OBSERVATION_TYPE: Final = "langfuse.observation.type"
OBSERVATION_LEVEL: Final = "langfuse.observation.level"
OBSERVATION_INPUT: Final = "langfuse.observation.input"
OBSERVATION_OUTPUT: Final = "langfuse.observation.output"
TRACE_NAME: Final = "langfuse.trace.name"
TRACE_TAGS: Final = "langfuse.trace.tags"
TRACE_USER: Final = "langfuse.user.id"
TRACE_SESSION: Final = "langfuse.session.id"

MAX_ID: Final = 200
"""Characters; Langfuse drops longer session ids (and user ids)."""

TRACE_LEVEL: Final = frozenset({who.USER_ID, who.SESSION_ID, TRACE_USER, TRACE_SESSION, TRACE_NAME, TRACE_TAGS})
"""Attributes that change the whole trace, from whichever span they come."""

_TRACE_NAMES: Final = {
    "tools/call": "Tool",
    "tools/list": "Tools",
    "prompts/get": "Prompt",
    "prompts/list": "Prompts",
    "resources/read": "Resource",
    "resources/list": "Resources",
    "resources/templates/list": "Resource Templates",
    "roots/list": "Roots",
}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

Attributes = dict[str, Any]


class Described(NamedTuple):
    """An operation as far as Langfuse is concerned; all texts have been through the payload policy.

    ``target`` names a tool or prompt (or a resource, where URIs may be in names). ``local_root``: no span of this
    process is above; ``remote_parent``: one of another process is. ``identity`` is what the identity policy shows.
    ``input`` and ``output`` are JSON texts; ``content_on_span``: the span carries them in ``gen_ai.tool.call.*``.
    """

    method: str
    target: str | None = None
    local_root: bool = False
    remote_parent: bool = False
    failed: bool = False
    identity: Mapping[str, Any] = {}
    environment: str | None = None
    input: str | None = None
    output: str | None = None
    content_on_span: bool = False


def is_wanted(setting: str, endpoints: Iterable[str | None] = (), gateway_setting: str | None = None) -> bool:
    """Whether spans get Langfuse's attributes.

    Args:
        setting: ``on``, ``off``, or ``auto``, which looks at the rest.
        endpoints: the OTLP endpoints in use; one whose path contains ``/api/public/otel`` is Langfuse's.
        gateway_setting: ``OTEL_EMIT_LANGFUSE_ATTRIBUTES`` of the ContextForge gateway, stronger than the endpoints.
    """
    if setting in (ON, OFF):
        return setting == ON
    gateway = (gateway_setting or "").strip().lower()
    if gateway in _TRUE or gateway in _FALSE:
        return gateway in _TRUE
    return any(_is_langfuse(endpoint) for endpoint in endpoints if endpoint)


def _is_langfuse(endpoint: str) -> bool:
    try:
        return LANGFUSE_PATH in urlsplit(endpoint.strip()).path
    except ValueError:
        return False


def attributes_at_start(operation: Described) -> Attributes:
    """What to add when the operation begins: its type, and on the local root what concerns the trace."""
    attributes: Attributes = {}
    if operation.method == "tools/call":
        attributes[OBSERVATION_TYPE] = "tool"
    if operation.input is not None and not operation.content_on_span:
        attributes[OBSERVATION_INPUT] = operation.input
    if operation.local_root:
        attributes.update(_trace_attributes(operation))
    return attributes


def attributes_at_end(operation: Described) -> Attributes:
    """What to add when the operation ends: its output, and a level if it failed."""
    attributes: Attributes = {}
    if operation.output is not None and not operation.content_on_span:
        attributes[OBSERVATION_OUTPUT] = operation.output
    if operation.failed:
        attributes[OBSERVATION_LEVEL] = "ERROR"
    return attributes


def without_trace_level(attributes: Mapping[str, Any]) -> Attributes:
    """``attributes`` (an identity's) for a span that is not the local root: without what would change the trace."""
    return {key: value for key, value in attributes.items() if key not in TRACE_LEVEL}


def trace_name(method: str, target: str | None = None) -> str:
    """The name of a trace whose root is this operation, as the ContextForge gateway names its own; 200 characters."""
    kind = _TRACE_NAMES.get(method)
    if kind is None:
        name = semconv.span_name(method, target)
    else:
        name = f"{kind}: {target}" if target and not kind.endswith("s") else kind
    return semconv.clean(name, MAX_ID)


def _trace_attributes(operation: Described) -> Attributes:
    identity = operation.identity
    attributes: Attributes = {}
    if not operation.remote_parent:
        # A caller's trace has its name from the caller.
        attributes[TRACE_NAME] = trace_name(operation.method, operation.target)
    user = identity.get(who.USER_ID) or identity.get(who.USER_EMAIL) or identity.get(who.ENDUSER_ID)
    for key, value in ((TRACE_USER, user), (TRACE_SESSION, identity.get(who.SESSION_ID))):
        if isinstance(value, str) and 0 < len(value) <= MAX_ID:
            attributes[key] = value
    tags = [
        f"{kind}:{value}"
        for kind, value in (
            ("team", _first(identity.get(who.TEAM_IDS)) or identity.get(who.TEAM_NAME)),
            ("auth", identity.get(who.AUTH_METHOD)),
            ("env", operation.environment),
        )
        if value
    ]
    if tags:
        attributes[TRACE_TAGS] = tuple(semconv.clean(tag, MAX_ID) for tag in tags)
    return attributes


def _first(values: Any) -> Any:
    return next(iter(cast("list[Any]", values)), None) if isinstance(values, (tuple, list)) else None
