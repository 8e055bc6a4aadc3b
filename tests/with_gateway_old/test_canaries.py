"""Marked texts in calls through an older gateway: searched for in every byte that was exported."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.canaries import CONTENT, ERROR, SECRET, Canaries
from support.canary_table import Row
from support.gateway import Gateway, Upstream, Upstreams, need_gateway, prepare_database
from support.gateway_trees import Trees
from support.sink import OtlpSink

need_gateway()

PLACES = {
    "tool argument": CONTENT,
    "password among arguments": SECRET,
    "text of a tool error": CONTENT,
    "exception of a plugin": ERROR,
    "description of a violation": ERROR,
    "password in the description of a violation": SECRET,
    "argument of a tool that is not there": CONTENT,
    "query of a resource's URI": SECRET,
    "query of an upstream URL": SECRET,
    "header for an upstream server": SECRET,
    "header of a client": SECRET,
    "cookie of a client": SECRET,
    "baggage": SECRET,
    "extra of _meta": SECRET,
}
SETTINGS = {
    "defaults": {},
    "errors-off": {"OTEL_INSTRUMENTATION_MCP_ERROR_TEXT": "off"},
    "content, stack traces": {
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
        "OTEL_INSTRUMENTATION_MCP_STACKTRACES": "true",
    },
}
ALLOWED = {"defaults": {ERROR}, "errors-off": set(), "content, stack traces": {ERROR, CONTENT}}
_LETTERS = "ghjkmnpqrstvwxz"


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    with OtlpSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def up(sink: OtlpSink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with Upstream(tmp_path_factory.mktemp("upstream"), "up", sink) as up:
        yield up


def exercise(gateway: Gateway, c: Canaries, entry: str) -> None:
    headers = {
        "x-custom": c["header of a client"],
        "cookie": f"theme={c['cookie of a client']}",
        "baggage": f"tenant={c['baggage']}",
    }
    meta = {"note": c["extra of _meta"]}
    violation = f"{c['description of a violation']} password={c['password in the description of a violation']}"
    for tool, arguments in (
        ("up-echo", {"text": c["tool argument"], "password": c["password among arguments"]}),
        ("up-fail", {"text": c["text of a tool error"]}),
        ("up-echo", {"text": f"explosive {c['exception of a plugin']}"}),
        ("up-echo", {"text": f"forbidden {violation}"}),
        ("nope", {"text": c["argument of a tool that is not there"]}),
    ):
        gateway.call(entry, "tools/call", {"name": tool, "arguments": arguments, "_meta": meta}, headers)
    secret = c["query of a resource's URI"]
    gateway.call(entry, "resources/read", {"uri": f"demo://nope?key={secret}", "_meta": meta}, headers)


@pytest.mark.parametrize("setting", SETTINGS)
def test_nothing_leaks(sink: OtlpSink, up: Upstream, table: list[Row], tmp_path: Path, setting: str) -> None:
    c = Canaries({place: "CANARY-" + "".join(secrets.choice(_LETTERS) for _ in range(16)) for place in PLACES}, PLACES)
    since = len(sink.bodies)
    with Gateway(tmp_path / "gateway", prepare_database(tmp_path), sink, env=SETTINGS[setting]) as gateway:
        header = {"key": "X-Api-Key", "value": c["header for an upstream server"]}
        url = f"{up.url}?api_key={c['query of an upstream URL']}"
        gateway.register(up, url=url, auth_type="authheaders", auth_headers=[header])
        for entry in ("/rpc", "/mcp/"):
            exercise(gateway, c, entry)
        Trees(sink, gateway, Upstreams(up, up, up, up)).settle()
    bodies = sink.bodies[since:]
    assert sum(span.name == "tool.invoke" for body in bodies for span in body.spans) >= 6
    data = b"\n".join(body.raw for body in bodies)
    found, allowed = set(c.found_in(data)), set(c.of_kind(*ALLOWED[setting]))
    table.append(Row("/rpc and /mcp", setting, len(data), len(c), len(found - allowed)))
    assert not found - allowed
    assert gateway.token.encode() not in data
    if CONTENT in ALLOWED[setting]:
        assert {"tool argument", "text of a tool error"} <= found
