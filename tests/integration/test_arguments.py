"""Every wrapper hands on what the host passed, as it was passed, and gives back the very object that came back."""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import baggage, context, trace

from conftest import Instrument, Recorder
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from opentelemetry_instrumentation_mcp.hooks import CONTEXT_MANAGER, Target
from opentelemetry_instrumentation_mcp.targets import TARGETS
from support import sdk

pytestmark = pytest.mark.anyio

# These put ours in the place of the library's own telemetry, and do not call it.
REPLACED = {"otel_span", "inject_trace_context", "OpenTelemetryMiddleware.__call__"}


# --- every wrapper, with arguments it can make nothing of ----------------------------------------------------


def place_of(target: Target) -> tuple[Any, str] | None:
    """Where the library keeps the function that a target wraps, None if this version has no such thing."""
    try:
        module = importlib.import_module(target.module)
    except ImportError:
        return None
    for path in target.attribute.split("|"):
        owner: Any = module
        *owners, name = path.split(".")
        for part in owners:
            owner = getattr(owner, part, None)
        if owner is not None and hasattr(owner, name):
            return owner, name
    return None


def is_for_this_sdk(target: Target) -> bool:
    return target.major in (None, sdk.VERSION[0]) and place_of(target) is not None


METHODS = [
    target
    for target in TARGETS
    if target.how != CONTEXT_MANAGER and target.attribute not in REPLACED and is_for_this_sdk(target)
]
CONTEXT_MANAGERS = [target for target in TARGETS if target.how == CONTEXT_MANAGER and is_for_this_sdk(target)]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Anything:
    """An object like any other, without a single attribute that a wrapper may hope for."""

    __slots__ = ()


def parameters_of(function: Any) -> list[str]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind in positional][1:]


def ways_to_call(names: list[str]) -> Iterator[Arguments]:
    values = [Anything() for _ in names]
    yield tuple(values), {}
    yield (), dict(zip(names, values, strict=True))
    yield tuple(values[:1]), dict(zip(names[1:], values[1:], strict=True))
    yield (*values, Anything(), None), {"unheard_of": Anything(), "_private": 7}
    yield (), {}


