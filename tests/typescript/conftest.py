"""Node and the TypeScript SDK for the tests of this folder, installed once and kept in pytest's cache.

Where there is no node, no npm or no registry the tests skip and say why; with ``CI_REQUIRE_NODE`` they fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from typescript.peers import Node

HERE = Path(__file__).resolve().parent
PACKAGES = HERE / "package.json"
OLDEST_NODE = (20, 6)  # what the packages want
INSTALLATION = 240  # seconds


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI_REQUIRE_NODE"):
        pytest.fail(f"CI_REQUIRE_NODE is set, and {reason}")
    pytest.skip(f"the TypeScript SDK was not tested: {reason}")


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Node with the packages of package.json."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        unavailable("node and npm are not on the PATH")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    found = re.match(r"v(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST_NODE:
        unavailable(f"node {version.strip() or '(no version)'} is older than {'.'.join(map(str, OLDEST_NODE))}")
    content = PACKAGES.read_bytes()
    key = hashlib.sha256(content + found[1].encode()).hexdigest()[:16]
    cache = getattr(request.config, "cache", None)
    root = cache.mkdir("typescript") if cache else tmp_path_factory.getbasetemp() / "typescript-packages"
    installed = root / key
    if not installed.is_dir():
        install(npm, content, installed)
    return Node(node, installed)


def install(npm: str, packages: bytes, target: Path) -> None:
    """Install beside ``target`` and rename: an interrupted installation is none, and two at once do no harm."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    try:
        (folder / "package.json").write_bytes(packages)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--omit=dev", "--prefer-offline")
        patience = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000", "--loglevel=error")
        done = subprocess.run(
            [npm, "install", *options, *patience],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALLATION, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            unavailable(f"npm install failed: {' '.join(lines[:3])[:300]}")
        with contextlib.suppress(OSError):
            # Another process was faster.
            folder.rename(target)
    except subprocess.TimeoutExpired:
        unavailable(f"npm install took more than {INSTALLATION} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def node(installation: Node, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """The programs of this folder beside the packages that they import."""
    folder = tmp_path_factory.mktemp("typescript")
    for program in HERE.glob("*.mjs"):
        shutil.copy(program, folder)
    (folder / "node_modules").symlink_to(installation.folder / "node_modules", target_is_directory=True)
    return Node(installation.executable, folder)
