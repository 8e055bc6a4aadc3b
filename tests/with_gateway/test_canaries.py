"""Marked texts wherever a gateway handles what is somebody's: searched for in every byte that was exported."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from support.canaries import CONTENT, ERROR, SECRET, Canaries
from support.canary_table import Row
from support.gateway import SECRETS, Events, Gateway, Upstreams, initialize, native, token
from support.gateway_trees import Trees
from support.sink import OtlpSink

PLACES = {
    "tool argument": CONTENT,
    "password among arguments": SECRET,
    "argument of a REST tool": CONTENT,
    "query of an agent": CONTENT,
    "text of a tool error": CONTENT,
    "exception of a plugin": ERROR,
    "description of a violation": ERROR,
    "password in the description of a violation": SECRET,
    "prompt variable": CONTENT,
    "query of a resource's URI": SECRET,
    "argument of a tool that is not there": CONTENT,
    "argument of a server that is down": CONTENT,
    "query of an upstream URL": SECRET,
    "header for an upstream server": SECRET,
    "query of a REST URL": SECRET,
    "header of a REST tool": SECRET,
    "query of an agent's URL": SECRET,
    "header of a client": SECRET,
    "cookie of a client": SECRET,
    "name in the token": SECRET,
    "e-mail in the token": SECRET,
    "id of the token": SECRET,
    "baggage": SECRET,
    "extra of _meta": SECRET,
    "name of the client": SECRET,
}
_LETTERS = "ghjkmnpqrstvwxz"
CAPTURE = {
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "OTEL_INSTRUMENTATION_MCP_STACKTRACES": "true",
}


def plant(start: Any, behind: Upstreams, name: str, env: dict[str, str]) -> tuple[Gateway, Canaries]:
    """A gateway whose configuration is full of them."""
    texts = {place: "CANARY-" + "".join(secrets.choice(_LETTERS) for _ in range(16)) for place in PLACES}
    c = Canaries(texts, dict(PLACES))
    gateway: Gateway = start(name, env=env)
    who = {"email": "admin@example.com", "full_name": c["name in the token"], "is_admin": True, "auth_provider": "cli"}
    gateway.token = token(user=who, jti=c["id of the token"], note=c["e-mail in the token"])
    headers = [{"key": "X-Api-Key", "value": c["header for an upstream server"]}]
    secret = {
        "name": "secret",
        "url": f"{behind.bare.url}?api_key={c['query of an upstream URL']}",
        "auth_type": "authheaders",
        "auth_headers": headers,
    }
    gateway.register(behind.bare, **secret)
    rest, agent = c["query of a REST URL"], c["query of an agent's URL"]
    gateway.register_rest(behind.bare, "rest-secret", f"/rest/ok?token={rest}")
    gateway.register_rest(behind.bare, "rest-bad", f"/rest/broken?token={rest}")
    content = {"name": "spy", "endpoint_url": f"http://127.0.0.1:{behind.bare.port}/a2a?api_key={agent}"}
    content |= {"agent_type": "generic", "protocol_version": "1.0", "visibility": "public"}
    gateway.api("POST", "/a2a", {"agent": content, "visibility": "public"})
    return gateway, c


def exercise(gateway: Gateway, c: Canaries, entry: str) -> None:
    headers = {
        "x-custom": c["header of a client"],
        "cookie": f"theme={c['cookie of a client']}",
        "baggage": f"tenant={c['baggage']}",
    }
    meta = {"note": c["extra of _meta"]}

    def call(name: str, arguments: Any) -> None:
        gateway.call(entry, "tools/call", {"name": name, "arguments": arguments, "_meta": meta}, headers)

    argument = c["tool argument"]
    call("up-echo", {"text": argument, "password": c["password among arguments"]})
    call("secret-echo", {"text": argument})
    call("events-echo", {"text": argument})
    call("up-fail", {"text": c["text of a tool error"]})
    call("secret-fail", {"text": c["text of a tool error"]})
    call("up-echo", {"text": f"explosive {c['exception of a plugin']}"})
    password = c["password in the description of a violation"]
    call("up-echo", {"text": f"forbidden {c['description of a violation']} password={password}"})
    call("nope", {"text": c["argument of a tool that is not there"]})
    call("down-echo", {"text": c["argument of a server that is down"]})
    call("rest-secret", {"q": c["argument of a REST tool"]})
    call("rest-bad", {"q": c["argument of a REST tool"]})
    call("a2a-spy", {"query": c["query of an agent"]})
    secret = c["query of a resource's URI"]
    gateway.call(entry, "resources/read", {"uri": f"demo://nope?key={secret}", "_meta": meta}, headers)
    for name in ("up-ask", "secret-ask"):
        gateway.call(entry, "prompts/get", {"name": name, "arguments": {"topic": c["prompt variable"]}}, headers)


def check(
    gateway: Gateway, c: Canaries, behind: Upstreams, sink: OtlpSink, since: int, seen: tuple[list[Row], str, set[str]]
) -> list[str]:
    table, setting, allowed = seen
    trees = Trees(sink, gateway, behind)
    trees.settle()
    sink.wait_for(lambda sink: any(body.path.endswith("metrics") for body in sink.bodies[since:]), 30)
    bodies = sink.bodies[since:]
    assert sum(span.name == "tool.invoke" for body in bodies for span in body.spans) > 20
    data = b"\n".join(body.raw for body in bodies)
    # They have no form that could be searched for in parts.
    assert not [name for name, value in SECRETS.items() if value.encode() in data]
    assert gateway.token.encode() not in data
    found = c.found_in(data)
    table.append(Row("all entries", setting, len(data), len(c) + len(SECRETS) + 1, len({*found} - allowed)))
    return found


def everywhere(gateway: Gateway, c: Canaries) -> None:
    for entry in ("/rpc", "/mcp", "/servers/{id}/mcp", "/ws"):
        exercise(gateway, c, entry)
    client = initialize()
    client["params"]["clientInfo"]["name"] = c["name of the client"]
    for entry in ("/rpc", "/mcp"):
        gateway.post(entry, client)
    with Events(gateway) as events:
        events.call("initialize", client["params"])
        events.call("tools/call", {"name": "secret-echo", "arguments": {"text": c["tool argument"]}})
        events.call("tools/call", {"name": "secret-fail", "arguments": {"text": c["text of a tool error"]}})
    gateway.post("/a2a/spy/invoke", {"parameters": {"query": c["query of an agent"]}, "interaction_type": "query"})


def test_nothing_leaves_that_was_not_asked_for(start: Any, behind: Upstreams, sink: OtlpSink, table: list[Row]) -> None:
    since = len(sink.bodies)
    gateway, c = plant(start, behind, "gateway-canaries", {})
    everywhere(gateway, c)
    allowed = {"description of a violation"}
    assert set(check(gateway, c, behind, sink, since, (table, "defaults", allowed))) <= allowed


def test_secrets_do_not_leave_where_content_does(
    start: Any, behind: Upstreams, sink: OtlpSink, table: list[Row]
) -> None:
    since = len(sink.bodies)
    gateway, c = plant(start, behind, "gateway-capture", CAPTURE)
    everywhere(gateway, c)
    found = check(gateway, c, behind, sink, since, (table, "content, stack traces", {*c.of_kind(CONTENT, ERROR)}))
    assert not set(found) & set(c.of_kind(SECRET))
    # Else nothing would have been tested.
    assert set(found) >= set(c.of_kind(CONTENT))


def test_no_text_of_an_error_leaves_if_none_may(
    start: Any, behind: Upstreams, sink: OtlpSink, table: list[Row]
) -> None:
    since = len(sink.bodies)
    gateway, c = plant(start, behind, "gateway-quiet", {"OTEL_INSTRUMENTATION_MCP_ERROR_TEXT": "off"})
    exercise(gateway, c, "/rpc")
    exercise(gateway, c, "/mcp")
    assert not check(gateway, c, behind, sink, since, (table, "errors-off", set()))


CLEANED = {"OTEL_INSTRUMENTATION_MCP_CLEAN_SPANS": "true"}


@pytest.mark.parametrize("spans", ["replace", "keep"])
def test_nothing_leaks_by_cleaned_spans_of_the_gateway(
    start: Any, behind: Upstreams, sink: OtlpSink, table: list[Row], spans: str
) -> None:
    since = len(sink.bodies)
    env = {**native(sink), **CLEANED, "OTEL_INSTRUMENTATION_MCP_NATIVE_SPANS": spans}
    gateway, c = plant(start, behind, f"gateway-cleaned-{spans}", env)
    everywhere(gateway, c)
    # The gateway puts baggage on its own spans; that is its option, and no secret.
    allowed = {*c.of_kind(ERROR), "baggage"}
    assert set(check(gateway, c, behind, sink, since, (table, f"native-cleaned, {spans}", allowed))) <= allowed
