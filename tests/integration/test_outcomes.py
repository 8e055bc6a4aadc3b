"""How a message ended: the same `error.type` on both sides wherever the wire says it, and nothing of a payload."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from conftest import Instrument, Recorder
from support import sdk

pytestmark = pytest.mark.anyio

ERA_OF_TRANSPORT = [("memory", era) for era in sdk.ERAS] + [("http", era) for era in sdk.ERAS]
if sdk.SDK2:
    ERA_OF_TRANSPORT.append(("direct", "modern"))


def ended(span: ReadableSpan) -> tuple[Any, Any, str, str | None]:
    attributes = span.attributes or {}
    return (
        attributes.get("error.type"),
        attributes.get("rpc.response.status_code"),
        span.status.status_code.name,
        span.status.description,
    )


def both(recorder: Recorder, name: str) -> tuple[Any, Any]:
    return ended(recorder.one(name, "CLIENT")), ended(recorder.one(name, "SERVER"))


@pytest.mark.parametrize(("transport", "era"), ERA_OF_TRANSPORT)
async def test_outcomes_on_the_wire(instrumented: Recorder, transport: str, era: str) -> None:
    secret = "canary-3f9c"
    async with sdk.connect(transport, era=era) as peer:
        await peer.call("add", {"a": 1, "b": 1})
        await peer.call("fail", {"text": secret})
        await peer.call("unheard-of")
        with suppress(sdk.McpError):
            await peer.request("no/such/method")
        with suppress(sdk.McpError):
            await peer.request("prompts/get", {"name": "greet", "arguments": {}})
        with suppress(sdk.McpError):
            await peer.request("resources/read", {"no-uri": secret})
    ok = (None, None, "UNSET", None)
    tool_error = ("tool_error", None, "ERROR", None)
    assert both(instrumented, "tools/call add") == (ok, ok)
    assert both(instrumented, "tools/call fail") == (tool_error, tool_error)
    assert both(instrumented, "tools/call unheard-of") == (tool_error, tool_error)
    for name in ("no/such/method", "resources/read"):
        client, server = both(instrumented, name)
        code = client[1]
        assert code in ("-32601", "-32602") and client[0] == code and client[2] == "ERROR"
        assert server == (None, code, "UNSET", None), "the caller's fault is no error of the server"
    client, server = both(instrumented, "prompts/get greet")
    assert client[0] is not None and client[0] == client[1]
    assert server[1] == client[1]
    assert secret not in repr([(span.name, span.attributes, span.events, span.status) for span in instrumented.ours])


@pytest.mark.parametrize(("transport", "era"), ERA_OF_TRANSPORT)
async def test_error_of_the_server(instrumented: Recorder, transport: str, era: str) -> None:
    """An error that is the server's own fault is an error on both sides."""
    async with sdk.connect(transport, era=era) as peer:
        with suppress(sdk.McpError):
            await peer.session.get_prompt("unknown-prompt")
    client, server = both(instrumented, "prompts/get unknown-prompt")
    assert client[:3] == server[:3]
    assert client[0] in ("0", "-32603") and client[2] == "ERROR"


@pytest.mark.parametrize(("transport", "era"), [*ERA_OF_TRANSPORT, ("stdio", sdk.ERAS[0])])
async def test_timeout_of_the_client(instrumented: Recorder, transport: str, era: str) -> None:
    async with sdk.connect(transport, era=era) as peer:
        with pytest.raises(sdk.McpError):
            await peer.call("slow", {"seconds": 0.6}, timeout=0.2)
        await anyio.sleep(0.6)
    assert ended(instrumented.one("tools/call slow", "CLIENT")) == ("timeout", None, "ERROR", None)
    if sdk.SDK2 and transport != "stdio":
        # SDK 2.x tells the server to stop.
        assert ended(instrumented.one("tools/call slow", "SERVER"))[0] == "cancelled"


@pytest.mark.parametrize(("transport", "era"), ERA_OF_TRANSPORT)
async def test_cancelled_by_the_caller(instrumented: Recorder, transport: str, era: str) -> None:
    async with sdk.connect(transport, era=era) as peer:
        with anyio.move_on_after(0.2) as scope:
            await peer.call("slow", {"seconds": 0.5})
        assert scope.cancelled_caught
        await anyio.sleep(0.5)
    assert ended(instrumented.one("tools/call slow", "CLIENT")) == ("cancelled", None, "ERROR", None)
    server = ended(instrumented.one("tools/call slow", "SERVER"))
    # SDK 1.x does not tell the server, whose handler runs on and answers.
    assert server[0] == ("cancelled" if sdk.SDK2 else None)


