"""Development environments and what runs in them, on uv.

`nox` runs everything: lint, types, the tests in every environment of the matrix, a summary. One environment
alone: `nox -s "tests(mcp-1.30)"`, with arguments for pytest: `nox -s "tests(mcp-1.30)" -- tests/unit -x`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nox

PROJECT = "otel-instrumentation-mcp"
CONSTRAINTS = Path("constraints")
SDK_TESTS = ("tests/unit", "tests/integration")
FASTMCP_TESTS = ("tests/with_fastmcp",)
TYPESCRIPT_TESTS = ("tests/typescript",)
GATEWAY_TESTS = ("tests/with_gateway",)
OLD_GATEWAY_TESTS = ("tests/with_gateway_old",)
PLUGIN_TESTS = ("tests/with_plugins",)
# Whole processes take long to start: the oldest and the newest of each generation start them, not those in between.
PROCESS_TESTS = (
    "tests/integration/test_http_join.py",
    "tests/integration/test_stdio_children.py",
    "tests/with_fastmcp/test_examples.py",
    "tests/with_fastmcp/test_http_join.py",
    "tests/with_fastmcp/test_stdio_children.py",
)
CANARIES = "test_canaries.py"
OLDEST_PYTHON = "3.10"
FEWEST_ENVIRONMENTS = 3


@dataclass(frozen=True)
class Environment:
    """One row of the matrix. Its constraints file is `constraints/<id>.txt`; `nox -s lock` writes it."""

    id: str
    python: str
    mcp: str
    otel: tuple[str, str]  # the release of API and SDK, and that of the instrumentation that goes with it
    wrapt: str
    also: tuple[str, ...] = ()
    folders: tuple[str, ...] = SDK_TESTS
    overrides: tuple[str, ...] = ()
    """Requirements that take the place of a dependency's own, where those cannot be met."""
    without: tuple[str, ...] = ()
    """Files whose tests are left to other rows."""


OLDEST_OTEL = ("1.31.0", "0.52b0")  # the lower bounds in pyproject.toml
MIDDLE_OTEL = ("1.39.1", "0.60b1")  # still wants wrapt 1.x, as all releases before 0.62b0
NEWEST_OTEL = ("1.45.2", "0.66b2")

# SDKs up to 1.20 import a function that newer releases of pydantic no longer have.
OLD_PYDANTIC = "pydantic<2.12"
OLDEST_RICH = "rich==13.0.0"  # the lower bound of the extra `cli`

# Some releases of FastMCP want a certifi newer than any that package indexes offer.
CERTIFI = ("certifi==2026.10.18",)


