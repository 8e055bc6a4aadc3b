"""Revision 2026-07-28: discovery, input-required round trips, subscriptions, and what HTTP refuses or drops."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from conftest import Recorder
from support import sdk
from support.conformance import KnownGap, assert_message_spans
from support.wire import WireLog, WireLogASGI, tap_streams

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not sdk.SDK2, reason="SDK 1.x does not speak 2026-07-28"),
]


def asking_server(state: str | None) -> Any:
    """A tool that needs two rounds of input before it answers."""
    from mcp.server.lowlevel.server import Server

    t: Any = sdk.types

    async def list_tools(ctx: Any, params: Any) -> Any:
        return t.ListToolsResult(tools=[t.Tool(name="ask", input_schema={"type": "object"})])

    async def call_tool(ctx: Any, params: Any) -> Any:
        answers = params.input_responses or {}
        if "second" in answers:
            return t.CallToolResult(content=[t.TextContent(type="text", text="thanks")])
        key = "second" if "first" in answers else "first"
        return t.InputRequiredResult(
            input_requests={key: t.ListRootsRequest(method="roots/list")},
            request_state=f"{state}-{key}" if state else None,
        )

    class High:
        _lowlevel_server: Any = Server("asking", on_list_tools=list_tools, on_call_tool=call_tool)

        def streamable_http_app(self, **options: Any) -> Any:
            return self._lowlevel_server.streamable_http_app(**options)

    return High()


@pytest.mark.parametrize("state", ["opaque", None], ids=["with-state", "without-state"])
@pytest.mark.parametrize("transport", ["memory", "http", "direct"])
async def test_rounds_are_linked(instrumented: Recorder, transport: str, state: str | None) -> None:
    server = asking_server(state)
    target = server._lowlevel_server if transport == "direct" else server
    async with sdk.connect(transport, era="modern", server=target) as peer:
        with instrumented.tracer().start_as_current_span("agent"):
            result = await peer.client.call_tool("ask", {})
            assert result.content[0].text == "thanks"
            await peer.client.call_tool("ask", {})
    rounds = instrumented.find("tools/call ask", "CLIENT")
    assert len(rounds) == 6
    assert len(instrumented.find("tools/call ask", "SERVER")) == 6
    linked = [[link.context.span_id for link in span.links] for span in rounds]
    ids = [span.context.span_id for span in rounds if span.context]
    assert linked == [[], [ids[0]], [ids[1]], [], [ids[3]], [ids[4]]]
    assert all(not (span.attributes or {}).get("error.type") for span in rounds)


@pytest.mark.parametrize("transport", ["memory", "http", "direct"])
async def test_subscription(instrumented: Recorder, transport: str) -> None:
    """One long request, its notifications below it, and an end that is no error."""
    log = WireLog()
    options: dict[str, Any] = {}
    if transport == "memory":
        options["tap"] = lambda streams: tap_streams(log, *streams)
    if transport == "http":
        options["middleware"] = lambda app: WireLogASGI(app, log)
    server = sdk.build_server()

    @server.tool()
    async def publish(ctx: sdk.Context) -> str:
        await ctx.notify_tools_changed()
        return "published"

    publish.__annotations__["ctx"] = sdk.Context
    async with sdk.connect(transport, era="modern", server=server, **options) as peer:
        with instrumented.tracer().start_as_current_span("agent"):
            async with peer.client.listen(tools_list_changed=True) as subscription:
                await peer.call("publish")
                with anyio.fail_after(5):
                    await subscription.__anext__()
        await anyio.sleep(0.2)
    listen = [instrumented.one("subscriptions/listen", kind) for kind in ("CLIENT", "SERVER")]
    for span in listen:
        assert span.status.status_code.name == "UNSET"
        assert (span.attributes or {})["mcp.protocol.version"] == sdk.MODERN
    for method in ("notifications/subscriptions/acknowledged", "notifications/tools/list_changed"):
        sent = instrumented.one(method, "CLIENT")
        assert sent.parent is not None and listen[1].context is not None
        assert sent.parent.span_id == listen[1].context.span_id
        received = instrumented.one(method, "SERVER")
        assert received.parent is not None and sent.context is not None
        assert received.parent.span_id == sent.context.span_id
    if transport != "direct":
        assert_message_spans(log, instrumented.spans)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": "1999-01-01"}, "-32022"),
        ({"header": "resources/list"}, "-32020"),
        ({"envelope": None}, "-32602"),
    ],
    ids=["unsupported-revision", "header-mismatch", "no-envelope"],
)
async def test_requests_refused_before_a_handler(instrumented: Recorder, change: dict[str, Any], code: str) -> None:
    """What the SDK answers at the door of modern HTTP has its SERVER span, too."""
    version = change.get("version", sdk.MODERN)
    meta: dict[str, Any] = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    if "envelope" in change:
        meta = {"traceparent": meta["traceparent"]}
    body = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {"_meta": meta}}
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": sdk.MODERN,
        "mcp-method": change.get("header", "tools/list"),
    }
    app = sdk.http_app(sdk.build_server(), "http")
    async with sdk.serve(app) as url, httpx.AsyncClient() as client:
        answer = (await client.post(f"{url}/mcp", json=body, headers=headers)).json()
    server = instrumented.one("tools/list", "SERVER")
    attributes = server.attributes or {}
    assert attributes["rpc.response.status_code"] == str(answer["error"]["code"])
    assert server.context is not None and f"{server.context.trace_id:032x}" == meta["traceparent"][3:35]
    if code != "-32020" or "header" in change:
        assert attributes["rpc.response.status_code"] in (code, "-32022", "-32020", "-32602")


async def test_dropped_notification_is_seen(instrumented: Recorder) -> None:
    log = WireLog()
    async with sdk.connect("http", era="modern", middleware=lambda app: WireLogASGI(app, log)) as peer:
        await peer.session.send_roots_list_changed()
        await anyio.sleep(0.1)
    refused = KnownGap(
        "no-server-span", "notifications/roots/list_changed", "SDK 2.0 answers 400 before it looks at the message"
    )
    assert_message_spans(log, instrumented.spans, known=[refused] if sdk.VERSION < (2, 1) else [])


async def test_cancelling_over_http_sends_no_message(instrumented: Recorder) -> None:
    """The SDK closes the POST instead: no span for a message that never was."""
    log = WireLog()
    async with sdk.connect("http", era="modern", middleware=lambda app: WireLogASGI(app, log)) as peer:
        with anyio.move_on_after(0.2):
            await peer.call("slow", {"seconds": 2})
        await anyio.sleep(0.3)
    assert not log.select(method="notifications/cancelled")
    assert not instrumented.find("notifications/cancelled")
    assert (instrumented.one("tools/call slow", "SERVER").attributes or {})["error.type"] == "cancelled"
