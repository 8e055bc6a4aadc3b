"""Whether an HTTP request has a span already."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from opentelemetry_instrumentation_mcp.http_root import is_in_live_span
from opentelemetry_instrumentation_mcp.targets.gateway_requests import route_of

REMOTE = trace.SpanContext(1, 1, is_remote=True)


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "not sampled"])
def test_a_span_of_this_process_is_live_until_it_ends(sampler: Sampler) -> None:
    """One that is not sampled, too: a second root beside it would be sampled anew."""
    assert not is_in_live_span()
    with TracerProvider(sampler=sampler).get_tracer("test").start_as_current_span("request"):
        assert is_in_live_span()


def test_what_has_ended_or_is_elsewhere_is_not_live() -> None:
    span = TracerProvider().get_tracer("test").start_span("request")
    span.end()
    for other in (span, trace.NonRecordingSpan(REMOTE), trace.INVALID_SPAN):
        with trace.use_span(other):
            assert not is_in_live_span()


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/rpc", "/rpc"),
        ("/mcp/", "/mcp"),
        ("/servers/0a1b/mcp", "/servers/{server_id}/mcp"),
        ("/servers/0a1b/sse", "/servers/{server_id}/sse"),
        ("/servers/0a1b/tools", None),
        ("/_internal/mcp/sampling/createMessage", "/_internal/mcp/sampling/createMessage"),
        ("/_internal/mcp/0a1b", None),
        ("/a2a/somebody/invoke", "/a2a/{agent_name}/invoke"),
        ("/resources/0a1b", "/resources/{resource_id}"),
        ("/tools", None),
        ("", None),
        ("/", None),
    ],
)
def test_routes_have_no_names_of_things_in_them(path: str, route: str | None) -> None:
    assert route_of(path) == route
