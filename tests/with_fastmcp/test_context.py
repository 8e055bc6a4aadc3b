"""Which span, baggage and logs handlers see: in every tool, resource and prompt, those of the message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context

from conftest import Instrument, Recorder
from support import fastmcp_sdk as fm

pytestmark = pytest.mark.anyio


@pytest.fixture
def log_lines() -> Iterator[list[tuple[str, str]]]:
    handler = fm.HandlerLog()
    fm.handler_logger.addHandler(handler)
    yield handler.lines
    fm.handler_logger.removeHandler(handler)


@pytest.mark.parametrize("era", fm.ERAS)
@pytest.mark.parametrize("transport", ["memory", "http", "http-stateless"])
async def test_in_every_handler(
    instrumented: Recorder, transport: str, era: str, log_lines: list[tuple[str, str]]
) -> None:
    async with fm.connect(transport, era=era) as client:
        token = context.attach(baggage.set_baggage("user.id", "alice"))
        try:
            with instrumented.tracer().start_as_current_span("agent") as agent:
                seen = {
                    "tools/call context": await client.call_tool("context", {}),
                    "tools/call context_in_thread": await client.call_tool("context_in_thread", {}),
                    "resources/read": await client.read_resource("res://context"),
                    "prompts/get prompt_context": await client.get_prompt("prompt_context"),
                }
        finally:
            context.detach(token)
    trace_id = f"{agent.get_span_context().trace_id:032x}"
    for name, result in seen.items():
        found: dict[str, Any] = json.loads(fm.text_of(result))
        server = instrumented.one(name, "SERVER")
        assert found["span_id"] == f"{server.context.span_id:016x}", name
        assert found["trace_id"] == trace_id, name
        assert found["baggage"] == {"user.id": "alice"}, name
    assert log_lines == [(what, trace_id) for what in ("tool", "sync tool", "resource", "prompt")]


@pytest.mark.skipif(fm.MAJOR >= 3, reason="later releases have spans of their own, which `keep` keeps")
async def test_where_there_is_nothing_to_keep(instrument: Instrument, recorder: Recorder) -> None:
    instrument(native_spans="keep")
    async with fm.connect("memory") as client:
        found = json.loads(fm.text_of(await client.call_tool("context", {})))
    assert found["span_id"] == f"{recorder.one('tools/call context', 'SERVER').context.span_id:016x}"


async def test_concurrent_calls_keep_apart(instrumented: Recorder) -> None:
    import anyio

    found: dict[int, tuple[str, str]] = {}
    async with fm.connect("http") as client:

        async def call(number: int) -> None:
            with instrumented.tracer().start_as_current_span(f"agent {number}") as agent:
                result = json.loads(fm.text_of(await client.call_tool("context", {})))
            found[number] = (result["trace_id"], f"{agent.get_span_context().trace_id:032x}")

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(call, number)
    assert len(found) == 5
    for seen, own in found.values():
        assert seen == own


async def test_callbacks_run_under_the_span_of_their_message(instrumented: Recorder) -> None:
    answers = fm.Answers()
    async with fm.connect("memory", answers=answers) as client:
        with instrumented.tracer().start_as_current_span("agent"):
            await client.call_tool("sample", {})
            await client.call_tool("elicit", {})
            await client.call_tool("progress", {})
    expected = {
        "sampling": instrumented.one("sampling/createMessage", "SERVER"),
        "elicitation": instrumented.one("elicitation/create", "SERVER"),
    }
    seen = dict(answers.seen)
    for what, span in expected.items():
        assert seen[what]["span_id"] == f"{span.context.span_id:016x}", what
    assert seen["progress"]["trace_id"] == f"{instrumented.spans[-1].context.trace_id:032x}"
