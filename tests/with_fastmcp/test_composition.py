"""Servers made of servers: one SERVER span per message, INTERNAL spans for what happens inside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from fastmcp import FastMCP
from fastmcp.server.middleware import Middleware
from opentelemetry import trace

from conftest import Instrument, Recorder
from support import fastmcp_sdk as fm
from support import sdk
from support.conformance import assert_message_spans, message_spans
from support.wire import WireLog, WireLogASGI

pytestmark = pytest.mark.anyio

calls_in_process = pytest.mark.skipif(fm.MAJOR < 3, reason="FastMCP 2 cannot be called in process")


def tree(spans: list[Any]) -> dict[str, Any]:
    """Kind and name of each span, below its parent's."""
    children: dict[int | None, list[Any]] = {}
    known = {span.context.span_id for span in spans}
    for span in spans:
        above = span.parent.span_id if span.parent and span.parent.span_id in known else None
        children.setdefault(above, []).append(span)

    def below(above: int | None) -> dict[str, Any]:
        return {f"{span.kind.name} {span.name}": below(span.context.span_id) for span in children.get(above, [])}

    return below(None)


def subtree(recorder: Recorder, name: str) -> dict[str, Any]:
    return {key: value for key, value in tree(recorder.spans).items() if key.endswith(name)}


def attributes(span: Any) -> dict[str, Any]:
    return dict(span.attributes or {})


def family() -> Any:
    """``main`` with ``child`` mounted into it, and ``grandchild`` into that."""
    main, child, grandchild = fm.build_server("main"), fm.build_server("child"), fm.build_server("grandchild")
    fm.mount(child, grandchild, "grand")
    fm.mount(main, child, "child")
    return main


async def test_mounted_tool(instrumented: Recorder) -> None:
    async with fm.connect("memory", server=family()) as client:
        assert fm.text_of(await client.call_tool("child_grand_add", {"a": 1, "b": 2})) == "3"
    assert subtree(instrumented, "tools/call child_grand_add") == {
        "CLIENT tools/call child_grand_add": {
            "SERVER tools/call child_grand_add": {"INTERNAL delegate grand_add": {"INTERNAL delegate add": {}}}
        }
    }
    server = attributes(instrumented.one("tools/call child_grand_add", "SERVER"))
    assert server["fastmcp.server.name"] == "main", "the server that the client addressed"
    assert attributes(instrumented.one("delegate grand_add"))["fastmcp.server.name"] == "child"
    assert attributes(instrumented.one("delegate add"))["fastmcp.server.name"] == "grandchild"
    if fm.MAJOR >= 3:
        assert server["fastmcp.provider.type"] == "FastMCPProvider"
        assert attributes(instrumented.one("delegate add"))["fastmcp.provider.type"] == "LocalProvider"


async def test_mounted_listing(instrumented: Recorder) -> None:
    async with fm.connect("memory", server=family()) as client:
        assert len(await client.list_tools()) > 20
    (server,) = instrumented.find("tools/list", "SERVER")
    assert attributes(server)["fastmcp.server.name"] == "main"
    if fm.VERSION >= (3, 1) or fm.MAJOR == 2:
        (listing,) = subtree(instrumented, "tools/list").values()
        assert listing == {"SERVER tools/list": {"INTERNAL delegate tools/list": {"INTERNAL delegate tools/list": {}}}}


async def test_mounted_resource_and_prompt(instrumented: Recorder) -> None:
    async with fm.connect("memory", server=family()) as client:
        await client.get_prompt("child_greet", {"name": "you"})
        uris = [str(resource.uri) for resource in await client.list_resources()]
        await client.read_resource(next(uri for uri in uris if "child" in uri and "grand" not in uri))
    (prompt,) = subtree(instrumented, "prompts/get child_greet").values()
    assert prompt == {"SERVER prompts/get child_greet": {"INTERNAL delegate greet": {}}}
    (read,) = subtree(instrumented, "resources/read").values()
    assert read == {"SERVER resources/read": {"INTERNAL delegate resources/read": {}}}, "no URI in a span's name"


async def test_an_error_in_a_mounted_tool(instrumented: Recorder) -> None:
    async with fm.connect("memory", server=family()) as client:
        await client.call_tool("child_fail", {"text": "canary-in-an-error"}, raise_on_error=False)
    delegate = instrumented.one("delegate fail")
    assert attributes(delegate)["error.type"] == "tool_error"
    assert delegate.status.description is None
    for span in instrumented.ours:
        assert "canary" not in span.to_json()


