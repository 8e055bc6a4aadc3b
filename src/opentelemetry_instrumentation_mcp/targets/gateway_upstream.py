"""The gateway's call to an upstream MCP server: get a session, send one request, get its answer.

``mcp.client.call`` is the whole, ``mcp.client.initialize`` lasts until the session can be used, ``mcp.client.request``
is around the request and ``mcp.client.response`` says that an answer came, and whether it is a success.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

from ..guard import contained
from ..hooks import Around
from ..internal import Internal, begin
from ..message import CANCELLED, SUCCESS, Outcome, is_cancellation
from ..operation import attached, detached, traced
from ..telemetry import Telemetry
from .arguments import argument
from .gateway_facts import outcome_of, request_facts, stands_down

CALL: Final = "mcp.client.call"
INITIALIZE: Final = "mcp.client.initialize"
REQUEST: Final = "mcp.client.request"
RESPONSE: Final = "mcp.client.response"
PARTS: Final = frozenset({INITIALIZE, REQUEST, RESPONSE})

TRANSPORT: Final = "contextforge.transport"
GATEWAY_ID: Final = "contextforge.gateway_id"
RUNTIME: Final = "contextforge.runtime"
POOLED: Final = "contextforge.session.pooled"
TOOL: Final = "mcp.tool.name"
SUCCEEDED: Final = "upstream.response.success"

# Of what the gateway says about a call, what is told; `network.protocol.name` it gets wrong.
TOLD: Final = frozenset({TOOL, "contextforge.tool.id", GATEWAY_ID, RUNTIME, TRANSPORT, "server.address", "server.port"})
# What the parts of a call have from the whole.
_SHARED: Final = frozenset({TOOL, "contextforge.tool.id", GATEWAY_ID, RUNTIME, TRANSPORT})


class UpstreamCall:
    """One call in progress."""

    __slots__ = (
        "attributes",
        "cause",
        "facts",
        "failure",
        "handshake",
        "internal",
        "interrupted",
        "pooled",
        "telemetry",
    )

    def __init__(
        self, telemetry: Telemetry, internal: Internal, facts: Mapping[str, Any], attributes: Mapping[str, Any]
    ) -> None:
        self.telemetry = telemetry
        self.internal = internal
        self.facts = facts
        self.attributes = {key: value for key, value in attributes.items() if key in _SHARED}
        self.pooled = False
        self.handshake: Internal | None = self.part(INITIALIZE)
        self.interrupted: list[Internal] = []
        """Parts that were cancelled; only the end of the call tells by what."""
        self.cause: Outcome | None = None
        """Why an HTTP request of the call failed: who waits for its answer is only cancelled."""
        self.failure: Outcome | None = None
        """How the last part ended, if not well: the gateway may keep an exception to itself."""

    def part(self, name: str) -> Internal | None:
        """Begin a part of the call."""
        return begin(self.telemetry, name, {**self.facts, **self.attributes}, parent=self.internal.context)

    @contained("end a part of a call to an upstream server")
    def end_part(self, part: Internal, error: BaseException | None) -> None:
        """End a part, with what was raised in it."""
        if error is not None and is_cancellation(error):
            self.interrupted.append(part)
            self.failure = self.cause or CANCELLED
            return
        outcome = SUCCESS if error is None else outcome_of(error)
        self.failure = None if error is None else outcome
        part.settle(outcome)

    @contained("end a call to an upstream server")
    def end(self, error: BaseException | None) -> None:
        """End what of the call has not ended, with what was raised."""
        outcome = self.failure or SUCCESS if error is None else outcome_of(error)
        for part in (self.handshake, *self.interrupted):
            if part is not None:
                part.settle(outcome)
        self.internal.settle(outcome)


_call: ContextVar[UpstreamCall | None] = ContextVar("otel_mcp_upstream_call", default=None)


@contained("look for a call to an upstream server")
def _current() -> UpstreamCall | None:
    call = _call.get()
    return call if call is not None and not call.internal.settled else None


@contained("note why an HTTP request failed")
def note_failed_request(error: BaseException) -> None:
    """An HTTP request ended with ``error``; it may be one of a call."""
    call = _current()
    if call is not None and not is_cancellation(error):
        call.cause = outcome_of(error)


def is_calling() -> bool:
    """Whether there is a call whose parts are seen here."""
    return _current() is not None


def address(url: Any) -> dict[str, Any]:
    """Where the server of a URL is. The rest of the URL may be secret; some hosts put a key into the path."""
    if not isinstance(url, str) or "://" not in url:
        return {}
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return {"server.address": parts.hostname, "server.port": port}


@contained("begin a call to an upstream server")
def _start(telemetry: Telemetry, attributes: Mapping[str, Any]) -> UpstreamCall | None:
    told = {RUNTIME: "python", **attributes}
    facts = request_facts(telemetry)
    internal = begin(telemetry, CALL, {**facts, **told})
    return UpstreamCall(telemetry, internal, facts, told) if internal is not None else None


def in_call(telemetry: Telemetry, attributes: Mapping[str, Any]) -> Any:
    """A context manager that is a call to an upstream server."""
    return contextmanager(_calling)(_start(telemetry, attributes))


def _calling(call: UpstreamCall | None) -> Generator[None, None, None]:
    if call is None:
        yield
        return
    token, attachment = _call.set(call), attached(call.internal.context)
    try:
        yield
    except GeneratorExit as error:
        call.end(error)
        raise
    except BaseException as error:
        _leave(token, attachment)
        call.internal.telemetry.telling.note_exception(call.internal, error)
        call.end(error)
        raise
    _leave(token, attachment)
    call.end(None)


@contained("leave a call to an upstream server")
def _leave(token: Any, attachment: Any) -> None:
    detached(attachment)
    with suppress(ValueError):
        _call.reset(token)


def _loaded(record: Any) -> dict[str, Any]:
    """What is there of a database record; asking the record itself could make it ask the database."""
    return dict(getattr(record, "__dict__", None) or {})


def fetch_prompt(telemetry: Telemetry) -> Around:
    """``_fetch_gateway_prompt_result``: a prompt that an upstream server renders."""

    @contained("see a prompt being fetched")
    def start(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> UpstreamCall | None:
        if not telemetry.active or stands_down(telemetry):
            return None
        return _start(telemetry, describe(argument(args, kwargs, 0, "prompt")))

    def describe(prompt: Any) -> dict[str, Any]:
        loaded = _loaded(prompt)
        gateway = _loaded(loaded.get("gateway"))
        transport = "sse" if str(gateway.get("transport", "")).lower() == "sse" else "streamablehttp"
        gateway_id = loaded.get("gateway_id")
        known = {GATEWAY_ID: str(gateway_id) if gateway_id else None, TRANSPORT: transport}
        return {**known, **address(gateway.get("url"))}

    def build(fetch: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            with contextmanager(_calling)(start(args, kwargs)):
                return await fetch(self, *args, **kwargs)

        return method

    return Around(build)


# ----- the pool


def acquire_session(telemetry: Telemetry) -> Around:
    """``UpstreamSessionRegistry.acquire``: a session that serves all calls of one downstream session."""

    @contained("take a session from the pool")
    def begin_checkout(kwargs: Mapping[str, Any]) -> tuple[UpstreamCall, bool] | None:
        if not telemetry.active or stands_down(telemetry):
            return None
        open_call = _current()
        call = open_call or _start(telemetry, _of_checkout(kwargs))
        if call is None:
            return None
        call.pooled = True
        call.internal.tell({POOLED: True})
        return call, open_call is None

    def build(acquire: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., AsyncGenerator[Any, None]]:
        async def generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            session = asynccontextmanager(acquire)(*args, **kwargs)
            call, is_own = begin_checkout(kwargs) or (None, False)
            with contextmanager(_calling)(call if is_own else None):
                with _handshake(call):
                    value = await session.__aenter__()
                try:
                    yield value
                except BaseException as error:
                    if not await session.__aexit__(type(error), error, error.__traceback__):
                        raise
                else:
                    await session.__aexit__(None, None, None)

        return generator

    return Around(build)


def _of_checkout(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(getattr(kwargs.get("transport_type"), "value", "")).lower()
    known = {GATEWAY_ID: kwargs.get("gateway_id"), TRANSPORT: "sse" if kind == "sse" else "streamablehttp"}
    return {**known, **address(kwargs.get("url"))}


@contextmanager
def _handshake(call: UpstreamCall | None) -> Generator[None, None, None]:
    """Inside, the session of ``call`` is being made usable."""
    if call is None or call.handshake is None:
        yield
        return
    handshake, call.handshake = call.handshake, None
    attachment = attached(handshake.context)
    try:
        yield
    except GeneratorExit as error:
        call.end_part(handshake, error)
        raise
    except BaseException as error:
        detached(attachment)
        call.end_part(handshake, error)
        raise
    detached(attachment)
    call.end_part(handshake, None)


# ----- the session


def initialize(telemetry: Telemetry) -> Around:
    """``ClientSession.initialize`` in a call that has a session of its own."""

    def build(handshake: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            call = _current() if telemetry.active else None
            if call is None or call.pooled:
                return await handshake(self, *args, **kwargs)
            with _handshake(call):
                return await handshake(self, *args, **kwargs)

        return method

    return Around(build)


def _answered(call: UpstreamCall, *, success: bool) -> None:
    response = call.part(RESPONSE)
    if response is not None:
        response.tell({SUCCEEDED: success})
        response.settle()


def _failed(request: Internal, error: BaseException) -> None:
    call = _current()
    if call is None:
        request.settle(outcome_of(error))
        return
    call.end_part(request, error)
    if call.failure is not None and call.failure.status_code is not None:
        _answered(call, success=False)


def _request(telemetry: Telemetry, fails: Callable[[Any], bool], name_at: int | None = None) -> Around:
    """The wrapper of what sends the request that a call is for."""

    def start(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Internal | None:
        call = _current()
        if call is None:
            return None
        if name_at is not None:
            call.attributes.setdefault(TOOL, argument(args, kwargs, name_at, "name"))
            call.internal.tell({TOOL: call.attributes[TOOL]})
        return call.part(REQUEST)

    def read_result(request: Internal, result: Any) -> None:
        call = _current()
        if call is not None:
            call.end_part(request, None)
            _answered(call, success=not fails(result))

    return traced("see a request to an upstream server", start, read_result, _failed, telemetry)


def _is_error(result: Any) -> bool:
    return getattr(result, "isError", getattr(result, "is_error", False)) is True


def _never(_: Any) -> bool:
    return False


def call_tool(telemetry: Telemetry) -> Around:
    """``ClientSession.call_tool`` in a call."""
    return _request(telemetry, _is_error, 0)


def read_resource(telemetry: Telemetry) -> Around:
    """What sends ``resources/read``; its first argument is the session."""
    return _request(telemetry, _never)


def get_prompt(telemetry: Telemetry) -> Around:
    """What sends ``prompts/get``; its first argument is the session."""
    return _request(telemetry, _never)
