"""The ContextForge gateway between callers and upstream servers: a few calls, and the trace of each as a tree.

`make demo-gateway` runs it. `--all` also draws the traces of what is done to prepare the calls, and FastAPI's own spans
of its work. The exit code is 0 only if every call ended as it should and its trace is complete.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry_instrumentation_mcp.exporter.tree import TreeSpan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "common"))

from contextforge import Gateway, settings, token
from otlp_receiver import OtlpReceiver
from processes import Processes, end_on_signal, free_port, print_outcome, print_trees

LIMITS = {"time_limit_s": 300, "start_limit_s": 150, "stop_limit_s": 30}
GATEWAY, WEATHER, LIBRARY, AGENT = "gateway", "weather", "library", "agent"
RPC = "POST /rpc"
Errors = dict[str, str]  # by "name KIND service" of a span


class Call(NamedTuple):
    """One tool call, what comes back, and what its trace has to hold."""

    about: str
    tool: str
    arguments: dict[str, str]
    outcome: str
    paths: tuple[str, ...]
    """Spans with all that is above them: `root > ... > span`."""
    errors: Errors


CALLS = (
    Call(
        "an upstream server with OpenTelemetry: one trace of two processes",
        "weather-forecast",
        {"city": "  lisbon"},
        "result: Tomorrow in Lisbon",
        (),
        {},
    ),
    Call(
        "an upstream server without: the trace ends at the gateway's side of the call",
        "library-find-book",
        {"topic": "tides"},
        "result: Tides",
        (),
        {},
    ),
    Call(
        "a plugin blocks the call: nothing reaches the upstream server",
        "weather-forecast",
        {"city": "Atlantis"},
        "error: -32602",
        (),
        {},
    ),
    Call(
        "the tool fails",
        "weather-air-quality",
        {"city": "lisbon"},
        "failed: Error executing tool air_quality",
        (),
        {},
    ),
)


def outcome_of(answer: dict[str, Any]) -> str:
    """What the caller is told, in a line."""
    if "error" in answer:
        return f"error: {answer['error']['code']} {answer['error']['message']}"
    result = answer["result"]
    return f"{'failed' if result['isError'] else 'result'}: {result['content'][0]['text']}"


def play(processes: Processes, folder: Path) -> tuple[list[str], list[str]]:
    """Start everything, register, call; the outcomes of the calls, and what went wrong."""
    ports = {name: free_port() for name in (WEATHER, LIBRARY, GATEWAY)}
    variables = settings(folder, ports[GATEWAY], HERE / "plugins")
    servers = {
        GATEWAY: processes.start(GATEWAY, "-m", "mcpgateway", environment=variables, folder=folder),
        WEATHER: processes.start(WEATHER, str(HERE / "weather_server.py"), str(ports[WEATHER])),
        LIBRARY: processes.start(LIBRARY, str(HERE / "library_server.py"), str(ports[LIBRARY]), instrumented=False),
    }
    bearer = token(folder, variables)
    problems = [
        f"{name} did not start" for name, server in servers.items() if not processes.listening(server, ports[name])
    ]
    if problems:
        return [], problems
    gateway, outcomes = Gateway(ports[GATEWAY], bearer), []
    try:
        for upstream in (WEATHER, LIBRARY):
            gateway.register(upstream, f"http://127.0.0.1:{ports[upstream]}/mcp")
        for call in CALLS:
            outcomes.append(outcome_of(gateway.call(call.tool, call.arguments)))
            if not outcomes[-1].startswith(call.outcome):
                problems.append(f"{call.tool} {call.arguments}: {outcomes[-1]}, expected {call.outcome}")
    except urllib.error.HTTPError as error:
        problems.append(f"{error.url}: HTTP {error.code} {error.read().decode(errors='replace')[:500]}")
    except (OSError, ValueError, LookupError) as error:
        problems.append(f"talking to the gateway: {error!r}")
    else:
        agent = processes.start(
            AGENT, str(HERE / "agent.py"), f"{gateway.url}/mcp", "porto", environment={"GATEWAY_TOKEN": bearer}
        )
        if code := agent.wait():
            problems.append(f"{AGENT} ended with exit code {code}")
    return outcomes, problems + processes.stop(servers)


def without_work_of_fastapi(spans: list[TreeSpan]) -> list[TreeSpan]:
    """The spans but FastAPI's INTERNAL ones; what is below those hangs one level higher."""
    left_out = {span.span_id: span for span in spans if span.scope == "fastapi" and span.kind == "INTERNAL"}

    def raised(span: TreeSpan) -> TreeSpan:
        while span.parent_id in left_out:
            span = replace(span, parent_id=left_out[span.parent_id].parent_id)
        return span

    return [raised(span) for span in spans if span.span_id not in left_out]


