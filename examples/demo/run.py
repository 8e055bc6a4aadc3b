"""The demo: an agent and three MCP servers, four processes, one trace. `make demo` runs it.

Starts an OTLP receiver in this process, then the programs under `opentelemetry-instrument`, and prints what
they exported. The exit code is 0 only if every message is there, in one trace.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from opentelemetry_instrumentation_mcp.exporter.tree import TreeSpan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "common"))

from otlp_receiver import OtlpReceiver, ReceivedSpan
from processes import Processes, end_on_signal, free_port, print_outcome, print_trees

LIMITS = {"time_limit_s": 120, "start_limit_s": 30, "stop_limit_s": 10}

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


def script(name: str) -> str:
    return str(HERE / f"{name}.py")


def play(processes: Processes) -> list[str]:
    """Run the programs to their end; what went wrong, if anything."""
    ports = {WEATHER: free_port(), TRAVEL: free_port()}
    weather, travel = (f"http://127.0.0.1:{port}/mcp" for port in ports.values())
    servers = {
        WEATHER: processes.start(WEATHER, script("http_server"), str(ports[WEATHER])),
        TRAVEL: processes.start(TRAVEL, script("travel_server"), str(ports[TRAVEL]), weather),
    }
    problems = [
        f"{name} did not start" for name, server in servers.items() if not processes.listening(server, ports[name])
    ]
    if problems:
        return problems
    if code := processes.start(AGENT, script("client"), weather, travel).wait():
        problems.append(f"{AGENT} ended with exit code {code}")
    problems += processes.stop(servers)
    return problems


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
    end_on_signal()
    started = time.monotonic()
    with OtlpReceiver() as receiver, tempfile.TemporaryDirectory() as logs:
        with Processes(receiver.endpoint, Path(logs), **LIMITS) as processes:
            problems = play(processes)
            if processes.timed_out:
                problems.insert(0, f"time limit of {LIMITS['time_limit_s']} s reached")
        spans = receiver.spans()
        problems += missing(spans, {metric.name for metric in receiver.metrics()})
        if problems:
            processes.print_logs()

    print_trees(span.tree for span in spans)
    print_summary(receiver)
    print()
    return print_outcome(problems, f"one trace, every message once on each side ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
