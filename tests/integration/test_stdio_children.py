"""Servers that an instrumented client starts over stdio: whole processes, and the bytes they export."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from opentelemetry_instrumentation_mcp import McpInstrumentor, launch_command, stdio_children
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from opentelemetry_instrumentation_mcp.hooks import is_ours
from opentelemetry_instrumentation_mcp.targets import stdio_children as adapter
from support import sdk
from support.conformance import assert_conformant, assert_message_spans
from support.sink import OtlpSink
from support.wire import TO_SERVER, WireLog, read_stdio_log, tee_command

SUPPORT = Path(__file__).resolve().parent.parent / "support"
SERVER, BARE_SERVER = SUPPORT / "stdio_children_server.py", SUPPORT / "bare_stdio_server.py"
INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
SETTING = "OTEL_INSTRUMENTATION_MCP_STDIO_CHILDREN"
QUIET = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
CALLS: list[Any] = [["add", {"a": 1, "b": 2}], ["fail"], ["progress"]]
RESULTS = "results: "
LIMIT_S = 60


@dataclass
class Done:
    """What a client saw, and wrote."""

    texts: list[str]
    log: WireLog
    stdout: str
    stderr: str

    def child(self) -> dict[str, Any]:
        """What the bare server says of itself."""
        found: dict[str, Any] = json.loads(self.texts[0])
        return found


def run_client(
    folder: Path,
    command: Sequence[str],
    *,
    calls: Sequence[Any] = (["describe"],),
    env: Mapping[str, str] | str | None = None,
    environ: Mapping[str, str] | None = None,
    launcher: Sequence[str] = (INSTRUMENT,),
    ready: Callable[[WireLog], object] = lambda log: None,
    **plan: Any,
) -> Done:
    """Run a client in a process of its own; ``ready`` is called while it is still connected to its server."""
    log = folder / "client.jsonl"
    plan |= {"command": list(command), "env": env, "calls": list(calls), "log": str(log)}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHONPATH"))}
    program = [*launcher, sys.executable, str(SUPPORT / "stdio_children_client.py"), json.dumps(plan)]
    with (
        (folder / "stderr").open("w") as stderr_file,
        subprocess.Popen(
            program,
            env={**inherited, **QUIET, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr_file,
            text=True,
        ) as client,
    ):
        assert client.stdout is not None
        try:
            # A console exporter of the client may have written, too.
            texts = next((line for line in client.stdout if line.startswith(RESULTS)), "")
            if texts:
                ready(read_stdio_log(log))
            rest, _ = client.communicate(timeout=LIMIT_S)
        finally:
            client.kill()
    stderr = (folder / "stderr").read_text()
    assert client.returncode == 0 and texts, stderr
    return Done(json.loads(texts.removeprefix(RESULTS)), read_stdio_log(log), rest, stderr)


def exporting(sink: OtlpSink, **more: str) -> dict[str, str]:
    return {**sink.environment("client"), SETTING: "on", "OTEL_METRIC_EXPORT_INTERVAL": "200", **more}


def until_exported(sink: OtlpSink) -> Callable[[WireLog], object]:
    """Waits until the server's spans and metrics are there: older clients kill their servers."""

    def wait(log: WireLog) -> object:
        sent = [call for call in log.calls if call.direction == TO_SERVER]

        def is_complete(sink: OtlpSink) -> bool:
            served = [span for span in sink.spans() if span.kind is SpanKind.SERVER and span.service_name != "client"]
            return len(served) >= len(sent) and sink.contains("mcp.server.operation.duration")

        return sink.wait_for(is_complete, 30)

    return wait


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def console_script(folder: Path) -> str:
    """What an installer makes of an entry point."""
    program = f"import runpy; runpy.run_path({str(SERVER)!r}, run_name='__main__')"
    return script(folder, "weather-server", f"#!{sys.executable}\n{program}\n")


# --- joining -------------------------------------------------------------------------------------------------


Command = tuple[list[str], dict[str, str] | None, str]
"""A command, ``env``, and the name the server is to have."""


def by_script(folder: Path) -> Command:
    return [sys.executable, str(SERVER)], None, "stdio_children_server"


def by_module(folder: Path) -> Command:
    name = SERVER.stem
    return [sys.executable, "-m", name], {"PYTHONPATH": str(SUPPORT)}, name


def by_console_script(folder: Path) -> Command:
    return [console_script(folder)], None, "weather-server"