@pytest.mark.parametrize("era", fm.ERAS)
async def test_in_process_upstream(instrumented: Recorder, era: str) -> None:
    """A proxy sends a real second message: CLIENT and SERVER of its own, nested."""
    log = WireLog()
    main = fm.build_server("main")
    fm.mount(main, fm.proxy_of(fm.build_server("upstream")), "up")
    async with fm.connect("memory", server=main, log=log, era=era) as client:
        with instrumented.tracer().start_as_current_span("agent"):
            assert fm.text_of(await client.call_tool("up_add", {"a": 1, "b": 2})) == "3"
    assert_message_spans(log, instrumented.spans)
    outer = instrumented.one("tools/call up_add", "SERVER")
    inner, upstream = instrumented.one("tools/call add", "CLIENT"), instrumented.one("tools/call add", "SERVER")
    delegate = instrumented.one("delegate add")
    assert delegate.parent and delegate.parent.span_id == outer.context.span_id
    assert inner.parent and inner.parent.span_id == delegate.context.span_id
    assert attributes(outer)["fastmcp.server.name"] == "main"
    assert attributes(upstream)["fastmcp.server.name"] == "upstream"
    assert len({span.context.trace_id for span in (outer, delegate, inner, upstream)}) == 1


async def test_upstream_over_http(instrumented: Recorder) -> None:
    log = WireLog()
    app = WireLogASGI(fm.http_app(fm.build_server("upstream"), "http"), log)
    async with sdk.serve(app) as url:
        proxy = fm.proxy_of(f"{url}/mcp", "gateway")
        async with fm.connect("memory", server=proxy, log=log) as client:
            with instrumented.tracer().start_as_current_span("agent") as agent:
                assert fm.text_of(await client.call_tool("add", {"a": 1, "b": 2})) == "3"
                await client.read_resource("res://greeting")
    assert_message_spans(log, instrumented.spans)
    calls = instrumented.find("tools/call add")
    assert [span.kind.name for span in calls] == ["CLIENT", "SERVER", "CLIENT", "SERVER"]
    assert {span.context.trace_id for span in calls} == {agent.get_span_context().trace_id}
    assert attributes(calls[2])["network.transport"] == "tcp"


@pytest.mark.parametrize("era", fm.ERAS)
async def test_what_a_gateway_asks_for_itself_is_in_its_callers_trace(instrumented: Recorder, era: str) -> None:
    """Before a call some releases list tools for themselves, and a proxy has to ask its upstream for them."""
    log = WireLog()
    main = fm.build_server("main")
    fm.mount(main, fm.proxy_of(fm.build_server("upstream")), "up")
    async with fm.connect("http", server=main, log=log, era=era) as client:
        with fm.tapped_memory(log), instrumented.tracer().start_as_current_span("agent") as agent:
            assert fm.text_of(await client.call_tool("up_add", {"a": 1, "b": 2})) == "3"
    assert_message_spans(log, instrumented.spans)
    opening = ("initialize", "notifications/initialized", "server/discover")
    strays = {
        f"{span.kind.name} {span.name}"
        for span in instrumented.spans
        if span.context.trace_id != agent.get_span_context().trace_id and span.name not in opening
    }
    assert not strays


async def test_proxied_server_asks_back(instrumented: Recorder) -> None:
    """A request of the upstream is forwarded to the first client: two messages in one trace, upwards."""
    log = WireLog()
    answers = fm.Answers()
    proxy = fm.proxy_of(fm.build_server("upstream"))
    async with fm.connect("memory", server=proxy, log=log, answers=answers) as client:
        with instrumented.tracer().start_as_current_span("agent") as agent:
            assert fm.text_of(await client.call_tool("sample", {})) == "sampled"
            assert fm.text_of(await client.call_tool("progress", {})) == "done"
    assert_message_spans(log, instrumented.spans)
    sampling = instrumented.find("sampling/createMessage")
    assert len(sampling) == 4 and {span.context.trace_id for span in sampling} == {agent.get_span_context().trace_id}
    assert ("sampling", f"{agent.get_span_context().trace_id:032x}") in [
        (what, context["trace_id"]) for what, context in answers.seen
    ]


