"""Nothing of ours stays behind: the short version of ``benchmarks/soak.py``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio

CALLS, SESSIONS = 2000, 30


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("soak").soak


async def test_nothing_stays_behind(soak: Any) -> None:
    growth = await soak(CALLS, SESSIONS)
    # Ours knows the one tool, the methods and the connections from the warm-up: whatever is added later is a leak.
    assert not growth.by_calls.ours
    assert not growth.by_sessions.ours
    assert growth.ours <= 0
    # Caches of the libraries fill up to about a hundred objects, once. An operation, a span or a context that is kept
    # for each call is several objects a call, or some for each session.
    assert growth.objects_per_call < 0.25
    assert growth.objects_per_session < 10
