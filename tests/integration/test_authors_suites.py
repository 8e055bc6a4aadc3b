"""What the tests of the libraries' authors do and ours did not; docs/compatibility.md tells how those are run."""

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from conftest import Recorder
from support import sdk

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sdk.SDK2, reason="SDK 2.x has no Server._handle_message")
async def test_a_mock_in_place_of_a_session_is_no_failure_of_ours(instrumented: Recorder) -> None:
    from mcp.server.lowlevel import Server
    from mcp.server.session import ServerSession

    async with sdk.connect() as peer:
        await peer.call("add", {"a": 1, "b": 1})
    session = Mock(spec=ServerSession)
    session.send_log_message = AsyncMock()
    await Server("mocked")._handle_message(RuntimeError("the transport's"), session, {}, raise_exceptions=False)


async def test_mocks_among_the_arguments_of_the_sse_client_do_not_keep_context_from_its_posts(
    instrumented: Recorder,
) -> None:
    from mcp.shared._httpx_utils import create_mcp_http_client

    headers: list[dict[bytes, bytes]] = []

    def noting(app: Any) -> Any:
        async def noted(scope: Any, receive: Any, send: Any) -> None:
            if scope.get("method") == "POST":
                headers.append(dict(scope["headers"]))
            await app(scope, receive, send)

        return noted

    factory = Mock(side_effect=create_mcp_http_client)
    async with (
        sdk.serve(noting(sdk.http_app(sdk.build_server(), "sse"))) as base_url,
        sdk.http_streams(base_url, "sse", httpx_client_factory=factory) as streams,
        sdk._session(streams, sdk.Callbacks(), "legacy") as peer,
    ):
        await peer.call("add", {"a": 1, "b": 1})
    assert factory.call_count == 1
    assert headers and all(b"traceparent" in posted for posted in headers)


class Delegating:
    """A user's stream around one of the library's: the SDK's tests record with such what crosses a transport."""

    __slots__ = ("_kept",)

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    async def send(self, item: Any) -> None:
        await self._kept.send(item)

    async def receive(self) -> Any:
        return await self._kept.receive()

    async def aclose(self) -> None:
        await self._kept.aclose()

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        return await self._kept.__anext__()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class DelegatingToInner(Delegating):
    """The same, with the name for the inner stream that the streams of SDK 2.x have as well."""

    __slots__ = ()

    @property
    def _inner(self) -> Any:
        return self._kept


@pytest.mark.parametrize("transport", ["memory", "http"])
@pytest.mark.parametrize("around", [Delegating, DelegatingToInner])
async def test_streams_of_users_around_those_of_the_library(
    instrumented: Recorder, around: Any, transport: str
) -> None:
    def wrap(streams: Any) -> Any:
        return [around(stream) for stream in streams[:2]]

    async with sdk.connect(transport, tap=wrap) as peer:
        await peer.call("add", {"a": 1, "b": 1})
    client = instrumented.one("tools/call add", "CLIENT")
    server = instrumented.one("tools/call add", "SERVER")
    assert server.parent is not None and client.context is not None
    assert server.parent.span_id == client.context.span_id
    if around is DelegatingToInner and transport == "http":
        assert (client.attributes or {}).get("server.address") == "127.0.0.1"
