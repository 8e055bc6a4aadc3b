"""Whole traces of requests to the gateway, as text: names, kinds, nesting, outcomes."""

from __future__ import annotations

from textwrap import indent

import pytest

from support.gateway import ENTRIES, INITIALIZED, Events, Gateway, initialize, request
from support.gateway_trees import ROOTS, Trees, below, is_noise, trace_of
from support.http_join import Ids
from support.sink import OtlpSink

CALL = """\
tools/call {peer}-add SERVER
  tool.invoke INTERNAL
    plugin.hook.invoke INTERNAL (tool_pre_invoke)
      plugin.execute INTERNAL (Guard)
      plugin.execute INTERNAL (Marker)
    mcp.client.call INTERNAL
      mcp.client.initialize INTERNAL
        initialize CLIENT
          initialize SERVER @{peer}
        notifications/initialized CLIENT
          notifications/initialized SERVER @{peer}
      mcp.client.request INTERNAL
        tools/call add CLIENT
          tools/call add SERVER @{peer}
        tools/list CLIENT
          tools/list SERVER @{peer}
      mcp.client.response INTERNAL (success)
    plugin.hook.invoke INTERNAL (tool_post_invoke)
      plugin.execute INTERNAL (Marker)
"""
# What needs no upstream MCP server.
OTHER_TOOL = """\
tools/call {tool} SERVER
  tool.invoke INTERNAL
    plugin.hook.invoke INTERNAL (tool_pre_invoke)
      plugin.execute INTERNAL (Guard)
      plugin.execute INTERNAL (Marker)
    plugin.hook.invoke INTERNAL (tool_post_invoke)
      plugin.execute INTERNAL (Marker)
"""
UPSTREAM = """\
mcp.client.call INTERNAL
  mcp.client.initialize INTERNAL
    initialize CLIENT
      initialize SERVER @up
    notifications/initialized CLIENT
      notifications/initialized SERVER @up
  mcp.client.request INTERNAL
    {message} CLIENT
      {message} SERVER @up
  mcp.client.response INTERNAL (success)
"""


def without_server(tree: str) -> str:
    """The same, where the upstream server is not instrumented."""
    return "".join(line for line in tree.splitlines(keepends=True) if "SERVER @" not in line)


@pytest.mark.parametrize("entry", ENTRIES)
def test_tools_call(gateway: Gateway, trees: Trees, entry: str) -> None:
    reply = gateway.call_tool(entry, "up-add", {"a": 2, "b": 3})
    assert reply.text == "5"
    trees.check(reply, below(entry, CALL.format(peer="up")))


def test_an_upstream_server_over_sse(gateway: Gateway, trees: Trees) -> None:
    reply = gateway.call_tool("/rpc", "events-add", {"a": 2, "b": 3})
    assert reply.text == "5"
    trees.check(reply, below("/rpc", CALL.format(peer="events")))


def test_an_upstream_server_that_is_not_instrumented(gateway: Gateway, trees: Trees) -> None:
    reply = gateway.call_tool("/mcp", "bare-add", {"a": 2, "b": 3})
    assert reply.text == "5"
    trees.check(reply, below("/mcp", without_server(CALL.format(peer="bare"))))


@pytest.mark.parametrize("entry", ENTRIES)
def test_resources_read(gateway: Gateway, trees: Trees, entry: str) -> None:
    reply = gateway.call(entry, "resources/read", {"uri": "demo://up"})
    assert reply.result["contents"][0]["text"] == "hello"
    tree = "resources/read SERVER\n  resource.read INTERNAL\n"
    trees.check(reply, below(entry, tree + indent(UPSTREAM.format(message="resources/read"), "    ")))


@pytest.mark.parametrize("entry", ENTRIES)
def test_prompts_get(gateway: Gateway, trees: Trees, entry: str) -> None:
    reply = gateway.call(entry, "prompts/get", {"name": "up-ask", "arguments": {"topic": "x"}})
    assert reply.result["messages"][0]["content"]["text"] == "What about x?"
    tree = """\
prompts/get up-ask SERVER
  prompt.render INTERNAL
    plugin.hook.invoke INTERNAL (prompt_pre_fetch)
      plugin.execute INTERNAL (Guard)
"""
    trees.check(reply, below(entry, tree + indent(UPSTREAM.format(message="prompts/get ask"), "    ")))


ANSWERED = ("resources/list", "resources/templates/list", "prompts/list", "ping")


@pytest.mark.parametrize(
    ("entry", "method"),
    [(entry, "tools/list") for entry in ENTRIES] + [(entry, one) for entry in ("/rpc", "/mcp") for one in ANSWERED],
)
def test_what_the_gateway_answers_itself(gateway: Gateway, trees: Trees, entry: str, method: str) -> None:
    reply = gateway.call(entry, method)
    assert reply.result is not None
    trees.check(reply, below(entry, f"{method} SERVER"))


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/sse"])
@pytest.mark.parametrize("tool", ["rest-ok", "a2a-ag1"])
def test_tools_that_are_no_mcp(gateway: Gateway, trees: Trees, entry: str, tool: str) -> None:
    reply = gateway.call_tool(entry, tool, {"query": "x"} if tool == "a2a-ag1" else {"q": "x"})
    assert reply.result["isError"] is False
    trees.check(reply, below(entry, OTHER_TOOL.format(tool=tool)))