def fastmcp(
    name: str,
    python: str,
    requirements: str,
    mcp: str,
    otel: tuple[str, str] = NEWEST_OTEL,
    wrapt: str = "2.5.2",
    overrides: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> Environment:
    """A row for a release of FastMCP."""
    return Environment(name, python, mcp, otel, wrapt, tuple(requirements.split()), FASTMCP_TESTS, overrides, without)


def cpex(name: str, python: str, release: str, mcp: str) -> Environment:
    """A row for a release of cpex, beside the instrumentation of gRPC."""
    also = (f"cpex[grpc]=={release}", f"opentelemetry-instrumentation-grpc=={NEWEST_OTEL[1]}")
    return Environment(name, python, mcp, NEWEST_OTEL, "2.5.2", also, PLUGIN_TESTS)


MATRIX = (
    Environment("mcp-1.9", "3.10", "1.9.4", OLDEST_OTEL, "1.14.0", (OLD_PYDANTIC, OLDEST_RICH)),
    Environment("mcp-1.18", "3.12", "1.18.0", MIDDLE_OTEL, "1.17.3", (OLD_PYDANTIC,), without=PROCESS_TESTS),
    Environment("mcp-1.30", "3.11", "1.30.0", NEWEST_OTEL, "2.5.2", folders=SDK_TESTS + TYPESCRIPT_TESTS),
    Environment("mcp-2.0", "3.12", "2.0.0", NEWEST_OTEL, "2.0.1", folders=SDK_TESTS[1:], without=PROCESS_TESTS),
    Environment("mcp-2.3", "3.13", "2.3.0", NEWEST_OTEL, "2.5.2", folders=SDK_TESTS + TYPESCRIPT_TESTS),
    Environment("mcp-2.3-py3.14", "3.14", "2.3.0", NEWEST_OTEL, "2.5.2"),
    fastmcp("fastmcp-2.14", "3.10", "fastmcp[tasks]==2.14.7", "1.24.0", MIDDLE_OTEL, "1.17.3"),
    fastmcp("fastmcp-3.0", "3.11", "fastmcp[tasks]==3.0.0", "1.30.0", without=PROCESS_TESTS),
    fastmcp("fastmcp-3.4", "3.12", "fastmcp[tasks]==3.4.11", "1.30.0", overrides=CERTIFI),
    fastmcp(
        "fastmcp-4.0", "3.12", "fastmcp-slim[client,server]==4.0.0 fastmcp-tasks==4.0.0", "2.0.0", without=PROCESS_TESTS
    ),
    fastmcp("fastmcp-4.1", "3.11", "fastmcp==4.1.6", "2.3.0", overrides=CERTIFI, without=PROCESS_TESTS),
    fastmcp("fastmcp-4.2", "3.13", "fastmcp-slim[client,server]==4.2.1", "2.3.0", overrides=CERTIFI),
    Environment(
        *("gateway-0.9.0", "3.12", "1.30.0", NEWEST_OTEL, "2.5.2"),
        also=("mcp-contextforge-gateway==0.9.0",),
        folders=OLD_GATEWAY_TESTS,
    ),
    Environment(
        *("gateway-1.0.0", "3.12", "1.30.0", NEWEST_OTEL, "2.5.2"),
        also=("mcp-contextforge-gateway==1.0.0", "fastapi==0.140.0"),  # which makes no spans itself
        folders=OLD_GATEWAY_TESTS,
    ),
    Environment(
        *("gateway-1.0.7", "3.12", "1.30.0", NEWEST_OTEL, "2.5.2"),
        also=("mcp-contextforge-gateway==1.0.7.post20260921",),
        folders=GATEWAY_TESTS,
    ),
    cpex("cpex-0.1.3", "3.11", "0.1.3", "1.30.0"),
    cpex("cpex-0.1.4", "3.13", "0.1.4", "2.3.0"),
)
NEWEST = MATRIX[4]

# The other constraints files: what of pyproject.toml is in them, and pins. They serve every Python from 3.10, or from
# the one named here.
OLDEST_PYTHON_OF = {"demo-gateway": "3.11"}
WITH_PROJECT = "pyproject.toml"
# No release of these serves both the oldest Python and the newest.
EACH_PYTHON_ITS_OWN = ("--no-emit-package", "aiofile", "--no-emit-package", "caio")
OTHER_LOCKS: dict[str, tuple[list[str], list[str]]] = {
    "lint": (["--group", "lint"], []),
    "types": ([WITH_PROJECT, "--group", "types"], [f"mcp=={NEWEST.mcp}"]),
    "tools": (["--group", "tools"], []),
    "demo": (
        [WITH_PROJECT, "--group", "demo", "--extra", "auto", "--extra", "cli", *EACH_PYTHON_ITS_OWN],
        [f"mcp=={NEWEST.mcp}"],
    ),
    "demo-gateway": (
        [WITH_PROJECT, "--group", "demo-gateway", "--extra", "auto", "--extra", "cli"],
        ["mcp-contextforge-gateway==1.0.7.post20260921", "mcp==1.30.0"],
    ),
    "bench-1.30": ([WITH_PROJECT, "--group", "bench"], ["mcp==1.30.0"]),
    "bench-2.3": ([WITH_PROJECT, "--group", "bench"], [f"mcp=={NEWEST.mcp}"]),
}


def show_pyenv_interpreters() -> None:
    """Let all of pyenv's interpreters be found: it hides those that PYENV_VERSION does not list."""
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return

    def ask(command: str, *options: str) -> list[str]:
        answer = subprocess.run([pyenv, command, *options], capture_output=True, text=True, check=False)
        return answer.stdout.split()

    current = [version for version in ":".join(ask("version-name")).split(":") if version]
    usable = [v for v in ask("versions", "--bare") if re.fullmatch(r"3\.[1-9]\d+\.\d+", v)]
    # The current one stays first: it is what `python3` means. Of several patch releases the newest wins.
    os.environ["PYENV_VERSION"] = ":".join(dict.fromkeys(current + usable[::-1]))


show_pyenv_interpreters()
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
os.environ["UV_COMPILE_BYTECODE"] = "1"  # start-up times are measured: they must not include compiling

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # the summary counts them, also where CI is set
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "seams", "tests", "summary"]

results: dict[str, bool] = {}  # environments of the matrix that ran in this process: did they pass?


def install(session: nox.Session, lock: str, *, project: bool = True, check: bool = True) -> None:
    """Make the environment exactly what the constraints file says, with this project as its users get it."""
    session.run_install("uv", "pip", "sync", "--quiet", str(CONSTRAINTS / f"{lock}.txt"), external=True)
    if project:
        session.install("--quiet", "--no-deps", "--reinstall-package", PROJECT, ".")
        if check:
            session.run_install("uv", "pip", "check", "--quiet", external=True)


def pytest_arguments(session: nox.Session, environment: Environment) -> list[str]:
    """All the tests of the row, unless the command line names some."""
    if any(Path(argument.split("::")[0]).exists() for argument in session.posargs):
        return [*session.posargs]
    return [*environment.folders, *(f"--ignore={file}" for file in environment.without), *session.posargs]


@nox.session
def lint(session: nox.Session) -> None:
    """Style and likely mistakes."""
    install(session, "lint", project=False)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(name="format")
