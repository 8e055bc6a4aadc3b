"""Measures one transport with the SDK that is installed; prints JSON. ``run.py`` starts it.

In each cycle every configuration gets one block of calls, in random order. What is reported is, per block, the time
of one call: wall time, and CPU time of the one thread in which client and server run.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import platform
import sys
from importlib import metadata
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import anyio
from configurations import FLOOR, NATIVE, NONE, OURS, Connected, Lab, configurations, sdk, transports

Blocks = dict[str, dict[str, list[float]]]


async def _block(connected: Connected, calls: int, warm_up: int) -> dict[str, float]:
    """The median call of a block, by clock: a call that was interrupted, or paid for a garbage collection, is not it."""
    call = connected.call
    for _ in range(warm_up):
        await call()
    gc.collect()
    times: dict[str, list[float]] = {"wall": [], "cpu": []}
    for _ in range(calls):
        wall, cpu = perf_counter(), thread_time()
        await call()
        times["cpu"].append(thread_time() - cpu)
        times["wall"].append(perf_counter() - wall)
    return {clock: round(median(each) * 1e6, 2) for clock, each in times.items()}


async def measure(lab: Lab, transport: str, cycles: int, calls: int, warm_up: int) -> Blocks:
    """Microseconds per call, by configuration and clock, one number per cycle."""
    names = configurations(transport)
    blocks: Blocks = {name: {"wall": [], "cpu": []} for name in names}
    for cycle in range(-1, cycles):  # the first one only warms up
        for name in lab.shuffled(names):
            async with lab.connected(name, transport) as connected:
                times = await _block(connected, calls, warm_up)
            lab.providers.flush()
            if cycle >= 0:
                for clock, time in times.items():
                    blocks[name][clock].append(time)
        if cycle < 0:
            gc.collect()
            gc.freeze()
    return blocks


async def _recorded(lab: Lab, name: str, transport: str) -> tuple[list[Any], list[Any]]:
    """What one call leaves behind: spans and metric points, in a form that can be compared."""
    async with lab.connected(name, transport) as connected:
        await connected.call()
        lab.providers.reader.get_metrics_data()
        with lab.providers.keeping_spans() as spans:
            await connected.call()
            await anyio.sleep(0.01)
    described = [
        (span.name, span.kind.name, sorted((span.attributes or {}).items()), span.parent is not None) for span in spans
    ]
    return sorted(described), sorted(_points(lab.providers.reader.get_metrics_data()))


def _points(data: Any) -> list[Any]:
    return [
        (metric.name, sorted(point.attributes.items()), metric.unit, tuple(point.explicit_bounds))
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if dict(point.attributes).get("gen_ai.tool.name") == "add"
    ]


async def verify(transport: str) -> None:
    """Raise unless each configuration records what its name says, and the floor the same as ours."""
    recorded = {name: await _recorded(Lab(), name, transport) for name in configurations(transport)}
    native_spans = {"direct": 1}.get(transport, 2)
    for name, (spans, points) in recorded.items():
        expected = {OURS: (2, 2), FLOOR: (2, 2), NATIVE: (native_spans, 0)}.get(name, (0, 0))
        if (len(spans), len(points)) != expected:
            raise AssertionError(f"{name}: expected {expected} spans and metrics, got {spans} and {points}")
    if FLOOR in recorded and recorded[FLOOR] != recorded[OURS]:
        raise AssertionError(f"floor and ours differ:\n{recorded[FLOOR]}\n{recorded[OURS]}")


async def _main(options: argparse.Namespace) -> None:
    await verify(options.transport)
    blocks = await measure(Lab(), options.transport, options.cycles, options.calls, options.warm_up)
    json.dump(
        {
            "mcp": metadata.version("mcp"),
            "python": platform.python_version(),
            "opentelemetry": metadata.version("opentelemetry-sdk"),
            "transport": options.transport,
            "calls": options.calls,
            "blocks": blocks,
        },
        sys.stdout,
    )


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the transports of this SDK and exit")
    parser.add_argument("--transport", choices=transports(), default="memory")
    parser.add_argument("--cycles", type=int, default=40)
    parser.add_argument("--calls", type=int, default=50, help="calls per block")
    parser.add_argument("--warm-up", type=int, default=20, help="calls before each block")
    options = parser.parse_args()
    if options.list:
        json.dump({"sdk": f"mcp {metadata.version('mcp')}", "transports": transports()}, sys.stdout)
        return
    logging.disable(logging.CRITICAL)
    anyio.run(_main, options)


if __name__ == "__main__":
    main()
