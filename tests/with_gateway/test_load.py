"""Two hundred calls at the same time: each trace is complete, and nothing is in another call's trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from support.gateway import Gateway, Upstream, Upstreams, request, version
from support.gateway_trees import Trees, draw, is_noise
from support.http_join import Answer, Ids
from support.sink import OtlpSink, SinkSpan

CALLS = 200
SESSIONS = 20
PATIENCE = 300.0  # seconds; a guard against hanging, nothing is decided by it
TOOLS = ("up-echo", "bare-echo", "up-fail", "up-echo")
HANDSHAKE = frozenset({"initialize", "notifications/initialized", "tools/list"})


class Call:
    """One call among many: its argument and its trace are no other's."""

    def __init__(self, number: int, entry: str, tool: str, headers: dict[str, str] | None = None) -> None:
        self.text, self.entry, self.tool = f"call-{number}-", entry, tool
        self.headers = headers or {}
        self.ids = Ids.new()

    async def send(self, client: httpx.AsyncClient, gateway: Gateway) -> None:
        message = request("tools/call", {"name": self.tool, "arguments": {"text": self.text}})
        headers = {
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {gateway.token}",
            "traceparent": self.ids.traceparent,
            **self.headers,
        }
        url = f"http://127.0.0.1:{gateway.port}{gateway.path(self.entry)}"
        response = await client.post(url, json=message, headers=headers)
        content_type = response.headers["content-type"].split(";")[0]
        answer = Answer(response.status_code, content_type, dict(response.headers), response.text).message
        assert answer is not None and answer["id"] == message["id"], response.text
        assert self.text in json.dumps(answer.get("result")), answer
        assert answer["result"]["isError"] is self.tool.endswith("fail"), answer


def send_at_once(gateway: Gateway, calls: Sequence[Call]) -> None:
    async def send() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=PATIENCE, limits=limits, trust_env=False) as client:
            await asyncio.gather(*(call.send(client, gateway) for call in calls))

    asyncio.run(send())


def start_patient(start: Callable[..., Gateway], name: str, **env: str) -> Gateway:
    """A gateway that waits for its upstream servers as long as they need: many calls on few cores take their time."""
    gateway = start(name, env={"TOOL_TIMEOUT": str(int(PATIENCE)), **env})
    # What a tool was registered with goes first, and no request of the REST API changes that for MCP tools.
    with contextlib.closing(sqlite3.connect(gateway.folder / "mcp.db", timeout=30)) as database:
        database.execute("UPDATE tools SET timeout_ms = NULL")
        database.commit()
    return gateway


def carried(record: dict[str, Any]) -> tuple[Ids, Ids]:
    """The contexts that arrived with a message: in its `_meta`, and in the headers of its HTTP request."""

    def parse(traceparent: str) -> Ids:
        _, trace_id, span_id, _ = traceparent.split("-")
        return Ids(int(trace_id, 16), int(span_id, 16))

    return parse(record["content"]["params"]["_meta"]["traceparent"]), parse(record["headers"]["traceparent"])


def assert_received(call: Call, records: Sequence[dict[str, Any]], spans: Sequence[SinkSpan], tool: str) -> None:
    """The upstream server got the argument with the context of the same call, once; that is a span in its trace."""
    mine = [record for record in records if record["content"]["params"].get("arguments") == {"text": call.text}]
    assert len(mine) == 1, f"{call.text} arrived {len(mine)} times"
    in_meta, in_header = carried(mine[0])
    assert in_meta.trace_id == call.ids.trace_id == in_header.trace_id
    (sent,) = [span for span in spans if span.kind.name == "CLIENT" and span.name == f"tools/call {tool}"]
    assert in_meta.span_id == sent.context.span_id
    for received in (span for span in spans if span.kind.name == "SERVER" and span.name == f"tools/call {tool}"):
        assert received.parent is not None and received.parent.span_id == sent.context.span_id


def messages(upstream: Upstream, since: int) -> list[dict[str, Any]]:
    return [record for record in upstream.requests(since) if record["content"]]


Traces = dict[int, list[SinkSpan]]


def traces(sink: OtlpSink, before: set[int]) -> Traces:
    """The spans that are new, by trace."""
    found: Traces = {}
    for span in sink.spans():
        if span.context.span_id not in before:
            found.setdefault(span.context.trace_id, []).append(span)
    return found


def traces_when(trees: Trees, before: set[int], complete: Callable[[Traces], bool]) -> Traces:
    """The same when they are complete, or when everything must have arrived."""
    trees.settle()
    with contextlib.suppress(AssertionError):  # the test says better what is missing
        trees.sink.wait_for(lambda sink: complete(traces(sink, before)), 10)
    return traces(trees.sink, before)