def by_console_script_on_the_path(folder: Path) -> Command:
    console_script(folder)
    return ["weather-server"], {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}, "weather-server"


def by_env(folder: Path) -> Command:
    return ["/usr/bin/env", "A=1", sys.executable, str(SERVER)], None, "stdio_children_server"


def by_uv_run(folder: Path) -> Command:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed: `uv run` is not tested")
    options = ["--offline", "--no-project", "--no-config", "--python", sys.executable]
    return [uv, "run", *options, str(SERVER)], None, "stdio_children_server"


def by_uvx(folder: Path) -> Command:
    """A stand-in, as the real one needs a package index: what counts are its name and the process in between."""
    console_script(folder)
    uvx = script(folder, "uvx", f'#!/bin/sh\nexec {folder}/$3 "$@"\n')
    return [uvx, "--from", "weather", "weather-server"], None, "weather-server"


def by_its_own_instrumentation(folder: Path) -> Command:
    return [INSTRUMENT, sys.executable, str(SERVER)], None, "stdio_children_server"


WAYS = [
    by_script,
    by_module,
    by_console_script,
    by_console_script_on_the_path,
    by_env,
    by_uv_run,
    by_uvx,
    by_its_own_instrumentation,
]


def assert_joined(sink: OtlpSink, done: Done, name: str) -> None:
    spans = sink.spans()
    assert_message_spans(done.log, spans)
    assert_conformant(spans, sink.metrics())
    assert {span.service_name for span in spans} == {"client", name}
    (root,) = [span for span in spans if span.name == "work"]
    assert {span.context.trace_id for span in spans} == {root.context.trace_id}
    served = [
        metric.name for one in sink.metrics(name).resource_metrics for it in one.scope_metrics for metric in it.metrics
    ]
    assert "mcp.server.operation.duration" in served
    assert done.log.malformed == []
    assert "lready instrumented" not in done.stderr
    assert "auto initialize" not in done.stderr and "sitecustomize" not in done.stderr, done.stderr


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_client_and_server_are_one_trace(tmp_path: Path, way: Callable[[Path], Command]) -> None:
    command, env, name = way(tmp_path)
    with OtlpSink() as sink:
        done = run_client(
            tmp_path, command, env=env, calls=CALLS[:1], environ=exporting(sink), ready=until_exported(sink)
        )
        assert_joined(sink, done, name)


@pytest.mark.parametrize("era", sdk.ERAS)
def test_everything_is_one_trace(tmp_path: Path, era: str) -> None:
    command, _, name = by_script(tmp_path)
    with OtlpSink() as sink:
        environ = exporting(sink)
        done = run_client(tmp_path, command, calls=CALLS, environ=environ, ready=until_exported(sink), era=era)
        assert_joined(sink, done, name)


def test_a_client_instrumented_in_code(tmp_path: Path) -> None:
    """The server exports as the environment says, whatever the client does."""
    with OtlpSink() as sink:
        environ = {name: value for name, value in exporting(sink).items() if name != SETTING}
        done = run_client(
            tmp_path,
            by_script(tmp_path)[0],
            calls=CALLS[:1],
            environ=environ,
            launcher=(),
            ready=until_exported(sink),
            instrument={"stdio_children": "on", "skip_dep_check": True},
        )
        assert done.texts == ["3"]
        spans = sink.spans()
        assert {span.service_name for span in spans} == {"stdio_children_server"}
        call = next(message for message in done.log.calls if message.method == "tools/call")
        (served,) = [span for span in spans if span.name == "tools/call add"]
        assert served.parent is not None
        assert f"{served.parent.span_id:016x}" in call.meta["traceparent"]


# --- what a server is given ----------------------------------------------------------------------------------


def environ_of(folder: Path, **options: Any) -> dict[str, str]:
    environ: dict[str, str] = run_client(folder, [sys.executable, str(BARE_SERVER)], **options).child()["environ"]
    return environ


def test_off_changes_nothing(tmp_path: Path) -> None:
    telemetry = {"OTEL_SERVICE_NAME": "client", "OTEL_EXPORTER_OTLP_HEADERS": "key=canary"}
    without = environ_of(tmp_path, launcher=(), environ=telemetry)
    assert environ_of(tmp_path, environ=telemetry) == without
    assert environ_of(tmp_path, environ={**telemetry, SETTING: "off"}) == without
    assert not [name for name in without if name.startswith(("OTEL_", "PYTHONPATH"))]


