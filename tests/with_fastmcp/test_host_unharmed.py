"""Our own code fails, at every place where it can: what a FastMCP program sees is what it sees without us."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest
from opentelemetry import context

from conftest import Recorder
from support import fastmcp_sdk as fm
from support.breaking import Outcome, break_each, described, dumped, harm, instrumented, listening, places_called

pytestmark = pytest.mark.anyio


def family() -> Any:
    main, child = fm.build_server("main"), fm.build_server("child")

    async def calls_another() -> str:
        return fm.text_of(await main.call_tool("add", {"a": 1, "b": 2}))

    if fm.MAJOR >= 3:
        main.tool(calls_another)
    fm.mount(main, child, "child")
    fm.mount(main, fm.proxy_of(fm.build_server("upstream"), "proxy"), "up")
    return main


def stable(result: Any) -> Any:
    return [dumped(one) for one in result] if isinstance(result, list) else repr(getattr(result, "content", result))


async def work(server: Any, era: str) -> list[Outcome]:
    """What the program does and sees."""
    seen: list[Outcome] = []
    current = context.get_current()
    steps: list[tuple[str, dict[str, Any]]] = [
        ("add", {"a": 1, "b": 2}),
        ("fail", {}),
        ("nobody-knows-this-tool", {}),
        ("child_add", {"a": 1, "b": 2}),
        ("child_fail", {}),
        ("up_add", {"a": 1, "b": 2}),
        ("progress", {}),
        *([("calls_another", {})] if fm.MAJOR >= 3 else []),
        *([("sample", {})] if era == "legacy" else []),
    ]
    async with fm.connect("memory", server=server, era=era) as client:
        for tool, arguments in steps:
            with anyio.fail_after(20):
                try:
                    seen.append((tool, stable(await client.call_tool(tool, arguments))))
                except Exception as error:
                    seen.append((tool, *described(error)))
            assert context.get_current() is current
        seen.append(("tools", *sorted(tool.name for tool in await client.list_tools())))
        seen.append(("resource", stable(await client.read_resource("res://greeting"))))
        seen.append(("prompt", str(await client.get_prompt("child_greet", {"name": "you"}))))
        with anyio.move_on_after(0.01):
            await client.call_tool("child_slow", {"seconds": 3})
        await anyio.sleep(0.01)
    if fm.MAJOR >= 3:
        seen.append(("in process", stable(await server.call_tool("child_add", {"a": 1, "b": 2}))))
    return seen


@pytest.mark.parametrize("era", fm.ERAS)
@pytest.mark.parametrize("native_spans", ["replace", "keep"])
async def test_every_function_of_ours_fails(era: str, native_spans: str) -> None:
    run = partial(work, family(), era)
    options = {"native_spans": native_spans}
    with listening() as log:
        without = await run(), log.host
    with listening() as log:
        assert harm(without, await run(), log) == []
    with listening() as log, instrumented(**options):
        assert harm(without, await run(), log) == []
    assert log.ours == []
    # Those for messages are broken one by one in the tests of the SDK.
    of_fastmcp = [
        place
        for place in await places_called(run, **options)
        if place.label.startswith(("targets.fastmcp", "internal.", "places.", "targets.sdk_v2_rounds"))
        or place.label.startswith("telemetry.Telemetry._stand_in")
    ]
    assert len(of_fastmcp) > 5
    harmed = await break_each(without, run, of_fastmcp, **options)
    assert not harmed, "\n".join(harmed)


async def test_works_when_switched_on_late_and_off_again(recorder: Recorder) -> None:
    server = family()
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("child_add", {"a": 1, "b": 2})
    assert not recorder.spans
    with instrumented(tracer_provider=recorder.tracer_provider):
        async with fm.connect("memory", server=server) as client:
            await client.call_tool("child_add", {"a": 1, "b": 2})
    names = [span.name for span in recorder.spans]
    assert names.count("delegate add") == 1 and names.count("tools/call child_add") == 2
    recorder.clear()
    async with fm.connect("memory", server=server) as client:
        await client.call_tool("child_add", {"a": 1, "b": 2})
    assert not recorder.spans
