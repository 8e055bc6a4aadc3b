"""The sampling loop of FastMCP 3.4: its request is a message, its tools are called in process."""

from __future__ import annotations

from typing import Any

import pytest
from fastmcp import Context

from conftest import Recorder
from support import fastmcp_sdk as fm

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(fm.VERSION[:2] != (3, 4), reason="other releases have no sampling loop with spans of its own"),
]


async def test_tools_of_a_sampling_loop(instrumented: Recorder) -> None:
    from mcp import types

    sdk_types: Any = types  # of SDK 1.x: FastMCP 3.4 has no other

    server = fm.build_server("main")
    asked: list[Any] = []

    def lookup(word: str) -> str:
        return f"canary-{word}"

    @server.tool
    async def research(ctx: Context) -> str:
        return str((await ctx.sample("look it up", tools=[lookup])).text)

    async def sampling(messages: Any, params: Any, context: Any) -> Any:
        asked.append(messages)
        content: Any = sdk_types.TextContent(type="text", text="found")
        if len(asked) == 1:
            content = [sdk_types.ToolUseContent(type="tool_use", id="1", name="lookup", input={"word": "x"})]
        reason = "toolUse" if len(asked) == 1 else "endTurn"
        return sdk_types.CreateMessageResultWithTools(role="assistant", content=content, model="m", stopReason=reason)

    from fastmcp import Client

    capabilities = sdk_types.SamplingCapability(tools=sdk_types.SamplingToolsCapability())
    async with Client(server, sampling_handler=sampling, sampling_capabilities=capabilities) as client:
        assert fm.text_of(await client.call_tool("research", {})) == "found"
    assert len(asked) == 2
    call = instrumented.one("tools/call research", "SERVER")
    tool = instrumented.one("execute_tool lookup")
    assert tool.kind.name == "INTERNAL" and tool.parent and tool.parent.span_id == call.context.span_id
    assert "canary" not in tool.to_json()
    assert len(instrumented.find("sampling/createMessage", "CLIENT")) == 2
    assert not [span.name for span in instrumented.spans if span.name.startswith("sampling create")]
