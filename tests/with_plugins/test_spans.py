"""The spans of hook chains and of the plugins in them, whatever these do."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from conftest import Instrument, Recorder
from opentelemetry_instrumentation_mcp import McpInstrumentor
from support import plugin_framework as pf
from support import plugin_zoo as zoo
from support.plugin_framework import BLOCKS, IS_CPEX, IS_IGNORED, LOOKS_ON, framework, invoke, managing, plugin

pytestmark = pytest.mark.anyio

CRASH = "support.plugin_zoo.CrashError"
only_cpex = pytest.mark.skipif(not IS_CPEX, reason="a mode that only cpex has")
only_old = pytest.mark.skipif(IS_CPEX, reason="a mode that only the framework inside of gateways has")

Attributes = dict[str, Any]


@pytest.fixture(autouse=True)
def fresh_zoo() -> None:
    # The loader of plugins imports by name: it must find the same module as the test.
    assert importlib.import_module("support.plugin_zoo") is zoo
    zoo.gates.clear()
    zoo.seen.clear()
    zoo.tracers.clear()


def chain_of(recorder: Recorder) -> ReadableSpan:
    return recorder.one("plugin.hook.invoke")


def runs_of(recorder: Recorder) -> dict[str, ReadableSpan]:
    """The spans of plugins by the name of the plugin; all of them are in the one chain."""
    chain = chain_of(recorder)
    runs = recorder.find("plugin.execute")
    for run in runs:
        assert run.parent is not None and run.parent.span_id == chain.context.span_id
        assert run.context.trace_id == chain.context.trace_id
    by_name = {str((run.attributes or {})["plugin.name"]): run for run in runs}
    assert len(by_name) == len(runs)
    return by_name


def told(span: ReadableSpan, *names: str) -> Attributes:
    attributes = dict(span.attributes or {})
    return {name: attributes.get(f"plugin.{name}") for name in names}


def outcome(span: ReadableSpan) -> tuple[str, Any]:
    assert span.status.description is None
    return span.status.status_code.name, (span.attributes or {}).get("error.type")


OK, NO_ERROR = "UNSET", ("UNSET", None)


def chain_told(recorder: Recorder) -> tuple[Any, ...]:
    chain = chain_of(recorder)
    return tuple(told(chain, "chain.stopped", "chain.stopped_by", "executed_count", "skipped_count").values())


async def test_no_plugin_no_span(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("other", hooks=[pf.POST])) as manager:
        await invoke(manager)
    assert not instrumented.spans


async def test_every_attribute_of_a_chain_that_runs_through(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("first"), plugin("second", "modify")) as manager:
        with instrumented.tracer().start_as_current_span("above") as above:
            result = await invoke(manager)
    assert result.modified_payload.args["added"] == "second"
    chain = chain_of(instrumented)
    assert chain.kind is SpanKind.INTERNAL
    assert chain.parent is not None and chain.parent.span_id == above.get_span_context().span_id
    assert dict(chain.attributes or {}) == {
        "plugin.hook.type": "tool_pre_invoke",
        "plugin.chain.length": 2,
        "plugin.chain.stopped": False,
        "plugin.executed_count": 2,
        "plugin.skipped_count": 0,
    }
    expected = {
        "plugin.kind": pf.ZOO,
        "plugin.mode": BLOCKS["mode"],
        "plugin.hook.type": "tool_pre_invoke",
        "plugin.had_violation": False,
        "plugin.modified_payload": False,
        "plugin.continue_processing": True,
        "plugin.stopped_chain": False,
    }
    runs = runs_of(instrumented)
    assert dict(runs["first"].attributes or {}) == {**expected, "plugin.name": "first", "plugin.priority": 10}
    assert dict(runs["second"].attributes or {}) == {
        **expected,
        "plugin.name": "second",
        "plugin.priority": 20,
        "plugin.modified_payload": True,
    }
    assert {outcome(span) for span in instrumented.spans if span.name != "above"} == {NO_ERROR}
    assert (runs["first"].end_time or 0) <= (runs["second"].start_time or 0)


DENIALS = ["deny", "deny_in_silence", "raise_violation"]


def stops(mode: str, do: str) -> bool:
    """The framework's rules: who may block; what a plugin raises itself goes up in every mode but the background."""
    if do == "raise_violation":
        return mode != "fire_and_forget"
    if mode == "enforce_ignore_error" and pf.VERSION.startswith("0."):
        return False  # it says that it blocks, and does not
    return mode in ("sequential", "concurrent", "enforce", "enforce_ignore_error")


