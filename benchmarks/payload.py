"""Measures the payload policy and prints a Markdown table: times as ratios, in one run, of medians.

``python benchmarks/payload.py [--rounds N]``. Every payload is measured in turn with ``json.dumps`` and with ours, and
with the gateway's own functions where ``mcpgateway`` can be imported. Nothing is enforced: a time depends on what else
a machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from opentelemetry_instrumentation_mcp.payload import Policy

KIB = 1024
FILL = 0.97  # a little less than the size, so that 32 KiB are within the limit with what JSON adds
WORDS = """
the weather in berlin is cloudy with a chance of rain and the temperature will be around twelve degrees while
results of this query were returned from an index that holds documents about history science music and travel
please see section four for details: it lists every option, its default (if any) and a short example
""".split()  # noqa: SIM905
SECRETS = (
    "password=hunter2-{n}",
    "Authorization: Bearer c2VjcmV0LXRva2Vu{n}",
    '"api_key": "k-{n}-9f8e7d"',
    "https://bob:pw{n}@db.example.com/app?token=t{n}&page=2",
    "ghp_{n:036d}",
)


def prose(size: int, seed: int = 1) -> str:
    """Text without secrets."""
    chance = random.Random(seed)
    words = [chance.choice(WORDS) + ("\n" if chance.random() < 0.05 else "") for _ in range(size // 4)]
    return " ".join(words)[: int(size * FILL)]


def leaky(size: int) -> str:
    """Text with a secret in every 150 characters, as in a careless log."""
    words = prose(4 * size, 2).split()
    lines: list[str] = []
    length = 0
    while length < size * FILL:
        number = len(lines)
        line = " ".join(words[number * 20 : number * 20 + 20]) + "\n" + SECRETS[number % len(SECRETS)].format(n=number)
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)


def structured(size: int, *, secrets: bool = False) -> dict[str, Any]:
    """Rows as a database tool returns them."""
    rows: list[dict[str, Any]] = []
    while len(json.dumps(rows, separators=(",", ":"))) < FILL * min(size, 64 * KIB):
        number = len(rows)
        row: dict[str, Any] = {
            "id": number,
            "uuid": f"6f1e{number:04d}-7c1b-4b7e-9a53-0d6f1c2b3a4d",
            "title": prose(40, number),
            "score": number / 7,
            "tags": ["alpha", "beta"],
            "author": {"name": "Ada", "active": True, "team": None},
        }
        if secrets:
            row |= {"password": f"hunter{number}", "note": f"token=abc{number} for the test"}
        rows.append(row)
    text = len(json.dumps(rows, separators=(",", ":")))
    return {"rows": rows * max(1, size // text), "total": len(rows)}


def json_in_text(size: int) -> dict[str, Any]:
    """An MCP result whose text is a JSON document."""
    return {"content": [{"type": "text", "text": json.dumps(structured(int(size * 0.9), secrets=True))}]}


def gateway() -> Callable[[Any], Any] | None:
    """The gateway's own function for a payload, and the second pass it makes when it sets the attribute."""
    os.environ.setdefault("JWT_SECRET_KEY", "only-for-this-benchmark-" * 2)  # it does not start without one
    try:
        from mcpgateway.utils.trace_redaction import (  # type: ignore[import-not-found]
            sanitize_trace_attribute_value,
            serialize_trace_payload,
        )
    except ImportError:
        return None
    return lambda value: sanitize_trace_attribute_value("langfuse.observation.input", serialize_trace_payload(value))


def payloads() -> dict[str, Any]:
    """What is measured, by name."""
    cases: dict[str, Any] = {}
    for kib in (1, 16, 32, 256):
        cases[f"structured {kib} KiB"] = structured(kib * KIB)
        cases[f"structured with secrets {kib} KiB"] = structured(kib * KIB, secrets=True)
        cases[f"text {kib} KiB"] = prose(kib * KIB)
        cases[f"text full of secrets {kib} KiB"] = leaky(kib * KIB)
        cases[f"JSON in text {kib} KiB"] = json_in_text(kib * KIB)
    cases["structured 16 MiB"] = structured(16 * KIB * KIB)
    cases["text 16 MiB"] = prose(KIB * KIB) * 16
    cases["text full of secrets 16 MiB"] = leaky(KIB * KIB) * 16
    return cases


def elapsed(function: Callable[[Any], Any], value: Any) -> float:
    """Microseconds of CPU time for one call.

    The first call is not counted, for nobody: it also pays for the caches that what ran before it has filled, which is
    much if only few calls follow and nothing if there are fifty.
    """
    function(value)
    repeat, total = 0, 0
    while total < 2_000_000:
        start = time.process_time_ns()
        function(value)
        total += time.process_time_ns() - start
        repeat += 1
        if repeat >= 50:
            break
    return total / repeat / 1_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="times every payload is measured")
    parser.add_argument("--only", default="", help="payloads whose name contains this")
    options = parser.parse_args()
    policy, theirs = Policy(), gateway()
    print("| payload | json.dumps us | ours us | x dumps | x of 32 KiB | gateway us | gateway / ours |")
    print("|---|---|---|---|---|---|---|")
    base: dict[str, float] = {}
    for name, value in payloads().items():
        if options.only not in name:
            continue
        big = name.endswith(("256 KiB", "MiB"))
        times: dict[str, list[float]] = {"dumps": [], "ours": [], "gateway": []}
        for _ in range(options.rounds):
            if not name.endswith("MiB"):
                times["dumps"].append(elapsed(json.dumps, value))
            times["ours"].append(elapsed(policy.json, value))
            if theirs and not name.endswith("MiB") and (not big or len(times["gateway"]) < 2):
                times["gateway"].append(elapsed(theirs, value))
        ours = median(times["ours"])
        kind, size = name.rsplit(" ", 2)[0], name.rsplit(" ", 2)[1:]
        if size == ["32", "KiB"]:
            base[kind] = ours
        dumps = median(times["dumps"]) if times["dumps"] else 0.0
        other = median(times["gateway"]) if times["gateway"] else 0.0
        cells = [
            name,
            f"{dumps:.0f}" if dumps else "-",
            f"{ours:.0f}",
            f"{ours / dumps:.1f}" if dumps else "-",
            f"{ours / base[kind]:.2f}" if big and kind in base else "-",
            f"{other:.0f}" if other else "-",
            f"{other / ours:.1f}" if other else "-",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
