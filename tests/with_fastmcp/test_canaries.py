"""Nothing of a payload leaves by default, wherever FastMCP would put it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import anyio
import pytest
from fastmcp import Context
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from conftest import Instrument, Recorder
from support import fastmcp_sdk as fm
from support.canary_table import Row

pytestmark = pytest.mark.anyio

CANARY = re.compile(r"canary-[a-z-]+")
# What is never told, and what is where content is captured: results and errors of tools are content.
SECRET = {
    "canary-progress-message",
    "canary-log-line",
    "canary-password",
    "canary-structured-result",
    "canary-resource-content",
    "canary-prompt-text",
    "canary-query",
}
CONTENT = {"canary-argument", "canary-bad-argument", "canary-result", "canary-variable", "canary-exception-text"}


def server_with_canaries(name: str = "main") -> Any:
    server = fm.build_server(name)

    @server.tool
    async def leaky(ctx: Context, argument: str) -> dict[str, str]:
        await ctx.report_progress(1, 2, "canary-progress-message")
        await ctx.info("canary-log-line")
        return {"password": "canary-structured-result", "text": "canary-result"}

    @server.tool
    async def leaky_error() -> str:
        raise ValueError("canary-exception-text")

    @server.resource("res://host/{item}?token={token}") if fm.VERSION >= (2, 14) else server.resource("res://h/{item}")
    async def leaky_resource(item: str, token: str = "") -> str:
        return "canary-resource-content"

    @server.prompt
    async def leaky_prompt(variable: str) -> str:
        return f"canary-prompt-text {variable}"

    return server


async def workload(era: str, transport: str) -> None:
    main = server_with_canaries()
    fm.mount(main, server_with_canaries("child"), "child")
    async with fm.connect(transport, server=main, era=era) as client:
        for prefix in ("", "child_"):
            await client.call_tool(f"{prefix}leaky", {"argument": "canary-argument password=canary-password"})
            await client.call_tool(f"{prefix}leaky_error", {}, raise_on_error=False)
            await client.get_prompt(f"{prefix}leaky_prompt", {"variable": "canary-variable"})
            await client.call_tool(f"{prefix}add", {"a": "canary-bad-argument"}, raise_on_error=False)
        for template in await client.list_resource_templates():
            uri = str(template.uri_template if fm.MAJOR >= 4 else template.uriTemplate)
            uri = (
                uri.replace("{item}", "7").replace("{?token}", "?token=canary-query").replace("{token}", "canary-query")
            )
            with suppress(Exception):
                await client.read_resource(uri)
        await anyio.sleep(0.1)
    if fm.MAJOR >= 3:
        for tool, arguments in {"child_add": {"a": "canary-bad-argument"}, "leaky_error": {}}.items():
            with suppress(Exception):
                await main.call_tool(tool, arguments)


def exported(recorder: Recorder) -> str:
    data = recorder.metrics()
    return "\n".join([*(span.to_json() for span in recorder.spans), data.to_json() if data else ""])


def exported_bytes(recorder: Recorder) -> bytes:
    """The spans and metrics, as they leave."""
    metrics = recorder.metrics()
    data: bytes = encode_spans(recorder.spans).SerializeToString()
    return data + (encode_metrics(metrics).SerializeToString() if metrics else b"")


TRANSPORTS = [transport for transport in fm.TRANSPORTS if transport != "stdio"]  # whose server is another process
RUNS = [(transport, era) for transport in TRANSPORTS for era in fm.ERAS if transport != "sse" or era == "legacy"]
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "content, stack traces": {"capture_content": "SPAN_ONLY", "stacktraces": True, "langfuse": "on"},
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("transport", "era"), RUNS)
async def test_nothing_leaks(
    instrument: Instrument,
    recorder: Recorder,
    table: list[Row],
    transport: str,
    era: str,
    setting: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder.content = bool(SETTINGS[setting])
    recorder.extra += ("langfuse.*",)
    instrument(**SETTINGS[setting])
    await workload(era, transport)
    assert len(recorder.find("delegate leaky")) >= 1
    data = exported_bytes(recorder)
    allowed: set[str] = CONTENT if SETTINGS[setting] else set()
    found = {canary for canary in SECRET | CONTENT if canary.encode() in data}
    leaked = found - allowed
    table.append(Row(f"{transport} ({era})", setting, len(data), len(SECRET | CONTENT), len(leaked)))
    assert not leaked
    assert found >= allowed
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry_instrumentation")]
    assert CANARY.findall("\n".join(ours)) == []


async def test_this_test_can_fail(instrument: Instrument, recorder: Recorder) -> None:
    """What was asked for is captured: the canary in an ordinary argument, and not the one under ``password``."""
    recorder.content = True
    instrument(capture_content="SPAN_ONLY")
    await workload("legacy", "memory")
    found = set(CANARY.findall(exported(recorder)))
    assert {"canary-argument", "canary-result", "canary-variable"} <= found
    assert "canary-structured-result" not in found


async def test_identity_is_told_only_by_the_option(instrument: Instrument, recorder: Recorder) -> None:
    """FastMCP would put the caller's id and scopes on its spans."""
    from fastmcp.client.transports import StreamableHttpTransport
    from fastmcp.server.auth.providers.jwt import StaticTokenVerifier

    from support import sdk

    token = {"client_id": "canary-client-id", "scopes": ["canary-scope"], "sub": "canary-subject"}
    server = fm.build_server("main", auth=StaticTokenVerifier({"canary-token": token}))
    recorder.extra += ("user.*", "session.id", "auth.method")
    for identity in ("off", "on"):
        recorder.clear()
        instrument(identity=identity)
        async with sdk.serve(fm.http_app(server, "http")) as url:
            target = StreamableHttpTransport(f"{url}/mcp", headers={"Authorization": "Bearer canary-token"})
            async with fm.make_client(target) as client:
                await client.call_tool("add", {"a": 1, "b": 2})
        found = set(CANARY.findall(exported(recorder)))
        assert "canary-token" not in found
        assert bool(found & {"canary-client-id", "canary-subject"}) is bool(found) is (identity == "on")
        (server_span,) = recorder.find("tools/call add", "SERVER")
        assert ("enduser.scope" in (server_span.attributes or {})) is (identity == "on")
        from opentelemetry_instrumentation_mcp import McpInstrumentor

        McpInstrumentor().uninstrument()
    instrument()