MODES = (
    ["sequential", "transform", "audit", "concurrent", "fire_and_forget"]
    if IS_CPEX
    else ["enforce", "enforce_ignore_error", "permissive"]
)


@pytest.mark.parametrize("raising", [False, True])
@pytest.mark.parametrize("do", DENIALS)
@pytest.mark.parametrize("mode", MODES)
async def test_a_violation_is_no_error_in_any_mode(
    instrumented: Recorder, tmp_path: Path, mode: str, do: str, raising: bool
) -> None:
    stopped = stops(mode, do)
    async with managing(
        tmp_path, plugin("guard", do, mode=mode, priority=1), plugin("last", mode=mode, priority=2)
    ) as manager:
        surfaced = None
        try:
            result = await invoke(manager, raising=raising)
            await asyncio.gather(*getattr(result, "background_tasks", ()))
            assert result.continue_processing is not stopped
        except framework.PluginViolationError as error:
            surfaced = error
    assert (surfaced is not None) is (stopped and ((raising and mode != "enforce_ignore_error") or do == DENIALS[2]))
    runs = runs_of(instrumented)
    guard = runs["guard"]
    has_violation = do != "deny_in_silence"
    assert told(guard, "mode", "had_violation", "continue_processing", "stopped_chain", "violation.code") == {
        "mode": mode,
        "had_violation": has_violation,
        "continue_processing": False,
        "stopped_chain": stopped,
        "violation.code": "DENIED" if has_violation else None,
    }
    assert {outcome(span) for span in instrumented.spans} == {NO_ERROR}
    begun = len([run for run in runs.values() if outcome(run) == NO_ERROR])
    assert chain_told(instrumented) == (stopped, "guard" if stopped else None, begun, 0)
    assert ("last" in runs) is not (stopped and mode != "concurrent")


@pytest.mark.parametrize("raising", [False, True])
async def test_plugins_behind_the_one_that_stops_are_not_skipped(
    instrumented: Recorder, tmp_path: Path, raising: bool
) -> None:
    off = plugin("elsewhere", conditions=[{"server_ids": ["s2"]}])
    async with managing(
        tmp_path, off, plugin("first"), plugin("guard", "deny"), plugin("behind"), plugin("watch", **LOOKS_ON)
    ) as manager:
        try:
            await invoke(manager, raising=raising)
        except framework.PluginViolationError:
            assert raising
    assert list(runs_of(instrumented)) == ["first", "guard"]
    assert chain_told(instrumented) == (True, "guard", 2, 1)
    assert told(chain_of(instrumented), "chain.length") == {"chain.length": 5}


async def test_a_chain_whose_plugins_are_all_skipped(instrumented: Recorder, tmp_path: Path) -> None:
    off: Attributes = {"conditions": [{"server_ids": ["s2"]}]}
    async with managing(tmp_path, plugin("first", **off), plugin("second", **off)) as manager:
        await invoke(manager)
    assert not runs_of(instrumented)
    assert chain_told(instrumented) == (False, None, 0, 2)


async def test_a_violation_that_does_not_deny(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("warns", "warn", code="ODD")) as manager:
        assert (await invoke(manager, raising=True)).continue_processing
    assert told(runs_of(instrumented)["warns"], "had_violation", "violation.code", "stopped_chain") == {
        "had_violation": True,
        "violation.code": "ODD",
        "stopped_chain": False,
    }
    assert chain_told(instrumented) == (False, None, 1, 0)


async def test_a_crash_that_ends_the_chain(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("first"), plugin("bad", "crash"), plugin("behind")) as manager:
        with pytest.raises(framework.PluginError, match="the plugin crashed"):
            await invoke(manager)
    runs = runs_of(instrumented)
    assert list(runs) == ["first", "bad"]
    assert outcome(runs["bad"]) == outcome(chain_of(instrumented)) == ("ERROR", CRASH)
    assert outcome(runs["first"]) == NO_ERROR
    assert chain_told(instrumented) == (True, "bad", 2, 0)
    assert told(runs["bad"], "had_violation", "modified_payload", "continue_processing", "stopped_chain") == {
        "had_violation": False,
        "modified_payload": False,
        "continue_processing": None,
        "stopped_chain": True,
    }


