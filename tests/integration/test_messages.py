"""The core promise: each JSON-RPC message on the wire is one CLIENT span and one SERVER span, parent and child."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from conftest import Recorder
from support import sdk
from support.conformance import assert_message_spans
from support.wire import WireLog, WireLogASGI, tap_streams

pytestmark = pytest.mark.anyio


async def exercise(peer: sdk.Peer, *, back_channel: bool = True) -> None:
    """Every kind of message that client and server can exchange on a handshake connection."""
    session = peer.session
    await session.list_tools()
    await session.list_prompts()
    await session.list_resources()
    await session.list_resource_templates()
    assert await peer.text("add", {"a": 1, "b": 2}) == "3"
    await peer.call("fail")
    await peer.call("nobody-knows-this-tool")
    await peer.call("add", {"a": "not a number"})
    await session.get_prompt("greet", {"name": "you"})
    await peer.read("res://greeting")
    with suppress(sdk.McpError):
        await session.get_prompt("unknown")
    with suppress(sdk.McpError):
        await peer.read("res://unknown")
    with suppress(sdk.McpError):
        await peer.request("tools/list/no/such/method")
    await peer.call("progress", progress=True)
    await peer.call("log")
    await peer.call("change")
    if sdk.SDK2 and session.protocol_version == sdk.MODERN:
        return
    await session.send_ping()
    with suppress(sdk.McpError):
        await session.set_logging_level("info")
    with suppress(sdk.McpError):
        await peer.subscribe("res://greeting")
    await session.send_roots_list_changed()
    if back_channel:
        assert await peer.text("sample") == "sampled"
        await peer.call("roots")
        await peer.call("ping_client")


async def settle() -> None:
    """Let notifications arrive."""
    await anyio.sleep(0.15)


@pytest.mark.parametrize("era", sdk.ERAS)
async def test_memory(instrumented: Recorder, era: str) -> None:
    log = WireLog()
    async with sdk.connect("memory", era=era, tap=lambda streams: tap_streams(log, *streams)) as peer:
        with instrumented.tracer().start_as_current_span("agent"):
            await exercise(peer)
        await settle()
    assert_message_spans(log, instrumented.spans)
    assert len(log.calls) > (20 if era == "legacy" else 15)


@pytest.mark.parametrize("transport", sdk.HTTP_TRANSPORTS)
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_http(instrumented: Recorder, transport: str, era: str) -> None:
    log = WireLog()

    def middleware(app: Any) -> Any:
        return WireLogASGI(app, log)

    async with sdk.connect(transport, era=era, middleware=middleware) as peer:
        with instrumented.tracer().start_as_current_span("agent"):
            await exercise(peer, back_channel=transport in ("http", "sse"))
        await settle()
    assert_message_spans(log, instrumented.spans)


only_sdk_1 = pytest.mark.skipif(sdk.SDK2, reason="SDK 2.x has removed the WebSocket transport")
websocket_is_deprecated = pytest.mark.filterwarnings("ignore:The WebSocket (client|server) transport is deprecated")


@only_sdk_1
@websocket_is_deprecated
async def test_websocket(instrumented: Recorder) -> None:
    log = WireLog()
    async with sdk.connect("websocket", tap=lambda streams: tap_streams(log, *streams)) as peer:
        with instrumented.tracer().start_as_current_span("agent"):
            await exercise(peer)
        await settle()
    assert_message_spans(log, instrumented.spans)
    assert len(log.calls) > 20


@only_sdk_1
@websocket_is_deprecated
async def test_what_is_known_of_a_websocket(instrumented: Recorder) -> None:
    async with sdk.connect("websocket") as peer:
        await peer.call("add", {"a": 1, "b": 2})
    for kind in ("CLIENT", "SERVER"):
        found = dict(instrumented.one("tools/call add", kind).attributes or {})
        assert (found["network.transport"], found["network.protocol.name"]) == ("tcp", "websocket")
    client = dict(instrumented.one("tools/call add", "CLIENT").attributes or {})
    assert client["server.address"] == "127.0.0.1" and isinstance(client["server.port"], int)
