"""What of plugin managers is patched: `cpex`, and the framework it came from, inside of gateways up to 1.0.0."""

from __future__ import annotations

from ..hooks import Target

_FRAMEWORKS = ("cpex.framework", "mcpgateway.plugins.framework")


def _targets(framework: str) -> tuple[Target, ...]:
    manager, external = f"{framework}.manager", f"{framework}.external"
    return (
        Target("plugins", manager, "PluginExecutor.execute", "plugins:invoke_hook", "hook chains of plugins"),
        Target("plugins", manager, "PluginExecutor.execute_plugin", "plugins:execute_plugin", "what plugins do"),
        Target("plugins", manager, "PluginExecutor._execute_with_timeout", "plugins:see_plugin", "plugins' failures"),
        # Only cpex has modes; before it, what was skipped is what stands before the plugin that was reached last.
        Target("plugins", manager, "PluginExecutor._group_by_mode", "plugins:see_groups"),
        # Only gateway 1.0.0 has spans of its own for its plugins.
        Target("plugins", manager, "create_span", "plugins:native_span"),
        Target(
            "plugins",
            f"{external}.grpc.client",
            "GrpcExternalPlugin.invoke_hook",
            "plugins_external:call_over_grpc",
            "the way to plugins over gRPC",
        ),
        Target(
            "plugins",
            f"{external}.grpc.server.server",
            "GrpcPluginServicer.InvokeHook",
            "plugins_external:serve_over_grpc",
            "the way from gRPC to plugins",
        ),
        Target(
            "plugins",
            f"{external}.unix.client",
            "UnixSocketExternalPlugin._send_request",
            "plugins_external:call_over_socket",
            "the way to plugins over Unix sockets",
        ),
        Target(
            "plugins",
            f"{external}.unix.server.server",
            "UnixSocketPluginServer._handle_message",
            "plugins_external:serve_over_socket",
            "the way from Unix sockets to plugins",
        ),
    )


PLUGINS = tuple(target for framework in _FRAMEWORKS for target in _targets(framework))