SWALLOWING = [IS_IGNORED, {**BLOCKS, "on_error": "disable"}] if IS_CPEX else [IS_IGNORED, LOOKS_ON]


@pytest.mark.parametrize("settings", SWALLOWING, ids=lambda settings: settings.get("on_error", settings["mode"]))
@pytest.mark.parametrize(("do", "error_type"), [("crash", CRASH), ("hang", "timeout")])
async def test_a_failure_that_is_swallowed(
    instrumented: Recorder, tmp_path: Path, settings: Attributes, do: str, error_type: str
) -> None:
    timeout = 0.05 if do == "hang" else 20
    async with managing(tmp_path, plugin("bad", do, **settings), plugin("behind"), timeout=timeout) as manager:
        assert (await invoke(manager)).continue_processing
        runs = runs_of(instrumented)
        assert list(runs) == ["bad", "behind"]
        assert outcome(runs["bad"]) == ("ERROR", error_type)
        assert told(runs["bad"], "stopped_chain") == {"stopped_chain": False}
        assert outcome(runs["behind"]) == outcome(chain_of(instrumented)) == NO_ERROR
        assert chain_told(instrumented) == (False, None, 2, 0)
        assert (runs["bad"].end_time or 0) <= (runs["behind"].start_time or 0)
        if settings.get("on_error") == "disable":
            instrumented.clear()
            await invoke(manager)
            assert list(runs_of(instrumented)) == ["behind"]
            assert chain_told(instrumented) == (False, None, 1, 1)


async def test_a_timeout_that_ends_the_chain(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("slow", "hang"), plugin("behind"), timeout=0.05) as manager:
        with pytest.raises(framework.PluginError):
            await invoke(manager)
    runs = runs_of(instrumented)
    assert outcome(runs["slow"]) == outcome(chain_of(instrumented)) == ("ERROR", "timeout")
    assert chain_told(instrumented) == (True, "slow", 1, 0)


@only_cpex
@pytest.mark.parametrize("mode", ["transform", "audit"])
async def test_a_failure_ends_the_chain_also_in_modes_that_cannot_block(
    instrumented: Recorder, tmp_path: Path, mode: str
) -> None:
    async with managing(tmp_path, plugin("bad", "crash", mode=mode)) as manager:
        with pytest.raises(framework.PluginError):
            await invoke(manager)
    assert outcome(runs_of(instrumented)["bad"]) == outcome(chain_of(instrumented)) == ("ERROR", CRASH)
    assert chain_told(instrumented) == (True, "bad", 1, 0)


@only_old
async def test_a_setting_makes_every_failure_end_the_chain(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("bad", "crash", **LOOKS_ON), fail_on_plugin_error=True) as manager:
        with pytest.raises(framework.PluginError):
            await invoke(manager)
    assert outcome(runs_of(instrumented)["bad"]) == outcome(chain_of(instrumented)) == ("ERROR", CRASH)
    assert told(runs_of(instrumented)["bad"], "stopped_chain") == {"stopped_chain": True}


async def test_the_payload_is_too_large_for_any_plugin(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("first")) as manager:
        with pytest.raises(ValueError, match="exceeds limit"):
            await invoke(manager, x="x" * 1_000_001)
    assert outcome(chain_of(instrumented)) == ("ERROR", f"{pf.PACKAGE}.manager.PayloadSizeError")
    assert chain_told(instrumented) == (False, None, 0, 0)
    assert not runs_of(instrumented)


async def test_the_caller_gives_up(instrumented: Recorder, tmp_path: Path) -> None:
    zoo.gates["begun"] = asyncio.Event()
    async with managing(
        tmp_path, plugin("first", then_open="begun"), plugin("slow", "hang"), plugin("behind")
    ) as manager:
        task = asyncio.ensure_future(invoke(manager))
        await zoo.gates["begun"].wait()
        while "slow" not in [name for name, _ in zoo.seen]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    runs = runs_of(instrumented)
    assert outcome(runs["slow"]) == outcome(chain_of(instrumented)) == ("ERROR", "cancelled")
    assert chain_told(instrumented) == (False, None, 2, 0)


