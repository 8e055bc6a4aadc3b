"""Serves the test server over stdio; instrumented only if it was started that way or is told ``--instrument``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.sdk import build_server  # the path has to be there first

if __name__ == "__main__":
    build_server().run("stdio")
