"""The demo: an agent and three MCP servers, four processes, one trace. `make demo` runs it.

Starts an OTLP receiver in this process, then the programs under `opentelemetry-instrument`, and prints what
they exported. The exit code is 0 only if every message is there, in one trace.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from otlp_receiver import OtlpReceiver, ReceivedSpan

from opentelemetry_instrumentation_mcp.exporter.tree import TreeSpan, render_tree

HERE = Path(__file__).parent
TIME_LIMIT_S = 120
START_LIMIT_S = 30
STOP_LIMIT_S = 10

SERVICES = AGENT, WEATHER, TRAVEL, FILES = "agent", "weather-server", "travel-server", "files-server"
ROOT = "answer a question"


class Message(NamedTuple):
    """One MCP message: a CLIENT span in the sender and, as its child, a SERVER span in the receiver."""

    sender: str
    receiver: str
    name: str
    sender_error: str | None = None
    receiver_error: str | None = None


EXPECTED = Counter(
    [
        Message(AGENT, WEATHER, "server/discover"),
        Message(AGENT, WEATHER, "tools/list"),
        Message(AGENT, WEATHER, "tools/call forecast"),
        Message(AGENT, WEATHER, "tools/call air_quality", "tool_error", "tool_error"),
        Message(AGENT, WEATHER, "tools/call radar", "timeout", "cancelled"),
        Message(AGENT, WEATHER, "tools/call climate"),
        *[Message(WEATHER, AGENT, "notifications/progress")] * 3,
        Message(AGENT, TRAVEL, "server/discover"),
        Message(AGENT, TRAVEL, "tools/list"),
        Message(AGENT, TRAVEL, "tools/call money_convert"),
        Message(AGENT, TRAVEL, "tools/call weather_forecast"),
        # For itself, too, the server looks up what tools there are, before each call.
        *[Message(TRAVEL, WEATHER, "tools/list")] * 3,
        Message(TRAVEL, WEATHER, "tools/call forecast"),
        Message(AGENT, FILES, "initialize"),
        Message(AGENT, FILES, "notifications/initialized"),
        Message(AGENT, FILES, "tools/list"),
        Message(AGENT, FILES, "resources/read"),
        Message(AGENT, FILES, "prompts/get packing_list"),
        Message(AGENT, FILES, "tools/call summarize_notes"),
        Message(FILES, AGENT, "sampling/createMessage"),
    ]
)
METRICS = (
    "mcp.client.operation.duration",
    "mcp.server.operation.duration",
    "mcp.client.session.duration",
    "mcp.server.session.duration",
)


class Processes:
    """The programs of the demo. Each has a log file; none outlives the `with` block or the time limit."""

    def __init__(self, endpoint: str, logs: Path) -> None:
        self._logs = logs
        self._environment = _environment(endpoint)
        self._started: list[subprocess.Popen[bytes]] = []
        self._watchdog = threading.Timer(TIME_LIMIT_S, self._time_is_up)
        self._watchdog.daemon = True
        self.timed_out = False

    def __enter__(self) -> Processes:
        self._watchdog.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watchdog.cancel()
        self._kill()

    def start(self, service: str, script: str, *args: str) -> subprocess.Popen[bytes]:
        instrument = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
        if instrument is None:
            raise SystemExit("no opentelemetry-instrument beside this Python: start with `make demo`")
        with (self._logs / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                [instrument, sys.executable, str(HERE / script), *args],
                env={**self._environment, "OTEL_SERVICE_NAME": service},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def _time_is_up(self) -> None:
        self.timed_out = True
        self._kill()  # which ends every wait of the main thread

    def _kill(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _environment(endpoint: str) -> dict[str, str]:
    """All the configuration there is. Of the caller's OTEL_* only switches of instrumentations are kept."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OTEL_") or name.startswith("OTEL_INSTRUMENTATION_")
    }
    return {
        **kept,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        # Everything talks to 127.0.0.1: a proxy meant for the outside world must not be asked.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def play(processes: Processes) -> list[str]:
    """Run the programs to their end; what went wrong, if anything."""
    ports = {WEATHER: _free_port(), TRAVEL: _free_port()}
    weather, travel = (f"http://127.0.0.1:{port}/mcp" for port in ports.values())
    servers = {
        WEATHER: processes.start(WEATHER, "http_server.py", str(ports[WEATHER])),
        TRAVEL: processes.start(TRAVEL, "travel_server.py", str(ports[TRAVEL]), weather),
    }
    problems = [f"{name} did not start" for name, server in servers.items() if not _listening(server, ports[name])]
    if problems:
        return problems
    if code := processes.start(AGENT, "client.py", weather, travel).wait():
        problems.append(f"{AGENT} ended with exit code {code}")
    for name, server in servers.items():
        # Not SIGTERM: uvicorn stops gracefully on both, but then raises the signal again, and SIGTERM ends Python
        # without its atexit handlers, which flush the spans.
        server.send_signal(signal.SIGINT)
        try:
            code = server.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            problems.append(f"{name} did not stop")
        else:
            # A program that does not handle the signal ends with it, after its atexit handlers.
            if code not in (0, 130, -signal.SIGINT):
                problems.append(f"{name} ended with exit code {code}")
    return problems


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _listening(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_LIMIT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            # A bare connection: with an HTTP instrumentation a request would be a trace of its own.
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def messages(spans: list[ReceivedSpan]) -> Counter[Message]:
    """The fully traced MCP messages: each SERVER span whose parent is the CLIENT span of the same name."""
    sent = {span.tree.span_id: span.tree for span in spans if span.tree.kind == "CLIENT"}
    found: Counter[Message] = Counter()
    for received in (span.tree for span in spans if span.tree.kind == "SERVER"):
        sender = sent.get(received.parent_id or 0)
        if sender and sender.name == received.name:
            found[Message(sender.service, received.service, received.name, sender.error, received.error)] += 1
    return found


def missing(spans: list[ReceivedSpan], metric_names: set[str]) -> list[str]:
    """What should be there and is not, one line each."""
    lines = []
    roots = [span.tree for span in spans if span.tree.name == ROOT and span.tree.service == AGENT]
    if len(roots) != 1:
        lines.append(f"{len(roots)} root spans {ROOT!r} instead of 1")
    traces = {span.tree.trace_id for span in spans}
    if len(traces) != 1:
        lines.append(f"{len(traces)} traces instead of 1")
    for root in roots:
        inside = {span.tree.service for span in spans if span.tree.trace_id == root.trace_id}
        lines += [f"no span of {service} in the trace" for service in SERVICES if service not in inside]

    found = messages(spans)
    for message, count in EXPECTED.items():
        if found[message] != count:
            lines.append(f"{found[message]} instead of {count}: {_describe(message)}")
            # The same message with another outcome is the likely reason.
            others = [other for other in found if other[:3] == message[:3] and other not in EXPECTED]
            lines += [f"    found: {_describe(other)}" for other in others]
    halves = sum("mcp.method.name" in span.attributes for span in spans)
    if halves != 2 * found.total():
        lines.append(f"{halves} spans of messages instead of {2 * found.total()}: not one on each side")
    lines += [f"no metric {name}" for name in METRICS if name not in metric_names]
    return lines


def _describe(message: Message) -> str:
    outcome = f" ({message.sender_error or 'ok'} / {message.receiver_error or 'ok'})"
    return f"{message.name} from {message.sender} to {message.receiver}{outcome}"


def print_summary(receiver: OtlpReceiver) -> None:
    spans = receiver.spans()
    services = sorted({span.tree.service for span in spans})
    traces = {span.tree.trace_id for span in spans}
    print(f"{len(services)} processes ({', '.join(services)}), {len(spans)} spans, {len(traces)} trace(s)")

    calls: dict[str, list[TreeSpan]] = {}
    received: Counter[str] = Counter()
    for span in sorted(spans, key=lambda span: span.tree.start_ns):
        method = span.attributes.get("mcp.method.name")
        if method and span.tree.kind == "CLIENT":
            calls.setdefault(method, []).append(span.tree)
        elif method and span.tree.kind == "SERVER":
            received[method] += 1
    print(f"\n{'message':<28}{'sent':>8}{'received':>10}{'errors':>8}{'p50 ms':>10}")
    for method, sent in calls.items():
        errors = sum(span.error is not None for span in sent)
        p50 = statistics.median(span.end_ns - span.start_ns for span in sent) / 1e6
        print(f"{method:<28}{len(sent):>8}{received[method]:>10}{errors:>8}{p50:>10.1f}")

    print(f"\n{'metric':<32}{'from':<16}{'series':>8}{'count':>8}")
    for metric in receiver.metrics():
        if metric.name in METRICS:
            print(f"{metric.name:<32}{metric.service:<16}{metric.series:>8}{metric.count:>8}")


def main() -> int:
    # A terminated demo must clean up too, and only an exception runs the `with` blocks to their end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    with OtlpReceiver() as receiver, tempfile.TemporaryDirectory() as logs:
        with Processes(receiver.endpoint, Path(logs)) as processes:
            problems = play(processes)
            if processes.timed_out:
                problems.insert(0, f"time limit of {TIME_LIMIT_S} s reached")
        spans = receiver.spans()
        problems += missing(spans, {metric.name for metric in receiver.metrics()})
        if problems:
            for log in sorted(Path(logs).iterdir()):
                print(f"--- output of {log.stem}\n{log.read_text(errors='replace')}", file=sys.stderr)

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the lines of the tree are not in every encoding
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((120, 24)).columns
    print(render_tree([span.tree for span in spans], color=color, width=width).rstrip() + "\n")
    print_summary(receiver)
    print()
    for problem in problems:
        print(f"FAILED  {problem}")
    if not problems:
        print(f"OK  one trace, every message once on each side ({time.monotonic() - started:.1f} s)")
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
