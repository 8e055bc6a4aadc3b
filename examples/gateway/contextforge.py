"""The ContextForge gateway on 127.0.0.1 with nothing but a folder: its settings, a token, its REST API."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADMIN = "admin@example.com"


class RefusedError(Exception):
    """The gateway answered with another HTTP status than 2xx, or made no token."""


def settings(folder: Path, port: int, plugins: Path | None = None) -> dict[str, str]:
    """Environment variables of a gateway with a new database and new secrets, without Redis.

    Args:
        folder: where its database is made.
        port: of 127.0.0.1, for it to listen on.
        plugins: a folder with modules of plugins and their `config.yaml`.
    """
    variables = {
        "DATABASE_URL": f"sqlite:///{folder / 'gateway.db'}",
        "CACHE_TYPE": "database",
        "REDIS_URL": "",
        "ENVIRONMENT": "development",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "LOG_LEVEL": "INFO",
        "LOG_TO_FILE": "false",
        "MCPGATEWAY_UI_ENABLED": "false",
        "MCPGATEWAY_ADMIN_API_ENABLED": "false",
        # The upstream servers are on this machine, which it would refuse.
        "SSRF_ALLOW_LOCALHOST": "true",
        "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
        "PLATFORM_ADMIN_EMAIL": ADMIN,
    }
    for secret in ("JWT_SECRET_KEY", "AUTH_ENCRYPTION_SECRET"):
        variables[secret] = secrets.token_urlsafe(48)
    for password in ("PLATFORM_ADMIN_PASSWORD", "BASIC_AUTH_PASSWORD", "DEFAULT_USER_PASSWORD"):
        variables[password] = f"aA1!{secrets.token_urlsafe(24)}"
    if plugins is not None:
        variables |= {
            "PLUGINS_ENABLED": "true",
            "PLUGINS_CONFIG_FILE": str(plugins / "config.yaml"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(plugins), os.environ.get("PYTHONPATH")])),
        }
    return variables


def token(folder: Path, variables: Mapping[str, str]) -> str:
    """A token of the administrator for a gateway with these settings; `folder` is one without an `.env` file."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mcpgateway.utils.create_jwt_token", "--username", ADMIN, "--admin"),
            *("--exp", "60", f"--secret={variables['JWT_SECRET_KEY']}"),  # which may begin with a dash
        ],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RefusedError(f"no token: {done.stderr[-500:]}")
    return done.stdout.split()[-1]


class Gateway:
    """Requests to a running gateway. None has a trace of its own: what is traced begins in the gateway."""

    def __init__(self, port: int, bearer: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
        # Kept open: FastAPI makes an error of a connection that is closed as soon as the answer is there.
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if not 200 <= answer.status < 300:
            raise RefusedError(f"POST {path}: HTTP {answer.status} {text[:500]!r}")
        content: dict[str, Any] = json.loads(text)
        return content

    def register(self, name: str, url: str) -> None:
        """Make the tools of an upstream server available as `name-tool`."""
        self.post("/gateways", {"name": name, "url": url, "transport": "STREAMABLEHTTP", "visibility": "public"})

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool with one JSON-RPC message; the whole answer."""
        params = {"name": tool, "arguments": arguments}
        return self.post("/rpc", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