@contextmanager
def instrumented(**options: Any) -> Iterator[None]:
    McpInstrumentor().instrument(tracer_provider=TracerProvider(), skip_dep_check=True, **options)
    try:
        yield
    finally:
        McpInstrumentor().uninstrument()


def test_off_patches_nothing() -> None:
    from mcp.client import stdio

    before = stdio._create_platform_compatible_process
    with instrumented():
        assert stdio._create_platform_compatible_process is before
    with instrumented(stdio_children="on"):
        assert is_ours(stdio._create_platform_compatible_process)
    assert stdio._create_platform_compatible_process is before


@pytest.mark.parametrize("setting", ["on", "on+headers"])
def test_credentials(tmp_path: Path, setting: str) -> None:
    credentials = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary-1",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=canary-2",
        "OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY": "canary-3-of-16-or-more",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:canary-4@127.0.0.1:9",
    }
    environ = environ_of(tmp_path, environ={**credentials, SETTING: setting, "OTEL_BSP_SCHEDULE_DELAY": "77"})
    assert environ["OTEL_BSP_SCHEDULE_DELAY"] == "77"
    if setting == "on":
        assert "canary" not in str(environ)
    else:
        assert credentials.items() <= environ.items()


def test_what_is_no_python_is_left_alone(tmp_path: Path) -> None:
    command = [script(tmp_path, "server.sh", f"#!/bin/sh\nexec {sys.executable} {BARE_SERVER}\n")]
    without = run_client(tmp_path, command, launcher=()).child()
    assert run_client(tmp_path, command, environ={SETTING: "on"}).child() == without
    # Unless it is said of this server.
    with_it = run_client(tmp_path, command, env={SETTING: "on"}, environ={SETTING: "on"}).child()
    assert with_it["environ"]["OTEL_SERVICE_NAME"] == "server.sh"
    assert "opentelemetry.sdk.trace" in with_it["opentelemetry"]


def test_a_server_that_is_to_be_left_alone(tmp_path: Path) -> None:
    own = {SETTING: "off", "A": "1"}
    without = environ_of(tmp_path, env=own, launcher=())
    assert environ_of(tmp_path, env=own, environ={SETTING: "on"}) == without


def test_a_copied_environment(tmp_path: Path) -> None:
    done = run_client(
        tmp_path,
        [sys.executable, str(BARE_SERVER)],
        env="copied",
        environ={SETTING: "on", "OTEL_SERVICE_NAME": "client", "MINE": "1"},
    )
    environ = done.child()["environ"]
    assert (environ["OTEL_SERVICE_NAME"], environ["MINE"]) == ("bare_stdio_server", "1")
    assert "lready instrumented" not in done.stderr


# --- any interpreter -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter of an environment in which nothing is installed."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return str(folder / ("Scripts" if sys.platform == "win32" else "bin") / "python")


def test_an_interpreter_without_opentelemetry(tmp_path: Path, bare_python: str) -> None:
    without = run_client(tmp_path, [bare_python, str(BARE_SERVER)], launcher=())
    done = run_client(tmp_path, [bare_python, str(BARE_SERVER)], environ={SETTING: "on"})
    with_us, before = done.child(), without.child()
    added = {name for name in with_us["environ"] if name not in before["environ"]}
    assert {"PYTHONPATH", "OTEL_SERVICE_NAME", SETTING} <= added
    assert all(name.startswith(("OTEL_", "PYTHONPATH")) for name in added)
    assert with_us["path"] == before["path"]
    assert with_us["opentelemetry"] == []
    assert done.stderr == without.stderr


def test_options_that_keep_the_environment_out(tmp_path: Path) -> None:
    done = run_client(tmp_path, [sys.executable, "-I", str(BARE_SERVER)], environ={SETTING: "on"})
    assert done.child()["opentelemetry"] == []


@pytest.mark.parametrize("installed", [True, False])
def test_a_sitecustomize_of_the_user(tmp_path: Path, bare_python: str, installed: bool) -> None:
    program = "import os, sys\nos.environ['MINE'] = 'run'\nprint('mine', file=sys.stderr)\n"
    mine = script(tmp_path, "sitecustomize.py", program)
    done = run_client(
        tmp_path,
        [sys.executable if installed else bare_python, str(BARE_SERVER)],
        env={"PYTHONPATH": str(tmp_path)},
        environ={SETTING: "on"},
    )
    child = done.child()
    assert child["environ"]["MINE"] == "run"
    assert child["sitecustomize"] == mine
    assert ("opentelemetry.sdk.trace" in child["opentelemetry"]) is installed
    assert str(stdio_children.BOOTSTRAP) not in child["path"]
    assert done.stderr.count("mine") == 1


