"""Whole traces of requests to the gateway, as text: names, kinds, nesting, outcomes."""

from __future__ import annotations

import pytest

from support.gateway import Gateway
from support.gateway_trees import Trees, draw


@pytest.mark.parametrize("entry", ["/rpc", "/mcp"])
def test_the_servers_behind_are_in_the_trace_of_the_request(gateway: Gateway, trees: Trees, entry: str) -> None:
    reply = gateway.call_tool(entry, "up-add", {"a": 2, "b": 3})
    assert reply.text == "5"
    tree = draw(trees.spans(reply))
    for message in ("initialize", "notifications/initialized", "tools/call add", "tools/list"):
        assert f"{message} CLIENT\n" in tree and f"{message} SERVER @up" in tree, tree
