"""The conventions for MCP spans and metrics as a table of our own, against which ``conformance`` checks.

Written down here a second time on purpose: a name misspelt in the package must not be misspelt here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from opentelemetry.trace import SpanKind

SCOPE = "opentelemetry_instrumentation_mcp"
SCHEMA_URL_PREFIX = "https://opentelemetry.io/schemas/"

MAX_SPAN_NAME = 128
MAX_ATTRIBUTE = 256
MAX_STATUS_TEXT = 1024
MAX_CONTENT = 32768
OTHER_METHOD = "_OTHER"
TOOL_ERROR = "tool_error"
# Reasons an operation ended that the observer knows better than the code the peer answered with.
LOCAL_ERRORS = frozenset({"cancelled", "timeout"})

# The revision of the protocol that has no sessions.
SESSIONLESS_PROTOCOL = "2026-07-28"

# JSON-RPC codes with which a receiver says that the sender asked for something it cannot have.
CALLERS_FAULT = frozenset({"-32700", "-32600", "-32601", "-32602", "-32002"})

# Upstream is going to call it rpc.status_code.
STATUS_CODE = "rpc.response.status_code"

CLIENT, SERVER = SpanKind.CLIENT, SpanKind.SERVER

# --- methods ------------------------------------------------------------------------------------------------

TOOLS_CALL = "tools/call"
PROMPTS_GET = "prompts/get"
COMPLETE = "completion/complete"
URI_METHODS = frozenset(
    {"resources/read", "resources/subscribe", "resources/unsubscribe", "notifications/resources/updated"}
)
KNOWN_REQUESTS = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        TOOLS_CALL,
        "tools/list",
        PROMPTS_GET,
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        COMPLETE,
        "logging/setLevel",
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/cancel",
    }
)
KNOWN_NOTIFICATIONS = frozenset(
    {
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/message",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
        "notifications/tasks/status",
        "notifications/subscriptions/acknowledged",
    }
)
KNOWN_METHODS = KNOWN_REQUESTS | KNOWN_NOTIFICATIONS

# --- metrics ------------------------------------------------------------------------------------------------

CLIENT_OPERATION = "mcp.client.operation.duration"
SERVER_OPERATION = "mcp.server.operation.duration"
CLIENT_SESSION = "mcp.client.session.duration"
SERVER_SESSION = "mcp.server.session.duration"
OPERATIONS = frozenset({CLIENT_OPERATION, SERVER_OPERATION})
SESSIONS = frozenset({CLIENT_SESSION, SERVER_SESSION})
METRICS = OPERATIONS | SESSIONS
METRIC_UNIT = "s"
OPERATION_BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
METRIC_KIND = {
    CLIENT_OPERATION: CLIENT,
    CLIENT_SESSION: CLIENT,
    SERVER_OPERATION: SERVER,
    SERVER_SESSION: SERVER,
}

# --- attributes ---------------------------------------------------------------------------------------------

Requirement = Literal["required", "conditional", "recommended", "opt-in"]


@dataclass(frozen=True)
class Attribute:
    """One row: where an attribute may stand, and what it may hold there."""

    name: str
    """A name ending with ``*`` stands for every name that begins so."""
    requirement: Requirement
    type: type = str
    kinds: frozenset[SpanKind] = frozenset({CLIENT, SERVER})
    metrics: frozenset[str] = frozenset()
    methods: frozenset[str] | None = None
    """The only methods it belongs to; None for every method."""
    expected_on: frozenset[str] = frozenset()
    """Methods whose successful spans must carry it."""
    values: frozenset[str] | None = None
    content: bool = False
    """It holds what users sent or got: only where capture was asked for."""


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("mcp.method.name", "required", metrics=OPERATIONS),
    Attribute("mcp.protocol.version", "recommended", metrics=METRICS),
    Attribute("mcp.session.id", "recommended"),
    Attribute("mcp.resource.uri", "conditional", methods=URI_METHODS, expected_on=URI_METHODS),
    Attribute("jsonrpc.request.id", "conditional"),
    Attribute("jsonrpc.protocol.version", "recommended", metrics=METRICS),
    Attribute(STATUS_CODE, "conditional", metrics=OPERATIONS),
    Attribute("error.type", "conditional", metrics=METRICS),
    Attribute(
        "gen_ai.operation.name",
        "recommended",
        metrics=OPERATIONS,
        methods=frozenset({TOOLS_CALL}),
        values=frozenset({"execute_tool"}),
    ),
    Attribute(
        "gen_ai.tool.name",
        "conditional",
        metrics=OPERATIONS,
        methods=frozenset({TOOLS_CALL}),
        expected_on=frozenset({TOOLS_CALL}),
    ),
    Attribute(
        "gen_ai.prompt.name",
        "conditional",
        metrics=OPERATIONS,
        methods=frozenset({PROMPTS_GET, COMPLETE}),
        expected_on=frozenset({PROMPTS_GET}),
    ),
    Attribute(
        "network.transport",
        "recommended",
        metrics=OPERATIONS,
        values=frozenset({"tcp", "quic", "pipe"}),
    ),
    Attribute(
        "network.protocol.name",
        "recommended",
        metrics=METRICS,
        values=frozenset({"http", "websocket"}),
    ),
    Attribute("network.protocol.version", "recommended", metrics=OPERATIONS),
    Attribute(
        "server.address",
        "recommended",
        kinds=frozenset({CLIENT}),
        metrics=frozenset({CLIENT_OPERATION, CLIENT_SESSION}),
    ),
    Attribute(
        "server.port",
        "recommended",
        type=int,
        kinds=frozenset({CLIENT}),
        metrics=frozenset({CLIENT_OPERATION, CLIENT_SESSION}),
    ),
    Attribute("client.address", "recommended", kinds=frozenset({SERVER})),
    Attribute("client.port", "recommended", type=int, kinds=frozenset({SERVER})),
    Attribute("gen_ai.tool.call.arguments", "opt-in", methods=frozenset({TOOLS_CALL}), content=True),
    Attribute("gen_ai.tool.call.result", "opt-in", methods=frozenset({TOOLS_CALL}), content=True),
    Attribute("gen_ai.prompt.variable.*", "opt-in", methods=frozenset({PROMPTS_GET}), content=True),
)

# What the wrapped libraries alone know and a span may keep of it: pass as ``extra`` where they are in play.
HARVESTED = ("fastmcp.*", "enduser.*")

# INTERNAL spans: what happens inside a server between messages. They must not look like messages.
INTERNAL_NAMES = re.compile(
    r"delegate .+|execute_tool .+|render_prompt .+|read_resource|list_(tools|prompts|resources|resource_templates)"
    r"|plugin\.hook\.invoke|plugin\.execute"
    r"|tool\.invoke|resource\.read|prompt\.render|a2a\.invoke|mcp\.client\.(call|initialize|request|response)"
)
PLUGIN_ATTRIBUTES = {
    "plugin.hook.type": str,
    "plugin.chain.length": int,
    "plugin.chain.stopped": bool,
    "plugin.chain.stopped_by": str,
    "plugin.executed_count": int,
    "plugin.skipped_count": int,
    "plugin.name": str,
    "plugin.kind": str,
    "plugin.mode": str,
    "plugin.priority": int,
    "plugin.had_violation": bool,
    "plugin.violation.code": str,
    "plugin.violation.reason": str,
    "plugin.violation.description": str,
    "plugin.violation.details": str,
    "plugin.modified_payload": bool,
    "plugin.continue_processing": bool,
    "plugin.stopped_chain": bool,
}
# Of the gateway. Who somebody is (`user.*`, `team.*`, `session.id`) is told by option only.
GATEWAY_ATTRIBUTES = {
    "tool.name": str,
    "tool.id": str,
    "tool.integration_type": str,
    "tool.gateway_id": str,
    "mcp.tool.name": str,
    "contextforge.tool.id": str,
    "contextforge.gateway_id": str,
    "contextforge.runtime": str,
    "contextforge.transport": str,
    "contextforge.session.pooled": bool,
    "contextforge.attempts": int,
    "upstream.response.success": bool,
    "success": bool,
    "duration.ms": float,
    "arguments_count": int,
    "has_headers": bool,
    "server_id": str,
    "resource.id": str,
    "resource.name": str,
    "resource.type": str,
    "resource.uri": str,
    "prompt.id": str,
    "a2a.agent.id": str,
    "a2a.agent.name": str,
    "a2a.agent.type": str,
    "a2a.interaction_type": str,
    "server.address": str,
    "server.port": int,
    "correlation_id": str,
    "request_id": str,
    "auth.method": str,
    "user.email": str,
    "user.is_admin": bool,
    "team.scope": str,
    "team.name": str,
    "session.id": str,
}
INTERNAL_TYPES = PLUGIN_ATTRIBUTES | GATEWAY_ATTRIBUTES
INTERNAL_ATTRIBUTES = (
    "fastmcp.*",
    "gen_ai.operation.name",
    "gen_ai.tool.name",
    "gen_ai.prompt.name",
    "mcp.resource.uri",
    "error.type",
    STATUS_CODE,
    *INTERNAL_TYPES,
)

# Texts of the host on INTERNAL spans: how long they may be.
INTERNAL_TEXTS = {
    "plugin.violation.reason": MAX_STATUS_TEXT,
    "plugin.violation.description": MAX_STATUS_TEXT,
    "plugin.violation.details": MAX_CONTENT,
}

# Only these have a JSON text as their value; a prompt's variable is the text itself.
JSON_CONTENT = frozenset({"gen_ai.tool.call.arguments", "gen_ai.tool.call.result"})

_EXACT = {row.name: row for row in ATTRIBUTES if not row.name.endswith("*")}
_TEMPLATES = tuple(row for row in ATTRIBUTES if row.name.endswith("*"))


def lookup(name: str) -> Attribute | None:
    """The row an attribute's name belongs to."""
    return _EXACT.get(name) or next((row for row in _TEMPLATES if matches(name, row.name)), None)


def matches(name: str, pattern: str) -> bool:
    """Whether a name is the pattern, or begins with it and goes on where the pattern ends with ``*``."""
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1]) and len(name) > len(pattern) - 1
    return name == pattern


def is_notification(method: str) -> bool:
    return method.startswith("notifications/")
