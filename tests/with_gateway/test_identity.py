"""Who calls is on spans if that was asked for, and is taken from the request that is being served."""

from __future__ import annotations

from typing import Any

import pytest

from support.gateway import ADMIN, Gateway, Upstreams
from support.gateway_trees import Trees, trace_of
from support.sink import OtlpSink, SinkSpan

WHO = ("user.email", "user.is_admin", "user.id", "team.scope", "team.name", "session.id", "langfuse.user.id", "user")
WORK = {"tool.invoke", "resource.read", "prompt.render", "a2a.invoke", "mcp.client.call", "mcp.client.request"}
ENTRIES = ("/rpc", "/mcp", "/sse", "/ws")


def calls(gateway: Gateway, entry: str) -> Any:
    yield gateway.call_tool(entry, "up-add", {"a": 1, "b": 2})
    yield gateway.call(entry, "resources/read", {"uri": "demo://up"})
    yield gateway.call(entry, "prompts/get", {"name": "up-ask", "arguments": {"topic": "x"}})
    yield gateway.post("/a2a/ag1/invoke", {"parameters": {"query": "hello"}, "interaction_type": "query"})


def work_of(trees: Trees, sink: OtlpSink, reply: Any) -> list[SinkSpan]:
    trees.spans(reply)
    found = [span for span in trace_of(sink, reply.ids) if span.name in WORK]
    assert found
    return found


@pytest.mark.parametrize("entry", ENTRIES)
def test_how_somebody_logged_in_is_told_and_who_it_is_is_not(
    gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str
) -> None:
    for reply in calls(gateway, entry):
        for span in work_of(trees, sink, reply):
            assert span.attributes["auth.method"] == "jwt", span.name
            assert span.attributes["correlation_id"] == span.attributes["request_id"] != "none", span.name
    assert not [span for span in sink.spans(gateway.service_name) if set(WHO) & set(span.attributes)]
    exported = [body.raw for body in sink.bodies if any(s.service_name == gateway.service_name for s in body.spans)]
    assert exported and not any(ADMIN.encode() in raw for raw in exported)


def test_ids_of_the_request_are_those_the_client_gets(gateway: Gateway, trees: Trees, sink: OtlpSink) -> None:
    for entry in ("/rpc", "/mcp"):
        reply = gateway.call_tool(entry, "up-add", {"a": 1, "b": 2})
        for span in work_of(trees, sink, reply):
            assert span.attributes["correlation_id"] == reply.headers["x-correlation-id"], entry


@pytest.fixture(scope="module")
def hashed(start: Any) -> Gateway:
    env = {"OTEL_INSTRUMENTATION_MCP_IDENTITY": "hashed", "OTEL_INSTRUMENTATION_MCP_IDENTITY_KEY": "k" * 32}
    return start("gateway-hashed", env=env)


def test_who_it_is_can_be_hashed(hashed: Gateway, behind: Upstreams, sink: OtlpSink) -> None:
    trees = Trees(sink, hashed, behind)
    seen: set[Any] = set()
    for entry in ("/rpc", "/mcp"):
        for reply in calls(hashed, entry):
            for span in work_of(trees, sink, reply):
                seen.add(span.attributes["user.email"])
                assert span.attributes["auth.method"] == "jwt"
    (one,) = seen
    assert len(one) == 32 and set(one) <= set("0123456789abcdef")
    exported = [body.raw for body in sink.bodies if any(s.service_name == hashed.service_name for s in body.spans)]
    assert not any(ADMIN.encode() in raw for raw in exported)
