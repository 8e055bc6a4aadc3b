"""What a command line starts: Python or not, and its name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp.launch_command import Launch, recognise
from support.health import SLOW


def nothing_is_python(command: str) -> bool:
    return False


def told(line: str) -> Launch:
    command, *args = line.split()
    return recognise(command, args, nothing_is_python)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("python weather.py", "weather"),
        ("python3 ./servers/weather.py --port 1", "weather"),
        ("/opt/env/bin/python3.12 -u weather.py", "weather"),
        ("python3.13t weather.py", "weather"),
        ("pypy3.10 weather.py", "weather"),
        (r"C:\Python313\python.exe C:\servers\weather.py", "weather"),
        (r"C:\Python313\PythonW.EXE C:\servers\weather.pyw", "weather"),
        ("py -3.12 weather.py", "weather"),
        ("python -m weather_server", "weather_server"),
        ("python -mweather_server", "weather_server"),
        ("python -um weather.server --x", "weather.server"),
        ("python -m weather.__main__", "weather"),
        ("python -W ignore -X dev -Wonce weather.py", "weather"),
        ("python --check-hash-based-pycs never weather.py", "weather"),
        ("python weather/__main__.py", "weather"),
        ("python weather.pyz", "weather"),
        ("python __main__.py", None),
        ("python -c print(1)", None),
        ("python -", None),
        ("python -m", None),
        ("python", None),
        ("env python weather.py", "weather"),
        ("/usr/bin/env -i A=1 B= python weather.py", "weather"),
        ("env -u HOME -S python weather.py", "weather"),
        ("uv run weather.py", "weather"),
        ("uv run -m weather", "weather"),
        ("uv run --with mcp --no-project --python 3.12 --directory /x weather.py", "weather"),
        ("uv --directory /x run weather-server --fast", "weather-server"),
        ("uv run -- python -m weather", "weather"),
        ("uv run fastmcp run weather.py:app", "weather"),
        ("uv run --with fastmcp mcp run -t stdio weather.py", "weather"),
        ("uv run", None),
        ("uvx weather-mcp", "weather-mcp"),
        ("uvx weather-mcp@1.2.3 --port 1", "weather-mcp"),
        ("uvx weather-mcp[fast]==1.2", "weather-mcp"),
        ("uvx --python 3.12 --from ./weather --with x weather-server", "weather-server"),
        ("uvx git+https://host/people/weather.git", "weather"),
        ("uvx git+https://user:canary@host/weather?canary#canary", "weather"),
        ("uvx git+https://user:canary@host", None),
        ("uv tool run --from weather weather-server", "weather-server"),
        ("pipx run weather-mcp", "weather-mcp"),
        ("poetry run weather-server", "weather-server"),
        ("pdm run python -m weather", "weather"),
        ("fastmcp run weather.py", "weather"),
        ("fastmcp run --transport stdio servers/weather.py:app", "weather"),
        ("fastmcp run fastmcp.json", None),
        ("fastmcp run", None),
        ("fastmcp version", None),
        ("python -m fastmcp run weather.py", "weather"),
        ("opentelemetry-instrument python weather.py", "weather"),
        ("opentelemetry-instrument --traces_exporter otlp --service_name=x fastmcp run weather.py", "weather"),
        ("python -m opentelemetry.instrumentation.auto_instrumentation python weather.py", "weather"),
    ],
)
def test_python(line: str, name: str | None) -> None:
    assert told(line) == Launch(True, name)


@pytest.mark.parametrize(
    "line",
    [
        "node server.js",
        "npx -y @scope/server",
        "docker run --rm -i image python server.py",
        "bash -c python",
        "/bin/sh run.sh",
        "./server",
        "uv pip install x",
        "uv",
        "poetry install",
        "uv run node server.js",
        "poetry run npx -y server",
        "uv run sh -c python",
        "env",
        "env A=1",
        "env node server.js",
        "pythonista x.py",
        "python-config --help",
        "mcp run weather.py",
    ],
)
def test_not_python(line: str) -> None:
    assert told(line).is_python is False


def test_what_no_rule_knows_is_looked_at() -> None:
    asked: list[str] = []

    def look(command: str) -> bool:
        asked.append(command)
        return True

    assert recognise("/env/bin/weather-server", ["--fast"], look) == Launch(True, "weather-server")
    assert recognise("env", ["A=1", "weather-server"], look) == Launch(True, "weather-server")
    assert recognise("mcp", ["run", "weather.py"], look) == Launch(True, "weather")
    assert recognise("python", ["weather.py"], look).is_python
    assert asked == ["/env/bin/weather-server", "weather-server", "mcp"]


def test_names_are_bounded_and_plain() -> None:
    assert recognise("python", ["my  wea\nther=1,2.py"], nothing_is_python).name == "my-wea-ther-1-2"
    assert len(recognise("python", ["w" * 1000], nothing_is_python).name or "") == 64


programs = ("python", "uv", "uvx", "pipx", "env", "fastmcp", "mcp", "opentelemetry-instrument")
others = ("run", "tool", "-m", "-c", "-W", "-S", "-i", "-", "--", "--with", "a.py", "A=1")
words = st.one_of(st.text(max_size=8), st.sampled_from(programs), st.sampled_from(others))


@settings(deadline=None, suppress_health_check=SLOW)
@given(words, st.lists(words, max_size=8))
def test_any_command_line(command: str, args: list[str]) -> None:
    launch = recognise(command, args, nothing_is_python)
    assert launch.name is None or 0 < len(launch.name) <= 64
