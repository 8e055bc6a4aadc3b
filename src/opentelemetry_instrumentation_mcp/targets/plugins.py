"""Plugin managers: a span for each hook chain that has plugins, and in it one for each plugin that is run.

The framework swallows failures, turns violations into exceptions or not, and runs plugins one after the other, at the
same time, or in the background after the chain. What a plugin did is known when it ends; what that did to its chain,
when the chain ends: spans of plugins that may have ended the chain wait for it, and end with the time they had.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from time import time_ns
from typing import Any, Final

from ..guard import contained
from ..hooks import Around
from ..internal import Internal, begin, current_place
from ..message import SUCCESS, TIMED_OUT, Outcome, is_cancellation, outcome_of_exception
from ..operation import within
from ..places import Place
from ..semconv import clean
from ..telemetry import Telemetry
from .arguments import argument, leading

HOOK: Final = "plugin.hook.invoke"
EXECUTE: Final = "plugin.execute"

HOOK_TYPE: Final = "plugin.hook.type"
CHAIN_LENGTH: Final = "plugin.chain.length"
CHAIN_STOPPED: Final = "plugin.chain.stopped"
CHAIN_STOPPED_BY: Final = "plugin.chain.stopped_by"
EXECUTED_COUNT: Final = "plugin.executed_count"
SKIPPED_COUNT: Final = "plugin.skipped_count"
NAME: Final = "plugin.name"
KIND: Final = "plugin.kind"
MODE: Final = "plugin.mode"
PRIORITY: Final = "plugin.priority"
HAD_VIOLATION: Final = "plugin.had_violation"
VIOLATION_CODE: Final = "plugin.violation.code"
VIOLATION_REASON: Final = "plugin.violation.reason"
VIOLATION_DESCRIPTION: Final = "plugin.violation.description"
VIOLATION_DETAILS: Final = "plugin.violation.details"
MODIFIED_PAYLOAD: Final = "plugin.modified_payload"
CONTINUE_PROCESSING: Final = "plugin.continue_processing"
STOPPED_CHAIN: Final = "plugin.stopped_chain"

_BACKGROUND = "fire_and_forget"
_OLD_FRAMEWORK = "mcpgateway."

Kwargs = Mapping[str, Any]


class _Work(Place):
    """What there is a span for: a chain, or a plugin that is run. For servers in the same process it is no message."""

    __slots__ = ("internal", "telemetry")

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(None, "", "", taken=True)
        self.telemetry = telemetry
        self.internal: Internal | None = None

    def begins(self, name: str, attributes: Mapping[str, Any]) -> bool:
        """Begin the span; whether there is one."""
        self.internal = begin(self.telemetry, name, attributes, self)
        return self.internal is not None


class _Chain(_Work):
    """One invocation of a hook that has plugins."""

    __slots__ = ("is_over", "refs", "skipped", "started", "waiting")

    def __init__(self, telemetry: Telemetry, refs: Sequence[Any]) -> None:
        super().__init__(telemetry)
        self.refs = refs
        self.started: list[_Run] = []
        """Plugins that were run, but for those in the background."""
        self.waiting: list[_Run] = []
        """Those of them that have ended in a way that may have ended the chain."""
        self.skipped: int | None = None
        """How many plugins the framework said it would skip; None if it did not."""
        self.is_over = False


class _Run(_Work):
    """One plugin that is run for one hook."""

    __slots__ = ("chain", "ended_ns", "error", "is_seen", "raised", "ref", "result", "returned")

    def __init__(self, telemetry: Telemetry, ref: Any, chain: _Chain | None) -> None:
        super().__init__(telemetry)
        self.ref = ref
        self.chain = chain
        self.result: Any = None
        """What the plugin returned."""
        self.error: BaseException | None = None
        """What the plugin raised, or the timeout that it ran into."""
        self.is_seen = False
        """Whether these two are known: the framework may not hand them on."""
        self.returned: Any = None
        self.raised: BaseException | None = None
        """What the framework made of it."""
        self.ended_ns: int | None = None

    @contained("see what a plugin did")
    def see(self, result: Any, error: BaseException | None) -> None:
        """Take down what the plugin itself did."""
        self.result, self.error, self.is_seen = result, error, True

    @property
    def violation_raised(self) -> bool:
        return self.error is not None and _is(self.error, "PluginViolationError")

    @property
    def denies(self) -> bool:
        return self.violation_raised or getattr(self.result, "continue_processing", True) is False

    @property
    def outcome(self) -> Outcome:
        """A violation is no failure of the plugin: it does its duty."""
        if self.error is None or self.violation_raised:
            return SUCCESS
        return _outcome_of(self.error)


def _is(error: BaseException, name: str) -> bool:
    return any(kind.__name__ == name for kind in type(error).__mro__)


def _outcome_of(error: BaseException) -> Outcome:
    # Up to Python 3.10 that of asyncio is another one.
    return TIMED_OUT if isinstance(error, (TimeoutError, asyncio.TimeoutError)) else outcome_of_exception(error)


def _text(value: Any) -> str | None:
    """A name or the value of an enumeration, as an attribute."""
    value = getattr(value, "value", value)
    return clean(value) if isinstance(value, str) else None


# ----- patched methods


def invoke_hook(telemetry: Telemetry) -> Around:
    """``PluginExecutor.execute``: the plugins of a hook are run."""
    return _around(telemetry, _begin_chain, _end_chain)


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
def _run_around(args: tuple[Any, ...], kwargs: Kwargs) -> _Run | None:
    run = current_place()
    if not isinstance(run, _Run) or run.is_seen or run.ref is not argument(args, kwargs, 0, "hook_ref"):
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
        if isinstance(chain, _Chain) and chain.refs is refs:
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
def _begin_chain(telemetry: Telemetry, executor: Any, args: tuple[Any, ...], kwargs: Kwargs) -> _Chain | None:
    refs, _, _, hook_type = leading(args, kwargs, "hook_refs", "payload", "global_context", "hook_type")
    if not refs or _stands_down(telemetry, executor):
        return None
    chain = _Chain(telemetry, refs)
    return chain if chain.begins(HOOK, {HOOK_TYPE: _text(hook_type), CHAIN_LENGTH: len(refs)}) else None


@contained("end a hook chain")
def _end_chain(chain: _Chain, result: Any, error: BaseException | None) -> None:
    chain.is_over = True
    final: Any = result[0] if result else None
    stopper = None
    try:
        stopper = _stopper(chain.waiting, final, error)
    finally:
        for run in chain.waiting:
            _settle(run, stopped=run is stopper)
        if chain.internal is not None:
            # That a plugin failed is told in the same words on both spans.
            outcome = SUCCESS if error is None else stopper.outcome if stopper is not None else _outcome_of(error)
            if error is not None and _is(error, "PluginViolationError"):
                outcome = SUCCESS
            chain.internal.tell(_told_of_chain(chain, final, stopper))
            chain.internal.settle(outcome)


def _stopper(waiting: Sequence[_Run], final: Any, error: BaseException | None) -> _Run | None:
    """The run that ended its chain, by what came out of the chain; None if no plugin did."""
    if error is not None:
        # Whoever is cancelled with the chain did not end it.
        return None if is_cancellation(error) else next((run for run in waiting if run.raised is error), None)
    if getattr(final, "continue_processing", True) is not False:
        return None
    violation = getattr(final, "violation", None)
    denials = [run for run in waiting if getattr(run.returned, "continue_processing", True) is False]
    exact = (run for run in denials if violation is not None and run.returned.violation is violation)
    return next(exact, denials[0] if denials else None)


def _told_of_chain(chain: _Chain, final: Any, stopper: _Run | None) -> dict[str, Any]:
    background = getattr(final, "background_tasks", None) or ()
    return {
        CHAIN_STOPPED: stopper is not None,
        CHAIN_STOPPED_BY: _text(stopper.ref.plugin_ref.name) if stopper is not None else None,
        EXECUTED_COUNT: len(chain.started) + len(background),
        SKIPPED_COUNT: _skipped(chain, ran_through=final is not None and stopper is None),
    }


def _skipped(chain: _Chain, *, ran_through: bool) -> int:
    """How many plugins were passed over; not those that the chain did not come to."""
    if chain.skipped is not None:
        return chain.skipped
    started = [run.ref for run in chain.started]
    reached = len(chain.refs) if ran_through else 1 + max((_index(chain.refs, ref) for ref in started), default=-1)
    return reached - len(started)


def _index(refs: Sequence[Any], ref: Any) -> int:
    return next((at for at, one in enumerate(refs) if one is ref), -1)


# ----- plugins


@contained("begin the run of a plugin")
def _begin_run(telemetry: Telemetry, executor: Any, args: tuple[Any, ...], kwargs: Kwargs) -> _Run | None:
    ref = argument(args, kwargs, 0, "hook_ref")
    place = current_place()
    # A plugin may run others, on its own or in a chain of theirs.
    chain = place if isinstance(place, _Chain) and _index(place.refs, ref) >= 0 else None
    if chain is None and _stands_down(telemetry, executor):
        return None
    plugin = ref.plugin_ref
    run = _Run(telemetry, ref, chain)
    if not run.begins(EXECUTE, _described(ref)):
        return None
    if chain is not None and _text(plugin.mode) != _BACKGROUND:
        chain.started.append(run)
    return run


def _described(ref: Any) -> dict[str, Any]:
    plugin = ref.plugin_ref
    config = getattr(plugin, "trusted_config", None) or getattr(plugin.plugin, "config", None)
    priority = plugin.priority
    return {
        NAME: _text(plugin.name),
        KIND: _text(getattr(config, "kind", None)),
        MODE: _text(plugin.mode),
        PRIORITY: priority if isinstance(priority, int) and priority.bit_length() < 64 else None,
        HOOK_TYPE: _text(ref.name),
    }


@contained("end the run of a plugin")
def _end_run(run: _Run, result: Any, error: BaseException | None) -> None:
    run.returned, run.raised = result, error
    if not run.is_seen:
        run.see(result, error)
    try:
        _tell(run)
        if run.error is not None and not run.violation_raised and run.internal is not None:
            run.telemetry.note_exception(run.internal, run.error)
    finally:
        run.ended_ns = time_ns()
        chain = run.chain
        if chain is None or chain.is_over or not (run.denies or run.error is not None or error is not None):
            _settle(run, stopped=False)
        else:
            chain.waiting.append(run)


def _settle(run: _Run, *, stopped: bool) -> None:
    if run.internal is not None:
        if run.chain is not None:
            run.internal.tell({STOPPED_CHAIN: stopped})
        run.internal.settle(run.outcome, run.ended_ns)


@contained("tell what a plugin did")
def _tell(run: _Run) -> None:
    if run.internal is None or not run.internal.span.is_recording():
        return
    source = run.error if run.violation_raised else run.result
    violation = getattr(source, "violation", None)
    answered = run.error is None or run.violation_raised
    told: dict[str, Any] = {
        HAD_VIOLATION: violation is not None or run.violation_raised,
        MODIFIED_PAYLOAD: getattr(run.result, "modified_payload", None) is not None,
        CONTINUE_PROCESSING: not run.denies if answered else None,
        VIOLATION_CODE: _text(getattr(violation, "code", None)),
    }
    run.internal.tell(told)
    if violation is not None:
        run.internal.span.set_attributes(_violation_texts(run.telemetry, violation))


def _violation_texts(telemetry: Telemetry, violation: Any) -> dict[str, Any]:
    """What a violation says in words, as far as the words of an error may be told; its details are content."""
    disclosed: dict[str, Any] = {}
    if telemetry.config.error_text != "off":
        for key, name in ((VIOLATION_REASON, "reason"), (VIOLATION_DESCRIPTION, "description")):
            text = getattr(violation, name, None)
            if isinstance(text, str) and text:
                disclosed[key] = telemetry.disclosure.error_text(text)
    details = getattr(violation, "details", None)
    if details and telemetry.disclosure.on_spans:
        disclosed[VIOLATION_DETAILS] = telemetry.disclosure.policy.json(details)
    return {key: text for key, text in disclosed.items() if text}
