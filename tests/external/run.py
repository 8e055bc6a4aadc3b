"""Runs the tests of an instrumented library twice, without and with the instrumentation, and compares test by test.

    python tests/external/run.py CHECKOUT --python VENV/bin/python --out FOLDER [--everything-on] [-- pytest arguments]

It fetches nothing: the checkout (or unpacked source distribution) and the environment with its test dependencies and
this package are given. It writes into FOLDER only. Exit code 1: a test differs for no reason that `exceptions.json`
gives, our logger warned, a span of ours never ended, or too few tests passed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXCEPTIONS = HERE / "exceptions.json"
EVERYTHING = {
    "capture_content": "SPAN_AND_EVENT",
    "identity": "hashed",
    "identity_key": "a key of at least 16 characters",
    "clean_spans": True,
    "stacktraces": True,
    "resource_uri_in_span_name": True,
    "baggage_attributes": ["session.*"],
    "langfuse": "on",
}
Known = dict[str, dict[str, Any]]  # of a test: its group in exceptions.json

# How an exception is checked: the listed test has to pass with us when this is changed, and nothing else.
CHECKS: dict[str, dict[str, Any]] = {
    "asserts on native spans": {"options": {"native_spans": "keep"}},
    "asserts on what messages carry": {"environ": {"OTEL_PROPAGATORS": "none"}},
    "asserts on a second native span of one message": {
        "options": {"native_spans": "keep", "disabled_targets": ["fastmcp"]},
    },
    "asserts on native spans and on what messages carry": {
        "options": {"native_spans": "keep"},
        "environ": {"OTEL_PROPAGATORS": "none"},
    },
}


@dataclass
class Side:
    """What one run of a suite left behind."""

    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    logs: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    never_ended: Counter[str] = field(default_factory=Counter)

    def counts(self) -> Counter[str]:
        """How many tests had which outcome."""
        return Counter(self.outcomes.values())


@dataclass
class Suite:
    """The suite under test and how it is run."""

    checkout: Path
    python: str
    out: Path
    arguments: list[str]
    providers: str
    options: dict[str, Any]

    def run(
        self,
        side: str,
        name: str,
        tests: list[str],
        options: dict[str, Any] | None = None,
        environ: dict[str, str] | None = None,
    ) -> Side:
        """Run `tests` on one side; `name` is the folder for what it leaves behind."""
        out = self.out / name
        for folder in ("notes", "home", "tmp"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        environment = {
            **inherited,
            "PATH": os.pathsep.join([str(Path(self.python).parent), inherited.get("PATH", "")]),
            "PYTHONPATH": str(HERE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(out / "home"),
            "TMPDIR": str(out / "tmp"),
            "OTEL_MCP_EXTERNAL_OUT": str(out / "notes"),
            "OTEL_MCP_EXTERNAL_SIDE": side,
            "OTEL_MCP_EXTERNAL_PROVIDERS": self.providers,
            "OTEL_MCP_EXTERNAL_OPTIONS": json.dumps({**self.options, **(options or {})}),
            **(environ or {}),
        }
        command = [self.python, "-m", "pytest", "-p", "external.plugin", "-p", "no:cacheprovider", "-q"]
        with (out / "pytest.log").open("wb") as log:
            subprocess.run(
                [*command, *tests, *self.arguments],
                cwd=self.checkout,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return read_notes(out / "notes")


def read_notes(folder: Path) -> Side:
    """What all processes of one run noted."""
    side = Side()
    phases: dict[str, dict[str, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            note = json.loads(line)
            if note["kind"] == "phase":
                phases.setdefault(note["nodeid"], {})[note["when"]] = note  # of retries the last one counts
            elif note["kind"] == "log":
                side.logs[f"{note['level']}: {note['message']} [{note['test']}]"] += 1
            else:
                side.ended += note["ended"]
                side.never_ended.update(f"{span['span']} [{span['began_in']}]" for span in note["never_ended"])
    for nodeid, of_test in phases.items():
        side.outcomes[nodeid] = outcome_of(of_test)
        side.reasons[nodeid] = next((p["reason"] for p in of_test.values() if p["outcome"] != "passed"), "")
    return side


def outcome_of(phases: dict[str, dict[str, Any]]) -> str:
    """One word for what came of a test's phases."""
    if any(phase["outcome"] == "failed" for when, phase in phases.items() if when != "call"):
        return "error"
    for phase in phases.values():
        if phase["outcome"] == "failed":
            return "failed"
        if phase["xfail"]:
            return "xfailed" if phase["outcome"] == "skipped" else "xpassed"
        if phase["outcome"] == "skipped":
            return "skipped"
    return "passed" if "call" in phases else "incomplete"