def title(span: TreeSpan) -> str:
    return f"{span.name} {span.kind} {span.service}"


def paths_of(spans: list[TreeSpan]) -> list[str]:
    """Each span of a trace with all that is above it, by name."""
    by_id = {span.span_id: span for span in spans}

    def path(span: TreeSpan) -> list[str]:
        above = by_id.get(span.parent_id) if span.parent_id is not None else None
        return [*(path(above) if above else []), span.name]

    return [" > ".join(path(span)) for span in spans]


def missing(call: Call, trace: list[TreeSpan]) -> list[str]:
    """What is not as it should be in the trace of a call."""
    ids = {span.span_id for span in trace}
    lines = [f"{title(span)}: its parent is missing" for span in trace if span.parent_id and span.parent_id not in ids]
    found = paths_of(trace)
    lines += [f"{found.count(path)} instead of 1: {path}" for path in call.paths if found.count(path) != 1]
    errors = {title(span): span.error for span in trace if span.error}
    if errors != call.errors:
        lines.append(f"errors {errors}, expected {call.errors}")
    return [f"{call.about}: {line}" for line in lines]


def traces_of(spans: list[TreeSpan], root: str) -> list[list[TreeSpan]]:
    """The traces that begin with a span of this name, in the order of time."""
    roots = [span for span in sorted(spans, key=lambda span: span.start_ns) if span.name == root and not span.parent_id]
    return [[span for span in spans if span.trace_id == root.trace_id] for root in roots]


def main() -> int:
    if importlib.util.find_spec("mcpgateway") is None:
        raise SystemExit("no mcp-contextforge-gateway beside this Python: start with `make demo-gateway`")
    end_on_signal()
    started = time.monotonic()
    with OtlpReceiver() as receiver, tempfile.TemporaryDirectory() as folder:
        limits = Processes(receiver.endpoint, Path(folder), **LIMITS)
        with limits as processes:
            outcomes, problems = play(processes, Path(folder))
            if processes.timed_out:
                problems.insert(0, f"time limit of {LIMITS['time_limit_s']} s reached")
        if problems:
            processes.print_logs()
    everything = [span.tree for span in receiver.spans()]
    spans = everything if "--all" in sys.argv[1:] else without_work_of_fastapi(everything)
    calls, asked = traces_of(spans, RPC), traces_of(spans, "answer a question")
    if len(calls) != len(CALLS):
        problems.append(f"{len(calls)} traces of calls instead of {len(CALLS)}")
    for call, outcome, trace in zip(CALLS, outcomes, calls, strict=False):
        problems += missing(call, without_work_of_fastapi(trace))
        print(f"{call.about}\n{call.tool} {json.dumps(call.arguments)} -> {outcome}")
        print_trees(trace)
    print("an agent with OpenTelemetry, over MCP: one trace of three processes")
    for trace in asked:
        print_trees(trace)
    services = {span.service for trace in asked for span in trace}
    if services != {AGENT, GATEWAY, WEATHER} or len(asked) != 1:
        problems.append(f"{len(asked)} traces of the agent's call, with {', '.join(sorted(services))}")
    shown = {span.span_id for trace in (*calls, *asked) for span in trace}
    others = [span for span in everything if span.span_id not in shown]
    if "--all" in sys.argv[1:]:
        print_trees(others)
    else:
        print(f"{len(others)} more spans are drawn with --all: registration, handshakes, FastAPI's INTERNAL spans\n")
    return print_outcome(
        problems, f"{len(calls) + len(asked)} calls, a trace each ({time.monotonic() - started:.1f} s)"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