def strays(found: Traces, calls: Sequence[Call]) -> list[SinkSpan]:
    """Spans that are in none of the calls' traces; the pings are those by which `Trees` knows that all have arrived."""
    known = {call.ids.trace_id for call in calls}
    others = [spans for trace_id, spans in found.items() if trace_id not in known]
    return [span for spans in others if all(span.name != "ping" for span in spans) for span in spans]


@pytest.fixture
def since(behind: Upstreams) -> dict[str, int]:
    """How much the upstream servers had received before the test."""
    return {upstream.name: len(upstream.requests()) for upstream in behind.all}


def test_every_trace_is_complete(
    start: Callable[..., Gateway], behind: Upstreams, sink: OtlpSink, since: dict[str, int]
) -> None:
    gateway = start_patient(start, "gateway-load")
    trees = Trees(sink, gateway, behind)
    kinds = [(entry, tool) for entry in ("/rpc", "/mcp") for tool in TOOLS]
    alone = {kind: Call(-1 - number, *kind) for number, kind in enumerate(kinds)}
    for call in alone.values():
        send_at_once(gateway, [call])
    wanted = {kind: draw(trees.spans(call.ids)) for kind, call in alone.items()}
    # What a call's trace looks like is another file's business; that these are no empty ones is this one's.
    assert all("tool.invoke" in tree and " CLIENT" in tree for tree in wanted.values()), wanted
    trees.settle()
    since |= {upstream.name: len(upstream.requests()) for upstream in behind.all}
    before = {span.context.span_id for span in sink.spans()}

    calls = [Call(number, *kinds[number % len(kinds)]) for number in range(CALLS)]
    send_at_once(gateway, calls)

    received = {upstream.name: messages(upstream, since[upstream.name]) for upstream in (behind.up, behind.bare)}
    tools = {
        name: [record for record in records if record["content"]["method"] == "tools/call"]
        for name, records in received.items()
    }

    def is_whole(found: Traces, call: Call) -> bool:
        return draw(found.get(call.ids.trace_id, [])) == wanted[call.entry, call.tool]

    found = traces_when(trees, before, lambda found: all(is_whole(found, call) for call in calls))
    for call in calls:
        peer, _, tool = call.tool.partition("-")
        spans = found[call.ids.trace_id]
        assert draw(spans) == wanted[call.entry, call.tool]
        assert_received(call, tools[peer], spans, tool)
    # Each message of each call, handshakes too, has come with its call's context.
    for name, records in received.items():
        arrived = Counter((carried(record)[0].trace_id, record["content"]["method"]) for record in records)
        assert set(arrived.values()) == {1}
        assert {trace_id for trace_id, _ in arrived} == {
            call.ids.trace_id for call in calls if call.tool.startswith(f"{name}-")
        }
    assert not strays(found, calls)


@pytest.mark.skipif(version() < (1, 0, 0), reason="gateway 0.9.0 keeps no upstream sessions")
def test_calls_that_share_upstream_sessions(
    start: Callable[..., Gateway], behind: Upstreams, sink: OtlpSink, since: dict[str, int]
) -> None:
    gateway = start_patient(start, "gateway-load-stateful", USE_STATEFUL_SESSIONS="true")
    trees = Trees(sink, gateway, behind)
    sessions = [gateway.open_session() for _ in range(SESSIONS)]
    alone = Call(-1, "/mcp", "up-echo", gateway.open_session())
    send_at_once(gateway, [alone])

    def tree(spans: Sequence[SinkSpan]) -> str:
        # Which of a session's calls opens the upstream session, and which list the tools, is a race.
        return draw(spans, lambda span: is_noise(span) or span.name in HANDSHAKE)

    wanted = tree(trees.spans(alone.ids))
    assert "tools/call echo SERVER @up" in wanted, wanted
    trees.settle()
    since |= {behind.up.name: len(behind.up.requests())}
    before = {span.context.span_id for span in sink.spans()}

    calls = [Call(number, "/mcp", "up-echo", sessions[number % SESSIONS]) for number in range(CALLS)]
    send_at_once(gateway, calls)

    records = messages(behind.up, since[behind.up.name])
    tools = [record for record in records if record["content"]["method"] == "tools/call"]

    def is_whole(found: Traces, call: Call) -> bool:
        return tree(found.get(call.ids.trace_id, [])) == wanted

    found = traces_when(trees, before, lambda found: all(is_whole(found, call) for call in calls))
    for call in calls:
        spans = found[call.ids.trace_id]
        assert tree(spans) == wanted
        ids = {span.context.span_id for span in spans} | {call.ids.span_id}
        assert all(span.parent is not None and span.parent.span_id in ids for span in spans)
        assert_received(call, tools, spans, "echo")
    # The sessions are shared as they are without tracing: one for each of the callers'.
    methods = Counter(record["content"]["method"] for record in records)
    assert methods["initialize"] == SESSIONS
    assert not strays(found, calls)
