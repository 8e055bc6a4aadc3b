"""The table of what is patched; the adapters beside it are imported when a library is."""

from __future__ import annotations

from ..hooks import CONTEXT_MANAGER, Target
from .gateway_table import GATEWAY
from .plugins_table import PLUGINS

_SESSION = "mcp.shared.session"
_DISPATCHER = "mcp.shared.jsonrpc_dispatcher"
_DIRECT = "mcp.shared.direct_dispatcher"
_RUNNER = "mcp.server.runner"
_CLIENT_SESSION = "mcp.client.session"
_CLIENT_HTTP = "mcp.client.streamable_http"
_SERVER_HTTP = "mcp.server.streamable_http"
_MODERN_HTTP = "mcp.server._streamable_http_modern"

SDK_V1 = (
    Target("sdk_v1", _SESSION, "BaseSession.send_request", "sdk_v1:send_request", "sending requests", 1),
    Target("sdk_v1", _SESSION, "BaseSession.__aenter__", "sdk_v1:enter_session", "all messages", 1),
    Target("sdk_v1", _SESSION, "BaseSession.__aexit__", "sdk_v1:leave_session", "the end of sessions", 1),
    Target("sdk_v1", _SESSION, "RequestResponder.cancel", "sdk_v1:cancel_request", "cancellation by the peer", 1),
    Target("sdk_v1", _CLIENT_SESSION, "ClientSession._received_request", "sdk_v1:receive_request", "", 1),
    Target(
        "sdk_v1",
        _CLIENT_SESSION,
        "ClientSession._received_notification",
        "sdk_v1:receive_notification",
        "",
        1,
    ),
    Target("sdk_v1", "mcp.server.session", "ServerSession._received_request", "sdk_v1:receive_request", "", 1),
    Target(
        "sdk_v1",
        "mcp.server.session",
        "ServerSession._received_notification",
        "sdk_v1:receive_notification",
        "the handlers of notifications",
        1,
    ),
    Target(
        "sdk_v1",
        "mcp.server.lowlevel.server",
        "Server._handle_message",
        "sdk_v1:handle_message",
        "what handlers do",
        1,
    ),
    Target(
        "transports",
        _CLIENT_HTTP,
        "StreamableHTTPTransport._handle_post_request",
        "transports:post_message",
        "POSTs",
    ),
)

SDK_V2 = (
    Target(
        "sdk_v2",
        _DISPATCHER,
        "JSONRPCDispatcher.send_raw_request",
        "sdk_v2_outbound:send_raw_request",
        "requests",
    ),
    Target("sdk_v2", _DISPATCHER, "JSONRPCDispatcher._fan_out_closed", "sdk_v2_outbound:close_pending"),
    Target("sdk_v2", _DISPATCHER, "JSONRPCDispatcher.notify", "sdk_v2_outbound:notify", "notifications"),
    Target(
        "sdk_v2",
        _DISPATCHER,
        "JSONRPCDispatcher._handle_request",
        "sdk_v2_inbound:handle_request",
        "requests the SDK answers itself",
    ),
    Target(
        "sdk_v2",
        _DISPATCHER,
        "JSONRPCDispatcher._dispatch_notification",
        "sdk_v2_inbound:dispatch_notification",
        "inbound notifications",
    ),
    Target(
        "sdk_v2",
        _DISPATCHER,
        "JSONRPCDispatcher.run",
        "sdk_v2_sessions:run_dispatcher",
        "sessions of servers",
    ),
    Target("sdk_v2", _DISPATCHER, "otel_span", "sdk_v2_sessions:replace_client_span"),
    Target("sdk_v2", _DISPATCHER, "inject_trace_context", "sdk_v2_outbound:inject_trace_context"),
    Target(
        "sdk_v2",
        "mcp.server._otel",
        "OpenTelemetryMiddleware.__call__",
        "sdk_v2_sessions:replace_server_span",
    ),
    Target(
        "sdk_v2",
        _DIRECT,
        "DirectDispatcher._dispatch_request",
        "sdk_v2_outbound:dispatch_direct_request",
        "in-process requests",
    ),
    Target(
        "sdk_v2",
        _DIRECT,
        "DirectDispatcher._dispatch_notify",
        "sdk_v2_outbound:dispatch_direct_notification",
        "in-process notifications",
    ),
    Target("sdk_v2", _DIRECT, "run_notify_intercept", "sdk_v2_outbound:intercept_direct_notification"),
    Target("sdk_v2", _DIRECT, "DirectDispatcher.run", "sdk_v2_sessions:run_dispatcher", "in-process sessions"),
    Target("sdk_v2", _RUNNER, "ServerRunner._on_request", "sdk_v2_inbound:handle_at_server", "requests"),
    Target("sdk_v2", _RUNNER, "ServerRunner._on_notify", "sdk_v2_inbound:handle_at_server", "notifications"),
    Target(
        "sdk_v2",
        _CLIENT_SESSION,
        "ClientSession._on_request",
        "sdk_v2_inbound:handle_at_client",
        "requests",
        2,
    ),
    Target("sdk_v2", _CLIENT_SESSION, "ClientSession._on_notify", "sdk_v2_inbound:handle_at_client", "", 2),
    Target("sdk_v2", _CLIENT_SESSION, "ClientSession.__aenter__", "sdk_v2_sessions:enter_client_session", "", 2),
    Target("sdk_v2", _CLIENT_SESSION, "ClientSession.__aexit__", "sessions:leave_session", "client sessions", 2),
    Target(
        "sdk_v2",
        _MODERN_HTTP,
        "_SingleExchangeDispatchContext.notify",
        "sdk_v2_outbound:notify_single_exchange",
        "notifications on modern HTTP",
    ),
    Target("sdk_v2", _MODERN_HTTP, "_tool_input_schema", "sdk_v2_modern_http:resolve_schema"),
    Target("sdk_v2", _MODERN_HTTP, "classify_inbound_request", "sdk_v2_modern_http:classify_request"),
    Target("sdk_v2", _MODERN_HTTP, "_mcp_param_rejection", "sdk_v2_modern_http:reject_parameters"),
    Target("sdk_v2", _MODERN_HTTP, "_acknowledge_notification", "sdk_v2_modern_http:acknowledge_notification"),
)

