"""What this package adds to a tool call through the ContextForge gateway; prints Markdown.

Several gateways run at the same time, alike but for their telemetry, with the same upstream server, which has none.
Calls go to them in turn, in small blocks, in random order: what is compared is blocks of the same cycle. As in the
other benchmarks, spans end in an exporter that does nothing; with `--otlp` a receiver gets them and throws them away.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import psutil

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path[:0] = [str(EXAMPLES / "common"), str(EXAMPLES / "gateway")]

from contextforge import Gateway, settings, token
from processes import Processes, end_on_signal, free_port

NONE, OTHERS, OURS = "no OpenTelemetry", "without ours", "with ours"
CONFIGURATIONS = (NONE, OTHERS, OURS)
TOOL, ARGUMENTS = "library-find-book", {"topic": "tides"}
BUDGET = 5.0  # percent
LIMITS = {"time_limit_s": 3600, "start_limit_s": 300, "stop_limit_s": 60}
# HTTP instrumentations, if they are installed, are not what is measured.
OFF = "asgi,fastapi,httpx,starlette"
TITLES = {
    "rpc": "`/rpc`, a session with the upstream server for each call",
    "stateful": "a stateful `/mcp` session, whose upstream session the gateway keeps",
}


NO_OP_EXPORTER = """
from pathlib import Path
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

class NoOpExporter(SpanExporter):
    seen = 0

    def export(self, spans):
        self.seen += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self):
        Path("exported").write_text(str(self.seen))
"""


def no_op_exporter(folder: Path) -> dict[str, str]:
    """Variables with which a program finds an exporter that does nothing; made in `folder`."""
    about = folder / "no_op_exporter-1.dist-info"
    about.mkdir()
    (folder / "no_op_exporter.py").write_text(NO_OP_EXPORTER, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: no-op-exporter\nVersion: 1\n", encoding="utf-8")
    entry_point = "[opentelemetry_traces_exporter]\nno_op = no_op_exporter:NoOpExporter\n"
    (about / "entry_points.txt").write_text(entry_point, encoding="utf-8")
    return {"OTEL_TRACES_EXPORTER": "no_op", "OTEL_METRICS_EXPORTER": "none"}


class Sink:
    """Takes what the gateways export, and forgets it."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Sink:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Caller:
    """Calls one gateway, over a connection that stays open."""

    def __init__(self, gateway: Gateway, bearer: str, process: psutil.Process, *, stateful: bool) -> None:
        self._gateway, self._process = gateway, process
        self._connection = http.client.HTTPConnection("127.0.0.1", int(gateway.url.rpartition(":")[2]), timeout=60)
        self._path = "/mcp" if stateful else "/rpc"
        self._headers = {
            "authorization": f"Bearer {bearer}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
        }
        if stateful:
            about = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "bench", "version": "1"},
            }
            answer = self._post({"id": 1, "method": "initialize", "params": about})
            self._headers["mcp-session-id"] = answer.headers["mcp-session-id"]
            self._headers["mcp-protocol-version"] = "2025-06-18"
            self._post({"method": "notifications/initialized"})

    def _post(self, message: dict[str, Any]) -> http.client.HTTPResponse:
        body = json.dumps({"jsonrpc": "2.0", **message})
        self._connection.request("POST", self._path, body, self._headers)
        answer = self._connection.getresponse()
        self.text = answer.read()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"HTTP {answer.status}: {self.text[:300]!r}")
        return answer

    def reconnect(self) -> None:
        """Open the connection again: it may have been idle for longer than the gateway allows."""
        self._connection.close()
        self._connection.connect()

    def call(self) -> float:
        """One tool call; how long it took, in milliseconds."""
        start = perf_counter()
        self._post({"id": 2, "method": "tools/call", "params": {"name": TOOL, "arguments": ARGUMENTS}})
        elapsed = (perf_counter() - start) * 1000
        if b"a very short introduction" not in self.text:
            raise RuntimeError(f"not what the tool returns: {self.text[:300]!r}")
        return elapsed

    def cpu(self) -> float:
        """CPU time of the gateway so far, in milliseconds."""
        times = self._process.cpu_times()
        return (times.user + times.system) * 1000