async def test_cancelled_by_the_peer(instrumented: Recorder) -> None:
    """A `notifications/cancelled` that names a request ends it as cancelled, on both sides."""
    async with sdk.connect("memory") as peer, anyio.create_task_group() as tasks:

        async def call() -> None:
            with suppress(sdk.McpError):
                await peer.call("slow", {"seconds": 3})

        tasks.start_soon(call)
        await anyio.sleep(0.1)
        span_id = 2 if sdk.SDK2 else 1
        if sdk.SDK2:
            await peer.session._dispatcher.notify("notifications/cancelled", {"requestId": span_id})
        else:
            params = sdk.types.CancelledNotificationParams(requestId=span_id)
            notification = sdk.types.CancelledNotification(method="notifications/cancelled", params=params)
            await peer.session.send_notification(sdk.types.ClientNotification(notification))
        await anyio.sleep(0.2)
        tasks.cancel_scope.cancel()
    assert ended(instrumented.one("tools/call slow", "SERVER"))[0] == "cancelled"
    assert ended(instrumented.one("tools/call slow", "CLIENT"))[0] == "cancelled"


@pytest.mark.parametrize("era", sdk.ERAS)
async def test_server_process_dies(instrumented: Recorder, era: str) -> None:
    error: BaseException | None = None
    with anyio.fail_after(20):
        async with sdk.connect("stdio", era=era) as peer:
            try:
                await peer.call("die")
            except Exception as caught:
                error = caught
    assert error is not None
    kind = type(error)
    client = ended(instrumented.one("tools/call die", "CLIENT"))
    assert client == (f"{kind.__module__}.{kind.__qualname__}", None, "ERROR", None)


async def test_connection_lost(instrumented: Recorder) -> None:
    """The server's end closes while a call is under way."""
    from mcp.shared.memory import create_client_server_memory_streams

    async with create_client_server_memory_streams() as (client_streams, server_streams):
        low = sdk.lowlevel(sdk.build_server())
        async with anyio.create_task_group() as tasks:
            scope = anyio.CancelScope()

            async def serve() -> None:
                with scope:
                    await low.run(*server_streams, low.create_initialization_options())

            tasks.start_soon(serve)
            async with sdk._session(client_streams, sdk.Callbacks(), "legacy") as peer:

                async def lose() -> None:
                    await anyio.sleep(0.1)
                    await server_streams[1].aclose()
                    scope.cancel()

                tasks.start_soon(lose)
                with anyio.fail_after(5), pytest.raises(sdk.McpError):
                    await peer.call("slow", {"seconds": 3})
    client = ended(instrumented.one("tools/call slow", "CLIENT"))
    assert client[0] is not None and client[0].endswith(sdk.McpError.__name__)
    assert ended(instrumented.one("tools/call slow", "SERVER"))[2] == "ERROR"


@pytest.mark.parametrize("error_text", ["redacted", "off"])
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_rejected_by_a_handler(instrument: Instrument, recorder: Recorder, era: str, error_text: str) -> None:
    """A JSON-RPC error raised by a handler: its code on both sides, its text redacted or nowhere."""
    instrument(error_text=error_text)
    async with sdk.connect("memory", era=era, server=rejecting_server()) as peer:
        with pytest.raises(sdk.McpError):
            await peer.session.get_prompt("greet", {"name": "x"})
    client, server = both(recorder, "prompts/get greet")
    text = "text of the handler, password=***" if error_text == "redacted" else None
    assert client == server == ("-32050", "-32050", "ERROR", text)


def rejecting_server() -> Any:
    """A low-level server, whose handler raises the SDK's own error."""
    if sdk.SDK2:
        from mcp.server.lowlevel.server import Server

        async def get_prompt(ctx: Any, params: Any) -> Any:
            raise sdk.mcp_error(-32050, "text of the handler, password=hunter2")

        server: Any = Server("rejecting", on_get_prompt=get_prompt)
        return _High(server)
    from mcp.server.lowlevel.server import Server as OldServer

    old: Any = OldServer("rejecting")

    @old.get_prompt()
    async def handler(name: str, arguments: Any) -> Any:
        raise sdk.mcp_error(-32050, "text of the handler, password=hunter2")

    return _High(old)


class _High:
    """What the facade expects of a high-level server."""

    def __init__(self, server: Any) -> None:
        self._lowlevel_server = self._mcp_server = server
