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
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry_instrumentation_mcp.exporter.tree import TreeSpan

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "common"))

from contextforge import Gateway, RefusedError, settings, token
from otlp_receiver import OtlpReceiver, ReceivedSpan
from processes import Processes, end_on_signal, free_port, print_outcome, print_trees

LIMITS = {"time_limit_s": 300, "start_limit_s": 150, "stop_limit_s": 30}
GATEWAY, WEATHER, LIBRARY, AGENT = "gateway", "weather", "library", "agent"
RPC, QUESTION = "POST /rpc", "answer a question"
# HTTP spans of other instrumentations would show each message a second time.
WITHOUT_HTTP = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asgi,fastapi,httpx,starlette"}

PLUGINS_LET_IT_PASS = """
plugin.hook.invoke (tool_pre_invoke) INTERNAL gateway
  plugin.execute (BlockWords) INTERNAL gateway
  plugin.execute (TidyArguments, modified the arguments) INTERNAL gateway
"""
PLUGIN_STOPS_IT = """
plugin.hook.invoke (tool_pre_invoke) INTERNAL gateway
  plugin.execute (BlockWords, violation BLOCKED_WORD) INTERNAL gateway
"""


def upstream_call(tool: str, *, answered: bool = True) -> str:
    """What a call of an upstream tool looks like in the gateway; the SDK looks up the schema of a result."""
    listing = "\n  tools/list CLIENT gateway" if answered else ""
    return f"""
mcp.client.call INTERNAL gateway
  mcp.client.initialize INTERNAL gateway
    initialize CLIENT gateway
    notifications/initialized CLIENT gateway
  mcp.client.request INTERNAL gateway
    tools/call {tool} CLIENT gateway{listing.replace("  ", "    ")}
  mcp.client.response ({"success" if answered else "no success"}) INTERNAL gateway
"""


class Call(NamedTuple):
    """One tool call, what comes back, and what its trace has to hold."""

    about: str
    tool: str
    arguments: dict[str, str]
    outcome: str
    inside: str
    """What is below `tool.invoke`, without the spans of the upstream server: one below each CLIENT span."""
    upstream: str = ""
    """The upstream server, if it exports spans."""
    errors: tuple[str, ...] = ()
    """The `error.type` of each failed span, by its name and service."""


FORECAST = PLUGINS_LET_IT_PASS + upstream_call("forecast")
CALLS = (
    Call(
        "An upstream server with OpenTelemetry: one trace of two processes",
        "weather-forecast",
        {"city": "  lisbon"},
        "result: Tomorrow in Lisbon",
        FORECAST,
        WEATHER,
    ),
    Call(
        "An upstream server without: the trace ends at the gateway's side of each message",
        "library-find-book",
        {"topic": "tides"},
        "result: Tides",
        PLUGINS_LET_IT_PASS + upstream_call("find_book"),
    ),
    Call(
        "A plugin blocks the call: nothing reaches the upstream server",
        "weather-forecast",
        {"city": "Atlantis"},
        "error: -32602",
        PLUGIN_STOPS_IT,
        errors=("tool.invoke gateway plugin_violation",),
    ),
    Call(
        "The tool fails: an error in each span that has to do with it, no others",
        "weather-air-quality",
        {"city": "lisbon"},
        "failed: Error executing tool air_quality",
        PLUGINS_LET_IT_PASS + upstream_call("air_quality", answered=False),
        WEATHER,
        (
            "tool.invoke gateway tool_error",
            "tools/call air_quality gateway tool_error",
            "tools/call air_quality weather tool_error",
            "tools/call weather-air-quality gateway tool_error",
        ),
    ),
)
ASKED = Call(
    "An agent with OpenTelemetry that talks MCP to the gateway: one trace of three processes",
    "weather-forecast",
    {"city": "porto"},
    "result: Tomorrow in Porto",
    FORECAST,
    WEATHER,
)