@pytest.mark.parametrize("raising", [False, True])
async def test_a_program_that_runs_plugins_in_a_way_of_its_own(
    instrumented: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raising: bool
) -> None:
    violation = framework.PluginViolation(reason="r", description="d", code="OWN")
    violation.plugin_name = "first"

    async def execute_plugin(*args: Any, **kwargs: Any) -> Any:
        if raising:
            raise framework.PluginViolationError("blocked", violation=violation)
        return framework.PluginResult(continue_processing=False, violation=violation)

    async with managing(tmp_path, plugin("first"), plugin("second")) as manager:
        monkeypatch.setattr(manager._executor, "execute_plugin", execute_plugin)
        try:
            await invoke(manager)
        except framework.PluginViolationError:
            assert raising
    assert outcome(chain_of(instrumented)) == NO_ERROR
    assert chain_told(instrumented) == (True, "first", 0, 0)


# ----- at the same time, and in the background


@only_cpex
@pytest.mark.parametrize("raising", [False, True])
async def test_the_first_of_several_at_the_same_time_stops_the_chain(
    instrumented: Recorder, tmp_path: Path, raising: bool
) -> None:
    zoo.gates["never"] = asyncio.Event()
    same = {"mode": "concurrent"}
    async with managing(
        tmp_path,
        plugin("slow", wait_for="never", **same),
        plugin("guard", "deny", **same),
        plugin("second guard", "deny", **same),
        plugin("quick", **same),
    ) as manager:
        try:
            assert not (await invoke(manager, raising=raising)).continue_processing
        except framework.PluginViolationError as error:
            assert raising and error.violation.plugin_name == "guard"
        left_running = raising and pf.LEAVES_OTHERS_RUNNING
        if left_running:
            zoo.gates["never"].set()
            while len(instrumented.spans) < 5:
                await asyncio.sleep(0)
    runs = runs_of(instrumented)
    assert sorted(runs) == ["guard", "quick", "second guard", "slow"]
    assert outcome(runs["slow"]) == (NO_ERROR if left_running else ("ERROR", "cancelled"))
    assert {outcome(runs[name]) for name in ("guard", "quick", "second guard")} == {NO_ERROR}
    assert [name for name in runs if told(runs[name], "stopped_chain")["stopped_chain"]] == ["guard"]
    assert outcome(chain_of(instrumented)) == NO_ERROR
    assert chain_told(instrumented) == (True, "guard", 4, 0)


@only_cpex
async def test_a_failure_ends_the_chain_while_others_go_on(instrumented: Recorder, tmp_path: Path) -> None:
    zoo.gates["go"] = asyncio.Event()
    zoo.gates["done"] = asyncio.Event()
    same = {"mode": "concurrent"}
    async with managing(
        tmp_path, plugin("slow", wait_for="go", then_open="done", **same), plugin("bad", "crash", **same)
    ) as manager:
        with pytest.raises(framework.PluginError):
            await invoke(manager)
        assert chain_told(instrumented) == (True, "bad", 2, 0)
        zoo.gates["go"].set()
        await zoo.gates["done"].wait()
        while len(instrumented.spans) < 3:
            await asyncio.sleep(0)
    runs = runs_of(instrumented)
    assert outcome(runs["bad"]) == outcome(chain_of(instrumented)) == ("ERROR", CRASH)
    assert outcome(runs["slow"]) == NO_ERROR
    assert told(runs["slow"], "stopped_chain") == {"stopped_chain": False}


