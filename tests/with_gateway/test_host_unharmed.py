"""Our own code fails, at every place where it can: what a client of the gateway sees is what it sees without us."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from opentelemetry.sdk.trace import TracerProvider

from support.breaking import Log, Outcome, break_each, harm, instrumented, listening, places_called
from support.gateway import INITIALIZED, Events, Gateway, Reply, furnished, request, upstreams

pytestmark = [
    pytest.mark.anyio,
    # What the gateway and its dependencies warn of in this process is theirs.
    pytest.mark.filterwarnings("ignore"),
]


class InThisProcess(Gateway):
    """A gateway in a thread of this process, where our functions can be replaced."""

    def __enter__(self) -> InThisProcess:
        os.environ.update({name: value for name, value in self._env.items() if os.environ.get(name) != value})
        from mcpgateway.main import app

        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_config=None, ws="websockets")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._server.serve(),), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 120
        while not self._server.started:
            assert self._thread.is_alive() and time.monotonic() < deadline, "the gateway did not start"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)


@pytest.fixture(scope="module")
def here(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = dict(os.environ)
    settings = {"USE_STATEFUL_SESSIONS": "true", "LOG_LEVEL": "CRITICAL"}
    try:
        gateway = InThisProcess(tmp_path_factory.mktemp("here"), database, None, service_name="here", env=settings)
        # Calls without us would be traces of their own in the servers of the other tests.
        with upstreams(tmp_path_factory.mktemp("behind"), None) as behind, furnished(gateway, behind):
            yield gateway
    finally:
        # What the gateway leaves open is closed now, and not in the middle of another test.
        gc.collect()
        os.environ.clear()
        os.environ.update(environment)


def seen_of(step: str, reply: Reply) -> Outcome:
    """A reply without what differs from one run to the next."""
    message: dict[str, Any] = dict(reply.message or {})
    message.pop("id", None)
    return (step, reply.status, repr(message))


OF_GATEWAY = re.compile(r"gateway|http_root|relay")
ADD = {"name": "up-add", "arguments": {"a": 1, "b": 2}}
MESSAGES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "/rpc": (
        ("tools/call", ADD),
        ("tools/call", {"name": "up-echo", "arguments": {"text": "forbidden"}}),
        ("tools/call", {"name": "rest-ok", "arguments": {"q": "x"}}),
        ("tools/call", {"name": "down-add", "arguments": {"a": 1, "b": 2}}),
        ("prompts/get", {"name": "up-ask", "arguments": {"topic": "t"}}),
    ),
    "/mcp": (("tools/call", ADD), ("no/such", {})),
}


def of_entry(gateway: Gateway, entry: str) -> list[Outcome]:
    seen: list[Outcome] = []
    headers = gateway.open_session(entry) if entry == "/mcp" else {}
    for method, params in MESSAGES[entry]:
        reply = gateway.post(entry, request(method, params), headers)
        seen.append(seen_of(f"{entry} {method} {params.get('name')}", reply))
    return seen


def of_agent(gateway: Gateway) -> list[Outcome]:
    agent = {"parameters": {"query": "hello"}, "interaction_type": "query"}
    return [seen_of("agent", gateway.post("/a2a/ag1/invoke", agent))]


def of_events(gateway: Gateway) -> list[Outcome]:
    with Events(gateway) as events:
        seen = [seen_of("sse", events.call("tools/call", ADD))]
        events.post(INITIALIZED)
    return seen


PARTS: tuple[Callable[[Gateway], list[Outcome]], ...] = (
    partial(of_entry, entry="/rpc"),
    partial(of_entry, entry="/mcp"),
    of_agent,
    of_events,
)


async def test_every_function_of_ours_fails(here: Gateway) -> None:
    tried: set[str] = set()
    for part in PARTS:

        async def run(part: Callable[[Gateway], list[Outcome]] = part) -> list[Outcome]:
            return await anyio.to_thread.run_sync(part, here)

        without: tuple[list[Outcome], list[Any]] = (await run(), [])
        assert harm(without, await run(), Log()) == []
        with listening() as log, instrumented():
            assert harm(without, await run(), Log(ours=log.ours)) == []
        called = [place for place in await places_called(run) if OF_GATEWAY.search(place.label)]
        # What one part calls, the others need not try once more.
        places = [place for place in called if place.label not in tried]
        tried.update(place.label for place in places)
        harmed = await break_each(without, run, places, False)
        assert not harmed, "\n".join(harmed)
    assert len(tried) > 70


async def test_a_plan_of_the_rust_runtime_carries_no_context(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cached: the context in it would be that of the request that made it, for all that follow."""
    from mcpgateway.db import SessionLocal
    from mcpgateway.main import tool_service

    async def no_plugins(*_: Any) -> None:
        """With plugins after the call, there are no plans."""

    async def plan() -> dict[str, Any]:
        with SessionLocal() as db:
            return await tool_service.prepare_rust_mcp_tool_execution(
                db=db, name="up-add", arguments={}, request_headers={}, user_email=None, token_teams=None
            )

    monkeypatch.setattr(tool_service, "_get_plugin_manager", no_plugins)
    with TracerProvider().get_tracer("test").start_as_current_span("request"):
        without = await plan()
        assert without["eligible"] and "traceparent" in without["headers"]
        with instrumented():
            with_us = await plan()
    assert with_us == {**without, "headers": {k: v for k, v in without["headers"].items() if k != "traceparent"}}
