"""Runs the benchmarks in one or several environments and prints the results as Markdown.

``python benchmarks/run.py [INTERPRETER...] [options]``: the interpreters of environments with different SDKs, by
default the one that runs this. Each SDK and transport is measured in a process of its own, one after the other; what
is compared is always measured in one process. Budgets are reported, never enforced: a time depends on what else a
machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import report

FOLDER = Path(__file__).parent


def _json_of(interpreter: str, script: str, *arguments: str) -> Any:
    command = [interpreter, str(FOLDER / script), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    sizes = [f"--{name}={value}" for name in ("cycles", "calls") if (value := getattr(options, name)) is not None]
    plan = [
        (interpreter, transport)
        for interpreter in options.interpreters
        for transport in _json_of(interpreter, "measure.py", "--list")
        if transport in options.transports
    ]
    results: list[dict[str, Any]] = []
    for interpreter, transport in plan:
        for run in range(1, options.runs + 1):
            print(f"{interpreter} {transport}, run {run} of {options.runs}", file=sys.stderr)
            results.append(_json_of(interpreter, "measure.py", f"--transport={transport}", *sizes))
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interpreters", nargs="*", default=[sys.executable], help="default: this one")
    parser.add_argument("--transports", nargs="+", choices=report.TITLES, default=[*report.TITLES])
    parser.add_argument("--runs", type=int, default=3, help="processes per SDK and transport")
    parser.add_argument("--cycles", type=int, help="blocks per configuration and run")
    parser.add_argument("--calls", type=int, help="calls per block")
    parser.add_argument("--json", type=Path, help="also write all single times to this file")
    parser.add_argument("--no-startup", action="store_true", help="leave the start-up time out")
    options = parser.parse_args()
    results = _measure(options)
    if options.json:
        options.json.write_text(json.dumps(results), encoding="utf-8")
    print(report.render(results))
    if not options.no_startup:
        sys.stdout.flush()
        subprocess.run([options.interpreters[-1], str(FOLDER / "startup.py")], check=True)


if __name__ == "__main__":
    main()
