"""Plugin managers: a span for each hook chain that has plugins, and in it one for each plugin that is run.

The framework swallows failures, turns violations into exceptions or not, and runs plugins one after the other, at the
same time, or in the background after the chain. What a plugin did is known when it ends; what that did to its chain,
when the chain ends: spans of plugins that may have ended the chain wait for it, and end with the time they had.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from time import time_ns
from typing import Any

from ..guard import contained
from ..hooks import Around
from ..internal import current_place
from ..operation import within
from ..telemetry import Telemetry
from .arguments import argument, leading
from .plugins_facts import (
    BACKGROUND,
    CHAIN_LENGTH,
    EXECUTE,
    HOOK,
    HOOK_TYPE,
    Chain,
    Run,
    described,
    outcome_of_chain,
    settle,
    stopper_among,
    tell,
    text_of,
    told_of_chain,
)

_OLD_FRAMEWORK = "mcpgateway."

Kwargs = Mapping[str, Any]


# ----- patched methods


def invoke_hook(telemetry: Telemetry) -> Around:
    """``PluginExecutor.execute``: the plugins of a hook are run."""
    _load_policy(telemetry)
    return _around(telemetry, _begin_chain, _end_chain)


@contained("load the payload policy")
def _load_policy(telemetry: Telemetry) -> None:
    """Now, while the framework is imported, and not at the first violation, when a caller waits."""
    if telemetry.config.error_text != "off":
        telemetry.telling.disclosure.error_text("")


def execute_plugin(telemetry: Telemetry) -> Around:
    """``PluginExecutor.execute_plugin``: one plugin is run, and what it does is turned into what the chain sees."""
    return _around(telemetry, _begin_run, _end_run)


def see_plugin(telemetry: Telemetry) -> Around:
    """``PluginExecutor._execute_with_timeout``: the plugin is called; in the background nothing else is around it."""
    alone = _around(telemetry, _begin_run, _end_run)

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        in_background = alone.build(call)

        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            run = _run_around(args, kwargs)
            if run is None:
                return await in_background(self, *args, **kwargs)
            try:
                result = await call(self, *args, **kwargs)
            except BaseException as error:
                run.see(None, error)
                raise
            run.see(result, None)
            return result

        return method

    return Around(build)


@contained("see a plugin being called")
def _run_around(args: tuple[Any, ...], kwargs: Kwargs) -> Run | None:
    run = current_place()
    if not isinstance(run, Run) or run.ref is not argument(args, kwargs, 0, "hook_ref"):
        return None
    return run


def _around(telemetry: Telemetry, begins: Callable[..., Any], ends: Callable[..., Any]) -> Around:
    """What takes the place of a coroutine method.

    Args:
        begins: gets the telemetry, ``self``, positional and named arguments; returns work, None if there is none.
        ends: gets the work, what was returned and what was raised.
    """

    def build(call: Callable[..., Any]) -> Callable[..., Any]:
        async def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            work = begins(telemetry, self, args, kwargs) if telemetry.active else None
            if work is None:
                return await call(self, *args, **kwargs)
            try:
                result = await within(work.internal.context, call, (self, *args), kwargs)
            except BaseException as error:
                ends(work, None, error)
                raise
            ends(work, result, None)
            return result

        return method

    return Around(build)


def see_groups(telemetry: Telemetry) -> Any:
    """``PluginExecutor._group_by_mode``: the framework sorts out what it will run; it may not come to all of it."""

    @contained("see which plugins are skipped")
    def see(refs: Any, groups: Any) -> None:
        chain = current_place()
        if isinstance(chain, Chain) and chain.refs is refs:
            chain.skipped = len(refs) - sum(len(group) for group in groups)

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        groups = wrapped(*args, **kwargs)
        see(argument(args, kwargs, 0, "hook_refs"), groups)
        return groups

    return wrapper


def native_span(telemetry: Telemetry) -> Any:
    """``create_span``, as the plugin manager of gateway 1.0.0 knows it: ours take the place of its spans."""

    @contained("see whether the spans of the gateway's plugins are wanted")
    def is_replaced(name: Any) -> bool:
        return name in (HOOK, EXECUTE) and not telemetry.keeps_native_spans and telemetry.records()

    def wrapper(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return nullcontext() if is_replaced(argument(args, kwargs, 0, "name")) else wrapped(*args, **kwargs)

    return wrapper


def _stands_down(telemetry: Telemetry, executor: Any) -> bool:
    """Whether the spans of the framework itself are to stay, and it makes them."""
    if not telemetry.keeps_native_spans or not type(executor).__module__.startswith(_OLD_FRAMEWORK):
        return False
    manager = sys.modules.get(type(executor).__module__)
    tracer = getattr(sys.modules.get("mcpgateway.observability"), "_TRACER", None)
    return tracer is not None and hasattr(manager, "create_span")


# ----- chains


@contained("begin a hook chain")
def _begin_chain(telemetry: Telemetry, executor: Any, args: tuple[Any, ...], kwargs: Kwargs) -> Chain | None:
    if not telemetry.records():
        return None
    refs, _, _, hook_type = leading(args, kwargs, "hook_refs", "payload", "global_context", "hook_type")
    if not refs or _stands_down(telemetry, executor):
        return None
    chain = Chain(telemetry, refs)
    return chain if chain.begins(HOOK, {HOOK_TYPE: text_of(hook_type), CHAIN_LENGTH: len(refs)}) else None


@contained("end a hook chain")
def _end_chain(chain: Chain, result: Any, error: BaseException | None) -> None:
    chain.is_over = True
    final: Any = result[0] if result else None
    stopper = None
    try:
        stopper = stopper_among(chain.waiting, final, error)
        if chain.internal is not None:
            chain.internal.tell(told_of_chain(chain, final, error, stopper))
    finally:
        if chain.internal is not None:
            chain.internal.settle(outcome_of_chain(error, stopper))
        for run in chain.waiting:
            settle(run, stopped=run is stopper)
        chain.waiting.clear()
        chain.started.clear()


# ----- plugins


@contained("begin the run of a plugin")
def _begin_run(telemetry: Telemetry, executor: Any, args: tuple[Any, ...], kwargs: Kwargs) -> Run | None:
    if not telemetry.records():
        return None
    ref = argument(args, kwargs, 0, "hook_ref")
    place = current_place()
    # What a plugin runs in turn is not of its chain, unless that is a chain of its own.
    chain = place if isinstance(place, Chain) else None
    if chain is None and _stands_down(telemetry, executor):
        return None
    plugin = ref.plugin_ref
    run = Run(telemetry, ref, chain)
    if not run.begins(EXECUTE, described(ref)):
        return None
    if chain is not None and text_of(plugin.mode) != BACKGROUND:
        chain.started.append(run)
    return run


@contained("end the run of a plugin")
def _end_run(run: Run, result: Any, error: BaseException | None) -> None:
    run.ended_ns = time_ns()
    run.returned, run.raised = result, error
    if not run.is_seen:
        run.see(result, error)
    try:
        tell(run)
        if run.error is not None and not run.violation_raised and run.internal is not None:
            run.telemetry.telling.note_exception(run.internal, run.error)
    finally:
        chain = run.chain
        if chain is None or chain.is_over or not (run.denies or run.error is not None or error is not None):
            settle(run, stopped=False)
        else:
            chain.waiting.append(run)
