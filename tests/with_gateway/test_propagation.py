"""What leaves the gateway: every message to an upstream server, in its `_meta` and its headers, is in this trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from support.gateway import Gateway, Reply, Upstream, Upstreams
from support.gateway_trees import Trees, trace_of
from support.http_join import Ids
from support.sink import OtlpSink, SinkSpan


class Wire:
    """What arrives at the upstream servers from now on."""

    def __init__(self, behind: Upstreams) -> None:
        self._behind = behind
        self._before = {upstream.name: len(upstream.requests()) for upstream in behind.all}

    def requests(self, upstream: Upstream) -> list[dict[str, Any]]:
        return upstream.requests(self._before[upstream.name])

    def messages(self, upstream: Upstream) -> list[dict[str, Any]]:
        """The HTTP requests that carried a JSON-RPC message."""
        return [one for one in self.requests(upstream) if one["path"].startswith("/m") and one["content"]]


@pytest.fixture
def wire(behind: Upstreams) -> Wire:
    return Wire(behind)


def carried(one: dict[str, Any]) -> Any:
    return ((one["content"].get("params") or {}).get("_meta") or {}).get("traceparent")


def traceparent(span: SinkSpan) -> str:
    return Ids(span.context.trace_id, span.context.span_id).traceparent


CALLS = {
    "a tool": ("tools/call", {"name": "{peer}-add", "arguments": {"a": 1, "b": 2}}),
    "a resource": ("resources/read", {"uri": "demo://{peer}"}),
    "a prompt": ("prompts/get", {"name": "{peer}-ask", "arguments": {"topic": "x"}}),
}


def filled(content: Any, peer: str) -> Any:
    if isinstance(content, dict):
        return {key: filled(value, peer) for key, value in content.items()}
    return content.replace("{peer}", peer) if isinstance(content, str) else content


def stale() -> dict[str, str]:
    """What a client might have in its `_meta`: another trace's context, and baggage."""
    return {"traceparent": Ids.new().traceparent, "tracestate": "stale=1", "baggage": "stale=1"}


WAYS = [(peer, what, entry) for peer in ("up", "bare", "events") for what in CALLS for entry in ("/rpc", "/mcp")]


@pytest.mark.parametrize("forwarded", [False, True], ids=["", "with a context in _meta"])
@pytest.mark.parametrize(("peer", "what", "entry"), [*WAYS, ("up", "a tool", "/sse"), ("bare", "a tool", "/ws")])
def test_every_message_carries_the_context_of_its_span(
    gateway: Gateway,
    behind: Upstreams,
    trees: Trees,
    sink: OtlpSink,
    wire: Wire,
    peer: str,
    what: str,
    entry: str,
    forwarded: bool,
) -> None:
    method, params = CALLS[what]
    params = filled(params, peer)
    meta = stale() if forwarded else {}
    if forwarded:
        params["_meta"] = {**meta, "note": "kept"}
    known = len(sink.spans(peer))
    reply = gateway.call(entry, method, params)
    assert reply.result
    trace = Ids(int(meta["traceparent"].split("-")[1], 16), 0) if forwarded else reply.ids
    upstream: Upstream = getattr(behind, peer)
    trees.spans(reply)
    sink.wait_for(lambda sink: sum(span.kind.name == "CLIENT" for span in trace_of(sink, trace)) >= 3)
    trees.settle()
    spans = trace_of(sink, trace)
    clients = {traceparent(span): span for span in spans if span.kind.name == "CLIENT"}
    messages = wire.messages(upstream)
    assert Counter(one["content"]["method"] for one in messages) == Counter(
        span.attributes["mcp.method.name"] for span in clients.values()
    )
    for one in messages:
        name = one["content"]["method"]
        assert clients[carried(one)].attributes["mcp.method.name"] == name
        assert one["headers"].get("traceparent") == carried(one), name
        for carrier in (one["headers"], one["content"]["params"]["_meta"]):
            # The state of the trace goes with it, baggage does not.
            assert carrier.get("tracestate") == meta.get("tracestate"), name
            assert "baggage" not in carrier, name
    if upstream.instrumented:
        servers = [span for span in spans if span.service_name == peer]
        assert Counter(span.parent.span_id for span in servers) == Counter(
            span.context.span_id for span in clients.values()
        )
    assert not [span for span in sink.spans(peer)[known:] if span.parent is None]


def test_what_else_is_in_meta_is_passed_on(gateway: Gateway, behind: Upstreams, wire: Wire) -> None:
    params = {"name": "bare-add", "arguments": {"a": 1, "b": 2}, "_meta": {"note": "kept", **stale()}}
    assert gateway.call("/mcp", "tools/call", params).text == "3"
    (call,) = [one for one in wire.messages(behind.bare) if one["content"]["method"] == "tools/call"]
    assert call["content"]["params"]["_meta"]["note"] == "kept"


