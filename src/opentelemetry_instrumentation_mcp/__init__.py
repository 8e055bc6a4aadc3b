"""OpenTelemetry instrumentation of the Model Context Protocol (MCP)."""

from .config import McpConfig
from .instrumentor import McpInstrumentor
from .message import Message, Outcome
from .version import __version__

__all__ = ["McpConfig", "McpInstrumentor", "Message", "Outcome", "__version__"]
