"""What becomes known of a hook chain and of the plugins in it, and how it is told on their spans."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..guard import contained
from ..internal import Internal, begin
from ..message import SUCCESS, TIMED_OUT, Outcome, is_cancellation, outcome_of_exception
from ..places import Place
from ..semconv import clean
from ..telemetry import Telemetry

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

BACKGROUND: Final = "fire_and_forget"


class Work(Place):
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


class Chain(Work):
    """One invocation of a hook that has plugins."""

    __slots__ = ("is_over", "refs", "skipped", "started", "waiting")

    def __init__(self, telemetry: Telemetry, refs: Sequence[Any]) -> None:
        super().__init__(telemetry)
        self.refs = refs
        self.started: list[Run] = []
        """Plugins that were run, but for those in the background."""
        self.waiting: list[Run] = []
        """Those of them that have ended in a way that may have ended the chain."""
        self.skipped: int | None = None
        """How many plugins the framework said it would skip; None if it did not."""
        self.is_over = False


class Run(Work):
    """One plugin that is run for one hook."""

    __slots__ = ("chain", "ended_ns", "error", "is_seen", "raised", "ref", "result", "returned")

    def __init__(self, telemetry: Telemetry, ref: Any, chain: Chain | None) -> None:
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
        """Whether the plugin itself raised a violation, as it may."""
        return self.error is not None and _is(self.error, "PluginViolationError")

    @property
    def denies(self) -> bool:
        """Whether the plugin wants the chain to stop."""
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


def text_of(value: Any) -> str | None:
    """A name or the value of an enumeration, as an attribute."""
    value = getattr(value, "value", value)
    return clean(value) if isinstance(value, str) else None


# ----- chains


def outcome_of_chain(error: BaseException | None, stopper: Run | None) -> Outcome:
    """What ``error``, which came out of a chain that ``stopper`` ended, says about it."""
    if error is None or _is(error, "PluginViolationError"):
        return SUCCESS
    # That a plugin failed is told in the same words on both spans.
    return stopper.outcome if stopper is not None else _outcome_of(error)


def stopper_among(waiting: Sequence[Run], final: Any, error: BaseException | None) -> Run | None:
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


def told_of_chain(chain: Chain, final: Any, error: BaseException | None, stopper: Run | None) -> dict[str, Any]:
    """What is known of a chain at its end; ``final`` is the framework's result, None if it raised ``error``."""
    background = getattr(final, "background_tasks", None) or ()
    violated = getattr(final, "continue_processing", True) is False or (
        error is not None and _is(error, "PluginViolationError")
    )
    violation = getattr(error or final, "violation", None) if violated else None
    name = stopper.ref.plugin_ref.name if stopper is not None else getattr(violation, "plugin_name", None)
    return {
        CHAIN_STOPPED: violated or stopper is not None,
        CHAIN_STOPPED_BY: text_of(name) or None,
        EXECUTED_COUNT: len(chain.started) + len(background),
        SKIPPED_COUNT: _skipped(chain, ran_through=error is None and not violated),
    }


def _skipped(chain: Chain, *, ran_through: bool) -> int:
    """How many plugins were passed over; not those that the chain did not come to."""
    if chain.skipped is not None:
        return chain.skipped
    started = [run.ref for run in chain.started]
    reached = len(chain.refs) if ran_through else 1 + max((_index(chain.refs, ref) for ref in started), default=-1)
    return reached - len(started)


def _index(refs: Sequence[Any], ref: Any) -> int:
    return next((at for at, one in enumerate(refs) if one is ref), -1)


# ----- plugins


def described(ref: Any) -> dict[str, Any]:
    """What is known of a plugin before it is run for a hook."""
    plugin = ref.plugin_ref
    config = getattr(plugin, "trusted_config", None) or getattr(plugin.plugin, "config", None)
    priority = plugin.priority
    return {
        NAME: text_of(plugin.name),
        KIND: text_of(getattr(config, "kind", None)),
        MODE: text_of(plugin.mode),
        PRIORITY: priority if isinstance(priority, int) and priority.bit_length() < 64 else None,
        HOOK_TYPE: text_of(ref.name),
    }


def settle(run: Run, *, stopped: bool) -> None:
    """End the span of a run; ``stopped``: whether it ended its chain."""
    if run.internal is not None:
        if run.chain is not None:
            run.internal.tell({STOPPED_CHAIN: stopped})
        run.internal.settle(run.outcome, run.ended_ns)
    # An exception knows the frames it went through, and these know the run: that would be a cycle.
    run.result = run.returned = run.error = run.raised = None


@contained("tell what a plugin did")
def tell(run: Run) -> None:
    """Put on the span of a run what the plugin did."""
    if run.internal is None or not run.internal.span.is_recording():
        return
    source = run.error if run.violation_raised else run.result
    violation = getattr(source, "violation", None)
    answered = run.error is None or run.violation_raised
    told: dict[str, Any] = {
        HAD_VIOLATION: violation is not None or run.violation_raised,
        MODIFIED_PAYLOAD: getattr(run.result, "modified_payload", None) is not None,
        CONTINUE_PROCESSING: not run.denies if answered else None,
        VIOLATION_CODE: text_of(getattr(violation, "code", None)),
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
                disclosed[key] = telemetry.telling.disclosure.error_text(text)
    details = getattr(violation, "details", None)
    if details and telemetry.telling.disclosure.on_spans:
        disclosed[VIOLATION_DETAILS] = telemetry.telling.disclosure.policy.json(details)
    return {key: text for key, text in disclosed.items() if text}
