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
    from mcp.types import CreateMessageResultWithTools, TextContent, ToolUseContent

    server = fm.build_server("main")
    asked: list[Any] = []

    def lookup(word: str) -> str:
        return f"canary-{word}"

    @server.tool
    async def research(ctx: Context) -> str:
        return str((await ctx.sample("look it up", tools=[lookup])).text)

    async def sampling(messages: Any, params: Any, context: Any) -> Any:
        asked.append(messages)
        if len(asked) > 1:
            content: Any = TextContent(type="text", text="found")
            return CreateMessageResultWithTools(role="assistant", content=content, model="m", stopReason="endTurn")
        content = [ToolUseContent(type="tool_use", id="1", name="lookup", input={"word": "x"})]
        return CreateMessageResultWithTools(role="assistant", content=content, model="m", stopReason="toolUse")

    from fastmcp import Client
    from mcp.types import SamplingCapability, SamplingToolsCapability

    capabilities = SamplingCapability(tools=SamplingToolsCapability())
    async with Client(server, sampling_handler=sampling, sampling_capabilities=capabilities) as client:
        assert fm.text_of(await client.call_tool("research", {})) == "found"
    assert len(asked) == 2
    call = instrumented.one("tools/call research", "SERVER")
    tool = instrumented.one("execute_tool lookup")
    assert tool.kind.name == "INTERNAL" and tool.parent and tool.parent.span_id == call.context.span_id
    assert "canary" not in tool.to_json()
    assert len(instrumented.find("sampling/createMessage", "CLIENT")) == 2
    assert not [span.name for span in instrumented.spans if span.name.startswith("sampling create")]
