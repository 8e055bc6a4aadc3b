"""Wrappers forward what the host passes, however it passes it, and return exactly what came back."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

from conftest import Recorder
from opentelemetry_instrumentation_mcp.hooks import attribute_of, find_attribute, is_ours
from opentelemetry_instrumentation_mcp.targets import TARGETS
from support import sdk

pytestmark = pytest.mark.anyio


async def test_positional_and_keyword(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:
        session: Any = peer.session
        if sdk.SDK2:
            send = session._dispatcher.send_raw_request
            params = {"name": "add", "arguments": {"a": 1, "b": 1}}
            results = [await send("tools/call", params), await send(method="tools/call", params=params, opts=None)]
            assert [result["content"][0]["text"] for result in results] == ["2", "2"]
        else:
            request = sdk.types.ClientRequest(sdk.types.PingRequest(method="ping"))
            for arguments, keywords in (
                ((request, sdk.types.EmptyResult), {}),
                ((request,), {"result_type": sdk.types.EmptyResult}),
                ((), {"request": request, "result_type": sdk.types.EmptyResult}),
            ):
                assert isinstance(await session.send_request(*arguments, **keywords), sdk.types.EmptyResult)
        assert await peer.text("sample") == "sampled", "create_message is called with keywords"
    assert len(instrumented.find("sampling/createMessage")) == 2


async def test_calls_made_before_they_are_awaited(instrumented: Recorder) -> None:
    """A message begins when its coroutine runs: ids and times are those of the wire."""
    async with sdk.connect("memory") as peer:
        coroutines = [peer.session.get_prompt("greet", {"name": str(number)}) for number in range(3)]
        for coroutine in coroutines:
            await coroutine
        if sdk.SDK2:
            send = peer.session._dispatcher.send_raw_request
            raw = [send("prompts/get", {"name": "greet", "arguments": {"name": "x"}}) for _ in range(3)]
            for coroutine in raw:
                await coroutine
    ids = {
        kind: sorted(
            str((span.attributes or {})["jsonrpc.request.id"]) for span in instrumented.find("prompts/get greet", kind)
        )
        for kind in ("CLIENT", "SERVER")
    }
    assert ids["CLIENT"] == ids["SERVER"]
    assert len(set(ids["CLIENT"])) == len(ids["CLIENT"]) >= 3


async def test_overrides_on_the_instance(instrumented: Recorder) -> None:
    """A host that puts its own function in the place of a method keeps it, and its messages are traced."""
    async with sdk.connect("memory") as peer:
        calls: list[str] = []
        owner = peer.session._dispatcher if sdk.SDK2 else peer.session
        name = "send_raw_request" if sdk.SDK2 else "send_request"
        original = getattr(owner, name)

        async def override(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return await original(*args, **kwargs)

        setattr(owner, name, override)
        assert await peer.text("add", {"a": 1, "b": 1}) == "2"
        assert calls
    assert len(instrumented.find("tools/call add")) == 2


async def test_subclasses(instrumented: Recorder) -> None:
    """A subclass that overrides what is wrapped, and calls it, changes nothing."""
    from mcp import ClientSession

    class Session(ClientSession):
        async def send_request(self, *args: Any, **kwargs: Any) -> Any:
            self.sent = getattr(self, "sent", 0) + 1
            return await super().send_request(*args, **kwargs)

    async with sdk.memory_streams(sdk.build_server()) as streams, Session(*streams) as session:
        await session.initialize()
        result = await session.call_tool("add", {"a": 1, "b": 1})
        content: Any = result.content[0]
        assert content.text == "2"
        assert session.sent >= 2
    assert len(instrumented.find("tools/call add")) == 2


async def test_exceptions_are_the_host_s_own(instrumented: Recorder) -> None:
    """The very object a callback raises is what its caller in the host sees; none of ours is in its context."""
    raised = LookupError("the callback's own")
    async with sdk.connect("memory") as peer:

        async def progress(*_: Any) -> None:
            raise raised

        setattr(peer.callbacks, "progress", progress)  # noqa: B010  # an assignment would change its type
        result = await peer.call("progress", {"steps": 1}, progress=True)
        assert result.content[0].text == "done"
        with pytest.raises(sdk.McpError) as caught:
            await peer.session.get_prompt("nope")
    frames = inspect.getinnerframes(caught.value.__traceback__)
    assert frames
    assert "opentelemetry" not in str(caught.value)


async def test_wrappers_look_like_what_they_wrap(instrumented: Recorder) -> None:
    async with sdk.connect("http") as peer:
        await peer.call("add", {"a": 1, "b": 1})
    checked = 0
    for target in TARGETS:
        module = sys.modules.get(target.module)
        place = find_attribute(module, target.attribute) if module is not None else None
        wrapper = attribute_of(*place) if place is not None else None
        if wrapper is None or not is_ours(wrapper):
            continue
        original = inspect.unwrap(wrapper)
        assert wrapper.__name__ == original.__name__ and wrapper.__doc__ == original.__doc__
        assert inspect.signature(wrapper) == inspect.signature(original)
        assert inspect.iscoroutinefunction(wrapper) == inspect.iscoroutinefunction(original), target
        checked += 1
    assert checked > 8