@only_cpex
@pytest.mark.parametrize(
    ("do", "expected"),
    [("pass", NO_ERROR), ("crash", ("ERROR", CRASH)), ("deny", NO_ERROR), ("hang", ("ERROR", "timeout"))],
)
async def test_in_the_background_a_plugin_outlives_its_chain(
    instrumented: Recorder, tmp_path: Path, do: str, expected: tuple[str, Any]
) -> None:
    zoo.gates["go"] = asyncio.Event()
    async with managing(
        tmp_path,
        plugin("later", do, mode="fire_and_forget", wait_for="go"),
        plugin("first"),
        timeout=0.2 if do == "hang" else 20,
    ) as manager:
        result = await invoke(manager)
        assert result.continue_processing
        assert chain_told(instrumented) == (False, None, 2, 0)
        assert list(runs_of(instrumented)) == ["first"]
        zoo.gates["go"].set()
        await asyncio.gather(*result.background_tasks)
    later = runs_of(instrumented)["later"]
    assert outcome(later) == expected
    assert told(later, "mode", "stopped_chain") == {"mode": "fire_and_forget", "stopped_chain": False}


@only_cpex
@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks that begin at once are of Python 3.12")
async def test_in_the_background_but_begun_at_once(instrumented: Recorder, tmp_path: Path) -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    later = {"mode": "fire_and_forget"}
    async with managing(tmp_path, plugin("later", **later), plugin("bad", "crash", **later)) as manager:
        await asyncio.gather(*(await invoke(manager)).background_tasks)
    runs = runs_of(instrumented)
    assert sorted(runs) == ["bad", "later"]
    assert {name: told(run, "stopped_chain")["stopped_chain"] for name, run in runs.items()} == {
        "bad": False,
        "later": False,
    }
    assert outcome(chain_of(instrumented)) == NO_ERROR
    assert chain_told(instrumented) == (False, None, 2, 0)


@only_cpex
@pytest.mark.parametrize("raising", [False, True])
async def test_in_the_background_after_a_chain_that_was_stopped(
    instrumented: Recorder, tmp_path: Path, raising: bool
) -> None:
    async with managing(
        tmp_path, plugin("later", mode="fire_and_forget"), plugin("guard", "deny"), plugin("behind")
    ) as manager:
        try:
            await asyncio.gather(*(await invoke(manager, raising=raising)).background_tasks)
        except framework.PluginViolationError:
            assert raising
    # The framework starts no plugin in the background if it raises the violation.
    assert sorted(runs_of(instrumented)) == (["guard"] if raising else ["guard", "later"])
    assert chain_told(instrumented) == (True, "guard", 1 if raising else 2, 0)


# ----- around and inside


async def test_what_a_plugin_does_is_inside_its_span(instrumented: Recorder, tmp_path: Path) -> None:
    zoo.tracers.append(instrumented.tracer())
    async with managing(tmp_path, *(plugin(mode, "span", mode=mode) for mode in MODES)) as manager:
        with instrumented.tracer().start_as_current_span("above", kind=SpanKind.SERVER):
            before = otel_context.get_current()
            result = await invoke(manager)
            await asyncio.gather(*getattr(result, "background_tasks", ()))
            assert otel_context.get_current() is before
    parents = {run.context.span_id for run in runs_of(instrumented).values()}
    inside = instrumented.find("in plugin")
    assert len(inside) == len(MODES)
    assert {span.parent.span_id for span in inside} == parents


async def test_a_plugin_invokes_a_hook(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("outer", "nest", hooks=[pf.PRE]), plugin("inner", hooks=[pf.POST])) as manager:
        await invoke(manager)
    outer, inner = (instrumented.find("plugin.execute", **{"plugin.name": name})[0] for name in ("outer", "inner"))
    chains = instrumented.find("plugin.hook.invoke")
    assert [told(chain, "hook.type")["hook.type"] for chain in chains] == [pf.PRE, pf.POST]
    assert [chain.parent and chain.parent.span_id for chain in chains] == [None, outer.context.span_id]
    assert inner.parent.span_id == chains[1].context.span_id
    assert [told(chain, "executed_count")["executed_count"] for chain in chains] == [1, 1]


