"""Turns what ``measure.py`` printed into Markdown: one table per SDK and transport, and what became of the budgets.

``python benchmarks/report.py FILE...`` with the JSON files that ``run.py --json`` wrote.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

NONE, NATIVE_REMOVED, NATIVE, FLOOR = "none", "native removed", "native", "floor"
OURS, OURS_WITHOUT_SDK = "ours with SDK", "ours without SDK"
TITLES = {
    "memory": "in memory, JSON-RPC",
    "direct": "in memory, direct (2026-07-28)",
    "http": "streamable HTTP",
    "http-modern": "streamable HTTP (2026-07-28)",
}
PERCENTILE = 0.05
MESSAGES_PER_CALL = 2  # the client's and the server's side

Result = dict[str, Any]
Blocks = list[list[float]]


@dataclass(frozen=True)
class Cost:
    """What a configuration costs above ``none``, microseconds of CPU time per call.

    Attributes:
        low: difference of the 5th percentiles of all calls: what remains when the machine does little else.
        lows: the same of each run, for the spread.
        medians: of each run, the median of the paired differences of blocks.
    """

    low: float
    lows: list[float]
    medians: list[float]


def _low(blocks: Blocks) -> float:
    calls = sorted(call for block in blocks for call in block)
    return calls[int(len(calls) * PERCENTILE)]


def _median_difference(blocks: Blocks, reference: Blocks) -> float:
    return median(median(block) - median(other) for block, other in zip(blocks, reference, strict=True))


def _blocks(runs: list[Result], name: str, clock: str = "cpu") -> Blocks:
    return [block for run in runs for block in run["times"][name][clock]]


def costs(runs: list[Result]) -> dict[str, Cost]:
    """The costs of all configurations of one SDK and transport."""
    found: dict[str, Cost] = {}
    for name in runs[0]["times"]:
        pairs = [(_blocks([run], name), _blocks([run], NONE)) for run in runs]
        found[name] = Cost(
            _low(_blocks(runs, name)) - _low(_blocks(runs, NONE)),
            [_low(mine) - _low(none) for mine, none in pairs],
            [_median_difference(*pair) for pair in pairs],
        )
    return found


def _base(cost: dict[str, Cost]) -> float:
    """What the library costs without its own telemetry: what hand-written code comes on top of."""
    return cost[NATIVE_REMOVED].low if NATIVE_REMOVED in cost else 0.0


def _ratio(value: float, reference: float | None) -> str:
    return f"{value / reference:.2f}" if reference else ""


def _spread(value: float, values: list[float]) -> str:
    return f"{value:.0f} ({min(values):.0f}..{max(values):.0f})" if len(values) > 1 else f"{value:.0f}"


def table(runs: list[Result]) -> str:
    """The costs of one SDK and transport as a Markdown table."""
    first, cost = runs[0], costs(runs)
    cpu, wall = _low(_blocks(runs, NONE)), _low(_blocks(runs, NONE, "wall"))
    floor = cost[FLOOR].low - _base(cost) if FLOOR in cost else None
    native = cost[NATIVE].low if NATIVE in cost else None
    conditions = (
        f"CPython {first['python']}, OpenTelemetry {first['opentelemetry']}, {len(runs)} runs of {first['cycles']} x "
        f"{first['calls']} calls. A call with `none`: {cpu:.0f} us of CPU, {wall:.0f} us."
    )
    lines = [
        f"### mcp {first['mcp']}: {TITLES[first['transport']]}",
        "",
        conditions,
        "",
        "| configuration | us over `none`: p5 | median | x floor | x native |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, each in cost.items():
        own = floor if name == FLOOR and floor else each.low
        ratios = ("", "") if name in (NONE, NATIVE_REMOVED) else (_ratio(own, floor), _ratio(each.low, native))
        low, middle = _spread(each.low, each.lows), _spread(median(each.medians), each.medians)
        lines.append(f"| {name} | {low} | {middle} | {ratios[0]} | {ratios[1]} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Budget:
    """A limit, and what was measured."""

    what: str
    limit: float
    measured: float
    note: str = ""

    def __str__(self) -> str:
        verdict = "PASS" if self.measured <= self.limit else "FAIL"
        return f"- {verdict} ({self.measured:.2f}): {self.what}{self.note}"


def budgets(runs: list[Result]) -> Iterable[Budget]:
    """The budgets that apply to one SDK and transport."""
    if runs[0]["transport"] != "memory":
        return
    cost = costs(runs)
    ours, base, sdk = cost[OURS].low, _base(cost), f"mcp {runs[0]['mcp']}"
    floor = cost[FLOOR].low - base
    if NATIVE in cost:
        alike = f"; {(ours - base) / floor:.2f} if ours is not credited with the native code it replaces"
        yield Budget(f"ours with SDK <= 0.75 x floor, {sdk}", 0.75, ours / floor, alike)
        yield Budget(f"target: ours with SDK <= 1.0 x native, {sdk}", 1.0, ours / cost[NATIVE].low)
    else:
        yield Budget(f"ours with SDK <= 1.0 x floor, {sdk}", 1.0, ours / floor)
    per_message = (cost[OURS_WITHOUT_SDK].low - base) / MESSAGES_PER_CALL
    yield Budget(f"ours without SDK <= 5 us per message above no native telemetry, {sdk}", 5.0, per_message)


def render(results: list[Result]) -> str:
    """All tables, then all budgets."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result["mcp"], result["transport"]), []).append(result)
    tables = "\n\n".join(table(runs) for runs in groups.values())
    verdicts = "\n".join(str(budget) for runs in groups.values() for budget in budgets(runs))
    return f"{tables}\n\n### Budgets\n\n{verdicts}\n" if verdicts else f"{tables}\n"


def main() -> None:
    """Render the files named on the command line."""
    results = [result for name in sys.argv[1:] for result in json.loads(Path(name).read_text(encoding="utf-8"))]
    print(render(results), end="")


if __name__ == "__main__":
    main()
