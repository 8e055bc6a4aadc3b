"""Serves :func:`support.fastmcp_sdk.build_server` over stdio."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.fastmcp_sdk import build_server

build_server().run(transport="stdio", show_banner=False)
