"""What this package adds to the start of a program that never imports ``mcp``.

CPU time of ``opentelemetry-instrument python -c pass`` in two environments that differ in nothing but this package.
They are made of links to what is installed here; bytecode is compiled before. Starts are interleaved; the least counts.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib import metadata
from pathlib import Path
from statistics import median

DISTRIBUTION = "otel-instrumentation-mcp"
PACKAGE = "opentelemetry_instrumentation_mcp"
BUDGET_MS = 10.0

COMMAND = """#!{python}
import sys
from opentelemetry.instrumentation.auto_instrumentation import run
sys.exit(run())
"""


def _belongs_to_us(name: str) -> bool:
    normal = name.lower().replace("-", "_")
    return normal.startswith((PACKAGE, "otel_instrumentation_mcp_", "_editable_impl_otel_instrumentation_mcp"))


def _link_everything_else(source: Path, target: Path) -> None:
    for entry in source.iterdir():
        if not _belongs_to_us(entry.name) and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)


def _copy_ours(target: Path) -> None:
    spec = importlib.util.find_spec(PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    if not locations:
        raise ModuleNotFoundError(PACKAGE)
    shutil.copytree(locations[0], target / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    site_packages = Path(str(metadata.distribution(DISTRIBUTION).locate_file(".")))
    for folder in site_packages.glob("otel_instrumentation_mcp-*.dist-info"):
        shutil.copytree(folder, target / folder.name)
    compileall.compile_dir(str(target / PACKAGE), quiet=1)


def _environment(folder: Path, *, with_ours: bool) -> Path:
    """An environment like this one; the path of its ``opentelemetry-instrument``."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    _link_everything_else(Path(str(metadata.distribution("opentelemetry-api").locate_file("."))), packages)
    if with_ours:
        _copy_ours(packages)
    _check(folder / "bin" / "python", with_ours)
    script = folder / "bin" / "opentelemetry-instrument"
    script.write_text(COMMAND.format(python=folder / "bin" / "python"), encoding="utf-8")
    script.chmod(0o755)
    return script


def _check(python: Path, with_ours: bool) -> None:
    """Raise unless the environment has this package, or has not, as it should."""
    code = f"""
import importlib.util, sys
from importlib.metadata import entry_points
known = [importlib.util.find_spec({PACKAGE!r}), *entry_points(group="opentelemetry_instrumentor", name="otel_mcp")]
sys.exit(len(known) != {1 + with_ours} or (known[0] is not None) is not {with_ours})
"""
    subprocess.run([python, "-I", "-c", code], check=True)


def _start(script: Path) -> float:
    """Milliseconds of CPU time of one start."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))}
    environment |= {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    process = os.posix_spawn(script, [str(script), str(script.with_name("python")), "-c", "pass"], environment)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{script} failed")
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure(starts: int) -> dict[bool, list[float]]:
    """CPU times of interleaved starts, without and with this package."""
    with tempfile.TemporaryDirectory() as name:
        scripts = {ours: _environment(Path(name) / str(ours), with_ours=ours) for ours in (False, True)}
        for script in scripts.values():
            _start(script)
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(starts):
            for ours in (False, True) if turn % 2 else (True, False):
                times[ours].append(_start(scripts[ours]))
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=60)
    times = measure(parser.parse_args().starts)
    without, with_ours = times[False], times[True]
    added = min(with_ours) - min(without)
    paired = median(mine - other for mine, other in zip(with_ours, without, strict=True))
    print(f"### Start-up, CPython {'.'.join(map(str, sys.version_info[:3]))}, mcp {metadata.version('mcp')}\n")
    print("`opentelemetry-instrument python -c pass`, ms of CPU time:\n")
    print("| | least | median |\n|---|--:|--:|")
    print(f"| without this package | {min(without):.0f} | {median(without):.0f} |")
    print(f"| with it | {min(with_ours):.0f} | {median(with_ours):.0f} |\n")
    verdict = "PASS" if added <= BUDGET_MS else "FAIL"
    print(f"- {verdict} ({added:.1f}; median of pairs {paired:.1f}): it adds <= {BUDGET_MS:.0f} ms")


if __name__ == "__main__":
    main()
