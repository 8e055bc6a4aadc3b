"""What a trace says when something goes wrong: what failed is an ERROR with its `error.type`, no other is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from support.gateway import Gateway, token
from support.gateway_trees import ROOTS, Trees, below, trace_of
from support.sink import OtlpSink, SinkSpan

ENTRIES = ("/rpc", "/mcp", "/servers/{id}/mcp", "/sse")


@dataclass(frozen=True)
class Row:
    """A call that goes wrong, and what the trace is below the HTTP requests."""

    name: str
    tool: str
    arguments: Mapping[str, Any]
    rpc: str
    """What stands behind the name of the SERVER span where errors are answers of JSON-RPC."""
    mcp: str
    """The same, where they are results of the tool."""
    tree: str
    answer: str
    """Part of what the client gets to see on `/mcp`."""

    def expected(self, entry: str) -> str:
        said = self.mcp if entry.endswith("/mcp") else self.rpc
        message = f"tools/call {self.tool} SERVER {said}".rstrip()
        return below(entry, f"{message}\n{indent(dedent(self.tree).strip(), '  ')}")


HANDSHAKE = """\
    mcp.client.initialize INTERNAL
      initialize CLIENT
        initialize SERVER @up
      notifications/initialized CLIENT
        notifications/initialized SERVER @up
"""
BEFORE = """\
  plugin.hook.invoke INTERNAL (tool_pre_invoke)
    plugin.execute INTERNAL (Guard)
    plugin.execute INTERNAL (Marker)
"""
AFTER = """\
  plugin.hook.invoke INTERNAL (tool_post_invoke)
    plugin.execute INTERNAL (Marker)
"""

ROWS = (
    Row(
        "the tool says isError",
        "up-fail",
        {"text": "boom"},
        "!tool_error",
        "!tool_error",
        f"""\
tool.invoke INTERNAL !tool_error
{BEFORE}\
  mcp.client.call INTERNAL
{HANDSHAKE}\
    mcp.client.request INTERNAL
      tools/call fail CLIENT !tool_error
        tools/call fail SERVER @up !tool_error
    mcp.client.response INTERNAL (failure)
{AFTER}""",
        "boom",
    ),
    Row(
        "no such tool",
        "nope",
        {},
        "-32601",
        "!tool_error",
        "tool.invoke INTERNAL !mcpgateway.services.tool_service.ToolNotFoundError",
        "not found",
    ),
    Row(
        "a plugin says no",
        "up-echo",
        {"text": "forbidden"},
        "-32602",
        "!tool_error",
        """\
tool.invoke INTERNAL !plugin_violation
  plugin.hook.invoke INTERNAL (tool_pre_invoke)
    plugin.execute INTERNAL (Guard)
""",
        "blocked",
    ),
    Row(
        "a plugin crashes",
        "up-echo",
        {"text": "explosive"},
        "-32603 !-32603",
        "!tool_error",
        """\
tool.invoke INTERNAL !cpex.framework.errors.PluginError
  plugin.hook.invoke INTERNAL (tool_pre_invoke) !LookupError
    plugin.execute INTERNAL (Guard) !LookupError
""",
        "cannot cope",
    ),
    Row(
        "a plugin takes too long",
        "up-echo",
        {"text": "endless"},
        "-32603 !-32603",
        "!tool_error",
        """\
tool.invoke INTERNAL !cpex.framework.errors.PluginError
  plugin.hook.invoke INTERNAL (tool_pre_invoke) !timeout
    plugin.execute INTERNAL (Guard) !timeout
""",
        "timeout",
    ),
    Row(
        "the upstream server is down",
        "down-add",
        {"a": 1, "b": 2},
        "-32603 !-32603",
        "!tool_error",
        f"""\
