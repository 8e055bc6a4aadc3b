"""What the ContextForge gateway does for one message: calls a tool or an agent, reads a resource, renders a prompt.

Where the gateway opens a span of its own, ours takes its place with its attributes, whether its tracing is on or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Final

from ..guard import contained
from ..hooks import Around
from ..internal import Internal, begin
from ..message import SUCCESS, TOOL_ERROR, Outcome
from ..operation import traced
from ..telemetry import Telemetry
from . import gateway_upstream as upstream
from .arguments import argument, leading
from .gateway_facts import outcome_of, request_facts, stands_down

TOOL_INVOKE: Final = "tool.invoke"
RESOURCE_READ: Final = "resource.read"
PROMPT_RENDER: Final = "prompt.render"
AGENT_INVOKE: Final = "a2a.invoke"

TOOL_NAME: Final = "tool.name"
INTEGRATION_TYPE: Final = "tool.integration_type"
GATEWAY_ID: Final = "contextforge.gateway_id"
RUNTIME: Final = "contextforge.runtime"
ATTEMPTS: Final = "contextforge.attempts"
RESOURCE_URI: Final = "resource.uri"
PROMPT_ID: Final = "prompt.id"
AGENT_NAME: Final = "a2a.agent.name"
SUCCEEDED: Final = "success"
DURATION: Final = "duration.ms"

# Of what the gateway's own spans tell, what ours take over. Who asked is the identity option's business.
_TOLD: Final = frozenset(
    {
        TOOL_NAME,
        "tool.id",
        INTEGRATION_TYPE,
        "tool.gateway_id",
        "arguments_count",
        "has_headers",
        "server_id",
        "resource.id",
        "resource.name",
        "resource.type",
        PROMPT_ID,
        AGENT_NAME,
        "a2a.agent.id",
        "a2a.agent.type",
        "a2a.interaction_type",
    }
)
# The gateway's own parts of a call: what is in them has spans, and theirs say OK of calls that failed.
_PARTS_OF_TOOL_CALL: Final = frozenset({"tool.lookup", "tool.gateway_call", "tool.post_process"})
_UNKNOWN: Final = frozenset({"unknown", "none"})


class Work:
    """One span of the gateway in progress, and what is known of it at its end only."""

    __slots__ = ("attempts", "internal", "name", "started")

    def __init__(self, name: str, internal: Internal) -> None:
        self.name = name
        self.internal = internal
        self.attempts = 1
        self.started = perf_counter()


_work: ContextVar[Work | None] = ContextVar("otel_mcp_gateway_work", default=None)


def current_work() -> Work | None:
    """What the gateway is doing in this context, if it is not done."""
    work = _work.get()
    return work if work is not None and not work.internal.settled else None


def is_at_work() -> bool:
    """Whether the current span is that of such work itself: not of a plugin, and not of a call to an MCP server."""
    work = current_work()
    return work is not None and work.internal.is_current()


Describe = Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]
ReadResult = Callable[[Any], bool]


def _end(work: Work | None, outcome: Outcome) -> Outcome:
    if work is not None:
        told: dict[str, Any] = {SUCCEEDED: outcome is SUCCESS}
        told[DURATION] = round((perf_counter() - work.started) * 1000, 3)
        if work.name == TOOL_INVOKE:
            told[ATTEMPTS] = work.attempts
        work.internal.tell(told)
    return outcome


def _working(name: str, describe: Describe, failed: ReadResult = lambda _: False) -> Callable[[Telemetry], Any]:
    """The factory of a wrapper that puts the span ``name`` around a method of a service.

    Args:
        describe: the attributes that the arguments (without ``self``) tell.
        failed: whether what the method returned says that the work failed.
    """

    def factory(telemetry: Telemetry) -> Around:
        telemetry.keep_baggage()

        def start(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Internal | None:
            if stands_down(telemetry):
                return None
            internal = begin(telemetry, name, {**request_facts(telemetry), RUNTIME: "python", **describe(args, kwargs)})
            if internal is not None:
                _work.set(Work(name, internal))
            return internal

        def read_result(_: Internal, result: Any) -> Outcome:
            return _end(_work.get(), TOOL_ERROR if failed(result) else SUCCESS)

        def read_error(_: Internal, error: BaseException) -> Outcome:
            return _end(_work.get(), outcome_of(error))

        return _scoped(traced(f"begin {name}", start, read_result, read_error, telemetry))

    return factory


def _scoped(spanned: Around) -> Around:
    """``spanned``, whose work is that of one call only; another attempt at it is no work of its own."""

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        method = spanned.build(call)

        async def scoped(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("retry_attempt"):
                _count_attempt()
                return await call(self, *args, **kwargs)
            token = _work.set(_work.get())
            try:
                return await method(self, *args, **kwargs)
            finally:
                _reset(token)

        return scoped

    return Around(build)


@contained("count an attempt")
def _count_attempt() -> None:
    work = current_work()
    if work is not None:
        work.attempts += 1


@contained("leave what the gateway does")
def _reset(token: Any) -> None:
    with suppress(ValueError):  # an abandoned coroutine is closed in a foreign context
        _work.reset(token)


def _is_error(result: Any) -> bool:
    flag = getattr(result, "is_error", None)
    return (getattr(result, "isError", None) if flag is None else flag) is True


def _of_tool(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {TOOL_NAME: argument(args, kwargs, 1, "name"), "server_id": kwargs.get("server_id")}


def _of_direct_tool(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    gateway_id, name = leading(args, kwargs, "gateway_id", "name")
    return {TOOL_NAME: name, GATEWAY_ID: gateway_id, INTEGRATION_TYPE: "MCP"}


def _of_agent(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {AGENT_NAME: argument(args, kwargs, 1, "agent_name")}


def _of_server(_: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"server_id": kwargs.get("server_id")}


invoke_tool = _working(TOOL_INVOKE, _of_tool, _is_error)
invoke_tool_direct = _working(TOOL_INVOKE, _of_direct_tool, _is_error)
read_resource = _working(RESOURCE_READ, _of_server)
get_prompt = _working(PROMPT_RENDER, _of_server)
invoke_agent = _working(AGENT_INVOKE, _of_agent)


def create_span(telemetry: Telemetry) -> Any:
    """``create_span``, by which the gateway opens all of its spans; with its tracing off it makes none."""

    @contained("take the place of a span of the gateway")
    def replacement(name: Any, attributes: Mapping[str, Any]) -> Any:
        if not telemetry.records() or stands_down(telemetry):
            return None
        if name == upstream.CALL:
            return upstream.in_call(telemetry, _of_upstream(attributes))
        if name == "mcp.initialize" or (name in upstream.PARTS and upstream.is_calling()):
            return nullcontext()  # the message, or the call, has its span
        work = current_work()
        if work is None or name in _PARTS_OF_TOOL_CALL:
            return nullcontext() if work is not None else None
        return _part_of(telemetry, work, attributes) if work.name == name else None

    def wrapper(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, attributes = leading(args, kwargs, "name", "attributes")
        ours = replacement(name, attributes or {})
        return wrapped(*args, **kwargs) if ours is None else ours

    return wrapper


def _part_of(telemetry: Telemetry, work: Work, attributes: Mapping[str, Any]) -> Any:
    """What takes the place of the gateway's span of ``work``; a second one is around the call to an upstream server."""
    if "gateway.transport" in attributes:
        return upstream.in_call(telemetry, _of_resource_upstream(attributes))
    work.internal.tell(_of_work(telemetry, attributes))
    return nullcontext()


def _of_work(telemetry: Telemetry, attributes: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: _scalar(attributes[key]) for key in _TOLD if key in attributes}
    told[GATEWAY_ID] = told.get("tool.gateway_id")
    uri = attributes.get(RESOURCE_URI)
    if isinstance(uri, str) and uri not in _UNKNOWN:
        told[RESOURCE_URI] = telemetry.telling.shown_uri(uri)
    return {**told, **upstream.address(attributes.get("a2a.agent.url"))}


def _of_upstream(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _scalar(value) for key, value in attributes.items() if key in upstream.TOLD}


def _of_resource_upstream(attributes: Mapping[str, Any]) -> dict[str, Any]:
    transport = str(attributes["gateway.transport"]).lower()
    return {
        upstream.TRANSPORT: "sse" if transport == "sse" else "streamablehttp",
        **upstream.address(attributes.get("gateway.url")),
    }


def _scalar(value: Any) -> Any:
    is_told = isinstance(value, (bool, int, float, str)) and value != "" and value not in _UNKNOWN
    return value if is_told else None
