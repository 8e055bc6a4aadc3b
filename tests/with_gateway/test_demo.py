"""The example with the gateway does what it says, from its own processes to its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.gateway import version

DEMO = Path(__file__).resolve().parent.parent.parent / "examples" / "gateway" / "run.py"


@pytest.mark.skipif(version() < (1, 0, 2), reason="the example is for releases that `python -m mcpgateway` starts")
def test_the_demo_prints_a_complete_trace_of_each_call() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment["COLUMNS"] = "120"  # names are cut where a terminal is narrow
    done = subprocess.run(
        [sys.executable, str(DEMO)], env=environment, capture_output=True, text=True, timeout=360, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nOK  5 calls" in done.stdout and "FAILED" not in done.stdout
    for line in (
        "└─ POST /rpc  SERVER  gateway",
        "plugin.execute (BlockWords, violation BLOCKED_WORD)  INTERNAL",
        "✗ plugin_violation",
        "✗ tool_error",
        "mcp.client.response (no success)  INTERNAL",
        "tools/call forecast  SERVER  weather",
        "└─ answer a question  INTERNAL  agent",
    ):
        assert line in done.stdout, done.stdout
