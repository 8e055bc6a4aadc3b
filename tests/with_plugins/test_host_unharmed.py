"""Our own code fails, at every place where it can: what a program with plugins sees is what it sees without us."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace

from support import plugin_framework as pf
from support import plugin_zoo as zoo
from support.breaking import Outcome, Work, break_each, described, dumped, harm, instrumented, listening, places_called
from support.plugin_framework import BLOCKS, IS_CPEX, IS_IGNORED, LOOKS_ON, framework, invoke, managing, plugin

pytestmark = pytest.mark.anyio

ABOVE = trace.NonRecordingSpan(trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1)))
ELSEWHERE = [{"server_ids": ["s2"]}]


def chains() -> list[list[dict[str, Any]]]:
    found = [
        [plugin("first", "modify"), plugin("off", conditions=ELSEWHERE), plugin("guard", "deny"), plugin("behind")],
        [plugin("raises", "raise_violation"), plugin("behind")],
        [plugin("ignored", "crash", **IS_IGNORED), plugin("watches", "deny", **LOOKS_ON), plugin("bad", "crash")],
        [plugin("outer", "call_another", other="inner"), plugin("inner", "warn")],
    ]
    if IS_CPEX:
        same = {"mode": "concurrent"}
        found += [
            [plugin("disabled", "crash", **{**BLOCKS, "on_error": "disable"}), plugin("first", mode="transform")],
            [plugin("slow", wait_for="never", **same), plugin("guard", "deny", **same), plugin("quick", **same)],
            [plugin("later", "crash", mode="fire_and_forget"), plugin("also later", mode="fire_and_forget")],
        ]
    return found


async def observed(call: Awaitable[Any]) -> Outcome:
    try:
        result = await call
        errors = await asyncio.gather(*getattr(result, "background_tasks", ()))
        seen = dumped(result)
        # How long each took is in there.
        seen.pop("executions", None)
        return ("result", seen, [dumped(error) for error in errors])
    except Exception as error:
        violation = getattr(error, "violation", None)
        return (*described(error), dumped(violation), type(error.__cause__).__name__)


async def in_process(folder: Path) -> list[Outcome]:
    zoo.gates["never"] = asyncio.Event()
    seen: list[Outcome] = []
    for plugins in chains():
        async with managing(folder, *plugins) as manager:
            for raising in (False, True):
                with trace.use_span(ABOVE):
                    before = otel_context.get_current()
                    seen.append(await observed(invoke(manager, raising=raising)))
                    assert otel_context.get_current() is before
    async with managing(folder, plugin("slow", "hang"), timeout=0.02) as manager:
        seen.append(await observed(invoke(manager)))
    async with managing(folder) as manager:
        seen.append(await observed(invoke(manager)))
    return seen


def external(module: str) -> Any:
    return importlib.import_module(f"{pf.PACKAGE}.external.{module}")


@asynccontextmanager
async def served(transport: str, config: Path, socket: str) -> AsyncIterator[Any]:
    """A plugin server in this process, and the plugin that calls it."""
    entry = pf.external("far")
    if transport == "unix":
        server = external("unix.server.server").UnixSocketPluginServer(str(config), socket)
        await server.start()
        stop: Callable[[], Awaitable[Any]] = server.stop
        entry["unix_socket"] = {"path": socket, "reconnect_attempts": 1}
        client = external("unix.client").UnixSocketExternalPlugin
    else:
        import grpc

        plugin_server = external("mcp.server.server").ExternalPluginServer(str(config))
        await plugin_server.initialize()
        grpc_server = grpc.aio.server()
        external("grpc.proto.plugin_service_pb2_grpc").add_PluginServiceServicer_to_server(
            external("grpc.server.server").GrpcPluginServicer(plugin_server), grpc_server
        )
        entry["grpc"] = {"target": f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"}
        await grpc_server.start()

        async def stop_both() -> None:
            await grpc_server.stop(None)
            await plugin_server.shutdown()

        stop = stop_both
        client = external("grpc.client").GrpcExternalPlugin
    caller = client(framework.PluginConfig(**entry))
    try:
        await caller.initialize()
        yield caller
        await caller.shutdown()
    finally:
        await stop()


async def in_servers(folder: Path, transport: str) -> list[Outcome]:
    seen: list[Outcome] = []
    for do in ("reveal", "deny", "crash"):
        pf.reset()
        config = pf.configuration(folder, pf.numbered(plugin("far", do)))
        with tempfile.TemporaryDirectory(prefix="otel-mcp-") as sockets:
            async with served(transport, config, f"{sockets}/socket") as caller:
                context = framework.PluginContext(global_context=pf.global_context(), metadata={"k": "v"})
                with trace.use_span(ABOVE):
                    seen.append(await observed(caller.invoke_hook(pf.PRE, pf.payload(), context)))
                seen.append(("context", dumped(context)))
    pf.reset()
    return seen


async def nothing_harms(run: Work, at_least: int, *prefixes: str) -> None:
    with listening() as log:
        without = await run(), log.host
    with listening() as log:
        assert harm(without, await run(), log) == []
    with listening() as log, instrumented():
        assert harm(without, await run(), log) == []
    assert log.ours == []
    places = [place for place in await places_called(run) if place.label.startswith(prefixes)]
    assert len(places) >= at_least, [place.label for place in places]
    harmed = await break_each(without, run, places)
    assert not harmed, "\n".join(harmed)


async def test_every_function_of_ours_fails(tmp_path: Path) -> None:
    await nothing_harms(partial(in_process, tmp_path), 20, "targets.plugins.", "targets.plugins_facts.", "internal.")


@pytest.mark.skipif(not pf.HAS_TRANSPORTS, reason="this framework knows plugins in other processes over MCP only")
@pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="needs grpcio and its messages")
@pytest.mark.parametrize("transport", ["grpc", "unix"])
async def test_every_function_of_ours_fails_on_the_way_to_a_server(tmp_path: Path, transport: str) -> None:
    await nothing_harms(partial(in_servers, tmp_path, transport), 5, "targets.plugins_external.", "relay.")
