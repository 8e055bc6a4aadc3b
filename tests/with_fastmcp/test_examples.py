"""The examples that are started by one command do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import fastmcp_sdk as fm

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.mark.skipif(fm.MAJOR < 3, reason="the examples are written for FastMCP 3 and 4")
@pytest.mark.parametrize("name", ["http_server", "stdio_child", "two_services"])
def test_example(name: str) -> None:
    if name == "stdio_child" and fm.MAJOR < 4:
        pytest.skip("this one is written for SDK 2.x")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name / "run.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nOK  " in done.stdout and "FAILED" not in done.stdout