tool.invoke INTERNAL !httpx.ConnectError
{BEFORE}\
  mcp.client.call INTERNAL !httpx.ConnectError
    mcp.client.initialize INTERNAL !httpx.ConnectError
      initialize CLIENT !httpx.ConnectError
{AFTER}""",
        "failed",
    ),
    Row(
        "the REST service answers with 500",
        "rest-broken",
        {"q": "x"},
        "!tool_error",
        "!tool_error",
        f"tool.invoke INTERNAL !tool_error\n{BEFORE}{AFTER}",
        "HTTP 500",
    ),
)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_outcome(gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str, row: Row) -> None:
    reply = gateway.call_tool(entry, row.tool, row.arguments)
    if entry.endswith("/mcp"):
        assert reply.result["isError"] is True and row.answer in reply.text
    trees.check(reply, row.expected(entry))
    assert_status(trace_of(sink, reply.ids))


def assert_status(spans: list[SinkSpan]) -> None:
    """Status and `error.type` go together; nothing of ours is OK, or tells what somebody else said."""
    for span in spans:
        if span.instrumentation_scope.name == "fastapi":
            continue
        error = span.attributes.get("error.type")
        assert span.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET), span
        assert not any(event.name == "exception" for event in span.events), span
        if "success" in span.attributes:
            assert span.attributes["success"] is (error is None), span


SLOW = f"""\
tools/call bare-slow SERVER !
  tool.invoke INTERNAL !timeout
{indent(BEFORE, "  ")}\
    mcp.client.call INTERNAL !timeout
      mcp.client.initialize INTERNAL
        initialize CLIENT
        notifications/initialized CLIENT
      mcp.client.request INTERNAL !timeout
        tools/call slow CLIENT !cancelled
{indent(AFTER, "  ")}"""


@pytest.mark.parametrize(("entry", "said"), [("/rpc", "-32603 !-32603"), ("/mcp", "!tool_error")])
def test_the_tool_takes_too_long(gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str, said: str) -> None:
    reply = gateway.call_tool(entry, "bare-slow", {"seconds": 30})
    trees.check(reply, below(entry, SLOW.replace("SERVER !", f"SERVER {said}")))
    assert_status(trace_of(sink, reply.ids))


# ----- other messages

PROMPT = f"""\
prompts/get up-ask SERVER {{said}}
  prompt.render INTERNAL 0 !0
    plugin.hook.invoke INTERNAL (prompt_pre_fetch)
      plugin.execute INTERNAL (Guard)
    mcp.client.call INTERNAL 0 !0
{indent(HANDSHAKE, "  ")}\
      mcp.client.request INTERNAL 0 !0
        prompts/get ask CLIENT 0 !0
          prompts/get ask SERVER @up 0 !0
      mcp.client.response INTERNAL (failure)
"""


@pytest.mark.parametrize(("entry", "said"), [("/rpc", "-32000 !-32000"), ("/mcp", "0 !0")])
def test_the_upstream_server_answers_with_an_error(
    gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str, said: str
) -> None:
    reply = gateway.call(entry, "prompts/get", {"name": "up-ask", "arguments": {}})
    trees.check(reply, below(entry, PROMPT.format(said=said)))
    assert_status(trace_of(sink, reply.ids))


@pytest.mark.parametrize(("entry", "said"), [("/rpc", "-32000 !-32000"), ("/mcp", "0 !0")])
def test_a_prompt_of_a_server_that_is_down(gateway: Gateway, trees: Trees, entry: str, said: str) -> None:
    reply = gateway.call(entry, "prompts/get", {"name": "down-ask", "arguments": {"topic": "x"}})
    tree = f"""\
prompts/get down-ask SERVER {said}
  prompt.render INTERNAL !httpx.ConnectError
    plugin.hook.invoke INTERNAL (prompt_pre_fetch)
      plugin.execute INTERNAL (Guard)
    mcp.client.call INTERNAL !httpx.ConnectError
      mcp.client.initialize INTERNAL !httpx.ConnectError
        initialize CLIENT !httpx.ConnectError
"""
    trees.check(reply, below(entry, tree))


@pytest.mark.parametrize("entry", ["/rpc", "/mcp"])
def test_a_resource_of_a_server_that_is_down_is_empty(gateway: Gateway, trees: Trees, entry: str) -> None:
    """The gateway answers all the same: what failed is the call of the server alone."""
    reply = gateway.call(entry, "resources/read", {"uri": "demo://down"})
    assert reply.result["contents"][0]["text"] == ""
    tree = """\
resources/read SERVER
  resource.read INTERNAL
    mcp.client.call INTERNAL !httpx.ConnectError
      mcp.client.initialize INTERNAL !httpx.ConnectError
        initialize CLIENT !httpx.ConnectError
