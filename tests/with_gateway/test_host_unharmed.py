"""Our own code fails, at every place where it can: what a client of the gateway sees is what it sees without us."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn

from support.breaking import Log, Outcome, break_each, harm, instrumented, listening, places_called
from support.gateway import Events, Gateway, Reply, Upstreams, furnished, initialize, prepare_database, request

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
def here(database: Path, behind: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = dict(os.environ)
    settings = {"USE_STATEFUL_SESSIONS": "true", "LOG_LEVEL": "CRITICAL"}
    try:
        gateway = InThisProcess(tmp_path_factory.mktemp("here"), database, None, service_name="here", env=settings)
        with furnished(gateway, behind):
            yield gateway
    finally:
        os.environ.clear()
        os.environ.update(environment)


def seen_of(step: str, reply: Reply) -> Outcome:
    """A reply without what differs from one run to the next."""
    message: dict[str, Any] = dict(reply.message or {})
    message.pop("id", None)
    return (step, reply.status, repr(message))


TOOLS = (
    ("up-add", {"a": 1, "b": 2}),
    ("up-fail", {"text": "boom"}),
    ("nobody-knows-this-tool", {}),
    ("up-echo", {"text": "forbidden"}),
    ("up-echo", {"text": "explosive"}),
    ("rest-ok", {"q": "x"}),
    ("a2a-ag1", {"query": "hello"}),
    ("down-add", {"a": 1, "b": 2}),
)


def work(gateway: Gateway) -> list[Outcome]:
    """What a client does and sees."""
    seen: list[Outcome] = []
    for entry in ("/rpc", "/mcp"):
        headers = gateway.open_session(entry) if entry == "/mcp" else {}
        for name, arguments in TOOLS:
            params = {"name": name, "arguments": arguments}
            seen.append(seen_of(f"{entry} {name}", gateway.post(entry, request("tools/call", params), headers)))
        for method, params in (
            ("tools/list", {}),
            ("resources/read", {"uri": "demo://greeting"}),
            ("prompts/get", {"name": "up-ask", "arguments": {"topic": "t"}}),
            ("no/such", {}),
        ):
            seen.append(seen_of(f"{entry} {method}", gateway.post(entry, request(method, params), headers)))
        seen.append(seen_of(f"{entry} nothing", gateway.post(entry, [], headers)))
    agent = {"parameters": {"query": "hello"}, "interaction_type": "query"}
    seen.append(seen_of("agent", gateway.post("/a2a/ag1/invoke", agent)))
    seen.append(seen_of("stranger", gateway.post("/rpc", request("tools/list"), {"authorization": "Bearer no"})))
    with Events(gateway) as events:
        seen.append(seen_of("sse initialize", events.call("initialize", initialize()["params"])))
        seen.append(seen_of("sse call", events.call("tools/call", {"name": "up-add", "arguments": {"a": 1, "b": 2}})))
    return seen


async def test_every_function_of_ours_fails(here: Gateway) -> None:
    async def run() -> list[Outcome]:
        return await anyio.to_thread.run_sync(partial(work, here))

    without: tuple[list[Outcome], list[Any]] = (await run(), [])
    assert harm(without, await run(), Log()) == []
    with listening() as log, instrumented():
        assert harm(without, await run(), Log(ours=log.ours)) == []
    places = [place for place in await places_called(run) if ".gateway" in place.label or "http_root" in place.label]
    assert len(places) > 50
    harmed = await break_each(without, run, places, host_log=False)
    assert not harmed, "\n".join(harmed)
