"""The MCP semantic conventions as constants and pure functions; knows neither OpenTelemetry nor any library.

Source of the names and rules: OpenTelemetry semantic conventions for MCP
(open-telemetry/semantic-conventions-genai, ``docs/gen-ai/mcp.md``) and SEP-414 of the Model Context Protocol.
"""

from __future__ import annotations

import re
from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.43.0"

METHOD: Final = "mcp.method.name"
SESSION_ID: Final = "mcp.session.id"
PROTOCOL_VERSION: Final = "mcp.protocol.version"
RESOURCE_URI: Final = "mcp.resource.uri"
REQUEST_ID: Final = "jsonrpc.request.id"
TOOL_NAME: Final = "gen_ai.tool.name"
PROMPT_NAME: Final = "gen_ai.prompt.name"
OPERATION_NAME: Final = "gen_ai.operation.name"
EXECUTE_TOOL: Final = "execute_tool"
ERROR_TYPE: Final = "error.type"
# Upstream renames this to rpc.status_code after semantic conventions 1.44; this is the one place that names it.
STATUS_CODE: Final = "rpc.response.status_code"
NETWORK_TRANSPORT: Final = "network.transport"
NETWORK_PROTOCOL_NAME: Final = "network.protocol.name"
NETWORK_PROTOCOL_VERSION: Final = "network.protocol.version"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
CLIENT_ADDRESS: Final = "client.address"
CLIENT_PORT: Final = "client.port"

OTHER: Final = "_OTHER"
TOOL_ERROR: Final = "tool_error"
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"

CLIENT_OPERATION_DURATION: Final = "mcp.client.operation.duration"
SERVER_OPERATION_DURATION: Final = "mcp.server.operation.duration"
CLIENT_SESSION_DURATION: Final = "mcp.client.session.duration"
SERVER_SESSION_DURATION: Final = "mcp.server.session.duration"
OPERATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

MAX_NAME: Final = 128
MAX_ATTRIBUTE: Final = 256

WELL_KNOWN_METHODS: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "completion/complete",
        "logging/setLevel",
        "elicitation/create",
        "sampling/createMessage",
        "roots/list",
        "tools/list",
        "tools/call",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/message",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
    }
)

# Where the params of a method say what the message is about: the name of a tool or prompt, a reference, a URI.
TARGET_FIELDS: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "completion/complete": "ref",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
    "notifications/resources/updated": "uri",
}

# The revisions a message may claim about itself; any other is believed only once the library negotiated it.
KNOWN_PROTOCOL_VERSIONS: Final = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"})
_REVISION: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_USER_INFO_IN_PATH: Final = re.compile(r"/[^/@]*:[^/@]*@")
# Revisions without initialize and without sessions.
SESSIONLESS_PROTOCOL_VERSIONS: Final = frozenset({"2026-07-28"})

PROTOCOL_VERSION_META_KEY: Final = "io.modelcontextprotocol/protocolVersion"

# JSON-RPC codes by which a receiver says that the caller is at fault: not errors of a SERVER span.
CALLERS_FAULT: Final = frozenset({"-32700", "-32600", "-32601", "-32602", "-32002"})

# A subscription has no other end than its client's: cancelling it is no error.
ENDED_BY_CANCELLING: Final = frozenset({"subscriptions/listen"})

# What protocol and SDKs themselves put into an error message; any other text may carry a payload.
PROTOCOL_PHRASES: Final = frozenset(
    {
        "Parse error",
        "Invalid Request",
        "Invalid request",
        "Method not found",
        "Invalid params",
        "Invalid request parameters",
        "Internal error",
        "Internal server error",
        "Not Found",
        "Connection closed",
        "Session terminated",
        "Request cancelled",
        "Server returned an error response",
        "Handler returned an invalid result",
        "Client callback returned an invalid result",
        "Sampling not supported",
        "Elicitation not supported",
        "List roots not supported",
    }
)
_PHRASE_OF_CODE: Final = {
    "-32700": "Parse error",
    "-32600": "Invalid request",
    "-32601": "Method not found",
    "-32602": "Invalid params",
    "-32603": "Internal error",
    "-32002": "Resource not found",
    "-32020": "Header mismatch",
    "-32021": "Missing required client capability",
    "-32022": "Unsupported protocol version",
    "-32042": "URL elicitation required",
}


def clean(text: str, limit: int = MAX_ATTRIBUTE) -> str:
    """Bound ``text`` to ``limit`` characters and replace what no terminal, log or exporter should be handed.

    That is all Python calls unprintable (control, bidi and other format characters, separators, lone surrogates);
    each becomes U+FFFD.
    """
    if len(text) > limit:
        text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


_USUAL_BITS: Final = 64


def request_id_text(request_id: str | int) -> str:
    """A JSON-RPC id as the conventions want it, a string; Python refuses to print integers of thousands of digits."""
    if type(request_id) is int and request_id.bit_length() < _USUAL_BITS:
        return str(request_id)
    if not isinstance(request_id, int):
        return clean(str(request_id))
    return clean(hex(request_id)) if request_id.bit_length() > MAX_ATTRIBUTE * 4 else str(request_id)[:MAX_ATTRIBUTE]


def is_revision(version: str) -> bool:
    """Whether ``version`` has the form of a protocol revision, a date."""
    return _REVISION.fullmatch(version) is not None


def bare_uri(uri: str) -> str:
    """``uri`` without its user info, query and fragment, which may be anything; ``***`` stands where they were."""
    end = min((at for at in (uri.find("?"), uri.find("#")) if at >= 0), default=len(uri))
    bare, cut = uri[:end], uri[end : end + 1]
    start = bare.find("://") + 3
    user_info_end = bare.rfind("@", start, bare.find("/", start) if "/" in bare[start:] else len(bare))
    if start > 2 and user_info_end >= 0:
        bare = f"{bare[:start]}***{bare[user_info_end:]}"
    # Servers that mount others put a name before what was the authority.
    bare = _USER_INFO_IN_PATH.sub("/***@", bare)
    return f"{bare}{cut}***" if cut else bare


def carries_uri(method: str) -> bool:
    """Whether the conventions want ``mcp.resource.uri`` on a message of this method."""
    return TARGET_FIELDS.get(method) == "uri"


def target_attribute(method: str) -> str | None:
    """The attribute that names what a message is about, and that its span name ends with."""
    if method == "tools/call":
        return TOOL_NAME
    return PROMPT_NAME if TARGET_FIELDS.get(method) in ("name", "ref") else None


def span_name(method: str, target: str | None) -> str:
    """``{mcp.method.name} {target}``, else ``{mcp.method.name}``; at most 128 characters."""
    name = clean(method, MAX_NAME)
    return clean(f"{name} {target}", MAX_NAME) if target else name


def is_error(status_code: str, *, server: bool) -> bool:
    """Whether a JSON-RPC error code is an error of the span: on clients always, on servers unless the caller's."""
    return not (server and status_code in CALLERS_FAULT)


def protocol_phrase(status_code: str | None, message: str | None) -> str | None:
    """A description of an error that cannot carry a payload: what protocol and SDKs say, never what a handler says."""
    if message is not None and message in PROTOCOL_PHRASES:
        return message
    return _PHRASE_OF_CODE.get(status_code) if status_code is not None else None
