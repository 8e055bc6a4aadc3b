"""An "agent" that answers a question with the help of three MCP servers: `client.py WEATHER_URL TRAVEL_URL`.

Its only line of OpenTelemetry is the root span in `main`. The MCP messages are traced because the program
runs under `opentelemetry-instrument`.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CreateMessageRequestParams, CreateMessageResult, TextContent
from opentelemetry import trace

CITY = {"city": "Lisbon"}


async def sample(context: Any, params: CreateMessageRequestParams) -> CreateMessageResult:
    """Stands in for the language model of the agent."""
    await anyio.sleep(0.05)
    content = TextContent(type="text", text="Flat path along the river, mind the trams.")
    return CreateMessageResult(role="assistant", content=content, model="demo-model")


async def on_progress(progress: float, total: float | None, message: str | None) -> None:
    print(f"progress: {message}")


async def ask_weather(url: str) -> None:
    async with Client(url) as weather:  # opens with server/discover (MCP 2026-07-28)
        await weather.list_tools()
        print(await weather.call_tool("forecast", CITY))
        failed = await weather.call_tool("air_quality", CITY)
        print(f"failed as it should: {failed.is_error}")
        try:
            await weather.call_tool("radar", CITY, read_timeout_seconds=0.3)
        except MCPError as error:
            print(f"gave up as it should: {error}")
        print(await weather.call_tool("climate", CITY, progress_callback=on_progress))


def files_server() -> StdioServerParameters:
    """The SDK hands a stdio server no OTEL_* variable: what it needs to join the trace is given here."""
    instrument = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    if instrument is None:
        raise SystemExit("opentelemetry-instrument is not installed beside this Python")
    environment = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    return StdioServerParameters(
        command=instrument,
        args=[sys.executable, str(Path(__file__).with_name("stdio_server.py"))],
        env={**environment, "OTEL_SERVICE_NAME": "files-server"},
    )


async def ask_files() -> None:
    # "legacy" opens with initialize: since 2026-07-28 a server can no longer send requests such as sampling.
    async with Client(files_server(), mode="legacy", sampling_callback=sample) as files:
        await files.list_tools()
        print(await files.read_resource("notes://lisbon"))
        print(await files.get_prompt("packing_list", CITY))
        print(await files.call_tool("summarize_notes"))


async def ask_travel(url: str) -> None:
    async with Client(url) as travel:
        print(await travel.call_tool("money_convert", {"amount": 20, "currency": "EUR"}))
        print(await travel.call_tool("weather_forecast", CITY))


async def main(weather: str, travel: str) -> None:
    with trace.get_tracer("demo").start_as_current_span("answer a question"):
        await ask_weather(weather)
        await ask_travel(travel)
        await ask_files()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