def outcome_of(answer: dict[str, Any]) -> str:
    """What the caller is told, in a line."""
    if "error" in answer:
        return f"error: {answer['error']['code']} {answer['error']['message']}"
    result = answer["result"]
    return f"{'failed' if result['isError'] else 'result'}: {result['content'][0]['text']}"


def play(processes: Processes, folder: Path, outcomes: list[str]) -> list[str]:
    """Start everything, register, call, and note the outcomes; what went wrong."""
    ports = {name: free_port() for name in (WEATHER, LIBRARY, GATEWAY)}
    variables = settings(folder, ports[GATEWAY], HERE / "plugins") | WITHOUT_HTTP
    servers = {
        GATEWAY: processes.start(GATEWAY, "-m", "mcpgateway", environment=variables, folder=folder),
        WEATHER: processes.start(
            WEATHER, str(HERE / "weather_server.py"), str(ports[WEATHER]), environment=WITHOUT_HTTP
        ),
        LIBRARY: processes.start(LIBRARY, str(HERE / "library_server.py"), str(ports[LIBRARY]), instrumented=False),
    }
    problems: list[str] = []
    try:
        bearer = token(folder, variables)
        silent = [name for name, server in servers.items() if not processes.listening(server, ports[name])]
        if silent:
            return [f"{name} did not start" for name in silent]
        gateway = Gateway(ports[GATEWAY], bearer)
        for upstream in (WEATHER, LIBRARY):
            gateway.register(upstream, f"http://127.0.0.1:{ports[upstream]}/mcp")
        outcomes.extend(outcome_of(gateway.call(call.tool, call.arguments)) for call in CALLS)
    except (RefusedError, OSError, HTTPException, ValueError, LookupError) as error:
        problems.append(f"the gateway: {error!r}")
    else:
        agent = processes.start(
            AGENT,
            *(str(HERE / "agent.py"), f"{gateway.url}/mcp", ASKED.tool, json.dumps(ASKED.arguments)),
            environment={"GATEWAY_TOKEN": bearer, **WITHOUT_HTTP},
        )
        if code := agent.wait():
            problems.append(f"{AGENT} ended with exit code {code}")
        outcomes.append(f"result: {(folder / f'{AGENT}.log').read_text(errors='replace').strip()}")
    return problems + processes.stop(servers)


def with_details(span: ReceivedSpan) -> TreeSpan:
    """The span with some of its attributes behind its name: all plugins' spans have the same."""
    attributes, name = span.attributes, span.tree.name
    details = [attributes.get({"plugin.hook.invoke": "plugin.hook.type"}.get(name, "plugin.name"))]
    if attributes.get("plugin.had_violation"):
        details.append(f"violation {attributes.get('plugin.violation.code')}")
    if attributes.get("plugin.modified_payload"):
        details.append("modified the arguments")
    if name == "mcp.client.response":
        details.append("success" if attributes.get("upstream.response.success") else "no success")
    shown = ", ".join(filter(None, details))
    return replace(span.tree, name=f"{name} ({shown})") if shown else span.tree


def without_work_of_fastapi(spans: list[TreeSpan]) -> list[TreeSpan]:
    """The spans but FastAPI's INTERNAL ones; what is below those hangs one level higher."""
    left_out = {span.span_id: span for span in spans if span.scope == "fastapi" and span.kind == "INTERNAL"}

    def raised(span: TreeSpan) -> TreeSpan:
        while span.parent_id in left_out:
            span = replace(span, parent_id=left_out[span.parent_id].parent_id)
        return span

    return [raised(span) for span in spans if span.span_id not in left_out]