def test_a_sitecustomize_that_fails(tmp_path: Path) -> None:
    script(tmp_path, "sitecustomize.py", "raise RuntimeError('theirs')\n")
    command, env = [sys.executable, str(BARE_SERVER)], {"PYTHONPATH": str(tmp_path)}
    without = run_client(tmp_path, command, env=env, launcher=())
    done = run_client(tmp_path, command, env=env, environ={SETTING: "on"})
    assert done.stderr == without.stderr
    assert "RuntimeError" in done.stderr
    assert "opentelemetry.sdk.trace" in done.child()["opentelemetry"]


def test_an_exporter_that_does_not_exist(tmp_path: Path) -> None:
    env = {"OTEL_TRACES_EXPORTER": "nobody-knows-it"}
    done = run_client(tmp_path, [sys.executable, str(SERVER)], calls=CALLS[:1], env=env, environ={SETTING: "on"})
    assert done.texts == ["3"]
    assert "nobody-knows-it" in done.stderr


# --- the console ---------------------------------------------------------------------------------------------

CONSOLE = {
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "console",
    "OTEL_LOGS_EXPORTER": "console",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "50",
}
WARNING = "wrote to stdout, which is the protocol stream"
EXPORTED = ('"name": "tools/call export_to_console"', "late span", "late_counter", "late log")


def until_printed(folder: Path) -> Callable[[WireLog], None]:
    """Waits until all is on stderr: older clients kill their servers."""

    def wait(log: WireLog) -> None:
        deadline = time.monotonic() + LIMIT_S
        while any(text not in (folder / "stderr").read_text() for text in EXPORTED):
            assert time.monotonic() < deadline, (folder / "stderr").read_text()
            time.sleep(0.05)

    return wait


@pytest.mark.parametrize("era", sdk.ERAS)
def test_console_exporters_of_an_instrumented_server(tmp_path: Path, era: str) -> None:
    """Every byte on the server's stdout is seen: from its start to its end, and after the last message."""
    log = tmp_path / "wire.jsonl"
    command = tee_command(log, INSTRUMENT, sys.executable, str(SERVER))
    env = {**CONSOLE, "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true", "PATH": os.environ["PATH"]}
    calls = [["export_to_console"], ["add", {"a": 1, "b": 2}]]
    ready = until_printed(tmp_path)
    done = run_client(tmp_path, command, env=env, launcher=(), calls=calls, ready=ready, era=era)
    assert done.texts == ["exported", "3"]
    wire = read_stdio_log(log)
    assert wire.malformed == []
    assert len(wire.select(kind="response")) > 2
    assert done.stderr.count(WARNING) == 1, done.stderr


def test_console_exporters_of_a_child(tmp_path: Path) -> None:
    """What the client's environment says is not handed over; what its ``env`` says is, and goes to stderr."""
    done = run_client(tmp_path, [sys.executable, str(BARE_SERVER)], environ={**CONSOLE, SETTING: "on"})
    environ = done.child()["environ"]
    assert [environ[f"OTEL_{signal}_EXPORTER"] for signal in ("TRACES", "METRICS", "LOGS")] == ["none"] * 3
    assert done.stderr.count("'console' is not handed to stdio MCP servers") == 1

    log = tmp_path / "wire.jsonl"
    command = tee_command(log, sys.executable, str(SERVER))
    calls, ready = [["export_to_console"]], until_printed(tmp_path)
    done = run_client(tmp_path, command, env=CONSOLE, calls=calls, ready=ready, environ={SETTING: "on"})
    assert done.texts == ["exported"]
    assert read_stdio_log(log).malformed == []


# --- the host is unharmed ------------------------------------------------------------------------------------


def functions_of(module: Any) -> list[tuple[Any, str]]:
    return [
        (module, name)
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and callable(value) and not isinstance(value, type)
    ]


