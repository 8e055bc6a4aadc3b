"""Whether an HTTP request has a span already."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from opentelemetry_instrumentation_mcp.http_root import has_live_span
from opentelemetry_instrumentation_mcp.targets.gateway_requests import route_of, serve
from opentelemetry_instrumentation_mcp.telemetry import Telemetry

REMOTE = trace.SpanContext(1, 1, is_remote=True)


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["sampled", "not sampled"])
def test_a_span_of_this_process_is_live_until_it_ends(sampler: Sampler) -> None:
    """One that is not sampled, too: a second root beside it would be sampled anew."""
    assert not has_live_span({})
    with TracerProvider(sampler=sampler).get_tracer("test").start_as_current_span("request"):
        assert has_live_span({})


def test_what_has_ended_or_is_elsewhere_is_not_live() -> None:
    span = TracerProvider().get_tracer("test").start_span("request")
    span.end()
    for other in (span, trace.NonRecordingSpan(REMOTE), trace.INVALID_SPAN):
        with trace.use_span(other):
            assert not has_live_span({})


class _App:
    """What stands for the application; FastAPI's own class is only asked for its settings."""


@pytest.mark.anyio
async def test_a_request_that_begins_in_the_context_of_another_has_a_root_of_its_own() -> None:
    """A server begins the next request of a connection in the task of the one before, if that is about to end."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    seen: list[str] = []

    async def application(_: Any, scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(str(baggage.get_baggage("who")))
        if scope["path"] == "/rpc":
            await serving(_App(), {"type": "http", "method": "POST", "path": "/mcp", "headers": []}, None, send)
        await send({"type": "http.response.start", "status": 200})

    serving: Any = serve(Telemetry(tracer_provider=provider)).build(application)

    async def send(_: Any) -> None:
        """The client."""

    headers = [(b"traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"), (b"baggage", b"who=first")]
    await serving(_App(), {"type": "http", "method": "POST", "path": "/rpc", "headers": headers}, None, send)
    second, first = exporter.get_finished_spans()
    assert (first.name, second.name) == ("POST /rpc", "POST /mcp")
    assert first.parent is not None and first.parent.span_id == int("2" * 16, 16)
    assert second.parent is None and second.context.trace_id != first.context.trace_id
    assert seen == ["first", "None"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/servers/0a1b/mcp", "/servers/0a1b/mcp"),
        ("/resources/x;token=hunter22", "/resources/x;token=***"),
        ("/resources/" + "x" * 1000, "/resources/" + "x" * 245),
        ("/resources/" + "x" * 228 + ";k=AKIAIOSFODNN7EXAMPLE", "/resources/" + "x" * 228 + ";k=***"),
    ],
)
async def test_what_a_client_chose_is_redacted(path: str, told: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def application(_: Any, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(_: Any) -> None:
        """The client."""

    serving: Any = serve(Telemetry(tracer_provider=provider)).build(application)
    headers = [(b"user-agent", b"agent/1 api_key=hunter22"), (b"cookie", b"a=hunter22")]
    for _ in range(2):
        await serving(_App(), {"type": "http", "method": "POST", "path": path, "headers": headers}, None, send)
        span = exporter.get_finished_spans()[-1]
        assert span.attributes is not None
        assert span.attributes["url.path"] == told
        assert span.attributes["user_agent.original"] == "agent/1 api_key=***"
        assert "hunter22" not in span.to_json()


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