async def test_middleware_sees_the_server_span(instrumented: Recorder) -> None:
    seen: list[tuple[str, Any]] = []

    class Watching(Middleware):
        async def on_message(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
            span: Any = trace.get_current_span()
            seen.append((context.method, span))
            with instrumented.tracer().start_as_current_span("middleware"):
                return await call_next(context)

    server = fm.build_server("main")
    server.add_middleware(Watching())
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("add", {"a": 1, "b": 2})
    (span,) = [span for method, span in seen if method == "tools/call"]
    assert (span.name, span.kind.name) == ("tools/call add", "SERVER")
    server_span = instrumented.one("tools/call add", "SERVER")
    assert server_span.context.span_id == span.get_span_context().span_id
    assert attributes(server_span)["fastmcp.server.name"] == "main"
    assert "execute_tool add" not in [span.name for span in instrumented.spans]


async def test_middleware_that_calls_twice(instrumented: Recorder) -> None:
    class Again(Middleware):
        async def on_call_tool(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
            await call_next(context)
            return await call_next(context)

    server = fm.build_server("main")
    server.add_middleware(Again())
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("add", {"a": 1, "b": 2})
    assert len(instrumented.find("tools/call add", "SERVER")) == 1
    assert not [span.name for span in instrumented.spans if span.kind.name == "INTERNAL"]


@calls_in_process
async def test_call_in_process(instrumented: Recorder) -> None:
    server = family()
    with instrumented.tracer().start_as_current_span("agent"):
        await server.call_tool("add", {"a": 1, "b": 2})
        await server.call_tool("child_add", {"a": 1, "b": 2})
        await server.render_prompt("greet", {"name": "you"})
        await server.read_resource("res://greeting")
    assert tree(instrumented.spans) == {
        "INTERNAL agent": {
            "INTERNAL execute_tool add": {},
            "INTERNAL execute_tool child_add": {"INTERNAL delegate add": {}},
            "INTERNAL render_prompt greet": {},
            "INTERNAL read_resource": {},
        }
    }
    assert not message_spans(instrumented.spans), "there was no message"
    assert attributes(instrumented.one("read_resource"))["mcp.resource.uri"] == "res://greeting"
    # For the checks that follow every test: metrics belong to messages.
    async with fm.connect("memory") as client:
        await client.ping()


@calls_in_process
async def test_tool_that_calls_a_tool(instrumented: Recorder) -> None:
    server = fm.build_server("main")

    async def twice() -> str:
        await server.call_tool("add", {"a": 1, "b": 2})
        return "done"

    server.tool(twice)
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("twice", {})
    (call,) = subtree(instrumented, "tools/call twice").values()
    assert call == {"SERVER tools/call twice": {"INTERNAL execute_tool add": {}}}


@calls_in_process
async def test_a_task_that_outlives_its_message(instrumented: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    server = fm.build_server("main")
    finished = anyio.Event()

    async def later() -> None:
        await anyio.sleep(0.1)
        await server.call_tool("add", {"a": 1, "b": 2})
        finished.set()

    async def start() -> str:
        background.append(asyncio.get_running_loop().create_task(later()))
        return "started"

    background: list[Any] = []
    server.tool(start)
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("start", {})
        with anyio.fail_after(5):
            await finished.wait()
    call = instrumented.one("tools/call start", "SERVER")
    late = instrumented.one("execute_tool add")
    assert late.parent and late.parent.span_id == call.context.span_id
    assert "ended span" not in caplog.text


@calls_in_process
async def test_transforms(instrumented: Recorder) -> None:
    """A tool made of another keeps to one SERVER span; the client's name for it is the span's."""
    from fastmcp.tools import Tool

    server = fm.build_server("main")
    source: Any = Tool.from_function(lambda x: x + 1, name="inner")
    server.add_tool(Tool.from_tool(source, name="outer"))
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("outer", {"x": 1})
    (call,) = subtree(instrumented, "tools/call outer").values()
    assert call == {"SERVER tools/call outer": {}}


async def test_openapi_server(instrumented: Recorder) -> None:
    """The HTTP call that a generated tool makes is a child of the message's SERVER span."""
    from importlib import import_module

    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    httpx = import_module("httpx2" if fm.MAJOR >= 4 else "httpx")
    instrumentation = import_module("opentelemetry.instrumentation.httpx")
    instrumentor = getattr(
        instrumentation, "HTTPX2ClientInstrumentor" if fm.MAJOR >= 4 else "HTTPXClientInstrumentor", None
    )
    if instrumentor is None:
        pytest.skip("this release of the HTTP client instrumentation does not know httpx2")

    async def weather(request: Any) -> Any:
        return JSONResponse({"degrees": 20})

    description = {
        "openapi": "3.1.0",
        "info": {"title": "weather", "version": "1"},
        "paths": {
            "/weather": {
                "get": {
                    "operationId": "get_weather",
                    "responses": {"200": {"description": "ok", "content": {"application/json": {}}}},
                }
            }
        },
    }
    async with (
        sdk.serve(Starlette(routes=[Route("/weather", weather)])) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        instrumentor.instrument_client(http, tracer_provider=instrumented.tracer_provider)
        server = FastMCP.from_openapi(description, http)
        async with fm.connect("memory", server=server) as client:
            assert "20" in fm.text_of(await client.call_tool("get_weather", {}))
    (call,) = subtree(instrumented, "tools/call get_weather").values()
    assert call == {"SERVER tools/call get_weather": {"CLIENT GET": {}}}


@pytest.mark.parametrize(
    "secret_uri",
    [
        "res://user:canary-password@host/data?token=canary-token",
        "res://user:canary-password@host",
        "mailto:bob?token=canary-token",
    ],
)
async def test_secrets_in_uris_and_names(instrument: Instrument, recorder: Recorder, secret_uri: str) -> None:
    """A resource's key is its URI: what may be secret in it is not told, wherever FastMCP would put it."""
    instrument()
    child, upstream = FastMCP("child"), FastMCP("upstream")
    for one in (child, upstream):
        one.resource(secret_uri)(lambda: "canary-content")
    main = fm.build_server("main")
    main.resource(secret_uri)(lambda: "canary-content")
    fm.mount(main, child, "child")
    fm.mount(main, fm.proxy_of(upstream), "up")
    async with fm.connect("memory", server=main) as client:
        uris = [str(r.uri) for r in await client.list_resources() if "canary" in str(r.uri)]
        for uri in (*uris, f"{secret_uri}-unknown"):
            with suppress(Exception):
                await client.read_resource(uri)
    assert uris and len(recorder.find("resources/read", "SERVER")) > len(uris)
    for span in recorder.spans:
        assert "canary" not in span.to_json(), span.to_json()


async def test_the_text_of_an_error_inside_is_not_told(instrumented: Recorder) -> None:
    class Refuses(Middleware):
        async def on_call_tool(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
            raise sdk.mcp_error(-32050, "canary-in-an-error")

    child, main = fm.build_server("child"), fm.build_server("main")
    child.add_middleware(Refuses())
    fm.mount(main, child, "child")
    async with fm.connect("memory", server=main) as client:
        with suppress(Exception):
            await client.call_tool("child_add", {"a": 1, "b": 2}, raise_on_error=False)
    delegate = instrumented.one("delegate add")
    assert attributes(delegate)["error.type"] == attributes(delegate)["rpc.response.status_code"] == "-32050"
    assert "canary" not in delegate.to_json()


@calls_in_process
async def test_middleware_that_calls_another_tool_first(instrumented: Recorder) -> None:
    class Asks(Middleware):
        async def on_call_tool(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
            if context.message.name == "add":
                await server.call_tool("slow", {"seconds": 0})
            return await call_next(context)

    server = fm.build_server("main")
    server.add_middleware(Asks())
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("add", {"a": 1, "b": 2})
    (call,) = subtree(instrumented, "tools/call add").values()
    assert call == {"SERVER tools/call add": {"INTERNAL execute_tool slow": {}}}
    assert attributes(instrumented.one("tools/call add", "SERVER"))["fastmcp.component.key"] == "tool:add@"


@calls_in_process
async def test_tool_that_calls_another_server(instrumented: Recorder) -> None:
    server, other = fm.build_server("main"), fm.build_server("other")

    async def elsewhere() -> str:
        await other.call_tool("add", {"a": 1, "b": 2})
        return "done"

    server.tool(elsewhere)
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("elsewhere", {})
    (call,) = subtree(instrumented, "tools/call elsewhere").values()
    assert call == {"SERVER tools/call elsewhere": {"INTERNAL execute_tool add": {}}}


async def test_excluded_methods_have_no_spans_inside(instrument: Instrument, recorder: Recorder) -> None:
    instrument(excluded_methods=["tools/call"])
    async with fm.connect("memory", server=family()) as client:
        assert fm.text_of(await client.call_tool("child_add", {"a": 1, "b": 2})) == "3"
        await client.ping()
    assert not [span.name for span in recorder.spans if "add" in span.name]
