"""The processes on the other side: TypeScript programs that run once, and HTTP servers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

PATIENCE = 60  # seconds, for a program that takes two


@dataclass(frozen=True)
class Node:
    """An installation: where the programs are, and how to run one."""

    executable: str
    folder: Path

    def command(self, program: str, *arguments: str) -> list[str]:
        return [self.executable, str(self.folder / program), *arguments]

    def everything(self, transport: str) -> list[str]:
        """The command line of the reference server."""
        main = self.folder / "node_modules/@modelcontextprotocol/server-everything/dist/index.js"
        preload = () if transport == "stdio" else ("--import", str(self.folder / "loopback.mjs"))
        return [self.executable, *preload, str(main), transport]

    async def run(self, program: str, *arguments: str, **environment: str) -> str:
        """What a program prints. It is killed if it takes too long."""
        process = await anyio.open_process(
            self.command(program, *arguments), stdin=subprocess.DEVNULL, env={**quiet_environment(), **environment}
        )
        output: dict[str, bytes] = {}

        async def read(name: str, stream: Any) -> None:
            output[name] = b"".join([chunk async for chunk in stream])

        try:
            with anyio.fail_after(PATIENCE):
                async with process, anyio.create_task_group() as tasks:
                    tasks.start_soon(read, "stdout", process.stdout)
                    tasks.start_soon(read, "stderr", process.stderr)
                    await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, output["stderr"].decode(errors="replace")
        return output["stdout"].decode()


@asynccontextmanager
async def http_server(command: Sequence[str], **environment: str) -> AsyncIterator[str]:
    """The base URL of a server that prints its port; it is ended by its stdin, or else by its process id."""
    process = await anyio.open_process(command, stderr=subprocess.DEVNULL, env={**quiet_environment(), **environment})
    lines = b""
    try:
        with anyio.fail_after(30):
            while not (port := re.search(rb'\{"port":(\d+)\}', lines)):
                lines += await process.stdout.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_discard, process.stdout)
            yield f"http://127.0.0.1:{int(port[1])}"
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await process.stdin.aclose()
            with anyio.move_on_after(5):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()


async def _discard(stream: Any) -> None:
    async for _ in stream:
        pass


def quiet_environment() -> dict[str, str]:
    """Ours without what configures OpenTelemetry: each test says that itself."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COVERAGE_"))}
