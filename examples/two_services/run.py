"""`python run.py [OTLP_ENDPOINT]`: a caller and two services, three processes, one trace in one backend.

Without an endpoint, a receiver in this process takes the spans and draws them. Needs a Python with `fastmcp` and
`otel-instrumentation-mcp[auto]`. The exit code is 0 only if all three are in one trace.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opentelemetry_instrumentation_mcp.exporter.tree import render_tree

HERE = Path(__file__).parent
TIME_LIMIT_S = 60
CALLER = """
import sys, anyio
from fastmcp import Client

async def main():
    async with Client(sys.argv[1]) as shop:
        print((await shop.call_tool("order", {"article": "umbrella"})).data)

anyio.run(main)
"""


def environment(service: str, endpoint: str) -> dict[str, str]:
    return {
        **os.environ,
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_LOGS_EXPORTER": "none",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, *arguments]


@contextmanager
def service(name: str, endpoint: str, *arguments: str) -> Iterator[str]:
    """Run a service until the end of the block; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        command(str(HERE / f"{name}.py"), str(port), *arguments),
        env=environment(name, endpoint),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + TIME_LIMIT_S
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
        process.send_signal(signal.SIGINT)  # an exit that flushes the last spans; SIGTERM is none
        process.wait(TIME_LIMIT_S)
    finally:
        process.kill()
        process.wait()


def play(endpoint: str) -> None:
    with service("stock", endpoint) as stock, service("shop", endpoint, stock) as shop:
        subprocess.run(
            command("-c", CALLER, shop), env=environment("caller", endpoint), check=True, timeout=TIME_LIMIT_S
        )


def main() -> int:
    if len(sys.argv) > 1:
        play(sys.argv[1])
        print(f"sent to {sys.argv[1]}")
        return 0
    sys.path.insert(0, str(HERE.parent / "common"))
    from otlp_receiver import OtlpReceiver

    with OtlpReceiver() as receiver:
        play(receiver.endpoint)
    spans = [span.tree for span in receiver.spans()]
    trace_id = next((span.trace_id for span in spans if span.name == "tools/call order"), None)
    trace = [span for span in spans if span.trace_id == trace_id]
    print(render_tree(trace))
    services = {span.service for span in trace}
    print(f"{'OK' if len(services) == 3 else 'FAILED'}  one trace of {', '.join(sorted(services))}")
    return 0 if len(services) == 3 else 1


if __name__ == "__main__":
    sys.exit(main())
