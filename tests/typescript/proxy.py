"""A reverse proxy: what goes to a server in another process can be logged on its way, as any ASGI application's."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import anyio
import httpx

# They belong to one connection, not to the message.
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"host", b"content-length"})


class Proxy:
    """An ASGI application that passes requests on to ``target``, and answers back as they come."""

    def __init__(self, target: str) -> None:
        self._client = httpx.AsyncClient(base_url=target, timeout=None, trust_env=False)
        self._under_way = 0

    async def __aenter__(self) -> Proxy:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        self._under_way += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._cancel_when_left, receive, tasks.cancel_scope)
                await self._forward(scope, body, send)
                tasks.cancel_scope.cancel()
        finally:
            self._under_way -= 1

    async def drained(self) -> None:
        """All requests have ended; those that the client left a little after it did."""
        with anyio.fail_after(10):
            while self._under_way:
                await anyio.sleep(0.01)

    async def _cancel_when_left(self, receive: Any, cancel_scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel_scope.cancel()

    async def _forward(self, scope: MutableMapping[str, Any], body: bytes, send: Any) -> None:
        url = httpx.URL(path=scope["path"], query=scope["query_string"])
        request = self._client.build_request(scope["method"], url, headers=_kept(scope["headers"]), content=body)
        response = await self._client.send(request, stream=True)
        try:
            headers = _kept(response.headers.raw)
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            async for chunk in response.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()


def _kept(headers: Any) -> list[tuple[bytes, bytes]]:
    # What httpx would add by itself is not the client's: it is replaced by what the client sent.
    return [(name.lower(), value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