def main() -> int:
    """Run, compare, print the table and the differences; the exit code says whether all is well."""
    given = parse()
    name, version = identify(given.python, given.package)
    exceptions: dict[str, Any] = json.loads(EXCEPTIONS.read_text(encoding="utf-8"))
    known: Known = {
        test: group for group in exceptions.get(f"{name} {version.split('.')[0]}", ()) for test in group["tests"]
    }
    suite = Suite(
        given.checkout.resolve(),
        str(Path(given.python).absolute()),
        given.out.resolve(),
        given.pytest_arguments,
        given.providers,
        EVERYTHING if given.everything_on else {},
    )
    if suite.out.exists() and any(suite.out.iterdir()):
        sys.exit(f"{suite.out} is not empty")
    before = files_of(suite.checkout)
    if given.baseline is not None:
        without = read_notes(given.baseline / "without" / "notes")
    else:
        without = suite.run("without", "without", given.tests)
    with_us = suite.run("with", "with", given.tests)
    report = compare(suite, without, with_us, known, given.repeat)
    report |= {"suite": name, "version": version, "providers": given.providers, "everything_on": given.everything_on}
    report["changed_files"] = sorted(before ^ files_of(suite.checkout))
    report["too_few"] = with_us.counts()["passed"] < given.at_least
    (suite.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(as_markdown(report))
    return int(bool(report["unexplained"] or report["logs"] or report["never_ended"] or report["too_few"]))


def compare(suite: Suite, without: Side, with_us: Side, known: Known, repeat: int) -> dict[str, Any]:
    """Test by test: what differs, and why."""
    differing = [
        test
        for test in sorted(without.outcomes.keys() | with_us.outcomes.keys())
        if without.outcomes.get(test) != with_us.outcomes.get(test)
    ]
    listed = [test for test in differing if test in known]
    reasons = check_listed(suite, listed, known, without)
    for number, test in enumerate(test for test in differing if test not in known):
        reasons[test] = repeat_alone(suite, test, number, repeat, without, with_us)
    rows = [
        {
            "test": test,
            "without": without.outcomes.get(test, "did not run"),
            "with": with_us.outcomes.get(test, "did not run"),
            "class": reasons[test],
            "said": with_us.reasons.get(test) or without.reasons.get(test, ""),
        }
        for test in differing
    ]
    return {
        "tests": len(without.outcomes),
        "without": without.counts(),
        "with": with_us.counts(),
        "failing_on_both_sides": {
            test: [without.reasons[test], with_us.reasons[test]]
            for test, outcome in without.outcomes.items()
            if outcome in ("failed", "error") and with_us.outcomes.get(test) == outcome
        },
        "differences": rows,
        "unexplained": [row["test"] for row in rows if row["class"].startswith("UNEXPLAINED")],
        "listed_but_equal": sorted(test for test in known if test in without.outcomes and test not in differing),
        "spans": with_us.ended,
        "never_ended": with_us.never_ended,
        "logs": with_us.logs,
    }


def check_listed(suite: Suite, listed: list[str], known: Known, without: Side) -> dict[str, str]:
    """The class of each listed test, if the change that goes with the class makes it the same again."""
    found: dict[str, str] = {}
    for number, (kind, check) in enumerate(CHECKS.items()):
        tests = [test for test in listed if known[test]["class"] == kind]
        if not tests:
            continue
        again = suite.run("with", f"check-{number}", tests, check.get("options"), check.get("environ"))
        for test in tests:
            same = again.outcomes.get(test) == without.outcomes.get(test)
            found[test] = kind if same else f"UNEXPLAINED: listed as '{kind}', but is {again.outcomes.get(test)} then"
    return found | {test: f"UNEXPLAINED: listed as {known[test]['class']!r}" for test in listed if test not in found}


def repeat_alone(suite: Suite, test: str, number: int, repeat: int, without: Side, with_us: Side) -> str:
    """Whether a test is flaky: it also varies without us."""
    seen: dict[str, Counter[str]] = {}
    for side, first in (("without", without), ("with", with_us)):
        seen[side] = Counter([first.outcomes.get(test, "did not run")])
        for attempt in range(repeat):
            again = suite.run(side, f"alone-{number}/{side}-{attempt}", [test])
            seen[side][again.outcomes.get(test, "did not run")] += 1
    summary = "; ".join(f"{side} us {dict(counts)}" for side, counts in seen.items())
    if len(seen["without"]) > 1 and seen["with"].keys() & seen["without"].keys():
        return f"flaky: {summary}"
    return f"UNEXPLAINED: {summary}"


def as_markdown(report: dict[str, Any]) -> str:
    """The row of the table, the differences, and what else there is to know."""
    differing = Counter(row["class"].split(":")[0] for row in report["differences"])
    lines = [
        "| suite | tests | passed without | passed with | spans of ours | differences |",
        "|---|---|---|---|---|---|",
        (
            f"| {report['suite']} {report['version']} | {report['tests']} | {report['without']['passed']} "
            f"| {report['with']['passed']} | {report['spans']} "
            f"| {', '.join(f'{count} {kind}' for kind, count in differing.items()) or 'none'} |"
        ),
        "",
        f"without: {dict(report['without'])}",
        f"with:    {dict(report['with'])}",
    ]
    lines += [f"- {r['test']}: {r['without']} -> {r['with']}: {r['class']}" for r in report["differences"]]
    for title in ("listed_but_equal", "changed_files", "failing_on_both_sides", "never_ended", "logs"):
        if report[title]:
            lines += ["", f"{title.replace('_', ' ')}: {len(report[title])}", *(f"- {item}" for item in report[title])]
    if report["too_few"]:
        lines += ["", "FAIL: too few tests passed"]
    return "\n".join(lines)


def identify(python: str, package: str) -> tuple[str, str]:
    """Which library, in which version, the environment has."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"{python} has no {package}:\n{answer.stderr}")
    return package, answer.stdout.strip()


def files_of(folder: Path) -> set[str]:
    """Every file of the checkout as it is now, to see whether a suite writes into its own."""
    return {
        f"{path.relative_to(folder)} ({(state := path.stat()).st_size} bytes, {state.st_mtime_ns})"
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".venv", "__pycache__"} & set(path.relative_to(folder).parts)
    }


def parse() -> argparse.Namespace:
    """The command line."""
    own, _, rest = partition(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder with the library's sources and tests")
    parser.add_argument("--python", required=True, help="interpreter with the suite's dependencies and this package")
    parser.add_argument("--package", default="mcp", choices=("mcp", "fastmcp"), help="whose tests these are")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for all that is written")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="what to run, seen from the checkout")
    parser.add_argument("--baseline", type=Path, help="the --out of an earlier run: its side without us counts again")
    parser.add_argument("--providers", default="own", choices=("own", "global", "none"), help="see plugin.py")
    parser.add_argument("--everything-on", action="store_true", help="with every setting that does more")
    parser.add_argument("--repeat", type=int, default=3, help="how often a differing test is repeated alone")
    parser.add_argument("--at-least", type=int, default=100, help="how many tests have to pass")
    given = parser.parse_args(own)
    given.pytest_arguments = rest
    return given


def partition(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    """What is before and what is after `--`."""
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main())