class Stub:
    """Stands where the library's function was; keeps what it was called with."""

    def __init__(self, original: Any) -> None:
        self.calls: list[tuple[Any, Arguments]] = []
        self.outcome: Any = None

        def answer(instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            self.calls.append((instance, (args, kwargs)))
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        if inspect.iscoroutinefunction(original):

            async def coroutine(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
                await anyio.lowlevel.checkpoint()
                return answer(instance, args, kwargs)

            self.function: Callable[..., Any] = coroutine
        else:

            def function(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
                return answer(instance, args, kwargs)

            self.function = function


class HostError(Exception):
    pass


def identity(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: id(value) for key, value in values.items()}
    return [id(value) for value in values]


@pytest.fixture
def tolerant_instrument(recorder: Recorder) -> Iterator[Callable[..., None]]:
    """Without the checks of ``instrument``: wrappers are handed nonsense here, of which they say so."""
    from opentelemetry_instrumentation_mcp import McpInstrumentor

    instrumentor = McpInstrumentor()

    def switch_on(**options: Any) -> None:
        instrumentor.instrument(
            tracer_provider=recorder.tracer_provider,
            meter_provider=recorder.meter_provider,
            skip_dep_check=True,
            **options,
        )

    yield switch_on
    instrumentor.uninstrument()
    # What was begun for nonsense ends with it, here and not in the next test.
    gc.collect()


OUTCOMES = (Anything(), None, {"isError": True}, HostError("mine"), KeyError(0))


@pytest.mark.parametrize("target", METHODS, ids=lambda target: target.attribute.partition("|")[0])
async def test_wrappers_are_transparent(
    target: Target, tolerant_instrument: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(target)
    assert place is not None
    owner, name = place
    original = getattr(owner, name)
    stub = Stub(original)
    monkeypatch.setattr(owner, name, stub.function)
    tolerant_instrument(stdio_children="on")
    assert vars(owner)[name] is not stub.function, "not wrapped"
    current = context.get_current()
    instance = object.__new__(owner) if isinstance(owner, type) else Anything()
    function = getattr(instance, name) if isinstance(owner, type) else partial(getattr(owner, name), instance)
    for outcome in OUTCOMES:
        stub.outcome = outcome
        for args, kwargs in ways_to_call(parameters_of(original)):
            stub.calls.clear()
            try:
                result = function(*args, **kwargs)
                result = await result if inspect.iscoroutine(result) else result
            except (HostError, KeyError) as error:
                result = error
                assert (error.__context__, error.__cause__) == (None, None)
            assert result is outcome
            [(seen_instance, (seen_args, seen_kwargs))] = stub.calls
            assert seen_instance is instance
            assert identity(seen_args) == identity(args)
            assert identity(seen_kwargs) == identity(kwargs)
            assert context.get_current() is current


@pytest.mark.parametrize("target", METHODS + CONTEXT_MANAGERS, ids=lambda target: target.attribute.partition("|")[0])
async def test_wrappers_look_like_what_they_wrap(target: Target, tolerant_instrument: Callable[..., None]) -> None:
    place = place_of(target)
    assert place is not None

    def looks() -> list[Any]:
        function = getattr(*place)
        names = ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__")
        return [
            inspect.signature(function),
            inspect.iscoroutinefunction(function),
            inspect.isasyncgenfunction(function),
            callable(function),
            *(getattr(function, name) for name in names),
        ]

    before = looks()
    tolerant_instrument(stdio_children="on")
    assert looks() == before


# --- context managers of transports --------------------------------------------------------------------------


@pytest.mark.parametrize("target", CONTEXT_MANAGERS, ids=lambda target: target.attribute)
async def test_context_managers_pass_through(
    target: Target, tolerant_instrument: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they yield, what is thrown into them, and how they end, is the library's; also for names imported before."""
    place = place_of(target)
    assert place is not None
    seen: list[Any] = []
    yielded = (Anything(), Anything(), Anything())

    @asynccontextmanager
    async def stub(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        seen.append((identity(args), identity(kwargs), context.get_current()))
        try:
            yield yielded
        except HostError as error:
            seen.append(error)
            raise
        finally:
            seen.append("closed")

    monkeypatch.setattr(*place, stub)
    current = context.get_current()
    tolerant_instrument()
    argument, error = Anything(), HostError("mine")
    async with stub(argument, keyword=argument) as value:
        assert value is yielded
        assert context.get_current() is current, "nothing may be current across a yield"
    assert seen == [([id(argument)], {"keyword": id(argument)}, current), "closed"]
    seen.clear()
    with pytest.raises(HostError) as raised:
        async with stub():
            raise error
    assert raised.value is error
    assert seen == [([], {}, current), error, "closed"]
    with pytest.raises(RuntimeError, match="didn't stop"):

        @asynccontextmanager
        async def twice() -> AsyncIterator[Any]:
            yield 1
            yield 2

        async with twice():
            pass


# --- what hosts do with sessions -----------------------------------------------------------------------------


async def test_a_session_that_refuses_attributes(
    tolerant_instrument: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """We keep things on the library's objects; a host's subclass need not take them."""
    from mcp import ClientSession

    refused: list[str] = []

    class Strict(ClientSession):
        def __setattr__(self, name: str, value: Any) -> None:
            if "otel" in name:
                refused.append(name)
                raise AttributeError(name)
            super().__setattr__(name, value)

    tolerant_instrument()
    async with sdk.memory_streams(sdk.build_server()) as (read, write), Strict(read, write) as session:
        await session.initialize()
        result = await session.call_tool("add", {"a": 1, "b": 2})
    assert result.content[0].text == "3"
    assert refused
    warnings = [record.getMessage() for record in caplog.records if record.name == our_logger.name]
    assert len(set(warnings)) == len(warnings), "once for each place"


if not sdk.SDK2:

    async def test_subclass_of_the_server_session(instrumented: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        """As FastMCP 2 and 3 do: a subclass that handles some requests itself and hands on the rest, by keyword."""
        from mcp.server.lowlevel import server as module

        handled: list[str] = []

        class Session(module.ServerSession):
            async def _received_request(self, responder: Any) -> Any:
                handled.append(responder.request.root.method)
                return await super()._received_request(responder=responder)

            async def _received_notification(self, notification: Any) -> Any:
                handled.append(notification.root.method)
                return await super()._received_notification(notification=notification)

        monkeypatch.setattr(module, "ServerSession", Session)
        async with sdk.connect("memory") as peer:
            assert await peer.text("add", {"a": 1, "b": 2}) == "3"
            await peer.session.send_roots_list_changed()
            await anyio.sleep(0.05)
        assert {"initialize", "tools/call", "notifications/roots/list_changed"} <= set(handled)
        for name in ("initialize", "tools/call add", "notifications/roots/list_changed"):
            instrumented.one(name, "SERVER")
            instrumented.one(name, "CLIENT")


@pytest.mark.parametrize("transport", ["memory", "http", "stdio"])
async def test_create_message_by_keyword(instrumented: Recorder, transport: str) -> None:
    """Another instrumentation returned None from keyword calls, which broke sampling."""
    async with sdk.connect(transport) as peer:
        assert await peer.text("sample") == "sampled"
        assert [what for what, _ in peer.callbacks.seen if what == "sampling"] == ["sampling"]
    instrumented.one("sampling/createMessage", "SERVER")


async def test_callbacks_replaced_on_a_live_session(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:

        class Sampling:
            async def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return await peer.callbacks.sampling(*args, **kwargs)

        peer.session._sampling_callback = Sampling()
        assert await peer.text("sample") == "sampled"
        assert trace.get_current_span() is trace.INVALID_SPAN


# --- EXCLUDED_METHODS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["memory", "http", *(["direct"] if sdk.SDK2 else [])])
async def test_excluded_methods_are_silent_and_propagate(
    instrument: Instrument, recorder: Recorder, transport: str
) -> None:
    instrument(excluded_methods="tools/call,ping,notifications/progress,notifications/message")
    tracer = recorder.tracer()
    server = sdk.build_server()

    @server.tool()
    async def trace_a_child() -> str:
        with tracer.start_as_current_span("child of the handler"):
            return str(baggage.get_baggage("user.tier"))

    async with sdk.connect(transport, server=server) as peer:
        await peer.session.list_tools()
        recorder.clear()
        with tracer.start_as_current_span("agent") as agent:
            token = context.attach(baggage.set_baggage("user.tier", "gold"))
            assert await peer.text("trace_a_child") == "gold"
            context.detach(token)
            seen = await peer.handler_context()
            await peer.call("progress", progress=True)
            if transport != "direct":
                await peer.session.send_ping()
                await peer.call("ping_client")
            await peer.call("log")
            await anyio.sleep(0.05)
    child = recorder.one("child of the handler")
    caller = agent.get_span_context()
    assert child.parent is not None
    assert (child.parent.trace_id, child.parent.span_id) == (caller.trace_id, caller.span_id)
    assert seen["trace_id"] == f"{caller.trace_id:032x}"
    silent = {"tools/call", "ping", "notifications/progress", "notifications/message"}
    assert not [span.name for span in recorder.ours if (span.attributes or {})["mcp.method.name"] in silent]
    for name in ("mcp.client.operation.duration", "mcp.server.operation.duration"):
        assert not [point for point in recorder.points(name) if point.attributes["mcp.method.name"] in silent]


async def test_nothing_is_said_of_ordinary_use(instrumented: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, our_logger.name):
        async with sdk.connect("memory") as peer:
            await peer.call("add", {"a": 1, "b": 2})
    assert [record for record in caplog.records if record.name == our_logger.name] == []
