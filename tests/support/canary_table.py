"""The table that `make canary` prints: what was searched for canaries, in one environment."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

# The first that is installed is what the environment is about.
_LIBRARIES = {
    "mcp-contextforge-gateway": "gateway",
    "cpex": "cpex",
    "fastmcp": "fastmcp",
    "fastmcp-slim": "fastmcp",
    "mcp": "mcp",
}


class Row(NamedTuple):
    """One run.

    Attributes:
        transport: how the messages went.
        setting: what the instrumentation was allowed to tell.
        searched: size of what was exported, in bytes.
        planted: canaries that were sent.
        found: canaries that were exported and should not have been.
    """

    transport: str
    setting: str
    searched: int
    planted: int
    found: int


def print_table(rows: Iterable[Row]) -> None:
    """Print the rows below the names of what they were run with."""
    environment = f"{_library()}, Python {sys.version_info[0]}.{sys.version_info[1]}"
    print(f"\n\n{environment:34}  {'transport':24} {'setting':34} {'bytes':>9} {'planted':>8} {'found':>6}")
    for row in rows:
        print(f"{'':34}  {row.transport:24} {row.setting:34} {row.searched:9} {row.planted:8} {row.found:6}")


def _library() -> str:
    for distribution, name in _LIBRARIES.items():
        try:
            return f"{name} {version(distribution)}"
        except PackageNotFoundError:
            continue
    return "?"
