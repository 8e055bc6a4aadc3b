"""Each JSON-RPC message between FastMCP clients and servers is one CLIENT and one SERVER span, parent and child."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from conftest import Recorder
from support import fastmcp_sdk as fm
from support import sdk
from support.conformance import assert_message_spans, message_spans
from support.wire import WireLog, read_stdio_log, tee_command

pytestmark = pytest.mark.anyio


async def exercise(client: Any, *, era: str, back_channel: bool = True) -> None:
    """Every kind of message that a FastMCP client and server can exchange."""
    await client.list_tools()
    await client.list_prompts()
    await client.list_resources()
    await client.list_resource_templates()
    assert fm.text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
    for tool in ("fail", "reject", "nobody-knows-this-tool", "garbage"):
        with suppress(Exception):
            await client.call_tool(tool, {})
    with suppress(Exception):
        await client.call_tool("add", {"a": "not a number"})
    assert fm.text_of(await client.get_prompt("greet", {"name": "you"})) == "Say hello to you"
    assert fm.text_of(await client.read_resource("res://greeting")) == "hello"
    assert fm.text_of(await client.read_resource("res://items/7")) == "item 7"
    for bad in (client.get_prompt("unknown"), client.read_resource("res://unknown")):
        with suppress(Exception):
            await bad
    reference = fm.types.PromptReference(type="ref/prompt", name="greet")
    with suppress(Exception):
        await client.complete(reference, {"name": "name", "value": "y"})
    await client.call_tool("progress", {})
    await client.call_tool("log", {})
    if era == "modern":
        return
    await client.ping()
    with suppress(sdk.McpError):
        await client.set_logging_level("info")
    await client.send_roots_list_changed()
    await client.call_tool("change", {})
    if back_channel:
        assert fm.text_of(await client.call_tool("sample", {})) == "sampled"
        assert fm.text_of(await client.call_tool("elicit", {})) == "accept"
        assert fm.text_of(await client.call_tool("roots", {})) == "1"
        await client.call_tool("ping_client", {})


async def settle() -> None:
    """Let notifications arrive."""
    await anyio.sleep(0.2)


@pytest.mark.parametrize("era", fm.ERAS)
@pytest.mark.parametrize("transport", ["memory", "http", "http-stateless", "http-json", "sse"])
async def test_one_span_per_message_and_side(instrumented: Recorder, transport: str, era: str) -> None:
    log = WireLog()
    back_channel = transport in ("memory", "http", "sse")
    async with fm.connect(transport, era=era, log=log) as client:
        with instrumented.tracer().start_as_current_span("agent"):
            await exercise(client, era=era, back_channel=back_channel)
        await settle()
    assert_message_spans(log, instrumented.spans)
    assert len(log.calls) > (25 if back_channel and era == "legacy" else 17)


@pytest.mark.parametrize("era", fm.ERAS)
async def test_stdio_client(instrumented: Recorder, tmp_path: Any, era: str) -> None:
    """The server's process is not instrumented here: the client's side has all its spans nevertheless."""
    file = tmp_path / "wire.jsonl"
    command = tee_command(file, sdk.server_command()[0], fm.SERVER_SCRIPT)
    async with fm.connect("stdio", era=era, command=command) as client:
        with instrumented.tracer().start_as_current_span("agent"):
            await exercise(client, era=era)
        await settle()
    log = read_stdio_log(file)
    spans = message_spans(instrumented.spans)
    to_server = [(message.method, message.id) for message in log.select(direction="client->server") if message.is_call]
    to_client = [(message.method, message.id) for message in log.select(direction="server->client") if message.is_call]
    assert sorted(map(str, to_server)) == sorted(str(key_of(span)) for span in spans if span.kind.name == "CLIENT")
    assert sorted(map(str, to_client)) == sorted(str(key_of(span)) for span in spans if span.kind.name == "SERVER")
    assert len(to_server) > 15


def key_of(span: Any) -> tuple[str, Any]:
    request_id = span.attributes.get("jsonrpc.request.id")
    return span.attributes["mcp.method.name"], int(request_id) if (request_id or "").isdecimal() else request_id


async def test_what_only_fastmcp_knows_is_on_our_span(instrumented: Recorder) -> None:
    async with fm.connect("memory") as client:
        await client.call_tool("add", {"a": 1, "b": 2})
        await client.read_resource("res://items/7")
        await client.list_tools()
        await client.ping()
    call = dict(instrumented.one("tools/call add", "SERVER").attributes or {})
    assert call["fastmcp.server.name"] == "main"
    for name in ("tools/list", "ping"):
        for span in instrumented.find(name, "SERVER"):
            assert (span.attributes or {})["fastmcp.server.name"] == "main"
    if fm.MAJOR >= 3:
        assert call["fastmcp.component.type"] == "tool"
        assert call["fastmcp.component.key"] == "tool:add@"
        assert call["fastmcp.provider.type"] == "LocalProvider"
        read = dict(instrumented.one("resources/read", "SERVER").attributes or {})
        assert str(read["fastmcp.component.key"]).startswith("template:res://items/{item}")
    client_span = dict(instrumented.one("tools/call add", "CLIENT").attributes or {})
    assert not [name for name in client_span if name.startswith("fastmcp.")]


@pytest.mark.skipif(fm.MAJOR < 4, reason="input-required round trips came with FastMCP 4")
async def test_input_required_round_trips(instrumented: Recorder) -> None:
    """Two messages of one logical call; the second one's CLIENT span links the first one's."""
    from fastmcp.server.dependencies import get_context

    types = fm.types
    server = fm.build_server()

    async def ask():  # an annotation would become a schema
        ctx = get_context()
        if ctx.input_responses is None:
            schema: Any = {"type": "object", "properties": {"value": {"type": "integer"}}}
            parameters = types.ElicitRequestFormParams(message="how many?", requested_schema=schema)
            return types.InputRequiredResult(input_requests={"q": types.ElicitRequest(params=parameters)})
        return f"answered {len(ctx.input_responses)}"

    server.tool(ask)
    log = WireLog()
    async with fm.connect("memory", server=server, era="modern", log=log) as client:
        assert fm.text_of(await client.call_tool("ask", {})) == "answered 1"
    first, second = instrumented.find("tools/call ask", "CLIENT")
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert_message_spans(log, instrumented.spans)


@pytest.mark.skipif(fm.MAJOR >= 4, reason="FastMCP 4 has background tasks in another distribution, see below")
async def test_background_tasks(instrumented: Recorder) -> None:
    """The messages about a task have their spans; what runs in the background is told by the task library's own."""
    server = fm.build_server()

    async def later() -> str:
        return "done"

    server.tool(later, task=True)
    log = WireLog()
    async with fm.connect("memory", server=server, log=log) as client:
        with instrumented.tracer().start_as_current_span("agent"):
            task = await client.call_tool("later", {}, task=True)
            with anyio.fail_after(20):
                result = await task.result()
        assert result.data == "done"
        await settle()
    assert_message_spans(log, instrumented.spans)
    assert log.select(method="tasks/result") or log.select(method="tasks/get")


@pytest.mark.skipif(not sdk.is_installed("fastmcp_tasks"), reason="fastmcp-tasks is not installed")
async def test_background_tasks_of_fastmcp_4(instrumented: Recorder) -> None:
    """A call that becomes a task is several messages: the call, and what asks for its result."""
    from fastmcp_tasks import TasksExtension

    server = fm.build_server()
    server.add_extension(TasksExtension())

    async def later() -> str:
        await anyio.sleep(0.1)
        return "done"

    server.tool(later, task=True)
    log = WireLog()
    async with fm.connect("memory", server=server, era="modern", log=log) as client:
        with instrumented.tracer().start_as_current_span("agent") as agent, anyio.fail_after(20):
            result = await client.call_tool("later", {})
        assert result.data == "done"
        await settle()
    assert_message_spans(log, instrumented.spans)
    asked = instrumented.find("tasks/get", "CLIENT")
    assert asked and {span.context.trace_id for span in asked} == {agent.get_span_context().trace_id}
