"""A FastMCP server, and three kinds of callers whose traces it joins. One command: `python run.py`.

Needs `fastmcp` and `otel-instrumentation-mcp[auto]` beside this Python, nothing else: each program prints its
traces itself. The exit code is 0 only if the server's spans are in the traces of all three.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
START_LIMIT_S = 60
STOP_LIMIT_S = 20

# What another program may send; any other trace id would do. "c0ffee" makes them easy to find.
FROM_META = "00-c0ffee00000000000000000000000001-00000000000000a1-01"
FROM_HEADERS = "00-c0ffee00000000000000000000000002-00000000000000a2-01"


def environment(service: str) -> dict[str, str]:
    """All the configuration there is: spans are drawn on stderr, metrics and logs are not exported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {
        **kept,
        "OTEL_SERVICE_NAME": service,
        "OTEL_TRACES_EXPORTER": "mcp_tree",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        # Everything talks to 127.0.0.1: a proxy meant for the outside world must not be asked.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def command(*arguments: str) -> list[str]:
    instrument = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    if instrument is None:
        raise SystemExit('no opentelemetry-instrument beside this Python: pip install "otel-instrumentation-mcp[auto]"')
    return [instrument, sys.executable, *arguments]


def wait_until_it_listens(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


def call_without_sdk(url: str, *, meta: str | None = None, header: str | None = None) -> None:
    """What a program in any language can do: one POST. The context is in the message, or in the headers."""
    params = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "plain-http", "version": "1"},
        **({"_meta": {"traceparent": meta}} if meta else {}),
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {**headers, **({"traceparent": header} if header else {})}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        print(f"plain HTTP: {answer.status}")


def trees(output: str) -> str:
    """What was drawn, without what else the program said."""
    lines, inside = [], False
    for line in output.splitlines():
        inside = line.startswith("trace ") or (inside and line[:1] in tuple("├└│ "))
        if inside:
            lines.append(line)
    return "\n".join(lines)


def play(log: Path) -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mcp"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command(str(HERE / "server.py"), str(port)),
            env=environment("library"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_it_listens(server, port)
        call_without_sdk(url, meta=FROM_META)
        call_without_sdk(url, header=FROM_HEADERS)
        client = subprocess.run(
            command(str(HERE / "client.py"), url),
            env=environment("agent"),
            stdout=None,
            stderr=subprocess.PIPE,
            text=True,
            timeout=START_LIMIT_S,
            check=False,
        )
        # SIGINT, not SIGTERM: after that one Python ends without flushing, see docs/joining-a-trace.md.
        server.send_signal(signal.SIGINT)
        server.wait(STOP_LIMIT_S)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    drawn = log.read_text(errors="replace")
    mine, traces = trees(client.stderr), trees(drawn)
    print(f"\n--- the agent's half\n{mine}\n\n--- the server's half\n{traces}\n")
    ours = [line.split()[1] for line in mine.splitlines() if line.startswith("trace ")]
    wanted = [FROM_META.split("-")[1], FROM_HEADERS.split("-")[1], *ours]
    problems = [f"the server has no span in trace {trace_id}" for trace_id in wanted if trace_id not in traces]
    if client.returncode or not ours:
        problems.append(f"the agent ended with exit code {client.returncode} and {len(ours)} traces")
    if problems:
        print(f"--- output of the server\n{drawn}\n--- output of the agent\n{client.stderr}", file=sys.stderr)
    return problems


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        problems = play(Path(folder) / "server.log")
    for problem in problems:
        print(f"FAILED  {problem}")
    if not problems:
        print("OK  the server joined the traces of all three callers")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
