"""Whole processes under `opentelemetry-instrument`, exporting real OTLP bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import sdk
from support.conformance import assert_conformant, assert_message_spans
from support.sink import OtlpSink
from support.wire import read_stdio_log, tee_command

HERE = Path(__file__).resolve().parent.parent / "support"
INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))


def run(*command: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    env["OTEL_LOGS_EXPORTER"] = "none"
    return subprocess.run(
        command, env={**env, **environment}, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize("era", sdk.ERAS)
def test_client_and_stdio_server_are_one_trace(tmp_path: Path, era: str) -> None:
    log = tmp_path / "wire.jsonl"
    server = tee_command(log, INSTRUMENT, *sdk.server_command())
    with OtlpSink() as sink:
        done = run(
            INSTRUMENT,
            sys.executable,
            str(HERE / "zero_code_client.py"),
            era,
            *server,
            OTEL_SERVICE_NAME="client",
            OTEL_EXPORTER_OTLP_ENDPOINT=sink.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_BSP_SCHEDULE_DELAY="200",
        )
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
        spans = sink.spans()
        assert_message_spans(read_stdio_log(log), spans)
        assert {span.service_name for span in spans} == {"client", "stdio-server"}
        assert_conformant(spans, sink.metrics("client"))
        durations = ["client.operation", "server.operation", "client.session"]
        if sdk.VERSION >= (1, 10):
            # Older clients kill their server before it can report its last metrics.
            durations.append("server.session")
        for metric in durations:
            assert sink.contains(f"mcp.{metric}.duration")
        for canary in (b"canary-in-an-argument", b"hello?", b"sampled"):
            assert not sink.contains(canary), canary


def test_tree_in_the_terminal(tmp_path: Path) -> None:
    """`OTEL_TRACES_EXPORTER=mcp_tree` draws on stderr; the protocol on stdout is not disturbed."""
    done = run(
        INSTRUMENT,
        sys.executable,
        str(HERE / "zero_code_client.py"),
        "legacy",
        INSTRUMENT,
        *sdk.server_command(),
        OTEL_SERVICE_NAME="client",
        OTEL_TRACES_EXPORTER="mcp_tree",
        OTEL_METRICS_EXPORTER="none",
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    for expected in ("tools/call add", "tools/call fail", "tool_error", "parent in another process", "CLIENT"):
        assert expected in done.stderr, done.stderr
    assert "\x1b" not in done.stderr


def test_a_program_without_mcp_does_not_import_it() -> None:
    program = "import sys; print([m for m in sys.modules if m == 'mcp' or m.startswith(('mcp.', 'mcp_types'))])"
    done = run(INSTRUMENT, sys.executable, "-c", program, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
    assert (done.stdout, done.returncode) == ("[]\n", 0)
    assert "opentelemetry_instrumentation_mcp" not in done.stderr


def test_options_are_flags() -> None:
    """The loader turns registered environment variables into command line options."""
    done = run(INSTRUMENT, "--help")
    assert "--instrumentation_mcp_native_spans" in done.stdout


def test_disabled_by_its_own_name() -> None:
    program = (
        "import mcp.client.session as s; from opentelemetry_instrumentation_mcp import McpInstrumentor; "
        "print(McpInstrumentor().is_instrumented_by_opentelemetry)"
    )
    environment: Any = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    on = run(INSTRUMENT, sys.executable, "-c", program, **environment)
    off = run(
        INSTRUMENT, sys.executable, "-c", program, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="otel_mcp", **environment
    )
    assert (on.stdout, off.stdout) == ("True\n", "False\n"), on.stderr + off.stderr


def test_sdk_disabled() -> None:
    done = run(
        INSTRUMENT,
        sys.executable,
        str(HERE / "zero_code_client.py"),
        "legacy",
        INSTRUMENT,
        *sdk.server_command(),
        OTEL_SDK_DISABLED="true",
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