@contextmanager
def gateways(sink: Sink, folder: Path, *, stateful: bool, otlp: bool) -> Iterator[dict[str, Caller]]:
    """One gateway for each configuration, running and ready."""
    library, port = "library", free_port()
    exporter = {} if otlp else no_op_exporter(folder)
    with Processes(sink.endpoint, folder, **LIMITS) as processes:
        upstream = processes.start(library, str(EXAMPLES / "gateway/library_server.py"), str(port), instrumented=False)
        started = {}
        for name in CONFIGURATIONS:
            place = folder / name.replace(" ", "-")
            place.mkdir()
            gateway_port = free_port()
            variables = settings(place, gateway_port, EXAMPLES / "gateway/plugins") | exporter
            variables["PYTHONPATH"] = os.pathsep.join([str(folder), variables["PYTHONPATH"]])
            variables["RATE_LIMITING_ENABLED"] = "false"
            variables["USE_STATEFUL_SESSIONS"] = str(stateful).lower()
            variables["LOG_LEVEL"] = "WARNING"
            variables["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = OFF if name == OURS else f"{OFF},otel_mcp"
            variables["OTEL_BSP_SCHEDULE_DELAY"] = "5000"  # the default
            variables["OTEL_METRIC_EXPORT_INTERVAL"] = "60000"
            process = processes.start(
                name.replace(" ", "-"),
                *("-m", "mcpgateway"),
                instrumented=name != NONE,
                environment=variables,
                folder=place,
            )
            started[name] = (process, gateway_port, token(place, variables))
        if not processes.listening(upstream, port):
            raise SystemExit("the upstream server did not start")
        callers = {}
        for name, (process, gateway_port, bearer) in started.items():
            if not processes.listening(process, gateway_port):
                processes.print_logs()
                raise SystemExit(f"the gateway {name} did not start")
            gateway = Gateway(gateway_port, bearer)
            gateway.register(library, f"http://127.0.0.1:{port}/mcp")
            callers[name] = Caller(gateway, bearer, psutil.Process(process.pid), stateful=stateful)
        yield callers
        processes.stop({name: process for name, (process, _, _) in started.items()})


Blocks = dict[str, list[list[float]]]


def measure(callers: dict[str, Caller], cycles: int, calls: int) -> tuple[Blocks, dict[str, float]]:
    """The times of all calls, block by block, and the CPU time per call; milliseconds."""
    wall: Blocks = {name: [] for name in callers}
    cpu = dict.fromkeys(callers, 0.0)
    for cycle in range(-2, cycles):  # the first ones only warm up
        for name in random.sample(list(callers), len(callers)):
            callers[name].reconnect()
            before = callers[name].cpu()
            times = [callers[name].call() for _ in range(calls)]
            if cycle >= 0:
                wall[name].append(times)
                cpu[name] += (callers[name].cpu() - before) / (calls * cycles)
        print(f"\r{cycle + 1} of {cycles}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return wall, cpu


def low(blocks: list[list[float]]) -> float:
    """The 5th percentile of all calls: what remains when the machine does little else."""
    return quantiles([call for block in blocks for call in block], n=20)[0]


def ratios(values: list[list[float]], reference: list[list[float]]) -> list[float]:
    """In percent, by how much each block takes longer than the one of the reference in the same cycle."""
    return [(median(mine) / median(other) - 1) * 100 for mine, other in zip(values, reference, strict=True)]


def table(wall: Blocks, cpu: dict[str, float]) -> str:
    """What was measured, as a Markdown table."""
    compared = f"% over `{NONE}` | % over `{OTHERS}`"
    lines = [f"| gateway | ms: p5 | {compared} | CPU ms | {compared} |", "|---|--:|--:|--:|--:|--:|--:|"]
    for name in wall:
        cells = [name, f"{low(wall[name]):.1f}"]
        for other in (NONE, OTHERS):
            first, middle, third = quantiles(ratios(wall[name], wall[other]), n=4)
            cells.append("" if name == other else f"{middle:+.1f} ({first:+.1f}..{third:+.1f})")
        cells.append(f"{cpu[name]:.1f}")
        cells += ["" if name == other else f"{(cpu[name] / cpu[other] - 1) * 100:+.1f}" for other in (NONE, OTHERS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(scenario: str, cycles: int, calls: int, *, otlp: bool) -> None:
    with Sink() as sink, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with gateways(sink, folder, stateful=scenario == "stateful", otlp=otlp) as callers:
            wall, cpu = measure(callers, cycles, calls)
        if not otlp:
            exported = {name: (folder / name.replace(" ", "-") / "exported").read_text() for name in (OTHERS, OURS)}
            print(f"spans exported: {exported}", file=sys.stderr)
    print(f"### {TITLES[scenario]}\n")
    versions = f"gateway {metadata.version('mcp-contextforge-gateway')}, mcp {metadata.version('mcp')}"
    exporting = "OTLP" if otlp else "nothing exported"
    print(f"CPython {platform.python_version()}, {versions}, {cycles} x {calls} calls, {exporting}.\n")
    print(table(wall, cpu))
    # Without ours, the gateway gives up its upstream sessions as soon as anybody traces: that is no measure.
    reference = NONE if scenario == "stateful" else OTHERS
    first, middle, third = quantiles(ratios(wall[OURS], wall[reference]), n=4)
    verdict = "PASS" if middle <= BUDGET else "FAIL"
    if third - first > 4 * BUDGET:
        verdict += ", but the noise is larger than what is measured"
    print(
        f"\n- {verdict} ({middle:+.1f} %): ours adds <= {BUDGET:.0f} % of a call's time, over `{reference}`\n",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", nargs="+", choices=TITLES, default=[*TITLES])
    parser.add_argument("--cycles", type=int, default=120, help="blocks per gateway")
    parser.add_argument("--calls", type=int, default=2, help="calls per block")
    parser.add_argument("--otlp", action="store_true", help="export the spans")
    options = parser.parse_args()
    end_on_signal()
    for scenario in options.scenarios:
        run(scenario, options.cycles, options.calls, otlp=options.otlp)


if __name__ == "__main__":
    main()
