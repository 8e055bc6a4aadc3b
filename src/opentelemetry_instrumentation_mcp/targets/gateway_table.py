"""What is patched in the ContextForge gateway (``mcpgateway``); part of the table in this package."""

from __future__ import annotations

from ..hooks import CONTEXT_MANAGER, METHOD, Target

_TOOLS = "mcpgateway.services.tool_service"
_RESOURCES = "mcpgateway.services.resource_service"
_PROMPTS = "mcpgateway.services.prompt_service"
_AGENTS = "mcpgateway.services.a2a_service"
_POOL = "mcpgateway.services.upstream_session_registry"
_SSE = "mcpgateway.cache.session_registry"
_MAIN = "mcpgateway.main"


def _target(module: str, attribute: str, adapter: str, covers: str = "", how: str = METHOD) -> Target:
    return Target("gateway", module, attribute, adapter, covers, None, how)


GATEWAY = (
    # What the gateway does for a message.
    _target(_TOOLS, "ToolService.invoke_tool", "gateway:invoke_tool", "what the gateway does to call a tool"),
    _target(_TOOLS, "ToolService.invoke_tool_direct", "gateway:invoke_tool_direct"),
    _target(_RESOURCES, "ResourceService.read_resource", "gateway:read_resource", "what it does to read a resource"),
    _target(_PROMPTS, "PromptService.get_prompt", "gateway:get_prompt", "what it does to render a prompt"),
    _target(_AGENTS, "A2AAgentService.invoke_agent", "gateway:invoke_agent", "what it does to call an agent"),
    # The gateway's own spans.
    _target("mcpgateway.observability", "create_span", "gateway:create_span", "upstream calls of the gateway"),
    _target(_TOOLS, "create_span", "gateway:create_span"),
    _target(_RESOURCES, "create_span", "gateway:create_span"),
    _target(_PROMPTS, "create_span", "gateway:create_span"),
    _target(_AGENTS, "create_span", "gateway:create_span"),
    _target("mcpgateway.transports.streamablehttp_transport", "create_span", "gateway:create_span"),
    # Its calls to upstream servers.
    _target(_PROMPTS, "PromptService._fetch_gateway_prompt_result", "gateway_upstream:fetch_prompt"),
    _target(_POOL, "UpstreamSessionRegistry.acquire", "gateway_upstream:acquire_session", how=CONTEXT_MANAGER),
    _target(_TOOLS, "ClientSession.initialize", "gateway_upstream:initialize"),
    _target(_TOOLS, "ClientSession.call_tool", "gateway_upstream:call_tool"),
    _target(_RESOURCES, "_read_resource_with_meta", "gateway_upstream:read_resource"),
    _target(_PROMPTS, "_get_prompt_with_meta", "gateway_upstream:get_prompt"),
    # Which way it goes, and what it sends along.
    _target(_TOOLS, "otel_context_active", "gateway_propagation:context_active"),
    _target(_TOOLS, "inject_trace_context_headers", "gateway_propagation:inject_headers"),
    _target(_TOOLS, "ToolService.prepare_rust_mcp_tool_execution", "gateway_propagation:prepare_plan"),
    _target("mcpgateway.utils.retry_manager", "httpx.AsyncClient.send", "gateway_propagation:send_http"),
    # What it is asked.
    _target(_MAIN, "_handle_rpc_authenticated", "gateway_requests:handle_rpc", "messages of /rpc"),
    _target(
        "mcpgateway.transports.streamablehttp_transport",
        "SessionManagerWrapper.handle_streamable_http",
        "gateway_sessions:handle_streamable_http",
    ),
    _target(_SSE, "SessionRegistry.broadcast", "gateway_sessions:broadcast", "messages of SSE sessions"),
    _target(_SSE, "SessionRegistry.generate_response", "gateway_sessions:generate_response"),
    _target(_MAIN, "FastAPI.__call__", "gateway_requests:serve", "HTTP requests"),
    _target(
        "mcpgateway.observability", "OpenTelemetryRequestMiddleware.__call__", "gateway_requests:serve_with_native_span"
    ),
)
