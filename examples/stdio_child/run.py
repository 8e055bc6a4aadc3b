"""`python run.py`: an instrumented client whose stdio server joins its traces, two processes.

Needs a Python with `mcp` and `otel-instrumentation-mcp[auto]`. What is set here is all there is to set.
"""

import os
import subprocess
import sys
from pathlib import Path

from opentelemetry_instrumentation_mcp.exporter.tree import render_tree

HERE = Path(__file__).parent
TIME_LIMIT_S = 60


def main() -> int:
    sys.path.insert(0, str(HERE.parent / "common"))
    from otlp_receiver import OtlpReceiver

    with OtlpReceiver() as receiver:
        variables = {
            "OTEL_SERVICE_NAME": "agent",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN": "on",
        }
        instrument = Path(sys.executable).with_name("opentelemetry-instrument")
        command = [str(instrument), sys.executable, str(HERE / "client.py")]
        subprocess.run(command, env={**os.environ, **variables}, check=True, timeout=TIME_LIMIT_S)
    spans = [span.tree for span in receiver.spans()]
    print(render_tree(spans))
    # Every message once where it was sent, once where it was received.
    joined = {span.span_id for span in spans if span.kind == "CLIENT" and span.service == "agent"} == {
        span.parent_id for span in spans if span.kind == "SERVER" and span.service == "calculator"
    }
    print("OK  the server joined" if spans and joined else "FAILED  the server did not join")
    return 0 if spans and joined else 1


if __name__ == "__main__":
    sys.exit(main())
