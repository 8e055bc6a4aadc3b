"""Plugin servers of the framework that is installed, as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from support import plugin_framework as pf
from support.http_join import INSTRUMENT, Server, environment, free_port
from support.sink import OtlpSink

TRANSPORTS = ("mcp", "grpc", "unix")
GRPC_INSTRUMENTATION = "grpc_client,grpc_server,grpc_aio_client,grpc_aio_server"
TESTS = str(Path(__file__).parents[1])


class PluginServer(Server):
    """A plugin server; ``entry`` is what its client's configuration says about it."""

    def __init__(
        self,
        transport: str,
        folder: Path,
        *plugins: dict[str, Any],
        sink: OtlpSink | None = None,
        program: str | None = None,
        **env: str,
    ) -> None:
        """
        Args:
            sink: where it exports to; None: it is not instrumented.
            program: a module to run in place of the framework's own.
        """
        folder.mkdir()
        port = free_port()
        # The path of a socket has to be absolute and short; those of the tests' folders are not.
        self._sockets = tempfile.TemporaryDirectory(prefix="otel-mcp-")
        self._socket = str(Path(self._sockets.name) / "socket")
        module, own, self.address = {
            "mcp": (
                "mcp.server.runtime",
                {"PLUGINS_TRANSPORT": "http", "PLUGINS_SERVER_HOST": "127.0.0.1", "PLUGINS_SERVER_PORT": str(port)},
                {"mcp": {"proto": "STREAMABLEHTTP", "url": f"http://127.0.0.1:{port}/mcp"}},
            ),
            "grpc": (
                "grpc.server.runtime",
                {"PLUGINS_GRPC_SERVER_HOST": "127.0.0.1", "PLUGINS_GRPC_SERVER_PORT": str(port)},
                {"grpc": {"target": f"127.0.0.1:{port}"}},
            ),
            "unix": (
                "unix.server.runtime",
                {"PLUGINS_UNIX_SOCKET_PATH": self._socket},
                {"unix_socket": {"path": self._socket, "reconnect_attempts": 1}},
            ),
        }[transport]
        self._transport = transport
        variables = {
            **own,
            "PLUGINS_CONFIG_PATH": str(pf.configuration(folder, pf.numbered(*plugins))),
            "PLUGINS_SSRF_PROTECTION_ENABLED": "false",
            "PYTHONPATH": TESTS,
            "PYTHONDONTWRITEBYTECODE": "1",
            # Whether calls have spans of another instrumentation is for the test to say.
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": f"starlette,fastapi,{GRPC_INSTRUMENTATION}",
            **env,
        }
        command = [sys.executable, "-m", program or f"{pf.PACKAGE}.external.{module}"]
        if sink is not None:
            command = [INSTRUMENT, *command]
        super().__init__(command, port, environment(sink, f"plugins-{transport}", **variables), folder / "log")

    def __exit__(self, *exc_info: object) -> None:
        try:
            super().__exit__(*exc_info)
        finally:
            self._sockets.cleanup()

    def entry(self, name: str, **settings: Any) -> dict[str, Any]:
        return pf.external(name, **self.address, **settings)

    def _wait_until_it_listens(self, limit: float = 60.0) -> None:
        if self._transport != "unix":
            return super()._wait_until_it_listens(limit)
        for _ in range(int(limit / 0.05)):
            if self.process.poll() is not None:
                break
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(self._socket)
                    return None
                except OSError:
                    pass
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"the server did not start:\n{self.output()}")