def paths(outline: str) -> list[str]:
    """Of an indented text, each line with all that is above it."""
    found: list[str] = []
    above: list[str] = []
    for line in filter(None, outline.splitlines()):
        text = line.lstrip()
        above[(len(line) - len(text)) // 2 :] = [text]
        found.append(" > ".join(above))
    return sorted(found)


def paths_below(trace: list[TreeSpan], top: TreeSpan) -> list[str]:
    """Each span with all that is between it and `top`."""
    by_id = {span.span_id: span for span in trace}

    def path(span: TreeSpan | None) -> list[str] | None:
        if span is None or span is top:
            return None if span is None else []
        above = path(by_id.get(span.parent_id or 0))
        return None if above is None else [*above, f"{span.name} {span.kind} {span.service}"]

    return sorted(" > ".join(found) for span in trace if (found := path(span)))


def missing(call: Call, trace: list[TreeSpan]) -> list[str]:
    """What is not as it should be in the trace of a call."""
    ids = {span.span_id for span in trace}
    lines = [f"the parent of {span.name} is missing" for span in trace if span.parent_id and span.parent_id not in ids]
    received = [span for span in trace if span.name == f"tools/call {call.tool}" and span.kind == "SERVER"]
    invoked = [span for span in trace if span.name == "tool.invoke"]
    if len(received) != 1 or len(invoked) != 1 or invoked[0].parent_id != received[0].span_id:
        return [f"{call.about}: {line}" for line in [*lines, "no tool.invoke below the gateway's tools/call"]]
    upstream = [span for span in trace if span.service not in (GATEWAY, AGENT)]
    sent = {span.span_id: span.name for span in trace if span.kind == "CLIENT" and span.service == GATEWAY}
    if {span.service for span in upstream} != ({call.upstream} if call.upstream else set()):
        lines.append(f"spans of {sorted({span.service for span in upstream})}")
    if upstream and sorted(sent.values()) != sorted(sent.get(span.parent_id or 0, "?") for span in upstream):
        lines.append(f"sent {sorted(sent.values())}, received {sorted(span.name for span in upstream)}")
    found = paths_below([span for span in trace if span not in upstream], invoked[0])
    wanted = paths(call.inside)
    lines += [f"not there: {path}" for path in wanted if path not in found]
    lines += [f"too much: {path}" for path in found if path not in wanted]
    # Whether a client closed its connection early is not what is looked at here.
    errors = tuple(
        sorted(f"{span.name} {span.service} {span.error}" for span in trace if span.error and span.scope != "fastapi")
    )
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
    started, outcomes, calls = time.monotonic(), list[str](), [*CALLS, ASKED]
    with OtlpReceiver() as receiver, tempfile.TemporaryDirectory() as folder:
        with Processes(receiver.endpoint, Path(folder), **LIMITS) as processes:
            problems = play(processes, Path(folder), outcomes)
            if processes.timed_out:
                problems.insert(0, f"time limit of {LIMITS['time_limit_s']} s reached")
        if problems:
            processes.print_logs()
    everything = [with_details(span) for span in receiver.spans()]
    spans = without_work_of_fastapi(everything)
    traces = [*traces_of(spans, RPC), *traces_of(spans, QUESTION)]
    if len(traces) != len(calls):
        problems.append(f"{len(traces)} traces of calls instead of {len(calls)}")
    for call, outcome, trace in zip(calls, outcomes, traces, strict=False):
        if not outcome.startswith(call.outcome):
            problems.append(f"{call.tool}: {outcome}, expected {call.outcome}")
        problems += missing(call, trace)
        print(f"{call.about}\n{call.tool} {json.dumps(call.arguments)} -> {outcome}")
        print_trees(trace)
    shown = {span.span_id for trace in traces for span in trace}
    others = [span for span in everything if span.span_id not in shown]
    if "--all" in sys.argv[1:]:
        print_trees(others)
    else:
        print(f"{len(others)} more spans are drawn with --all: registration, handshakes, FastAPI's INTERNAL spans\n")
    return print_outcome(problems, f"{len(traces)} calls, each a complete trace ({time.monotonic() - started:.1f} s)")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
