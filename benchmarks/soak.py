"""Looks for growth: many calls on one connection, then many sessions, in memory, with an OpenTelemetry SDK.

What is counted, after a warm-up and each time after garbage collections: objects that the collector tracks, those among
them of our own classes, the entries of the containers that our objects hold, and resident memory. The same run without
the instrumentation tells what the SDKs leave behind by themselves. ``--short`` takes seconds.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from opentelemetry_instrumentation_mcp import McpInstrumentor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import sdk  # the tests' one face for SDK 1.x and 2.x

PACKAGE = "opentelemetry_instrumentation_mcp"
WARM_UP_CALLS, WARM_UP_SESSIONS = 200, 5


@dataclass(frozen=True)
class State:
    """What there is at one moment."""

    objects: int
    ours: Counter[str]
    entries: int
    rss: int

    @classmethod
    def now(cls) -> State:
        """The state after everything collectable is gone."""
        while gc.collect():
            pass
        tracked = gc.get_objects()
        ours = [each for each in tracked if str(type(each).__module__).startswith(PACKAGE)]
        return cls(len(tracked), Counter(type(each).__qualname__ for each in ours), _entries(ours), _resident())


def _entries(objects: Iterable[Any]) -> int:
    """How much is in the containers that are attributes of ``objects``."""
    held: list[Any] = []
    for owner in objects:
        attributes = getattr(owner, "__dict__", {})
        held += attributes.values()
        held += (each for each in gc.get_referents(owner) if each is not attributes)  # slots
    containers = {id(each): each for each in held if isinstance(each, (dict, set, list))}
    return sum(len(each) for each in containers.values())


def _resident() -> int:
    """Resident memory in bytes; 0 where nothing tells."""
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True)
class Growth:
    """What calls and sessions left behind."""

    calls: int
    sessions: int
    by_calls: State
    by_sessions: State

    @property
    def objects_per_call(self) -> float:
        return self.by_calls.objects / self.calls

    @property
    def objects_per_session(self) -> float:
        return self.by_sessions.objects / self.sessions

    @property
    def ours(self) -> int:
        """Objects of our classes and entries of their containers that were not there before."""
        return sum((sum(state.ours.values()) + state.entries) for state in (self.by_calls, self.by_sessions))


def _difference(after: State, before: State) -> State:
    ours = Counter(after.ours)
    ours.subtract(before.ours)
    return State(
        after.objects - before.objects,
        Counter({name: count for name, count in ours.items() if count}),
        after.entries - before.entries,
        after.rss - before.rss,
    )


async def _calls(peer: Any, calls: int) -> None:
    for number in range(calls):
        await peer.call("add", {"a": number, "b": 1})


async def _sessions(server: Any, sessions: int) -> None:
    for _ in range(sessions):
        async with sdk.connect("memory", server=server) as peer:
            await _calls(peer, 2)


async def soak(calls: int, sessions: int, *, instrumented: bool = True) -> Growth:
    """Make ``calls`` calls on one connection and then open ``sessions``; returns what stayed.

    Args:
        instrumented: False for what the libraries leave behind without us.
    """
    server = sdk.build_server(log_level="CRITICAL")
    with _Instrumented() if instrumented else nullcontext():
        await _sessions(server, WARM_UP_SESSIONS)
        async with sdk.connect("memory", server=server) as peer:
            await _calls(peer, WARM_UP_CALLS)
            before = State.now()
            await _calls(peer, calls)
            by_calls = _difference(State.now(), before)
        before = State.now()
        await _sessions(server, sessions)
        by_sessions = _difference(State.now(), before)
    return Growth(calls, sessions, by_calls, by_sessions)


class _Instrumented:
    """The instrumentation with an SDK whose spans go nowhere: what an exporter queues is not ours to count."""

    def __enter__(self) -> None:
        self.meter_provider = MeterProvider([InMemoryMetricReader()])
        McpInstrumentor().instrument(
            tracer_provider=TracerProvider(), meter_provider=self.meter_provider, skip_dep_check=True
        )

    def __exit__(self, *exception: object) -> None:
        McpInstrumentor().uninstrument()
        self.meter_provider.shutdown()


def _describe(growth: Growth) -> str:
    calls, sessions = growth.by_calls, growth.by_sessions
    return (
        f"{growth.calls} calls: {calls.objects:+} objects ({growth.objects_per_call:+.3f} a call), "
        f"ours {dict(calls.ours)}, entries {calls.entries:+}, resident {calls.rss / 1e6:+.1f} MB; "
        f"{growth.sessions} sessions: {sessions.objects:+} objects ({growth.objects_per_session:+.2f} a session), "
        f"ours {dict(sessions.ours)}, entries {sessions.entries:+}, resident {sessions.rss / 1e6:+.1f} MB"
    )


def main() -> None:
    """Run with and without the instrumentation, and print a verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--short", action="store_true", help="2000 calls and 30 sessions")
    options = parser.parse_args()
    calls, sessions = (2000, 30) if options.short else (options.calls, options.sessions)
    logging.disable(logging.CRITICAL)
    growth = {}
    for instrumented in (False, True):
        growth[instrumented] = anyio.run(lambda on=instrumented: soak(calls, sessions, instrumented=on))
        print("with ours:" if instrumented else "without:  ", _describe(growth[instrumented]), flush=True)
    ours = growth[True].ours
    print(f"{'PASS' if ours <= 0 else 'FAIL'} ({ours}): objects and entries of ours that stayed")


if __name__ == "__main__":
    main()