def test_other_requests_of_a_session_carry_the_trace_too(
    gateway: Gateway, behind: Upstreams, trees: Trees, wire: Wire
) -> None:
    """The stream a session listens on, and the request that ends it."""
    reply = gateway.call_tool("/rpc", "bare-add", {"a": 1, "b": 2})
    trees.spans(reply)
    others = [one for one in wire.requests(behind.bare) if one["method"] in ("GET", "DELETE")]
    assert {one["method"] for one in others} == {"GET", "DELETE"}
    for one in others:
        if "traceparent" in one["headers"]:
            assert int(one["headers"]["traceparent"].split("-")[1], 16) == reply.ids.trace_id


# ----- REST and A2A


def plain_requests(wire: Wire, behind: Upstreams) -> list[dict[str, Any]]:
    return [one for one in wire.requests(behind.bare) if one["path"].startswith(("/rest", "/a2a"))]


def call_agent(gateway: Gateway) -> Reply:
    return gateway.post("/a2a/ag1/invoke", {"parameters": {"query": "hello"}, "interaction_type": "query"})


PLAIN = {
    "a REST tool": (lambda gateway: gateway.call_tool("/rpc", "rest-ok", {"q": "x"}), "tool.invoke"),
    "a REST tool over /mcp": (lambda gateway: gateway.call_tool("/mcp", "rest-ok", {"q": "x"}), "tool.invoke"),
    "an agent as a tool": (lambda gateway: gateway.call_tool("/rpc", "a2a-ag1", {"query": "x"}), "tool.invoke"),
    "an agent": (call_agent, "a2a.invoke"),
}


@pytest.mark.parametrize("what", PLAIN)
def test_other_services_get_the_context_of_the_current_span(
    gateway: Gateway, behind: Upstreams, trees: Trees, sink: OtlpSink, wire: Wire, what: str
) -> None:
    send, name = PLAIN[what]
    reply = send(gateway)
    trees.spans(reply)
    (work,) = [span for span in trace_of(sink, reply.ids) if span.name == name]
    (request,) = plain_requests(wire, behind)
    assert request["headers"]["traceparent"] == traceparent(work)
    assert "baggage" not in request["headers"]


def test_each_attempt_has_the_context(gateway: Gateway, behind: Upstreams, trees: Trees, wire: Wire) -> None:
    reply = gateway.call_tool("/rpc", "rest-flaky", {"q": "x"})
    trees.spans(reply)
    requests = plain_requests(wire, behind)
    assert len(requests) == 2
    assert {int(one["headers"]["traceparent"].split("-")[1], 16) for one in requests} == {reply.ids.trace_id}


# ----- baggage

BAGGAGE = "tenant.id=t1,private=p1"


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/sse", "/ws"])
def test_baggage_stays_unless_it_is_on_the_list(
    gateway: Gateway, behind: Upstreams, trees: Trees, wire: Wire, entry: str
) -> None:
    reply = gateway.call_tool(entry, "bare-add", {"a": 1, "b": 2}, headers={"baggage": BAGGAGE})
    assert reply.text == "3"
    gateway.call_tool(entry, "rest-ok", {"q": "x"}, headers={"baggage": BAGGAGE})
    gateway.call_tool(entry, "a2a-ag1", {"query": "x"}, headers={"baggage": BAGGAGE})
    assert len(wire.messages(behind.bare)) == 4 and len(plain_requests(wire, behind)) == 2
    for one in wire.requests(behind.bare):
        assert "baggage" not in one["headers"], one
        assert "baggage" not in (((one["content"] or {}).get("params") or {}).get("_meta") or {}), one
        assert "p1" not in str(one) and "t1" not in one["headers"].values(), one


def test_baggage_stays_whoever_writes_the_headers(start: Any, behind: Upstreams) -> None:
    """The instrumentation of httpx writes the current context, with all of its baggage."""
    env = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asgi,starlette,fastapi"}
    gateway, wire = start("gateway-httpx", env=env), Wire(behind)
    for name, arguments in (("bare-add", {"a": 1, "b": 2}), ("rest-ok", {"q": "x"}), ("a2a-ag1", {"query": "x"})):
        gateway.call_tool("/rpc", name, arguments, headers={"baggage": BAGGAGE})
    requests = wire.requests(behind.bare)
    assert len([one for one in requests if "traceparent" in one["headers"]]) == len(requests) >= 7
    for one in requests:
        assert "baggage" not in one["headers"], one


def test_baggage_on_the_list_leaves(start: Any, behind: Upstreams) -> None:
    listed = start("gateway-baggage", env={"OTEL_INSTRUMENTATION_MCP_BAGGAGE_OUTBOUND": "tenant.id"})
    wire = Wire(behind)
    for entry in ("/rpc", "/mcp", "/sse"):
        assert listed.call_tool(entry, "bare-add", {"a": 1, "b": 2}, headers={"baggage": BAGGAGE}).text == "3"
    messages = wire.messages(behind.bare)
    assert len(messages) == 12
    for one in messages:
        assert one["content"]["params"]["_meta"]["baggage"] == "tenant.id=t1", one
        assert one["headers"]["baggage"] == "tenant.id=t1", one
    wire = Wire(behind)
    listed.call_tool("/rpc", "rest-ok", {"q": "x"}, headers={"baggage": BAGGAGE})
    call_agent(listed)
    first, second = plain_requests(wire, behind)
    assert first["headers"]["baggage"] == "tenant.id=t1" and "baggage" not in second["headers"]
