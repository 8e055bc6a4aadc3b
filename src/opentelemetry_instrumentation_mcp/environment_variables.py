"""Environment variables of this instrumentation; ``opentelemetry-instrument`` offers each of them as an option."""

OTEL_INSTRUMENTATION_MCP_DISABLED_TARGETS = "OTEL_INSTRUMENTATION_MCP_DISABLED_TARGETS"
"""Comma-separated names of targets not to instrument: ``sdk_v1``, ``sdk_v2``, ``transports``, ``fastmcp``,
``stdio_children``, ``gateway``, ``plugins``."""

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

OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""``NO_CONTENT`` (default), ``SPAN_ONLY``, ``EVENT_ONLY`` or ``SPAN_AND_EVENT``: where arguments, results and prompt
variables go, redacted and bounded."""

OTEL_INSTRUMENTATION_MCP_CAPTURE_INPUTS = "OTEL_INSTRUMENTATION_MCP_CAPTURE_INPUTS"
"""Comma-separated patterns of tool and prompt names whose arguments may be captured; default ``*``."""

OTEL_INSTRUMENTATION_MCP_EXCLUDE_INPUTS = "OTEL_INSTRUMENTATION_MCP_EXCLUDE_INPUTS"
"""Comma-separated patterns of tool and prompt names whose arguments are never captured."""

OTEL_INSTRUMENTATION_MCP_CAPTURE_OUTPUTS = "OTEL_INSTRUMENTATION_MCP_CAPTURE_OUTPUTS"
"""Comma-separated patterns of tool names whose results may be captured; default ``*``."""

OTEL_INSTRUMENTATION_MCP_EXCLUDE_OUTPUTS = "OTEL_INSTRUMENTATION_MCP_EXCLUDE_OUTPUTS"
"""Comma-separated patterns of tool names whose results are never captured."""

OTEL_INSTRUMENTATION_MCP_ERROR_TEXT = "OTEL_INSTRUMENTATION_MCP_ERROR_TEXT"
"""``redacted`` (default): the message of a JSON-RPC error is the span's status text, redacted and bounded; ``off``:
only phrases of the protocol are."""

OTEL_INSTRUMENTATION_MCP_STACKTRACES = "OTEL_INSTRUMENTATION_MCP_STACKTRACES"
"""``true``: exceptions become span events with redacted text and stack trace; default ``false``: no such events."""

OTEL_INSTRUMENTATION_MCP_MAX_PAYLOAD = "OTEL_INSTRUMENTATION_MCP_MAX_PAYLOAD"
"""Characters of captured content, at least 256; default 32768."""

OTEL_INSTRUMENTATION_MCP_MAX_ERROR_TEXT = "OTEL_INSTRUMENTATION_MCP_MAX_ERROR_TEXT"
"""Characters of an error's text, at least 16; default 1024."""

OTEL_INSTRUMENTATION_MCP_REDACT_KEYS = "OTEL_INSTRUMENTATION_MCP_REDACT_KEYS"
"""Comma-separated names whose values are masked, besides those of the policy."""

OTEL_INSTRUMENTATION_MCP_KEEP_KEYS = "OTEL_INSTRUMENTATION_MCP_KEEP_KEYS"
"""Comma-separated names whose values are not masked although the policy says so."""

OTEL_INSTRUMENTATION_MCP_REDACT_PATTERNS = "OTEL_INSTRUMENTATION_MCP_REDACT_PATTERNS"
"""Regular expressions, one a line, whose matches are masked in every text."""

OTEL_INSTRUMENTATION_MCP_PII_DETECTOR = "OTEL_INSTRUMENTATION_MCP_PII_DETECTOR"
"""``presidio`` (extra ``pii``), or ``module:function`` that returns ``(start, end)`` of what to mask in a text."""

OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS = "OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS"
"""``true``: spans of other MCP libraries are redacted by the same policy before export; default ``false``."""

OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS_SCOPES = "OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS_SCOPES"
"""Comma-separated beginnings of scope names whose spans are cleaned; ``*`` for all; default: known MCP libraries."""

OTEL_INSTRUMENTATION_MCP_IDENTITY = "OTEL_INSTRUMENTATION_MCP_IDENTITY"
"""``off`` (default), ``on``, or ``hashed`` with ``OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY``: who a message is from."""

OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY = "OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY"
"""The secret key, at least 16 characters, of the hashes that stand for identities."""

OTEL_INSTRUMENTATION_MCP_LANGFUSE = "OTEL_INSTRUMENTATION_MCP_LANGFUSE"
"""``auto`` (default: if the OTLP endpoint is Langfuse's), ``on`` or ``off``: attributes that Langfuse maps."""

OTEL_INSTRUMENTATION_MCP_BAGGAGE_ATTRIBUTES = "OTEL_INSTRUMENTATION_MCP_BAGGAGE_ATTRIBUTES"
"""Comma-separated baggage entries, ``name`` or ``prefix.*``, that become span attributes; default none."""

OTEL_INSTRUMENTATION_MCP_BAGGAGE_OUTBOUND = "OTEL_INSTRUMENTATION_MCP_BAGGAGE_OUTBOUND"
"""Comma-separated baggage entries, ``name`` or ``prefix.*``, that may leave with a message; ``*`` for all;
``auto`` (default) for all, but none from a ContextForge gateway."""

OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN = "OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN"
"""``on``: Python servers that an MCP client starts over stdio are instrumented too, with the client's ``OTEL_*``
variables except credentials; ``on+headers``: with these too; ``off`` (default): servers are started as ever."""
