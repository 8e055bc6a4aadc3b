"""Programs that export to one receiver: started under `opentelemetry-instrument`, watched, ended, drawn as trees."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from opentelemetry_instrumentation_mcp.exporter.tree import TreeSpan, render_tree


class Processes:
    """The programs of a demo. Each has a log file; none outlives the `with` block or the time limit."""

    def __init__(
        self, endpoint: str, logs: Path, *, time_limit_s: float, start_limit_s: float, stop_limit_s: float
    ) -> None:
        self._logs = logs
        self._environment = _environment(endpoint)
        self._started: list[subprocess.Popen[bytes]] = []
        self._time_limit_s, self._start_limit_s, self._stop_limit_s = time_limit_s, start_limit_s, stop_limit_s
        self._watchdog = threading.Timer(time_limit_s, self._time_is_up)
        self._watchdog.daemon = True
        self.timed_out = False

    def __enter__(self) -> Processes:
        self._watchdog.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._watchdog.cancel()
        self._kill()

    def start(
        self,
        service: str,
        *arguments: str,
        instrumented: bool = True,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `python *arguments`, with more variables and in another folder if those are given."""
        command = [sys.executable, *arguments]
        if instrumented:
            instrument = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
            if instrument is None:
                raise SystemExit("no opentelemetry-instrument beside this Python: start with `make`")
            command.insert(0, instrument)
        with (self._logs / f"{service}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**self._environment, "OTEL_SERVICE_NAME": service, **(environment or {})},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def listening(self, server: subprocess.Popen[bytes], port: int) -> bool:
        """Wait until the server takes connections."""
        deadline = time.monotonic() + self._start_limit_s
        while server.poll() is None and time.monotonic() < deadline:
            try:
                # A bare connection: with an HTTP instrumentation a request would be a trace of its own.
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return True
            except OSError:
                time.sleep(0.05)
        return False

    def stop(self, servers: Mapping[str, subprocess.Popen[bytes]]) -> list[str]:
        """End the servers so that they export what they have; what went wrong, if anything."""
        problems = []
        for name, server in servers.items():
            # Not SIGTERM: uvicorn stops gracefully on both, but then raises the signal again, and SIGTERM ends Python
            # without its atexit handlers, which flush the spans.
            server.send_signal(signal.SIGINT)
            try:
                code = server.wait(self._stop_limit_s)
            except subprocess.TimeoutExpired:
                problems.append(f"{name} did not stop")
            else:
                # A program that does not handle the signal ends with it, after its atexit handlers.
                if code not in (0, 130, -signal.SIGINT):
                    problems.append(f"{name} ended with exit code {code}")
        return problems

    def print_logs(self) -> None:
        """Print what the programs printed."""
        for log in sorted(self._logs.glob("*.log")):
            print(f"--- output of {log.stem}\n{log.read_text(errors='replace')}", file=sys.stderr)

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
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def end_on_signal() -> None:
    """A terminated demo must clean up too, and only an exception runs the `with` blocks to their end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def print_trees(spans: Iterable[TreeSpan]) -> None:
    """Print one tree for each trace, as wide and as coloured as the terminal takes it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the lines of the tree are not in every encoding
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((120, 24)).columns
    print(render_tree(spans, color=color, width=width).rstrip() + "\n")


def print_outcome(problems: list[str], success: str) -> int:
    """Print the last lines of a demo; its exit code."""
    for problem in problems:
        print(f"FAILED  {problem}")
    if not problems:
        print(f"OK  {success}")
    return 1 if problems else 0