def test_an_agent_is_called_directly(gateway: Gateway, trees: Trees) -> None:
    content = {"parameters": {"query": "hello"}, "interaction_type": "query"}
    reply = gateway.post("/a2a/ag1/invoke", content)
    assert reply.message == {"response": "from the agent"}
    trees.check(reply, "POST /a2a/{agent_name}/invoke SERVER\n  a2a.invoke INTERNAL")


def test_a_retry_is_another_attempt_of_the_same_call(gateway: Gateway, trees: Trees, sink: OtlpSink) -> None:
    reply = gateway.call_tool("/rpc", "rest-flaky", {"q": "x"})
    assert reply.result["isError"] is False
    hooks = "".join(OTHER_TOOL.splitlines(keepends=True)[2:])
    trees.check(reply, below("/rpc", OTHER_TOOL.format(tool="rest-flaky") + hooks))
    (invoked,) = [span for span in trace_of(sink, reply.ids) if span.name == "tool.invoke"]
    assert invoked.attributes["contextforge.attempts"] == 2


@pytest.mark.parametrize("entry", ["/rpc", "/mcp"])
def test_direct_proxy(gateway: Gateway, trees: Trees, entry: str) -> None:
    header = {"x-context-forge-gateway-id": gateway.ids["proxied"]}
    reply = gateway.call_tool(entry, "add", {"a": 2, "b": 3}, headers=header)
    assert reply.text == "5"
    tree = without_server(CALL.format(peer="bare")).replace("bare-add", "add")
    if entry == "/mcp":  # no hooks are called on this way
        tree = "".join(line for line in tree.splitlines(keepends=True) if "plugin." not in line)
    trees.check(reply, below(entry, tree))


# ----- the handshake


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/servers/{id}/mcp"])
def test_each_message_of_the_handshake_is_under_its_request(gateway: Gateway, trees: Trees, entry: str) -> None:
    opened = gateway.post(entry, initialize())
    assert opened.result["serverInfo"]
    trees.check(opened, below(entry, "initialize SERVER"))
    noted = gateway.post(entry, INITIALIZED, {"mcp-protocol-version": "2025-06-18"})
    assert noted.status < 300
    trees.check(noted, below(entry, "notifications/initialized SERVER"))


@pytest.mark.parametrize("entry", ["/sse", "/servers/{id}/sse"])
def test_the_handshake_over_sse(gateway: Gateway, trees: Trees, entry: str) -> None:
    with Events(gateway, entry) as events:
        opened = events.call("initialize", initialize()["params"])
        assert opened.result["serverInfo"]
        trees.check(opened, below(entry, "initialize SERVER"))
        noted = events.post(INITIALIZED)
        # Nobody waits for an answer: it goes no further.
        trees.check(noted, f"{ROOTS[entry][0]}\n  notifications/initialized SERVER")
        listed = events.call("tools/list")
        trees.check(listed, below(entry, "tools/list SERVER"))
    stream = "GET /sse SERVER" if entry == "/sse" else "GET /servers/{server_id}/sse SERVER"
    trees.check(events.ids, stream)


# ----- whose trace it is


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_the_message_says_goes_before_the_headers(
    gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str
) -> None:
    """The parent of the message is what is in its `_meta`; the HTTP request's span is linked."""
    meta = Ids.new()
    params = {"name": "bare-add", "arguments": {"a": 2, "b": 3}, "_meta": {"traceparent": meta.traceparent}}
    reply = gateway.call(entry, "tools/call", params)
    assert reply.text == "5"
    trees.check(meta, without_server(CALL.format(peer="bare")))
    trees.check(reply, "\n".join("  " * depth + root for depth, root in enumerate(ROOTS[entry])))
    (message,) = [span for span in trace_of(sink, meta) if span.name == "tools/call bare-add"]
    requests = {span.context.span_id: span for span in trace_of(sink, reply.ids)}
    (link,) = message.links
    linked = requests[link.context.span_id]
    while is_noise(linked):
        linked = requests[linked.parent.span_id]
    assert linked.name == ROOTS[entry][-1].removesuffix(" SERVER")


@pytest.mark.parametrize("entry", ENTRIES)
def test_without_a_caller_there_is_one_trace(gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str) -> None:
    before = {span.context.span_id for span in sink.spans()}
    content = request("tools/call", {"name": "up-echo", "arguments": {"text": "x"}})
    gateway.call(entry, "tools/call", content["params"], {"traceparent": ""})
    trees.settle()
    (own,) = sink.wait_for(
        lambda sink: [
            span
            for span in sink.spans("gateway")
            if span.name == "tools/call up-echo" and span.context.span_id not in before
        ]
    )
    trees.settle()
    spans = [span for span in sink.spans() if span.context.trace_id == own.context.trace_id]
    tops = [span for span in spans if span.parent is None]
    assert [top.name for top in tops] == [ROOTS[entry][0].removesuffix(" SERVER")]
    assert {"tool.invoke", "tools/call echo", "mcp.client.response"} <= {span.name for span in spans}
    ids = {span.context.span_id for span in spans}
    assert all(span.parent is None or span.parent.span_id in ids for span in spans)
