"""What the ContextForge gateway knows: which request it serves, for whom, why something failed. Never imported."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from ..guard import contained
from ..identity import AUTH_METHOD, SESSION_ID, TEAM_NAME, USER_EMAIL
from ..message import CANCELLED, TIMED_OUT, Outcome, as_mapping, is_cancellation, outcome_of_exception
from ..telemetry import Telemetry
from .sdk_v1 import outcome_for_sender

CORRELATION_ID: Final = "correlation_id"
REQUEST_ID: Final = "request_id"
IS_ADMIN: Final = "user.is_admin"
TEAM_SCOPE: Final = "team.scope"

PLUGIN_VIOLATION: Final = Outcome("plugin_violation")

# Where the gateway keeps what it found out about an HTTP request, in the request's ASGI scope.
_REQUEST_FACTS: Final = "_mcpgateway_context"
_CORRELATION_ID: Final = "opentelemetry_instrumentation_mcp.correlation_id"
# Ids come from a header of the caller's: what does not look like one is not told.
_ID: Final = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_TOKEN: Final = re.compile(r"[a-z0-9_-]{1,32}", re.ASCII)
# The gateway raises these in place of what happened.
_WRAPPERS: Final = frozenset({"ToolInvocationError", "ResourceError", "PromptError", "A2AAgentError"})
_MAX_CAUSES: Final = 20
_MAX_TEAMS: Final = 5


@contained("look for the gateway's own tracing")
def native_tracing() -> bool:
    """Whether the gateway's own OpenTelemetry tracing is on."""
    return getattr(sys.modules.get("mcpgateway.observability"), "_TRACER", None) is not None


@contained("ask whose spans are wanted")
def stands_down(telemetry: Telemetry) -> bool:
    """Whether the gateway's own spans are there and are to stay."""
    return telemetry.keeps_native_spans and bool(native_tracing())


@contained("read what the gateway knows of a request")
def _facts(telemetry: Telemetry) -> dict[str, Any]:
    scope = _served_scope()
    correlation_id = scope.get(_CORRELATION_ID, current_correlation_id()) if scope else current_correlation_id()
    known = isinstance(correlation_id, str) and _ID.fullmatch(correlation_id)
    facts: dict[str, Any] = {CORRELATION_ID: correlation_id, REQUEST_ID: correlation_id} if known else {}
    user = _served_user(scope)
    method = user.get(AUTH_METHOD)
    if isinstance(method, str) and _TOKEN.fullmatch(method):
        facts[AUTH_METHOD] = method
    if telemetry.config.identity != "off":
        for key in (USER_EMAIL, IS_ADMIN, TEAM_SCOPE, TEAM_NAME, SESSION_ID):
            if user.get(key) is not None:
                facts[key] = telemetry.telling.disclosure.identity_attribute(key, user[key])
    return facts


def request_facts(telemetry: Telemetry) -> dict[str, Any]:
    """Attributes of each span of the gateway: ids of the request, how its sender logged in; who it is by option."""
    return _facts(telemetry) or {}


def current_correlation_id() -> Any:
    """The id of the HTTP request in whose context this runs."""
    return _call("mcpgateway.utils.correlation_id", "get_correlation_id")


@contained("keep the id of a request")
def keep_correlation_id(scope: MutableMapping[str, Any]) -> None:
    """Keep the id of the HTTP request in its ASGI scope: its message may be handled in another context."""
    scope[_CORRELATION_ID] = current_correlation_id()


def _served_user(scope: Mapping[str, Any] | None) -> dict[str, Any]:
    """Who sent what is being served, by the names of the attributes."""
    served: Mapping[str, Any] | None = as_mapping(scope.get(_REQUEST_FACTS)) if scope else None
    if served is not None:
        user, headers = _mapping(served.get("user_context")), _mapping(served.get("request_headers"))
        return {
            USER_EMAIL: user.get("email"),
            IS_ADMIN: user.get("is_admin"),
            TEAM_SCOPE: _team_scope(user.get("teams")) if "teams" in user else None,
            TEAM_NAME: user.get("team_name"),
            AUTH_METHOD: user.get("auth_method"),
            SESSION_ID: headers.get("x-mcp-session-id") or headers.get("mcp-session-id"),
        }
    getters = {
        USER_EMAIL: "user_email",
        IS_ADMIN: "user_is_admin",
        TEAM_SCOPE: "team_scope",
        TEAM_NAME: "team_name",
        AUTH_METHOD: "auth_method",
        SESSION_ID: "session_id",
    }
    return {key: _call("mcpgateway.utils.trace_context", f"get_trace_{name}") for key, name in getters.items()}


def _served_scope() -> Mapping[str, Any] | None:
    """The ASGI scope of the request that carried the message of a session which is being handled.

    A stateful session runs in the context of its first request: what that says is out of date.
    """
    app = getattr(sys.modules.get("mcpgateway.transports.streamablehttp_transport"), "mcp_app", None)
    try:
        request = app.request_context.request if app is not None else None
    except LookupError:
        return None  # no message of a session is being handled
    return as_mapping(getattr(request, "scope", None))


def _mapping(value: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = as_mapping(value)
    return found or {}


def _team_scope(teams: Any) -> str | None:
    if teams is None:
        return "admin"
    names = [team if isinstance(team, str) else str(_mapping(team).get("id", "")) for team in teams]
    return ",".join(names[:_MAX_TEAMS]) + (",..." if len(names) > _MAX_TEAMS else "") if names else "public"


def _call(module: str, name: str) -> Any:
    function = getattr(sys.modules.get(module), name, None)
    return function() if function is not None else None


def outcome_of(error: BaseException) -> Outcome:
    """What an exception of the gateway says of the work it ended; named by its cause, never by what wraps it."""
    cause = _cause(error)
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if "PluginViolationError" in kinds:
        return PLUGIN_VIOLATION
    if "ToolTimeoutError" in kinds or isinstance(cause, TimeoutError):
        return TIMED_OUT
    if is_cancellation(cause):
        return CANCELLED
    if kinds & {"McpError", "MCPError"}:
        return outcome_for_sender(None, cause)
    return outcome_of_exception(cause)


def _cause(error: BaseException) -> BaseException:
    current = error
    for _ in range(_MAX_CAUSES):
        inner: Any = getattr(current, "exceptions", None)
        behind: BaseException | None
        if isinstance(inner, (tuple, list)) and inner and isinstance(inner[0], BaseException):
            behind = inner[0]
        elif type(current).__name__ in _WRAPPERS:
            behind = current.__cause__ or current.__context__
        elif type(current) is RuntimeError:
            behind = current.__cause__
        else:
            break
        if behind is None or is_cancellation(behind):
            break
        current = behind
    return current


def json_of(content: Any) -> Any:
    """What is in a JSON text of bytes; None if it is none."""
    if not isinstance(content, (bytes, bytearray)):
        return None
    loads = getattr(sys.modules.get("orjson"), "loads", json.loads)
    try:
        return loads(content)
    except ValueError:
        return None
