"""Older releases of the gateway, as far as their seams go: the tree of a tool call, and what leaves with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.gateway import Gateway, Upstream, Upstreams, need_gateway, prepare_database, version
from support.gateway_trees import CALL, Trees, below
from support.http_join import Ids
from support.sink import OtlpSink

need_gateway()
OLD = version() < (1, 0, 0)

# Before 1.0.0 nothing tells where the call of an upstream server begins and ends.
WITHOUT_CALL = """\
tools/call up-add SERVER
  tool.invoke INTERNAL
    plugin.hook.invoke INTERNAL (tool_pre_invoke)
      plugin.execute INTERNAL (Guard)
      plugin.execute INTERNAL (Marker)
    initialize CLIENT
      initialize SERVER @up
    notifications/initialized CLIENT
      notifications/initialized SERVER @up
    tools/call add CLIENT
      tools/call add SERVER @up
    tools/list CLIENT
      tools/list SERVER @up
    plugin.hook.invoke INTERNAL (tool_post_invoke)
      plugin.execute INTERNAL (Marker)
"""


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink
        assert not sink.rejected


@pytest.fixture(scope="module")
def trees(sink: OtlpSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trees]:
    folder = tmp_path_factory.mktemp("gateway")
    with Upstream(folder, "up", sink) as up:
        gateway = Gateway(folder / "gateway", prepare_database(folder), sink)
        with gateway:
            gateway.register(up)
            yield Trees(sink, gateway, Upstreams(up, up, up, up))


def expected(entry: str) -> str:
    if not OLD:
        return below(entry, CALL.format(peer="up"))
    if entry == "/mcp":
        return below(entry, WITHOUT_CALL)
    # Nor does anything tell, on this way, where a message begins and ends.
    inside = WITHOUT_CALL.partition("\n")[2]
    return below(entry, "\n".join(line[2:] for line in inside.splitlines()))


@pytest.mark.parametrize("entry", ["/rpc", "/mcp", "/sse"])
def test_tools_call(trees: Trees, entry: str) -> None:
    path = "/mcp/" if entry == "/mcp" else entry  # without the slash it redirects
    reply = trees.gateway.call_tool(path, "up-add", {"a": 2, "b": 3})
    assert reply.text == "5"
    trees.check(reply, expected(entry))


@pytest.mark.parametrize("entry", ["/rpc", "/mcp/"])
def test_messages_carry_the_context(trees: Trees, entry: str) -> None:
    up = trees.behind.up
    before = len(up.requests())
    reply = trees.gateway.call_tool(entry, "up-echo", {"text": "x"})
    spans = trees.spans(reply)
    clients = {Ids(one.context.trace_id, one.context.span_id).traceparent for one in spans if one.kind.name == "CLIENT"}
    messages = [one for one in up.requests(before) if one["content"]]
    assert len(messages) == len(clients) == 4
    assert {one["content"]["params"]["_meta"]["traceparent"] for one in messages} == clients


@pytest.mark.parametrize("entry", ["/rpc", "/mcp/"])
def test_a_plugin_says_no(trees: Trees, entry: str) -> None:
    reply = trees.gateway.call_tool(entry, "up-echo", {"text": "forbidden"})
    outcomes = {span.name: span.attributes.get("error.type") for span in trees.spans(reply)}
    assert outcomes["tool.invoke"] == "plugin_violation"
    assert outcomes["plugin.hook.invoke"] is None and outcomes["plugin.execute"] is None
