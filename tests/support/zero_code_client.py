"""A program with no trace of telemetry: calls a stdio server (its command is in the arguments) and ends."""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anyio  # the path has to be there first

from support import sdk


async def main(era: str, *command: str) -> None:
    import os

    # What a user has to do: the SDK gives a child next to nothing of its environment.
    env = {key: value for key, value in os.environ.items() if key.startswith(("OTEL_", "PYTHON", "PATH"))}
    env["OTEL_SERVICE_NAME"] = "stdio-server"
    async with sdk.connect("stdio", era=era, command=list(command), env=env) as peer:
        await peer.session.list_tools()
        await peer.call("add", {"a": 1, "b": 2})
        await peer.call("fail", {"text": "canary-in-an-argument"})
        await peer.call("progress", progress=True)
        if era == "legacy":
            await peer.call("sample")
        await anyio.sleep(0.2)
    print("done")


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[1:]))
