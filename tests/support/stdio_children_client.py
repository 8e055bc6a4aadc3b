"""A client of one stdio server; what it is to do is the JSON object in its argument.

``command``, ``env`` and ``era`` of the server, ``calls`` (names of tools), ``log``: the file for the messages on the
wire, ``instrument``: the arguments of ``McpInstrumentor().instrument()``, where that is done in code. The texts
of the results are printed; then it waits for its stdin to end before it disconnects.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anyio
from opentelemetry import trace

if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    if "instrument" in plan:
        from opentelemetry.sdk.trace import TracerProvider

        from opentelemetry_instrumentation_mcp import McpInstrumentor

        McpInstrumentor().instrument(tracer_provider=TracerProvider(), **plan["instrument"])

from support import sdk
from support.wire import WireLog, tap_streams


async def main() -> None:
    log = WireLog()
    env = {**os.environ} if plan.get("env") == "copied" else plan.get("env")
    with trace.get_tracer("test-app").start_as_current_span("work"):
        async with sdk.connect(
            "stdio",
            era=plan.get("era", "legacy"),
            command=plan["command"],
            env=env,
            tap=lambda streams: tap_streams(log, *streams[:2]),
        ) as peer:
            texts = [await peer.text(*call) for call in plan["calls"]]
            lines = [json.dumps({"direction": one.direction, "line": json.dumps(one.raw)}) for one in log]
            await anyio.Path(plan["log"]).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            print("results:", json.dumps(texts), flush=True)
            await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main)