def reformat(session: nox.Session) -> None:
    """Rewrite the sources as `lint` wants them."""
    install(session, "lint", project=False)
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types, against the newest SDK."""
    install(session, "types")
    session.run("pyright")


@nox.session
def seams(session: nox.Session) -> None:
    """Names that are patched, in every published release. `nox -s seams -- write`: expect what is there."""
    install(session, "types")
    wheels = fetch_wheels(session)
    if session.posargs == ["write"]:
        session.run("python", "-m", "tests.seams.write", str(wheels))
    else:
        session.run("pytest", "tests/seams", env={"SEAMS_WHEELS": str(wheels)})


def fetch_wheels(session: nox.Session) -> Path:
    """Unpack each release that `tests/seams` is about into a folder of its own, unless it is there already."""
    wheels = Path(session.create_tmp()) / "wheels"
    for name, about in json.loads(Path("tests/seams/releases.json").read_text(encoding="utf-8")).items():
        for release in about["releases"]:
            folder, unfinished = wheels / f"{name}-{release}", wheels / "unfinished"
            if folder.exists():
                continue
            shutil.rmtree(unfinished, ignore_errors=True)
            session.run_install(
                *("uv", "pip", "install", "--quiet", "--no-deps", "--python-version", about["python"]),
                *("--target", str(unfinished), f"{name}=={release}"),
                env={"UV_COMPILE_BYTECODE": "0"},  # they are only read
                external=True,
            )
            unfinished.rename(folder)
    return wheels


@nox.session
@nox.parametrize(
    ("python", "environment"),
    [nox.param(environment.python, environment, id=environment.id) for environment in MATRIX],
)
def tests(session: nox.Session, environment: Environment) -> None:
    """The tests, in one environment of the matrix."""
    results[environment.id] = False
    install(session, environment.id, check=not environment.overrides)
    session.run("pytest", *pytest_arguments(session, environment))
    results[environment.id] = True


@nox.session(venv_backend="none", default=False)
def canary(session: nox.Session) -> None:
    """That nothing leaks: what was searched for marked values, as a table. Or `nox -s canary -- mcp-1.30 mcp-2.3`."""
    os.environ.setdefault("FASTMCP_LOG_ENABLED", "false")  # its own log, which the table would drown in
    for environment in MATRIX:
        if environment.id in (session.posargs or [row.id for row in MATRIX]):
            files = [file for folder in environment.folders if Path(file := f"{folder}/{CANARIES}").exists()]
            session.notify(f"tests({environment.id})", [*files, "--quiet", "--capture=no"])
    unknown = sorted({*session.posargs} - {row.id for row in MATRIX})
    if unknown:
        session.error(f"no such environment: {', '.join(unknown)}")
    if not session.posargs:
        session.notify("summary")


@nox.session(python=NEWEST.python)
def coverage(session: nox.Session) -> None:
    """What the tests of the newest environment do not reach."""
    install(session, NEWEST.id)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *pytest_arguments(session, NEWEST))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(venv_backend="none")
def summary(session: nox.Session) -> None:
    """Which environments of the matrix ran. Fails when too few did."""
    print()
    for environment in MATRIX:
        if environment.id in results:
            outcome = "passed" if results[environment.id] else "FAILED"
        else:
            outcome = f"SKIPPED: Python {environment.python} was not found"
        print(f"  {environment.id:16} {outcome}")
    passed, ran = sum(results.values()), len(results)
    print(f"\nmatrix: {passed} passed, {ran - passed} failed, {len(MATRIX) - ran} skipped", flush=True)
    if ran < FEWEST_ENVIRONMENTS:
        session.error(f"only {ran} environments ran, at least {FEWEST_ENVIRONMENTS} are needed")


@nox.session(venv_backend="none", default=False)
def lock(session: nox.Session) -> None:
    """Write the constraints files, all or those named: `nox -s lock -- mcp-1.30 demo`."""
    locks = {row.id: (row.python, [WITH_PROJECT, "--group", "test"], pins(row), row.overrides) for row in MATRIX}
    for name, (options, wanted) in OTHER_LOCKS.items():
        locks[name] = (OLDEST_PYTHON_OF.get(name, OLDEST_PYTHON), options, wanted, ())
    for name in session.posargs or locks:
        compile_lock(session, name, *locks[name])


def pins(environment: Environment) -> list[str]:
    """What the row of the matrix says, as requirements."""
    stable, beta = environment.otel
    return [
        f"mcp=={environment.mcp}",
        f"opentelemetry-api=={stable}",
        f"opentelemetry-instrumentation=={beta}",
        f"wrapt=={environment.wrapt}",
        *environment.also,
    ]


def compile_lock(
    session: nox.Session, name: str, python: str, options: list[str], wanted: list[str], overrides: tuple[str, ...]
) -> None:
    """Resolve what the options and the pins want, for one Python, into one constraints file."""
    folder = Path(session.create_tmp())
    requirements, override = folder / f"{name}.in", folder / f"{name}.override"
    requirements.write_text("\n".join(wanted), encoding="utf-8")
    override.write_text("\n".join(overrides), encoding="utf-8")
    session.run(
        *("uv", "pip", "compile", "--quiet", str(requirements), *options, "--override", str(override)),
        *("--python-version", python, "--no-annotate", "--no-header", "--no-emit-index-url", "--upgrade"),
        *("--output-file", str(CONSTRAINTS / f"{name}.txt")),
        external=True,
    )
