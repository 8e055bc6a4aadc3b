"""What a client of the gateway gets, and what its upstream servers get, is what they get without us."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from support.gateway import INITIALIZED, Events, Gateway, Reply, Upstreams, initialize, request

# Of ids, times and ports there are others in each run.
CHANGING = re.compile(
    r"r-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\d[T ][\d:.]+(Z|[+-]\d\d:\d\d)?|(127\.0\.0\.1|localhost):\d+"
)
STREAMABLE = ("/mcp", "/servers/{id}/mcp")
ENTRIES = ("/rpc", *STREAMABLE)


@pytest.fixture(scope="module")
def reference(start: Any) -> Gateway:
    """The same gateway, and nothing of OpenTelemetry in its process."""
    return start("reference", instrumented=False)


def seen(reply: Reply) -> Any:
    """What a client sees of a reply; ids and times are the same word always."""
    headers = {name: value for name, value in reply.headers.items() if name in ("content-type", "www-authenticate")}
    message = json.loads(json.dumps(reply.message))
    for items in ((message or {}).get("result") or {}).values() if isinstance(message, dict) else ():
        if isinstance(items, list):
            # The gateway lists things in the order of their random ids.
            items.sort(key=lambda item: CHANGING.sub("*", json.dumps(item, sort_keys=True)))
    return (reply.status, headers, CHANGING.sub("*", json.dumps(message, sort_keys=True)))


def wire_of(upstream: Any, since: int) -> list[Any]:
    """What arrived at an upstream server, without what is ours."""
    found = []
    for one in upstream.requests(since):
        headers = sorted(set(one["headers"]) - {"traceparent", "tracestate", "content-length"})
        content = one["content"]
        if content and isinstance(content.get("params"), dict):
            params = dict(content["params"])
            meta = {key: value for key, value in params.pop("_meta", {}).items() if not key.startswith("trace")}
            content = {**content, "params": {**params, **({"_meta": meta} if meta else {})}}
            if not content["params"] and content["method"] != "tools/call":
                del content["params"]
        found.append((one["method"], one["path"], headers, CHANGING.sub("*", json.dumps(content, sort_keys=True))))
    return sorted(found, key=repr)


def assert_same(outcomes: list[Any]) -> None:
    """The reference's outcome first: a reply or several, and what arrived at servers."""
    (without, wire_without), (with_us, wire_with_us) = outcomes
    assert with_us == without
    missing = [one for one in wire_without if one not in wire_with_us]
    surplus = [one for one in wire_with_us if one not in wire_without]
    assert wire_with_us == wire_without, f"missing: {missing}\nsurplus: {surplus}"


def tool(name: str, arguments: Any, **more: Any) -> Callable[[Gateway, str], Reply]:
    return lambda gateway, entry: gateway.call_tool(entry, name, arguments, **more)


def message(method: str, params: Any = None) -> Callable[[Gateway, str], Reply]:
    return lambda gateway, entry: gateway.call(entry, method, params)


def posted(content: Any, headers: Any = None) -> Callable[[Gateway, str], Reply]:
    return lambda gateway, entry: gateway.post(entry, content, headers)


META = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=b", "note": "kept", "progressToken": 7}
SCENARIOS: dict[str, Callable[[Gateway, str], Reply]] = {
    "a tool": tool("up-add", {"a": 2, "b": 3}),
    "a tool of a server that is not instrumented": tool("bare-echo", {"text": "ä\n\u2028"}),
    "a tool of a server over SSE": tool("events-add", {"a": 2, "b": 3}),
    "a changed argument": tool("bare-echo", {"text": "white"}),
    "a session's state": tool("bare-count", {}),
    "something in _meta": message("tools/call", {"name": "bare-echo", "arguments": {"text": "x"}, "_meta": META}),
    "isError": tool("up-fail", {"text": "boom"}),
    "arguments that do not fit": tool("up-add", {"a": "x"}),
    "no such tool": tool("nope", {}),
    "a plugin says no": tool("up-echo", {"text": "forbidden"}),
    "a plugin crashes": tool("up-echo", {"text": "explosive"}),
    "the server is down": tool("down-add", {"a": 1, "b": 2}),
    "a REST tool": tool("rest-ok", {"q": "x"}),
    "a REST tool with 500": tool("rest-broken", {"q": "x"}),
    "a retry": tool("rest-flaky", {"q": "x"}),
    "an agent": tool("a2a-ag1", {"query": "x"}),
    "a resource": message("resources/read", {"uri": "demo://up"}),
    "no such resource": message("resources/read", {"uri": "demo://nope"}),
    "a resource of a server that is down": message("resources/read", {"uri": "demo://down"}),
    "a prompt": message("prompts/get", {"name": "up-ask", "arguments": {"topic": "x"}}),
    "a prompt that fails": message("prompts/get", {"name": "up-ask", "arguments": {}}),
    "no such prompt": message("prompts/get", {"name": "nope"}),
    "tools/list": message("tools/list"),
    "resources/list": message("resources/list"),
    "prompts/list": message("prompts/list"),
    "ping": message("ping"),
    "no such method": message("no/such", {"q": "x"}),
    "params that do not fit": message("tools/call", {"nme": "x"}),
    "initialize": posted(initialize()),
    "notifications/initialized": posted(INITIALIZED),
    "no token": tool("up-add", {"a": 1, "b": 2}, headers={"authorization": ""}),
    "a traceparent that is none": tool("up-add", {"a": 1, "b": 2}, headers={"traceparent": "00-x-y-z"}),
    "no traceparent": tool("up-add", {"a": 1, "b": 2}, headers={"traceparent": ""}),
    "no message": posted("hello"),
    "a list": posted([]),
    "no version": posted({"id": 1, "method": "ping"}),
    "an id that is none": posted({"jsonrpc": "2.0", "id": {"a": 1}, "method": "ping"}),
    "params that are a list": posted({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": [1]}),
    "_meta that is a text": posted(request("tools/call", {"name": "bare-add", "arguments": {}, "_meta": "x"})),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_client_and_the_servers_see_the_same(
    gateway: Gateway, reference: Gateway, behind: Upstreams, entry: str, name: str
) -> None:
    outcomes = []
    for one in (reference, gateway):
        before = {upstream.name: len(upstream.requests()) for upstream in behind.all}
        reply = SCENARIOS[name](one, entry)
        outcomes.append((seen(reply), [(up.name, one) for up in behind.all for one in wire_of(up, before[up.name])]))
    assert_same(outcomes)


@pytest.mark.parametrize("entry", ["/sse", "/servers/{id}/sse"])
def test_a_session_over_sse(gateway: Gateway, reference: Gateway, behind: Upstreams, entry: str) -> None:
    outcomes = []
    for one in (reference, gateway):
        before = len(behind.bare.requests())
        with Events(one, entry) as events:
            replies = [events.call("initialize", initialize()["params"]), events.post(INITIALIZED)]
            for params in (
                {"name": "bare-count", "arguments": {}},
                {"name": "bare-count", "arguments": {}, "_meta": META},
                {"name": "up-echo", "arguments": {"text": "forbidden"}},
                {"name": "nope", "arguments": {}},
            ):
                replies.append(events.call("tools/call", params))
            replies += [events.call("tools/list"), events.call("no/such")]
        outcomes.append(([seen(reply) for reply in replies], wire_of(behind.bare, before)))
    assert_same(outcomes)


def test_a_websocket(gateway: Gateway, reference: Gateway) -> None:
    for name, arguments in (("up-add", {"a": 1, "b": 2}), ("up-fail", {"text": "x"}), ("nope", {})):
        replies = [one.call_tool("/ws", name, arguments) for one in (reference, gateway)]
        assert seen(replies[1]) == seen(replies[0])


def test_an_agent_and_the_administration(gateway: Gateway, reference: Gateway) -> None:
    invoked = []
    for one in (reference, gateway):
        content = {"parameters": {"query": "hello"}, "interaction_type": "query"}
        known, unknown = one.post("/a2a/ag1/invoke", content), one.post("/a2a/nope/invoke", content)
        listed = sorted(found["name"] for found in one.listing("/tools?limit=0"))
        invoked.append((seen(known), seen(unknown), listed))
    assert invoked[1] == invoked[0]


def test_direct_proxy(gateway: Gateway, reference: Gateway, behind: Upstreams) -> None:
    for entry in ("/rpc", "/mcp"):
        outcomes = []
        for one in (reference, gateway):
            before = len(behind.proxied.requests())
            header = {"x-context-forge-gateway-id": one.ids["proxied"]}
            reply = one.call_tool(entry, "echo", {"text": "x"}, headers=header)
            outcomes.append((seen(reply), wire_of(behind.proxied, before)))
        assert_same(outcomes)


def test_the_gateway_does_not_complain_of_us(gateway: Gateway) -> None:
    lines = [line for line in gateway.output().splitlines() if '"name": "opentelemetry' in line]
    assert not lines, "\n".join(line[:500] for line in lines[:5])