"""
    trees.check(reply, below(entry, tree))


@pytest.mark.parametrize(("entry", "said"), [("/rpc", "-32002"), ("/mcp", "0 !0")])
def test_no_such_resource(gateway: Gateway, trees: Trees, entry: str, said: str) -> None:
    reply = gateway.call(entry, "resources/read", {"uri": "demo://nope"})
    error = "mcpgateway.services.resource_service.ResourceNotFoundError"
    trees.check(reply, below(entry, f"resources/read SERVER {said}\n  resource.read INTERNAL !{error}"))


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_such_method(gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str) -> None:
    reply = gateway.call(entry, "no/such", {"q": "x"})
    if entry != "/sse":
        assert reply.message is not None and reply.message["error"]["code"] == -32601
    trees.spans(reply)
    (message,) = [span for span in trace_of(sink, reply.ids) if "mcp.method.name" in span.attributes]
    assert message.attributes["rpc.response.status_code"] == "-32601"
    assert message.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/sse"])
def test_params_that_are_none_of_a_call(gateway: Gateway, trees: Trees, entry: str) -> None:
    reply = gateway.call(entry, "tools/call", {"nme": "x"})
    trees.check(reply, below(entry, "tools/call SERVER -32602"))


@pytest.mark.parametrize("content", ["hello", [], {"id": 1}], ids=repr)
def test_what_is_no_message_is_no_message(gateway: Gateway, trees: Trees, sink: OtlpSink, content: Any) -> None:
    reply = gateway.post("/rpc", content)
    trees.spans(reply)
    assert not [span for span in trace_of(sink, reply.ids) if "mcp.method.name" in span.attributes]


# ----- who may not

REFUSED = {
    "no token": ({"authorization": ""}, 401),
    "a token that is none": ({"authorization": "Bearer x.y.z"}, 401),
}


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/servers/{id}/mcp", "/message"])
@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_request_has_no_message(gateway: Gateway, trees: Trees, sink: OtlpSink, entry: str, why: str) -> None:
    headers, status = REFUSED[why]
    content = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "up-add", "arguments": {}}}
    reply = gateway.post(entry, content, headers)
    assert reply.status == status
    trees.spans(reply)
    (root,) = roots(trace_of(sink, reply.ids))
    assert root.kind.name == "SERVER" and root.attributes["http.response.status_code"] == status
    # 4xx is the client's fault: no error of the server.
    assert root.status.status_code is StatusCode.UNSET and "error.type" not in root.attributes


def roots(spans: list[SinkSpan]) -> list[SinkSpan]:
    assert not [span for span in spans if "mcp.method.name" in span.attributes], spans
    return [span for span in spans if span.kind.name == "SERVER"]


def test_a_token_without_the_permission(gateway: Gateway, trees: Trees, sink: OtlpSink) -> None:
    scopes = {"server_id": None, "permissions": ["tools.read"], "ip_restrictions": [], "time_restrictions": {}}
    limited = {"authorization": f"Bearer {token(scopes=scopes)}"}
    content = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "up-add", "arguments": {}}}
    refused = gateway.post("/message?session_id=x", content, limited)
    assert refused.status == 403
    trees.spans(refused)
    (root,) = roots(trace_of(sink, refused.ids))
    assert root.attributes["http.response.status_code"] == 403 and root.status.status_code is StatusCode.UNSET
    for entry, said in (("/rpc", "-32003 !-32003"), ("/mcp", "!tool_error")):
        reply = gateway.call_tool(entry, "up-add", {"a": 1, "b": 2}, headers=limited)
        trees.check(reply, below(entry, f"tools/call up-add SERVER {said}"))


def test_an_agent_that_is_not_there(gateway: Gateway, trees: Trees, sink: OtlpSink) -> None:
    reply = gateway.post("/a2a/nope/invoke", {"parameters": {"query": "x"}, "interaction_type": "query"})
    assert reply.status == 404
    error = "mcpgateway.services.a2a_service.A2AAgentNotFoundError"
    trees.check(reply, f"POST /a2a/{{agent_name}}/invoke SERVER\n  a2a.invoke INTERNAL !{error}")
    assert_status(trace_of(sink, reply.ids))


def test_there_is_one_span_for_each_http_request(gateway: Gateway, trees: Trees, sink: OtlpSink) -> None:
    for entry in ENTRIES:
        reply = gateway.call_tool(entry, "rest-ok", {"q": "x"})
        trees.spans(reply)
        found = [span for span in trace_of(sink, reply.ids) if "http.request.method" in span.attributes]
        assert sorted(f"{span.name} SERVER" for span in found) == sorted(ROOTS[entry]), entry
        for span in found:
            assert span.attributes["http.route"] in {root.split()[1] for root in ROOTS[entry]}
