"""Measures one transport with the SDK that is installed; prints JSON. ``run.py`` starts it.

In each cycle every configuration gets one block of calls, in random order. Each call is timed: its CPU time, which is
that of the one thread in which client and server run, and its wall time.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import platform
import random
import sys
from importlib import metadata
from time import perf_counter, thread_time
from typing import Any

import anyio
from configurations import FLOOR, IN_MEMORY, NATIVE, OURS, Connected, Lab, configurations, transports

Times = list[list[float]]  # microseconds: one list of calls per block


def _defaults(transport: str) -> dict[str, int]:
    if transport in IN_MEMORY:
        return {"cycles": 40, "calls": 40, "warm_up": 25}
    return {"cycles": 25, "calls": 15, "warm_up": 8}


async def _block(connected: Connected, calls: int, warm_up: int) -> tuple[list[float], list[float]]:
    call = connected.call
    for _ in range(warm_up):
        await call()
    gc.collect()
    cpu_times: list[float] = []
    wall_times: list[float] = []
    for _ in range(calls):
        wall, cpu = perf_counter(), thread_time()
        await call()
        cpu_times.append(round((thread_time() - cpu) * 1e6, 1))
        wall_times.append(round((perf_counter() - wall) * 1e6, 1))
    return cpu_times, wall_times


async def measure(lab: Lab, transport: str, cycles: int, calls: int, warm_up: int) -> dict[str, dict[str, Times]]:
    """The times of all calls, by configuration and clock."""
    names = configurations(transport)
    times: dict[str, dict[str, Times]] = {name: {"cpu": [], "wall": []} for name in names}
    for cycle in range(-1, cycles):  # the first one only warms up
        for name in random.sample(names, len(names)):
            async with lab.connected(name, transport) as connected:
                cpu, wall = await _block(connected, calls, warm_up)
            lab.providers.flush()
            if cycle >= 0:
                times[name]["cpu"].append(cpu)
                times[name]["wall"].append(wall)
        if cycle < 0:
            gc.collect()
            gc.freeze()
    return times


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


async def _main(transport: str, sizes: dict[str, int]) -> None:
    await verify(transport)
    lab = Lab()
    json.dump(
        {
            "mcp": metadata.version("mcp"),
            "python": platform.python_version(),
            "opentelemetry": metadata.version("opentelemetry-sdk"),
            "transport": transport,
            **sizes,
            "times": await measure(lab, transport, **sizes),
        },
        sys.stdout,
    )


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the transports of this SDK and exit")
    parser.add_argument("--transport", choices=transports(), default="memory")
    parser.add_argument("--cycles", type=int, help="blocks per configuration")
    parser.add_argument("--calls", type=int, help="calls per block")
    options = parser.parse_args()
    if options.list:
        json.dump(transports(), sys.stdout)
        return
    logging.disable(logging.CRITICAL)
    given = {name: value for name in ("cycles", "calls") if (value := getattr(options, name)) is not None}
    anyio.run(_main, options.transport, _defaults(options.transport) | given)


if __name__ == "__main__":
    main()
