"""Traces as text: what a test expects of a whole trace is what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import ndiff
from textwrap import dedent, indent
from typing import Any

from opentelemetry.trace import SpanKind

from support.conventions import STATUS_CODE
from support.gateway import Gateway, Reply, Upstreams
from support.http_join import Ids
from support.sink import OtlpSink, SinkSpan

FASTAPI = "fastapi"


def trace_of(sink: OtlpSink, ids: Ids) -> list[SinkSpan]:
    return [span for span in sink.spans() if span.context.trace_id == ids.trace_id]


def is_noise(span: SinkSpan) -> bool:
    """FastAPI's account of what it does itself, within the HTTP request."""
    return span.instrumentation_scope.name == FASTAPI and span.kind is SpanKind.INTERNAL


def without(spans: Sequence[SinkSpan], noise: Callable[[SinkSpan], bool] = is_noise) -> dict[int, list[SinkSpan]]:
    """The children of each span by its id, in the order of time; those of what is left out are its parent's."""
    by_id = {span.context.span_id: span for span in spans}
    children: dict[int, list[SinkSpan]] = {}
    for span in sorted((span for span in spans if not noise(span)), key=lambda span: span.start_time):
        parent = span.parent
        while parent is not None and (above := by_id.get(parent.span_id)) is not None and noise(above):
            parent = above.parent
        known = parent is not None and parent.span_id in by_id
        children.setdefault(parent.span_id if parent is not None and known else 0, []).append(span)
    return children


def describe(span: SinkSpan) -> str:
    """One span: `name KIND [what it is about] @service code !error.type`; what does not apply is left out."""
    attributes: dict[str, Any] = dict(span.attributes)
    words = [span.name, span.kind.name]
    about = attributes.get("plugin.name") if span.name == "plugin.execute" else attributes.get("plugin.hook.type")
    if "upstream.response.success" in attributes:
        about = "success" if attributes["upstream.response.success"] else "failure"
    if about:
        words.append(f"({about})")
    if not (span.service_name or "").startswith("gateway"):
        words.append(f"@{span.service_name}")
    if STATUS_CODE in attributes:
        words.append(str(attributes[STATUS_CODE]))
    # FastAPI marks its own span so, now and then, when a client leaves right after a good answer.
    left_early = span.instrumentation_scope.name == FASTAPI and attributes.get("error.type") == "ConnectionError"
    if not left_early and (span.status.status_code.name != "UNSET" or "error.type" in attributes):
        words.append(f"!{attributes.get('error.type')}")
        if span.status.status_code.name != "ERROR":
            words.append(f"but {span.status.status_code.name}")
    return " ".join(words)


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
"""The tree of a call of `add` of an instrumented peer, from the message on."""

ROOTS = {
    "/rpc": ["POST /rpc SERVER"],
    "/mcp": ["POST /mcp/{path} SERVER"],
    "/servers/{id}/mcp": ["POST /mcp/{path} SERVER"],
    "/sse": ["POST /message SERVER", "POST /rpc SERVER"],
    "/servers/{id}/sse": ["POST /servers/{server_id}/message SERVER", "POST /rpc SERVER"],
    "/ws": ["WS /ws SERVER", "POST /rpc SERVER"],
}
"""The spans of the HTTP requests that carry a message, outermost first. Their names are those that FastAPI gives."""


def below(entry: str, tree: str) -> str:
    """The tree of a message that came over ``entry``, with the HTTP requests above it."""
    lines = dedent(tree).strip()
    for root in reversed(ROOTS[entry]):
        lines = f"{root}\n{indent(lines, '  ')}"
    return lines


def draw(spans: Sequence[SinkSpan], noise: Callable[[SinkSpan], bool] = is_noise) -> str:
    """The trace as indented lines. What has a parent that is not there is at the top: a caller's, or a missing one."""
    children = without(spans, noise)

    def lines(parent: int) -> Iterable[str]:
        for span in children.get(parent, ()):
            yield describe(span)
            yield from (indent(line, "  ") for line in lines(span.context.span_id))

    return "\n".join(lines(0))


class Trees:
    """Compares whole traces with what a test expects."""

    def __init__(self, sink: OtlpSink, gateway: Gateway, behind: Upstreams) -> None:
        self.sink, self.gateway, self.behind = sink, gateway, behind

    def settle(self) -> None:
        """Return when all spans that have ended so far have arrived."""
        for upstream in self.behind.all:
            if upstream.instrumented:
                upstream.flush()
        marker = Ids.new()
        self.gateway.post("/rpc", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, ids=marker)
        self.sink.wait_for(lambda sink: trace_of(sink, marker), 30)

    def spans(self, reply: Reply | Ids, complete: Callable[[list[SinkSpan]], object] | None = None) -> list[SinkSpan]:
        """All spans of the trace: when ``complete`` holds, or when the HTTP request's has arrived."""
        ids = reply.ids if isinstance(reply, Reply) else reply

        def ready(sink: OtlpSink) -> bool:
            spans = trace_of(sink, ids)
            return bool(complete(spans) if complete is not None else _has_root(spans, ids) and _is_whole(spans, ids))

        self.settle()
        self.sink.wait_for(ready, 5)
        self.settle()
        return trace_of(self.sink, ids)

    def check(self, reply: Reply | Ids, expected: str) -> None:
        """The whole trace is as expected, and what the caller's `traceparent` named is above it."""
        ids = reply.ids if isinstance(reply, Reply) else reply
        wanted = dedent(expected).strip()
        try:
            spans = self.spans(ids, lambda spans: draw(spans) == wanted)
        except AssertionError:
            spans = trace_of(self.sink, ids)
        found = draw(spans)
        assert found == wanted, "\n".join(
            ["not the trace that was expected:", *ndiff(wanted.splitlines(), found.splitlines())]
        )
        tops = without(spans).get(0, [])
        assert all(top.parent is not None and top.parent.span_id == ids.span_id for top in tops), tops


def _has_root(spans: Sequence[SinkSpan], ids: Ids) -> bool:
    return any(span.parent is not None and span.parent.span_id == ids.span_id for span in spans)


def _is_whole(spans: Sequence[SinkSpan], ids: Ids) -> bool:
    known = {span.context.span_id for span in spans} | {ids.span_id}
    return all(span.parent is not None and span.parent.span_id in known for span in spans)