OURS = [
    *functions_of(stdio_children),
    *functions_of(launch_command),
    *[
        place
        for place in functions_of(adapter)
        if place[1] not in ("start_process", "observe_server", "environment_for")
    ],
    (adapter.environment_for, "__wrapped__"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("command", [["env", "uv-is-no-python"], ["fastmcp", "run", "a.py:app"]], ids=" ".join)
async def test_a_failure_of_ours_starts_the_server_all_the_same(
    command: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mcp.client import stdio

    started: list[Any] = []

    async def start(command: str, args: list[str], env: Any = None, errlog: Any = None, cwd: Any = None) -> None:
        started.append((command, args, env, errlog, cwd))

    monkeypatch.setattr(stdio, "_create_platform_compatible_process", start)
    given = {"PATH": os.environ["PATH"], SETTING: "on", "OTEL_RESOURCE_ATTRIBUTES": "a=b"}
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")

    class BrokenError(Exception):
        pass

    failed = []
    for module, name in OURS:
        calls: list[int] = []

        def broken(*args: Any, calls: list[int] = calls, **kwargs: Any) -> Any:
            calls.append(1)
            raise BrokenError

        with monkeypatch.context() as patch:
            if name == "__wrapped__":
                cell = next(one for one in module.__closure__ if one.cell_contents is module.__wrapped__)
                patch.setattr(cell, "cell_contents", broken)
            else:
                patch.setattr(module, name, broken)
                if hasattr(adapter, name):
                    patch.setattr(adapter, name, broken)
            caplog.clear()
            with instrumented(stdio_children="on"):
                for _ in range(2):
                    await stdio._create_platform_compatible_process(
                        command=command[0], args=command[1:], env=given, errlog=sys.stderr, cwd=None
                    )
        warned = [record for record in caplog.records if record.name == our_logger.name]
        if calls:
            failed.append(name)
            assert [arguments[2] for arguments in started] == [given, given], name
            assert sum("prepare the environment" in record.getMessage() for record in warned) == 1, name
        assert [arguments[:2] for arguments in started] == [(command[0], command[1:])] * 2
        assert given[SETTING] == "on"
        started.clear()
    assert len(failed) > 8


@pytest.mark.anyio
async def test_arguments_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp.client import stdio

    started: list[Any] = []

    async def start(command: str, args: list[str], env: Any = None, errlog: Any = None, cwd: Any = None) -> str:
        started.append((command, args, env, errlog, cwd))
        return "a process"

    monkeypatch.setattr(stdio, "_create_platform_compatible_process", start)
    env: Any = {"PATH": "/bin"}
    with instrumented(stdio_children="on"):
        process = stdio._create_platform_compatible_process
        assert await process("python", ["a.py"], env, sys.stderr, "/") == "a process"
        assert await process("python", ["a.py"], env=env, cwd="/") == "a process"
        assert await process("python", ["a.py"]) == "a process"
    assert await process("python", ["a.py"], env) == "a process"
    assert env == {"PATH": "/bin"}
    assert [one[2] and one[2].get("OTEL_SERVICE_NAME") for one in started] == ["a", "a", None, None]
    assert [one[3:] for one in started] == [(sys.stderr, "/"), (None, "/"), (None, None), (None, None)]


# --- what is behind a command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"#!/env/bin/python3.12\n", True),
        (b"#!/usr/bin/env -S python -u\n", True),
        (b"#!/bin/sh\n'''exec' \"/very long/bin/python\" \"$0\" \"$@\"\n' '''\n", True),
        (b"#!/bin/sh\nexec python server.py\n", False),
        (b"#!/usr/bin/env node\n// python\n", False),
        (b"\x7fELF python", False),
        (b"MZ python", False),
        (b"", False),
    ],
)
def test_files_behind_commands(tmp_path: Path, start: bytes, expected: bool) -> None:
    path = tmp_path / "server"
    path.write_bytes(start)
    path.chmod(0o755)
    assert adapter.is_python_script(str(path), None, None) is expected
    assert adapter.is_python_script("server", str(tmp_path), None) is expected
    assert adapter.is_python_script("./server", "/nowhere", str(tmp_path)) is expected
    assert adapter.is_python_script("server", "/nowhere", str(tmp_path)) is False
    assert adapter.is_python_script(str(tmp_path), None, None) is False


def test_a_program_beside_an_interpreter(tmp_path: Path) -> None:
    """Console scripts on Windows."""
    (tmp_path / "Scripts").mkdir()
    program = tmp_path / "Scripts" / "server.exe"
    program.write_bytes(b"MZ and more")
    assert not adapter.is_python_script(str(program), None, None)
    (tmp_path / "python.exe").touch()
    assert adapter.is_python_script(str(program), None, None)
