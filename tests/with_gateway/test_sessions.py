"""Sessions that last: the upstream session stays the same under us, and each call has its own parent all the same."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.gateway import Events, Gateway, Reply, Upstreams, initialize, request
from support.gateway_trees import Trees, below, draw, trace_of
from support.http_join import Ids, post
from support.sink import OtlpSink

STATEFUL = {"USE_STATEFUL_SESSIONS": "true"}
ENTRIES = ("/mcp", "/servers/{id}/mcp")


@pytest.fixture(scope="module")
def stateful(start: Any) -> Gateway:
    env = {**STATEFUL, "OTEL_INSTRUMENTATION_MCP_IDENTITY": "on"}
    return start("gateway-stateful", plugins=False, env=env)


@pytest.fixture(scope="module")
def reference(start: Any) -> Gateway:
    """The same, and nothing of OpenTelemetry in its process."""
    return start("reference-stateful", plugins=False, instrumented=False, env=STATEFUL)


@pytest.fixture(scope="module")
def own_trees(sink: OtlpSink, stateful: Gateway, behind: Upstreams) -> Trees:
    return Trees(sink, stateful, behind)


def count_twice(gateway: Gateway, entry: str, peer: str) -> list[Reply]:
    headers = gateway.open_session(entry)
    assert "mcp-session-id" in headers
    return [gateway.call_tool(entry, f"{peer}-count", {}, headers=headers) for _ in range(2)]


FIRST = """\
tools/call up-count SERVER
  tool.invoke INTERNAL
    mcp.client.call INTERNAL
      mcp.client.initialize INTERNAL
        initialize CLIENT
          initialize SERVER @up
        notifications/initialized CLIENT
          notifications/initialized SERVER @up
      mcp.client.request INTERNAL
        tools/call count CLIENT
          tools/call count SERVER @up
        tools/list CLIENT
          tools/list SERVER @up
      mcp.client.response INTERNAL (success)
"""
SECOND = """\
tools/call up-count SERVER
  tool.invoke INTERNAL
    mcp.client.call INTERNAL
      mcp.client.initialize INTERNAL
      mcp.client.request INTERNAL
        tools/call count CLIENT
          tools/call count SERVER @up
      mcp.client.response INTERNAL (success)
