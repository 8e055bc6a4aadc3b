"""The four histograms: attributes, exemplars, and names only of what exists."""

from __future__ import annotations

from contextlib import suppress

import pytest

from conftest import Recorder
from support import sdk

pytestmark = pytest.mark.anyio

BOTH = ("mcp.client.operation.duration", "mcp.server.operation.duration")


@pytest.mark.parametrize("transport", ["memory", "http"])
async def test_operation_durations(instrumented: Recorder, transport: str) -> None:
    async with sdk.connect(transport) as peer:
        for _ in range(3):
            await peer.call("add", {"a": 1, "b": 1})
        await peer.call("slow", {"seconds": 0.05})
    for name in BOTH:
        points = {point.attributes.get("gen_ai.tool.name"): point for point in instrumented.points(name)}
        assert points["add"].count == 3 and points["slow"].count == 1
        assert 0.05 <= points["slow"].sum < 5
        attributes = dict(points["add"].attributes)
        assert attributes["mcp.method.name"] == "tools/call"
        assert attributes["gen_ai.operation.name"] == "execute_tool"
        assert not {"mcp.session.id", "jsonrpc.request.id", "client.address"} & attributes.keys()
        assert ("server.address" in attributes) == (transport == "http" and name.startswith("mcp.client"))


async def test_exemplars_lead_to_the_span(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:
        await peer.call("add", {"a": 1, "b": 1})
    collected = instrumented.all_points()  # collecting takes the exemplars away
    for name, kind in zip(BOTH, ("CLIENT", "SERVER"), strict=True):
        span = instrumented.one("tools/call add", kind)
        (point,) = [p for p in collected[name] if p.attributes.get("gen_ai.tool.name") == "add"]
        assert span.context is not None
        assert [exemplar.span_id for exemplar in point.exemplars] == [span.context.span_id]


async def test_hostile_names_make_no_time_series(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:
        for number in range(30):
            await peer.call(f"random-{number}")
            with suppress(sdk.McpError):
                await peer.request(f"random/{number}")
            with suppress(sdk.McpError):
                await peer.session.get_prompt(f"random-{number}")
    for name in BOTH:
        attributes = [dict(point.attributes) for point in instrumented.points(name)]
        assert "random" not in repr(attributes)
        assert {a["mcp.method.name"] for a in attributes} >= {"tools/call", "prompts/get", "_OTHER"}
        assert len(attributes) < 12


async def test_a_tool_that_always_fails_has_its_name_once_listed(instrumented: Recorder) -> None:
    async with sdk.connect("memory") as peer:
        await peer.session.list_tools()
        await peer.call("fail")
    for name in BOTH:
        (point,) = [p for p in instrumented.points(name) if p.attributes.get("error.type") == "tool_error"]
        assert point.attributes["gen_ai.tool.name"] == "fail"
