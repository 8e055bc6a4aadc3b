"""Bad input, bad days: never a broken call, never a span that is not ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from conftest import Recorder
from support import fastmcp_sdk as fm
from support import sdk
from support.conformance import assert_message_spans
from support.wire import WireLog

pytestmark = pytest.mark.anyio


class OpenSpans(SpanProcessor):
    """The spans that were started and not ended."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.names[span.context.span_id] = span.name

    def on_end(self, span: ReadableSpan) -> None:
        assert span.context is not None
        del self.names[span.context.span_id]


@pytest.fixture
def open_spans(instrumented: Recorder) -> Iterator[OpenSpans]:
    """At the end, no span may be open."""
    spans = OpenSpans()
    instrumented.tracer_provider.add_span_processor(spans)
    yield spans
    assert not spans.names


def error_of(span: Any) -> Any:
    return (span.attributes or {}).get("error.type")


async def test_a_tool_that_raises_or_returns_garbage(instrumented: Recorder, open_spans: OpenSpans) -> None:
    log = WireLog()
    async with fm.connect("memory", log=log) as client:
        for tool in ("fail", "garbage"):
            failed = True
            with suppress(Exception):
                failed = (await client.call_tool(tool, {}, raise_on_error=False)).is_error
            client_span, server_span = instrumented.find(f"tools/call {tool}")
            assert error_of(client_span) == error_of(server_span)
            assert failed or tool == "garbage"
    assert error_of(instrumented.one("tools/call fail", "SERVER")) == "tool_error"
    assert_message_spans(log, instrumented.spans)


@pytest.mark.parametrize("era", fm.ERAS)
async def test_a_tool_that_hangs_and_is_cancelled(instrumented: Recorder, open_spans: OpenSpans, era: str) -> None:
    async with fm.connect("memory", era=era) as client:
        with anyio.move_on_after(0.1) as scope:
            await client.call_tool("slow", {"seconds": 30})
        assert scope.cancelled_caught
        assert fm.text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
    assert error_of(instrumented.one("tools/call slow", "CLIENT")) == "cancelled"
    assert len(instrumented.find("tools/call slow", "SERVER")) == 1


async def test_a_mounted_tool_that_times_out(instrumented: Recorder, open_spans: OpenSpans) -> None:
    main = fm.build_server("main")
    fm.mount(main, fm.build_server("child"), "child")
    async with fm.connect("memory", server=main) as client:
        with suppress(Exception):
            await client.call_tool("child_slow", {"seconds": 30}, timeout=0.2)
    assert error_of(instrumented.one("tools/call child_slow", "CLIENT")) == "timeout"
    assert error_of(instrumented.one("delegate slow")) == "cancelled"


async def test_a_flood_of_progress(instrumented: Recorder, open_spans: OpenSpans) -> None:
    log = WireLog()
    answers = fm.Answers()
    async with fm.connect("memory", log=log, answers=answers) as client:
        assert fm.text_of(await client.call_tool("progress", {"steps": 500})) == "done"
        await anyio.sleep(0.2)
    assert len(answers.seen) == 500
    assert_message_spans(log, instrumented.spans)
    assert len(instrumented.find("notifications/progress", "SERVER")) == 500


async def test_a_proxy_whose_upstream_is_down(instrumented: Recorder, open_spans: OpenSpans) -> None:
    proxy = fm.proxy_of("http://127.0.0.1:9/mcp")
    # Some releases fail as early as on connecting.
    with suppress(Exception):
        async with fm.connect("memory", server=proxy) as client:
            result = await client.call_tool("add", {"a": 1, "b": 2}, raise_on_error=False)
            assert result.is_error
    upstream = [span for span in instrumented.spans if "server.address" in (span.attributes or {})]
    assert upstream and all(error_of(span) for span in upstream)
    outer = {span.name for span in instrumented.spans if span.kind.name == "SERVER" and error_of(span)}
    assert outer & {"tools/call add", "initialize"}


async def test_a_proxy_whose_upstream_is_slow(instrumented: Recorder, open_spans: OpenSpans) -> None:
    async with (
        sdk.serve(fm.http_app(fm.build_server("upstream"), "http")) as url,
        fm.connect("memory", server=fm.proxy_of(f"{url}/mcp")) as client,
    ):
        with suppress(Exception):
            await client.call_tool("slow", {"seconds": 30}, timeout=0.5)
        assert fm.text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
    outer = instrumented.find("tools/call slow", "CLIENT")[0]
    assert error_of(outer) == "timeout"


@pytest.mark.skipif(fm.MAJOR < 4, reason="older releases have one revision only")
async def test_a_proxy_whose_upstream_speaks_an_older_revision(instrumented: Recorder, open_spans: OpenSpans) -> None:
    from fastmcp import Client

    log = WireLog()
    upstream = Client(fm.build_server("upstream"), mode="legacy")
    async with fm.connect("memory", server=fm.proxy_of(upstream), era="modern", log=log) as client:
        assert fm.text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
    assert_message_spans(log, instrumented.spans)
    versions = [
        (span.attributes or {})["mcp.protocol.version"] for span in instrumented.find("tools/call add", "SERVER")
    ]
    assert versions == ["2026-07-28", "2025-11-25"]


async def test_a_server_mounted_while_calls_run(instrumented: Recorder, open_spans: OpenSpans) -> None:
    main = fm.build_server("main")
    async with fm.connect("memory", server=main) as client, anyio.create_task_group() as tasks:

        async def keep_calling() -> None:
            for number in range(20):
                assert fm.text_of(await client.call_tool("add", {"a": number, "b": 0})) == str(number)

        tasks.start_soon(keep_calling)
        for number in range(3):
            fm.mount(main, fm.build_server(f"child{number}"), f"child{number}")
            assert fm.text_of(await client.call_tool(f"child{number}_add", {"a": 1, "b": 1})) == "2"
    assert len(instrumented.find("delegate add")) == 3
    assert len(instrumented.find("tools/call add", "SERVER")) == 20


async def test_two_servers_in_one_process(instrumented: Recorder, open_spans: OpenSpans) -> None:
    @asynccontextmanager
    async def client_of(name: str) -> AsyncIterator[Any]:
        async with (
            sdk.serve(fm.http_app(fm.build_server(name), "http")) as url,
            fm.make_client(f"{url}/mcp") as client,
        ):
            yield client

    async with client_of("one") as first, client_of("two") as second, anyio.create_task_group() as tasks:
        for client in (first, second) * 5:
            tasks.start_soon(client.call_tool, "add", {"a": 1, "b": 2})
    servers = [
        str((span.attributes or {})["fastmcp.server.name"]) for span in instrumented.find("tools/call add", "SERVER")
    ]
    assert sorted(servers) == ["one"] * 5 + ["two"] * 5
