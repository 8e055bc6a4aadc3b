"""Environment variables of this instrumentation; ``opentelemetry-instrument`` offers each of them as an option."""

OTEL_INSTRUMENTATION_MCP_DISABLED_TARGETS = "OTEL_INSTRUMENTATION_MCP_DISABLED_TARGETS"
"""Comma-separated names of targets not to instrument: ``sdk_v1``, ``sdk_v2``, ``transports``."""

OTEL_INSTRUMENTATION_MCP_NATIVE_SPANS = "OTEL_INSTRUMENTATION_MCP_NATIVE_SPANS"
"""``replace`` (default): our spans take the place of a library's own MCP spans; ``keep``: the library's stay."""

OTEL_INSTRUMENTATION_MCP_EXCLUDED_METHODS = "OTEL_INSTRUMENTATION_MCP_EXCLUDED_METHODS"
"""Comma-separated MCP methods without spans and metrics, e.g. ``ping,notifications/progress``."""

OTEL_INSTRUMENTATION_MCP_REMOTE_PARENT = "OTEL_INSTRUMENTATION_MCP_REMOTE_PARENT"
"""What a peer's trace context may be to a server: ``parent`` (default), ``link`` or ``ignore``."""

OTEL_INSTRUMENTATION_MCP_RESOURCE_URI_IN_SPAN_NAME = "OTEL_INSTRUMENTATION_MCP_RESOURCE_URI_IN_SPAN_NAME"
"""``true`` appends the resource URI to span names (high cardinality); default ``false``."""

OTEL_INSTRUMENTATION_MCP_EXECUTE_TOOL_SPAN = "OTEL_INSTRUMENTATION_MCP_EXECUTE_TOOL_SPAN"
"""``reuse`` (default): an agent framework's current ``execute_tool`` span of the same tool receives the MCP
attributes in place of a second CLIENT span; ``separate``: always a span of our own."""