"""


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("peer", ["up", "bare", "events"])
def test_two_calls_of_a_session_use_one_upstream_session(
    stateful: Gateway, reference: Gateway, behind: Upstreams, entry: str, peer: str
) -> None:
    upstream = getattr(behind, peer)
    sessions = []
    for gateway in (reference, stateful):
        before = len(upstream.requests())
        assert [reply.text for reply in count_twice(gateway, entry, peer)] == ["1", "2"], gateway.service_name
        sessions.append([one["content"]["method"] for one in upstream.requests(before) if one["content"]])
    without, with_us = sessions
    assert with_us == without and with_us.count("initialize") == 1


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_call_of_a_session_is_in_its_own_trace(
    stateful: Gateway, own_trees: Trees, sink: OtlpSink, entry: str
) -> None:
    opened = stateful.post(entry, initialize())
    headers = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
    noted = stateful.post(entry, {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
    first, second = (stateful.call_tool(entry, "up-count", {}, headers=headers) for _ in range(2))
    own_trees.check(first, below(entry, FIRST))
    own_trees.check(second, below(entry, SECOND))
    own_trees.check(opened, below(entry, "initialize SERVER"))
    own_trees.check(noted, below(entry, "notifications/initialized SERVER"))
    listed = stateful.call(entry, "tools/list", headers=headers)
    own_trees.check(listed, below(entry, "tools/list SERVER"))
    for reply in (first, second, listed):
        spans = [span for span in trace_of(sink, reply.ids) if span.service_name == stateful.service_name]
        (message,) = [span for span in spans if "mcp.method.name" in span.attributes and span.kind.name == "SERVER"]
        assert message.attributes["mcp.session.id"] == headers["mcp-session-id"]


def test_each_call_over_a_pooled_session_carries_its_own_context(
    stateful: Gateway, behind: Upstreams, own_trees: Trees, sink: OtlpSink
) -> None:
    before = len(behind.bare.requests())
    replies = count_twice(stateful, "/mcp", "bare")
    calls = [one for one in behind.bare.requests(before) if (one["content"] or {}).get("method") == "tools/call"]
    assert len(calls) == 2
    for reply, call in zip(replies, calls, strict=True):
        own_trees.spans(reply)
        (client,) = [span for span in trace_of(sink, reply.ids) if span.name == "tools/call count"]
        sent = Ids(client.context.trace_id, client.context.span_id).traceparent
        assert call["content"]["params"]["_meta"]["traceparent"] == call["headers"]["traceparent"] == sent


def test_resources_and_prompts_over_a_pooled_session(stateful: Gateway, own_trees: Trees) -> None:
    headers = stateful.open_session()
    stateful.call_tool("/mcp", "up-count", {}, headers=headers)
    for method, params, outer, name in (
        ("resources/read", {"uri": "demo://up"}, "resource.read", "resources/read"),
        ("prompts/get", {"name": "up-ask", "arguments": {"topic": "x"}}, "prompt.render", "prompts/get ask"),
    ):
        reply = stateful.call("/mcp", method, params, headers)
        own_trees.spans(reply)
        tree = draw(trace_of(own_trees.sink, reply.ids))
        message = f"{method} up-ask" if method == "prompts/get" else method
        assert tree.startswith(below("/mcp", f"{message} SERVER\n  {outer} INTERNAL\n    mcp.client.call INTERNAL")), (
            tree
        )
        assert f"mcp.client.request INTERNAL\n          {name} CLIENT\n            {name} SERVER @up" in tree, tree
        assert "mcp.client.response INTERNAL (success)" in tree, tree


def test_calls_at_the_same_time_are_not_mixed_up(stateful: Gateway, own_trees: Trees, sink: OtlpSink) -> None:
    session = stateful.open_session()
    sent = {
        **session,
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {stateful.token}",
    }

    def call(number: int) -> tuple[Ids, str]:
        ids = Ids.new()
        params = {"name": "up-echo", "arguments": {"text": f"call {number}"}}
        content = json.dumps(request("tools/call", params)).encode()
        answer = post(stateful.port, content, {**sent, "traceparent": ids.traceparent}, "/mcp")
        return ids, answer.message["result"]["content"][0]["text"]

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(call, range(24)))
    assert [text for _, text in done] == [f"call {number}" for number in range(24)]
    for ids, _ in done:
        spans = own_trees.spans(ids)
        names = [(span.name, span.kind.name) for span in spans]
        for one in (
            "tools/call up-echo",
            "tool.invoke",
            "mcp.client.call",
            "mcp.client.request",
            "mcp.client.response",
        ):
            assert sum(name == one for name, _ in names) == 1, names
        assert names.count(("tools/call echo", "CLIENT")) == names.count(("tools/call echo", "SERVER")) == 1


def test_two_calls_of_a_session_over_sse(gateway: Gateway, trees: Trees, behind: Upstreams) -> None:
    """Each in the trace of the request that carried it, none in that of the stream."""
    with Events(gateway) as events:
        replies = [events.call("tools/call", {"name": "up-echo", "arguments": {"text": "x"}}) for _ in range(2)]
        for reply in replies:
            trees.spans(reply)
            tree = draw(trace_of(trees.sink, reply.ids))
            assert tree.startswith("POST /message SERVER\n  POST /rpc SERVER\n    tools/call up-echo SERVER\n"), tree
            assert "tools/call echo SERVER @up" in tree
    trees.check(events.ids, "GET /sse SERVER")


# ----- whose call it is


def test_who_calls_is_taken_from_the_request_that_is_served(
    stateful: Gateway, own_trees: Trees, sink: OtlpSink
) -> None:
    headers = stateful.open_session()
    for _ in range(2):
        reply = stateful.call_tool("/mcp", "bare-count", {}, headers=headers)
        own_trees.spans(reply)
        (invoked,) = [span for span in trace_of(sink, reply.ids) if span.name == "tool.invoke"]
        assert invoked.attributes["user.email"] == "admin@example.com"
        assert invoked.attributes["auth.method"] == "jwt"
        assert invoked.attributes["correlation_id"] == reply.headers["x-correlation-id"]
