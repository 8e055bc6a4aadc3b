"""`network.*`, addresses, session id and negotiated version on every transport; durations of sessions."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from conftest import Recorder
from support import sdk

pytestmark = pytest.mark.anyio

WHERE = (
    "network.transport",
    "network.protocol.name",
    "network.protocol.version",
    "server.address",
    "client.address",
)


def where(attributes: Any) -> dict[str, Any]:
    return {key: attributes[key] for key in WHERE if key in attributes}


@pytest.mark.parametrize("transport", sdk.HTTP_TRANSPORTS)
@pytest.mark.parametrize("era", sdk.ERAS)
async def test_http(instrumented: Recorder, transport: str, era: str) -> None:
    async with sdk.connect(transport, era=era) as peer:
        await peer.call("add", {"a": 1, "b": 1})
        await peer.call("progress", {"steps": 1}, progress=True)
        await anyio.sleep(0.1)
    client = instrumented.one("tools/call progress", "CLIENT").attributes or {}
    server = instrumented.one("tools/call progress", "SERVER").attributes or {}
    tcp = {"network.transport": "tcp", "network.protocol.name": "http"}
    # The HTTP version is known from the first response on; the SSE client never shows one.
    http = tcp if transport == "sse" else {**tcp, "network.protocol.version": "1.1"}
    assert where(client) == {**http, "server.address": "127.0.0.1"}
    assert where(server) == {**tcp, "network.protocol.version": "1.1", "client.address": "127.0.0.1"}
    assert isinstance(client["server.port"], int) and isinstance(server["client.port"], int)

    version = sdk.MODERN if era == "modern" else peer_version(instrumented)
    assert client["mcp.protocol.version"] == version
    if transport != "http-stateless" or sdk.VERSION >= (1, 10):
        # Older clients do not tell a stateless server, which took no part in a negotiation.
        assert server["mcp.protocol.version"] == version
    has_session = era == "legacy" and transport != "http-stateless"
    assert ("mcp.session.id" in client, "mcp.session.id" in server) == (has_session, has_session)
    if has_session:
        assert client["mcp.session.id"] == server["mcp.session.id"]

    client_sessions = instrumented.points("mcp.client.session.duration")
    server_sessions = instrumented.points("mcp.server.session.duration")
    assert len(client_sessions) == (1 if era == "legacy" else 0)
    assert len(server_sessions) == (1 if has_session else 0)
    for point in client_sessions:
        assert point.count == 1 and point.attributes["server.address"] == "127.0.0.1"
        assert point.attributes["mcp.protocol.version"] == version
    for point in server_sessions:
        assert point.count == 1 and point.attributes["network.protocol.name"] == "http"

    backward = instrumented.find("notifications/progress")
    for span in backward:
        attributes = span.attributes or {}
        assert attributes["network.transport"] == "tcp"
        assert "server.address" not in attributes and "client.address" not in attributes
        assert ("mcp.session.id" in attributes) == has_session
        assert attributes.get("mcp.protocol.version") == server.get("mcp.protocol.version")


def peer_version(recorder: Recorder) -> Any:
    """The version that was negotiated, also on `initialize` itself."""
    versions = {str((span.attributes or {}).get("mcp.protocol.version")) for span in recorder.find("initialize")}
    assert len(versions) == 1
    return versions.pop()


@pytest.mark.parametrize("era", sdk.ERAS)
async def test_stdio(instrumented: Recorder, era: str) -> None:
    async with sdk.connect("stdio", era=era) as peer:
        await peer.call("add", {"a": 1, "b": 1})
    assert where(instrumented.one("tools/call add", "CLIENT").attributes) == {"network.transport": "pipe"}
    assert len(instrumented.points("mcp.client.session.duration")) == 1


@pytest.mark.parametrize("transport", ["memory", "direct"] if sdk.SDK2 else ["memory"])
async def test_in_process(instrumented: Recorder, transport: str) -> None:
    async with sdk.connect(transport) as peer:
        await peer.call("add", {"a": 1, "b": 1})
    for kind in ("CLIENT", "SERVER"):
        attributes = instrumented.one("tools/call add", kind).attributes or {}
        assert where(attributes) == {} and "mcp.session.id" not in attributes
        assert attributes["mcp.protocol.version"]
    assert len(instrumented.points("mcp.client.session.duration")) == 1
    assert len(instrumented.points("mcp.server.session.duration")) == 1


async def test_session_that_ends_with_an_error(instrumented: Recorder) -> None:
    async def use() -> None:
        async with sdk.connect("memory") as peer:
            await peer.call("add", {"a": 1, "b": 1})
            raise LookupError("the application's own")

    # anyio's task groups raise a group around it.
    with pytest.raises(Exception, match=r"the application's own|unhandled errors in a TaskGroup"):
        await use()
    (client,) = instrumented.points("mcp.client.session.duration")
    assert client.attributes["error.type"] == "LookupError"


@pytest.mark.parametrize("url", ["http://user:secret@localhost:8080/mcp?token=secret", "https://example.com/mcp"])
async def test_no_secret_of_a_url(instrumented: Recorder, url: str) -> None:
    """Addresses are kept, user info, path and query are not."""
    from opentelemetry_instrumentation_mcp.connection import Connection, Endpoint

    connection = Connection(server=False, endpoint=Endpoint.of_url(url, "http"))
    attributes = connection.view(inbound=False).attributes
    assert "secret" not in repr(attributes) and "/mcp" not in repr(attributes)
    assert attributes["server.port"] in (8080, 443)
    async with sdk.connect("memory") as peer:
        await peer.call("add", {"a": 1, "b": 1})
