"""A log of the JSON-RPC messages that really went over a transport, kept without the instrumentation's help.

Taps: ``tap_streams`` for memory streams, ``WireLogASGI`` for HTTP and WebSocket servers, the script
``stdio_tee.py`` with ``read_stdio_log`` for child processes. Tap one hop at one place, or its messages are
counted twice.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Direction = Literal["client->server", "server->client"]
Kind = Literal["request", "notification", "response", "error", "malformed"]

TO_SERVER: Direction = "client->server"
TO_CLIENT: Direction = "server->client"

STDIO_TEE = Path(__file__).with_name("stdio_tee.py")


@dataclass(frozen=True, eq=False)
class WireMessage:
    """One JSON-RPC message. Two messages are never equal, however alike: each of them wants its own spans."""

    direction: Direction
    kind: Kind
    method: str
    """Empty for answers."""
    id: Any
    raw: Mapping[str, Any]
    headers: Mapping[str, str] | None = None
    """The HTTP headers it came with, names in lower case; None if the transport has none."""

    @property
    def is_call(self) -> bool:
        """A request or a notification: what spans are about."""
        return self.kind in ("request", "notification")

    @property
    def params(self) -> Mapping[str, Any]:
        params = self.raw.get("params")
        return params if isinstance(params, Mapping) else {}

    @property
    def meta(self) -> Mapping[str, Any]:
        meta = self.params.get("_meta")
        return meta if isinstance(meta, Mapping) else {}

    def __str__(self) -> str:
        what = self.method or (self.kind if self.kind != "malformed" else repr(self.raw)[:80])
        return f"{self.direction} {self.kind} {what}" + ("" if self.id is None else f" #{self.id}")


class WireLog:
    """The messages in the order in which they were sent. Safe to add to from several threads."""

    def __init__(self, messages: Iterable[WireMessage] = ()) -> None:
        self._messages = list(messages)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[WireMessage]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        return "WireLog(\n" + "".join(f"  {message}\n" for message in self) + ")"

    @property
    def messages(self) -> list[WireMessage]:
        with self._lock:
            return list(self._messages)

    def select(
        self, *, direction: Direction | None = None, kind: Kind | None = None, method: str | None = None
    ) -> list[WireMessage]:
        return [
            message
            for message in self
            if direction in (None, message.direction)
            and kind in (None, message.kind)
            and method in (None, message.method)
        ]

    @property
    def calls(self) -> list[WireMessage]:
        """The requests and notifications."""
        return [message for message in self if message.is_call]

    @property
    def malformed(self) -> list[WireMessage]:
        return self.select(kind="malformed")

    def add(self, direction: Direction, payload: Any, headers: Mapping[str, str] | None = None) -> list[WireMessage]:
        """Log a decoded JSON document: a message, or a batch of them."""
        documents = payload if isinstance(payload, list) and payload else [payload]
        added = [_classify(direction, document, headers) for document in documents]
        with self._lock:
            self._messages += added
        return added

    def add_text(
        self, direction: Direction, text: str | bytes, headers: Mapping[str, str] | None = None
    ) -> list[WireMessage]:
        """Log a JSON text; one that is none is logged as malformed."""
        try:
            payload = json.loads(text)
        except ValueError:
            payload = text if isinstance(text, str) else text.decode(errors="replace")
        return self.add(direction, payload, headers)

    def discard(self, messages: Iterable[WireMessage]) -> None:
        """Take messages back that could not be sent."""
        gone = set(messages)
        with self._lock:
            self._messages = [message for message in self._messages if message not in gone]

    def clear(self) -> None:
        with self._lock:
            self._messages.clear()


def _classify(direction: Direction, raw: Any, headers: Mapping[str, str] | None) -> WireMessage:
    kind: Kind = "malformed"
    if not isinstance(raw, Mapping):
        return WireMessage(direction, kind, "", None, {"": raw}, headers)
    method = raw.get("method")
    if isinstance(method, str):
        kind = "request" if "id" in raw else "notification"
    elif "error" in raw:
        kind = "error"
    elif "result" in raw:
        kind = "response"
    return WireMessage(direction, kind, method if isinstance(method, str) else "", raw.get("id"), raw, headers)


# --- memory streams -----------------------------------------------------------------------------------------


def tap_streams(
    log: WireLog, read: Any, write: Any, *, side: Literal["client", "server"] = "client"
) -> tuple[Any, Any]:
    """The stream pair of one side of a session, with every message that passes logged.

    The streams are wrapped where they are rather than relayed through further ones: no task, no buffer, and
    the context of the sender goes on to the receiver exactly as far as the streams beneath carry it.
    """
    if side == "client":
        return _TappedReceive(log, read, TO_CLIENT), _TappedSend(log, write, TO_SERVER)
    return _TappedReceive(log, read, TO_SERVER), _TappedSend(log, write, TO_CLIENT)


def message_dict(session_message: Any) -> dict[str, Any]:
    """The JSON of a ``SessionMessage``: mcp 1.x keeps the model in a root model, 2.x has it directly."""
    message = session_message.message
    if hasattr(message, "root"):
        dumped: dict[str, Any] = message.root.model_dump(by_alias=True, mode="json", exclude_none=True)
    else:
        dumped = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
    return dumped


class _Tapped:
    def __init__(self, log: WireLog, inner: Any, direction: Direction) -> None:
        self._log = log
        self._stream = inner
        self._direction: Direction = direction

    def __getattr__(self, name: str) -> Any:
        # ``last_context`` of mcp 2.x among others.
        return getattr(self._stream, name)

    def clone(self) -> Any:
        return type(self)(self._log, self._stream.clone(), self._direction)

    async def __aenter__(self) -> Any:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> Any:
        return await self._stream.__aexit__(*exc_info)

    def _record(self, item: Any) -> list[WireMessage]:
        # A transport also passes on exceptions of its own; they were never on the wire.
        return [] if isinstance(item, Exception) else self._log.add(self._direction, message_dict(item))


class _TappedSend(_Tapped):
    async def send(self, item: Any) -> None:
        # Logged first: the answer may be there before this task goes on.
        logged = self._record(item)
        try:
            await self._stream.send(item)
        except BaseException:
            self._log.discard(logged)
            raise

    def send_nowait(self, item: Any) -> None:
        self._stream.send_nowait(item)
        self._record(item)


class _TappedReceive(_Tapped):
    async def receive(self) -> Any:
        item = await self._stream.receive()
        self._record(item)
        return item

    def receive_nowait(self) -> Any:
        item = self._stream.receive_nowait()
        self._record(item)
        return item

    def __aiter__(self) -> _TappedReceive:
        return self

    async def __anext__(self) -> Any:
        item = await self._stream.__anext__()
        self._record(item)
        return item


# --- HTTP ---------------------------------------------------------------------------------------------------

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class WireLogASGI:
    """ASGI middleware that logs the messages of streamable HTTP, of SSE and of WebSocket.

    Every event is passed on at once and as it is. Put it directly around the MCP application: compressed
    bodies are not read. ``paths`` limits it to some paths, where other ones exchange JSON too.
    """

    def __init__(self, app: App, log: WireLog, *, paths: Sequence[str] | None = None) -> None:
        self.app = app
        self.log = log
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or (self.paths is not None and scope["path"] not in self.paths):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            request, response = _HttpRequest(self.log, scope), _HttpResponse(self.log)
            await self.app(scope, request.tap(receive), response.tap(send))
        else:
            headers = _headers(scope.get("headers", ()))
            await self.app(
                scope,
                _tap_websocket_receive(self.log, headers, receive),
                _tap_websocket_send(self.log, send),
            )


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"


class _HttpRequest:
    def __init__(self, log: WireLog, scope: Scope) -> None:
        self._log = log
        self._headers = _headers(scope.get("headers", ()))
        self._wanted = scope["method"] == "POST" and _is_json(self._headers)
        self._body = bytearray()

    def tap(self, receive: Receive) -> Receive:
        async def tapped() -> Event:
            event = await receive()
            if self._wanted and event["type"] == "http.request":
                self._body += event.get("body", b"")
                if not event.get("more_body", False):
                    self._wanted = False
                    self._log.add_text(TO_SERVER, bytes(self._body), self._headers)
            return event

        return tapped


class _HttpResponse:
    def __init__(self, log: WireLog) -> None:
        self._log = log
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._events: SseParser | None = None

    def tap(self, send: Send) -> Send:
        async def tapped(event: Event) -> None:
            if event["type"] == "http.response.start":
                self._headers = _headers(event.get("headers", ()))
                if self._headers.get("content-type", "").lower().startswith("text/event-stream"):
                    self._events = SseParser()
            elif event["type"] == "http.response.body":
                self._read(event.get("body", b""), last=not event.get("more_body", False))
            await send(event)

        return tapped

    def _read(self, body: bytes, last: bool) -> None:
        if self._events is not None:
            for data in self._events.feed(body):
                self._log.add_text(TO_CLIENT, data, self._headers)
        elif _is_json(self._headers):
            self._body += body
            if last and self._body:
                self._log.add_text(TO_CLIENT, bytes(self._body), self._headers)


class SseParser:
    """Takes a stream of server-sent events in pieces of any size and gives the data of its messages.

    Events of other types (the ``endpoint`` of the SSE transport) and those without data (priming events) are
    no messages.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._data: list[bytes] = []
        self._type = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        # A CR ends a line at once; if it was half of a CRLF, the other half comes now.
        if self._after_cr and chunk.startswith(b"\n"):
            chunk, self._after_cr = chunk[1:], False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        buffer = (self._rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._rest = buffer.split(b"\n")
        for line in lines:
            yield from self._line(line)

    def _line(self, line: bytes) -> Iterator[str]:
        if not line:
            if any(self._data) and self._type in (b"", b"message"):
                yield b"\n".join(self._data).decode(errors="replace")
            self._data, self._type = [], b""
            return
        name, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value


def _tap_websocket_receive(log: WireLog, headers: Mapping[str, str], receive: Receive) -> Receive:
    async def tapped() -> Event:
        event = await receive()
        if event["type"] == "websocket.receive":
            log.add_text(TO_SERVER, _frame(event), headers)
        return event

    return tapped


def _tap_websocket_send(log: WireLog, send: Send) -> Send:
    async def tapped(event: Event) -> None:
        if event["type"] == "websocket.send":
            log.add_text(TO_CLIENT, _frame(event), {})
        await send(event)

    return tapped


def _frame(event: Event) -> str | bytes:
    text: str | None = event.get("text")
    data: bytes = event.get("bytes") or b""
    return data if text is None else text


# --- stdio --------------------------------------------------------------------------------------------------


def tee_command(log_file: str | os.PathLike[str], *command: str) -> list[str]:
    """The command that runs ``command`` with its stdin and stdout written to ``log_file`` as well."""
    return [sys.executable, str(STDIO_TEE), os.fspath(log_file), "--", *command]


def read_stdio_log(log_file: str | os.PathLike[str]) -> WireLog:
    """The messages that ``stdio_tee.py`` wrote down so far."""
    log = WireLog()
    path = Path(log_file)
    # A line without its end is still being written.
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        entry = json.loads(line)
        if entry["line"].strip():
            log.add_text(entry["direction"], entry["line"])
    return log
