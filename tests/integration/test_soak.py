"""Nothing of ours stays behind: the short version of ``benchmarks/soak.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CALLS, SESSIONS = 2000, 30

PROGRAM = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import anyio, json
from soak import soak
growth = anyio.run(soak, {CALLS}, {SESSIONS})
print(json.dumps([
    growth.by_calls.ours, growth.by_sessions.ours, growth.ours, growth.objects_per_call, growth.objects_per_session
]))
"""


def test_nothing_stays_behind() -> None:
    """In a process of its own: what other tests have left behind goes away, or grows, when it likes."""
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    of_calls, of_sessions, ours, per_call, per_session = json.loads(result.stdout)
    # Ours knows the one tool, the methods and the connections from the warm-up: whatever is added later is a leak.
    assert not of_calls
    assert not of_sessions
    assert ours <= 0
    # Caches of the libraries fill up to about a hundred objects, once. An operation, a span or a context that is kept
    # for each call is several objects a call, or some for each session.
    assert per_call < 0.25
    assert per_session < 10