async def test_a_plugin_runs_another_of_its_chain(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(
        tmp_path, plugin("outer", "call_another", other="guard"), plugin("guard", "deny"), plugin("behind")
    ) as manager:
        assert not (await invoke(manager)).continue_processing
    runs = instrumented.find("plugin.execute")
    assert [told(run, "name")["name"] for run in runs] == ["outer", "guard"]
    assert runs[1].parent.span_id == runs[0].context.span_id
    assert chain_told(instrumented) == (True, "outer", 1, 0)
    # That one was not run by a chain: nobody says whether it stopped one.
    assert [told(run, "stopped_chain")["stopped_chain"] for run in runs] == [True, None]


async def test_one_plugin_alone(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("alone", "crash")) as manager:
        context = framework.PluginContext(global_context=pf.global_context())
        with pytest.raises(framework.PluginError):
            await manager.invoke_hook_for_plugin("alone", pf.PRE, pf.payload(), context)
    assert [span.name for span in instrumented.spans] == ["plugin.execute"]
    assert outcome(instrumented.spans[0]) == ("ERROR", CRASH)
    assert "plugin.stopped_chain" not in (instrumented.spans[0].attributes or {})


async def test_many_chains_at_the_same_time(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("first"), plugin("second")) as manager:

        async def call(number: int) -> None:
            with instrumented.tracer().start_as_current_span(f"above {number}"):
                await invoke(manager)

        await asyncio.gather(*(call(number) for number in range(50)))
    chains = instrumented.find("plugin.hook.invoke")
    assert len(chains) == 50 and len({chain.context.trace_id for chain in chains}) == 50
    for chain in chains:
        runs = [span for span in instrumented.find("plugin.execute") if span.parent.span_id == chain.context.span_id]
        assert [told(run, "name")["name"] for run in runs] == ["first", "second"]
        assert {run.context.trace_id for run in runs} == {chain.context.trace_id}


async def test_nothing_is_kept_alive(instrumented: Recorder, tmp_path: Path) -> None:
    kinds = [
        plugin("swallowed", "crash", **IS_IGNORED),
        plugin("watches", "deny", **LOOKS_ON),
        plugin("raises", "raise_violation"),
        plugin("bad", "crash"),
    ]
    alive: list[weakref.ref[Any]] = []

    async def go(manager: Any) -> None:
        request = pf.payload()
        alive.append(weakref.ref(request))
        try:
            await manager.invoke_hook(pf.PRE, request, pf.global_context())
        except Exception as error:
            alive.append(weakref.ref(error))

    for one in kinds:
        async with managing(tmp_path, one) as manager:
            gc.collect()
            gc.disable()
            try:
                await go(manager)
                # The framework raises an exception from another: what it keeps without us, it may keep.
                with_us = [ref() is not None for ref in alive]
                alive.clear()
                McpInstrumentor().uninstrument()
                await go(manager)
                assert with_us == [ref() is not None for ref in alive]
                alive.clear()
            finally:
                gc.enable()
        McpInstrumentor().instrument(tracer_provider=instrumented.tracer_provider, skip_dep_check=True)


# ----- texts


SECRET = "password=hunter2hunter2"


async def violate(tmp_path: Path, **texts: Any) -> None:
    texts = {"reason": f"because of {SECRET}", "description": "line one\nline two", **texts}
    async with managing(
        tmp_path, plugin("guard", "deny", details={"token": "t0p", "word": "plain"}, **texts)
    ) as manager:
        await invoke(manager)


async def test_texts_of_a_violation_pass_the_policy(instrumented: Recorder, tmp_path: Path) -> None:
    await violate(tmp_path, description="x" * 2000)
    attributes: Attributes = dict(runs_of(instrumented)["guard"].attributes or {})
    assert "hunter2" not in str(attributes) and attributes["plugin.violation.reason"].startswith("because of ")
    assert len(attributes["plugin.violation.description"]) <= 1024
    assert "plugin.violation.details" not in attributes
    assert "violation" not in str(dict(chain_of(instrumented).attributes or {}))


async def test_texts_of_a_violation_switched_off(instrument: Instrument, recorder: Recorder, tmp_path: Path) -> None:
    instrument(error_text="off")
    await violate(tmp_path)
    attributes = dict(runs_of(recorder)["guard"].attributes or {})
    assert {name for name in attributes if "violation" in name} == {"plugin.had_violation", "plugin.violation.code"}


async def test_details_of_a_violation_are_content(instrument: Instrument, recorder: Recorder, tmp_path: Path) -> None:
    instrument(capture_content="SPAN_ONLY")
    await violate(tmp_path)
    details = (runs_of(recorder)["guard"].attributes or {})["plugin.violation.details"]
    assert "plain" in str(details) and "t0p" not in str(details)


async def test_names_are_cleaned(instrumented: Recorder, tmp_path: Path) -> None:
    async with managing(tmp_path, plugin("guard", "deny", code="A\x1b[31mB" + "c" * 1000)) as manager:
        await invoke(manager)
    code = str((runs_of(instrumented)["guard"].attributes or {})["plugin.violation.code"])
    assert "\x1b" not in code and len(code) == 256


async def test_exceptions_as_events(instrument: Instrument, recorder: Recorder, tmp_path: Path) -> None:
    instrument(stacktraces=True)
    async with managing(
        tmp_path, plugin("bad", "crash", text=f"died of {SECRET}", **IS_IGNORED), plugin("guard", "raise_violation")
    ) as manager:
        with pytest.raises(framework.PluginViolationError):
            await invoke(manager)
    runs = runs_of(recorder)
    events = [event for span in recorder.spans for event in span.events]
    assert [event.name for event in runs["bad"].events] == ["exception"] and len(events) == 1
    assert (events[0].attributes or {})["exception.type"] == CRASH
    assert "hunter2" not in str(events[0].attributes)


# ----- when nothing is to be recorded, and when it is switched on and off


async def test_suppressed(instrumented: Recorder, tmp_path: Path) -> None:
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    async with managing(tmp_path, plugin("first"), plugin("guard", "deny")) as manager:
        with suppress_instrumentation():
            assert not (await invoke(manager)).continue_processing
    assert not instrumented.spans


async def test_not_sampled(recorder: Recorder, instrument: Instrument, tmp_path: Path) -> None:
    instrument()
    unsampled = trace.SpanContext(0x1234, 0x5678, is_remote=True, trace_flags=trace.TraceFlags(0))
    above = trace.set_span_in_context(trace.NonRecordingSpan(unsampled), otel_context.Context())
    async with managing(tmp_path, plugin("first"), plugin("bad", "crash", **IS_IGNORED)) as manager:
        token = otel_context.attach(above)
        try:
            assert (await invoke(manager)).continue_processing
        finally:
            otel_context.detach(token)
    assert not recorder.spans


@pytest.mark.parametrize("options", [{"disabled_targets": "plugins"}])
async def test_switched_off(recorder: Recorder, instrument: Instrument, tmp_path: Path, options: Any) -> None:
    instrument(**options)
    async with managing(tmp_path, plugin("first")) as manager:
        await invoke(manager)
    assert not recorder.spans


async def test_late_and_off_again(recorder: Recorder, tmp_path: Path) -> None:
    from support.breaking import instrumented

    async with managing(tmp_path, plugin("first"), plugin("second")) as manager:
        await invoke(manager)
        assert not recorder.spans
        with instrumented(tracer_provider=recorder.tracer_provider):
            await invoke(manager)
        assert len(recorder.spans) == 3
        recorder.clear()
        await invoke(manager)
        assert not recorder.spans
    for name in ("execute", "execute_plugin", "_execute_with_timeout"):
        assert "otel" not in str(vars(vars(pf.manager_module.PluginExecutor)[name]))


# ----- the spans that gateway 1.0.0 makes of its own


@pytest.fixture
def native_tracer(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not pf.HAS_NATIVE_SPANS:
        pytest.skip("only gateway 1.0.0 has spans of its own for plugins")
    observability = importlib.import_module("mcpgateway.observability")
    monkeypatch.setattr(observability, "_TRACER", recorder.tracer_provider.get_tracer("native"))
    return observability


@pytest.mark.parametrize("native_spans", ["replace", "keep"])
async def test_plugins_have_one_span_each_beside_native_ones(
    recorder: Recorder, instrument: Instrument, tmp_path: Path, native_tracer: Any, native_spans: str
) -> None:
    instrument(native_spans=native_spans)
    async with managing(tmp_path, plugin("first"), plugin("second")) as manager:
        await invoke(manager)
    assert [span.name for span in recorder.spans] == ["plugin.hook.invoke", "plugin.execute", "plugin.execute"]
    assert len(recorder.ours) == (3 if native_spans == "replace" else 0)
    assert StatusCode.OK not in {span.status.status_code for span in recorder.ours}