TRANSPORTS = (
    Target(
        "transports",
        "mcp.client.stdio",
        "stdio_client",
        "transports:observe_pipe",
        "network.*",
        None,
        CONTEXT_MANAGER,
    ),
    Target(
        "transports",
        "mcp.server.stdio",
        "stdio_server",
        "stdio_children:observe_server",
        "network.*",
        None,
        CONTEXT_MANAGER,
    ),
    Target(
        "transports",
        "mcp.client.sse",
        "sse_client",
        "transports:observe_sse_client",
        "POSTs",
        None,
        CONTEXT_MANAGER,
    ),
    Target(
        "transports",
        "mcp.client.websocket",
        "websocket_client",
        "transports:observe_websocket_client",
        "network.*",
        None,
        CONTEXT_MANAGER,
    ),
    Target(
        "transports",
        "mcp.server.websocket",
        "websocket_server",
        "transports:observe_websocket_server",
        "network.*",
        None,
        CONTEXT_MANAGER,
    ),
    Target(
        "transports",
        _CLIENT_HTTP,
        "StreamableHTTPTransport.post_writer",
        "transports:write_posts",
        "addresses",
    ),
    Target(
        "transports",
        _CLIENT_HTTP,
        "StreamableHTTPTransport._prepare_headers"
        "|StreamableHTTPTransport._prepare_request_headers"
        "|StreamableHTTPTransport._update_headers_with_session",
        "transports:prepare_headers",
        "HTTP headers of POSTs",
    ),
    Target("transports", _CLIENT_HTTP, "StreamableHTTPTransport._handle_json_response", "transports:see_response"),
    Target("transports", _CLIENT_HTTP, "StreamableHTTPTransport._handle_sse_response", "transports:see_response"),
    Target(
        "transports",
        _SERVER_HTTP,
        "StreamableHTTPServerTransport._handle_post_request",
        "transports:serve_post",
        "the HTTP request behind a message",
    ),
    Target(
        "transports",
        "mcp.server.sse",
        "SseServerTransport.handle_post_message",
        "transports:serve_sse_post",
        "the HTTP request behind a message",
    ),
)

_FASTMCP_SERVER = "fastmcp.server.server"
_FASTMCP_SPANS = "fastmcp.server.telemetry"

FASTMCP = (
    Target("fastmcp", _FASTMCP_SPANS, "server_span", "fastmcp:server_span", "what servers do", None, CONTEXT_MANAGER),
    Target("fastmcp", _FASTMCP_SPANS, "seam_span", "fastmcp:seam_span", "", None, CONTEXT_MANAGER),
    Target(
        "fastmcp", _FASTMCP_SPANS, "delegate_span", "fastmcp:delegate_span", "mounted servers", None, CONTEXT_MANAGER
    ),
    Target("fastmcp", "fastmcp.client.telemetry", "client_span", "fastmcp:client_span", "", None, CONTEXT_MANAGER),
    Target("fastmcp", "fastmcp.server.sampling.run", "get_tracer", "fastmcp:sampling_tracer"),
    Target("fastmcp", "fastmcp.server.low_level", "LowLevelServer._handle_request", "fastmcp:handle_request"),
    # 2.x has no spans of its own; mounted servers are called by these.
    Target("fastmcp", _FASTMCP_SERVER, "FastMCP._call_tool_middleware", "fastmcp_v2:call_tool"),
    Target("fastmcp", _FASTMCP_SERVER, "FastMCP._get_prompt_middleware", "fastmcp_v2:get_prompt"),
    Target("fastmcp", _FASTMCP_SERVER, "FastMCP._read_resource_middleware", "fastmcp_v2:read_resource"),
    Target("fastmcp", _FASTMCP_SERVER, "FastMCP._list_tools_middleware", "fastmcp_v2:list_tools"),
    Target("fastmcp", _FASTMCP_SERVER, "FastMCP._list_prompts_middleware", "fastmcp_v2:list_prompts"),
    Target("fastmcp", _FASTMCP_SERVER, "FastMCP._list_resources_middleware", "fastmcp_v2:list_resources"),
    Target(
        "fastmcp",
        _FASTMCP_SERVER,
        "FastMCP._list_resource_templates_middleware",
        "fastmcp_v2:list_resource_templates",
    ),
)

# Patched only if `stdio_children` is not `off`.
STDIO_CHILDREN = (
    Target(
        "stdio_children",
        "mcp.client.stdio",
        "_create_platform_compatible_process",
        "stdio_children:start_process",
        "what stdio servers do, which join no trace by themselves,",
    ),
)

TARGETS = (*SDK_V1, *SDK_V2, *TRANSPORTS, *FASTMCP, *STDIO_CHILDREN, *GATEWAY, *PLUGINS)
TARGET_NAMES = frozenset(target.name for target in TARGETS)
# Importing the package itself is the last step of every import of the library: modules that were half-imported
# when their own hook fired are complete by then.
LIBRARIES = ("mcp", "fastmcp", "mcpgateway", "cpex")
