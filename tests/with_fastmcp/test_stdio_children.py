"""The stdio transports of FastMCP: servers they start join their client's traces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from support.conformance import SCOPE
from support.sink import OtlpSink, SinkSpan

# The folder of this file is a package `fastmcp` as well, if there is no other.

SUPPORT = Path(__file__).resolve().parent.parent / "support"
SERVER, BARE_SERVER = SUPPORT / "fastmcp_stdio_server.py", SUPPORT / "bare_stdio_server.py"
HERE = Path(sys.executable).parent
SETTING = "OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN"
RESULT = "result: "
LIMIT_S = 60

Arguments = dict[str, Any]
Start = tuple[str, Arguments, str]
"""The name of a transport, the arguments of its constructor, and the name the server is to have."""


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def path_with(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def by_command(folder: Path) -> Start:
    return "StdioTransport", {"command": sys.executable, "args": [str(SERVER)]}, "fastmcp_stdio_server"


def by_script(folder: Path) -> Start:
    return "PythonStdioTransport", {"script_path": str(SERVER)}, "fastmcp_stdio_server"


def by_fastmcp_run(folder: Path) -> Start:
    if not (HERE / "fastmcp").exists():
        pytest.skip("this FastMCP has no command line: `fastmcp run` is not tested")
    env = {**path_with(HERE), "FASTMCP_CHECK_FOR_UPDATES": "off"}
    return "FastMCPStdioTransport", {"script_path": str(SERVER), "env": env}, "fastmcp_stdio_server"


def by_uv(folder: Path) -> Start:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed: `uv run` is not tested")
    # Beside the original there is a project, and uv would make its environment.
    server = shutil.copy(SERVER, folder)
    arguments = {"command": server, "python_version": sys.executable}
    return "UvStdioTransport", arguments, "fastmcp_stdio_server"


def by_uv_with_variables(folder: Path) -> Start:
    """With variables of its own, the transport copies the client's whole environment."""
    transport, arguments, name = by_uv(folder)
    return transport, {**arguments, "env_vars": {"UV_OFFLINE": "1"}}, name


def by_uvx(folder: Path) -> Start:
    """A stand-in, as the real one needs a package index: what counts are its name and the process in between."""
    program = f"import runpy; runpy.run_path({str(SERVER)!r}, run_name='__main__')"
    script(folder, "weather-server", f"#!{sys.executable}\n{program}\n")
    script(folder, "uvx", f'#!/bin/sh\nexec {folder}/weather-server "$@"\n')
    return "UvxStdioTransport", {"tool_name": "weather-server", "env_vars": path_with(folder)}, "weather-server"


def run_client(
    folder: Path, start: Start, tool: str, environ: dict[str, str], ready: Callable[[], object] = lambda: None
) -> str:
    """What the tool answered to a client in a process of its own; ``ready`` is called while it is connected."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHONPATH"))}
    client = str(SUPPORT / "fastmcp_stdio_client.py")
    program = [str(HERE / "opentelemetry-instrument"), sys.executable, client, start[0], json.dumps(start[1]), tool]
    with (
        (folder / "stderr").open("w") as stderr_file,
        subprocess.Popen(
            program,
            cwd=folder,
            env={**inherited, "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr_file,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            result = process.stdout.readline()
            if result:
                ready()
            process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 0 and result.startswith(RESULT), (folder / "stderr").read_text()
    return result.removeprefix(RESULT).strip()


def calls_served(sink: OtlpSink) -> list[SinkSpan]:
    return [
        span
        for span in sink.spans()
        if span.name == "tools/call add"
        and span.kind is SpanKind.SERVER
        and span.instrumentation_scope.name == SCOPE
        and span.service_name != "client"
    ]


@pytest.mark.parametrize(
    "way",
    [by_command, by_script, by_fastmcp_run, by_uv, by_uv_with_variables, by_uvx],
    ids=lambda way: way.__name__,
)
def test_a_server_joins(tmp_path: Path, way: Callable[[Path], Start]) -> None:
    start = way(tmp_path)
    with OtlpSink() as sink:
        environ = {**sink.environment("client"), SETTING: "on"}
        answer = run_client(
            tmp_path, start, "add", environ, lambda: sink.wait_for(lambda sink: bool(calls_served(sink)), 30)
        )
        assert answer == "3"
        spans = sink.spans()
        (served,) = calls_served(sink)
        assert served.service_name == start[2]
        (root,) = [span for span in spans if span.name == "work"]
        assert served.parent is not None
        (sent,) = [span for span in spans if span.context.span_id == served.parent.span_id]
        assert (sent.kind, sent.service_name) == (SpanKind.CLIENT, "client")
        assert served.context.trace_id == sent.context.trace_id == root.context.trace_id


@pytest.mark.parametrize("setting", ["off", "on"])
def test_a_server_that_is_no_python(tmp_path: Path, setting: str) -> None:
    """`npx`, with a stand-in: it is started as ever."""
    script(tmp_path, "npx", f"#!/bin/sh\nexec {sys.executable} {BARE_SERVER}\n")
    os_path = os.environ["PATH"]
    try:
        # The transport looks for the command itself, in the environment of the client.
        os.environ["PATH"] = path_with(tmp_path)["PATH"]
        start = "NpxStdioTransport", {"package": "weather"}, "npx"
        environ = {"OTEL_TRACES_EXPORTER": "none", SETTING: setting}
        child = json.loads(run_client(tmp_path, start, "describe", environ))
    finally:
        os.environ["PATH"] = os_path
    assert child["opentelemetry"] == []
    assert not [name for name in child["environ"] if name.startswith(("OTEL_", "PYTHONPATH"))]
