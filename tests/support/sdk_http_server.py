"""A server of the SDK alone over streamable HTTP: `sdk_http_server.py --port PORT [--stateless]`, or for uvicorn.

The applications named `traced...` have OpenTelemetry's own middleware for ASGI around them.
"""

# No `from __future__ import annotations`: SDK 1.9 does not resolve the annotations of tools if they are strings.
import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import sdk  # the path has to be there first


def build(**settings: Any) -> Any:
    server = sdk.build_server(**settings)

    @server.tool()
    def context_in_a_thread() -> str:
        return json.dumps(sdk.describe_context())

    return server


def traced(app: Any) -> Any:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    return OpenTelemetryMiddleware(app, exclude_spans=["receive", "send"])


def __getattr__(name: str) -> Any:
    """One application a process: `app`, `stateful_app`, `traced_app`."""
    if not name.endswith("app"):
        raise AttributeError(name)
    app = sdk.http_app(build(), "http" if name == "stateful_app" else "http-stateless")
    return traced(app) if name == "traced_app" else app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stateless", action="store_true")
    options = parser.parse_args()
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": options.port, "stateless_http": options.stateless}
    if sdk.SDK2:
        build().run("streamable-http", **settings)
    else:
        build(**settings).run("streamable-http")
