"""Breaking our own code on purpose: every function of ours made to raise, one at a time, and the host compared.

No list of places: they are what a run of a workload calls. What is exempt is listed, with the reason.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import opentelemetry_instrumentation_mcp as package
from opentelemetry_instrumentation_mcp import McpInstrumentor
from opentelemetry_instrumentation_mcp.guard import logger as our_logger
from support import sdk

PACKAGE = package.__name__
OURS = "a failure of ours"
Outcome = tuple[Any, ...]


def described(error: BaseException) -> Outcome:
    nested = getattr(error, "exceptions", ())
    return (type(error).__name__, *map(described, nested)) if nested else (type(error).__name__, str(error))


def dumped(result: Any) -> Any:
    dump = getattr(result, "model_dump", None)
    return dump(mode="json") if dump is not None else result


@dataclass
class Log:
    """What the host logged, as far as two runs can agree on it, and what we logged."""

    host: list[tuple[str, str, str]] = field(default_factory=list)
    ours: list[logging.LogRecord] = field(default_factory=list)


def is_teardown_race(name: str, message: str) -> bool:
    """What HTTP servers log, or do not, when a client leaves, and clients when a caller does; without us too."""
    return (
        (name.endswith("streamable_http_manager") and " crashed" in message)
        or (name == "mcp.server.streamable_http" and message.startswith("Error in "))
        or (name == "mcp.client.streamable_http" and message.startswith("Error parsing SSE message"))
    )


class _Listener(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == our_logger.name:
            self.log.ours.append(record)
        elif record.levelno >= logging.WARNING and not record.name.startswith("opentelemetry"):
            # The rest of a message may quote a whole request, with the context that travels in it; the number of
            # validation errors depends on what is in a request, too.
            text = record.getMessage().partition("\n")[0]
            first_line = re.sub(r"0x[0-9a-f]+|:\d{4,5}|\d+ validation", "#", text)
            if not is_teardown_race(record.name, first_line):
                self.log.host.append((record.name, record.levelname, first_line))


@contextmanager
def listening() -> Iterator[Log]:
    log = Log()
    listener = _Listener(log)
    logging.getLogger().addHandler(listener)
    try:
        yield log
    finally:
        logging.getLogger().removeHandler(listener)


@contextmanager
def instrumented(**options: Any) -> Iterator[None]:
    instrumentor = McpInstrumentor()
    options.setdefault("tracer_provider", TracerProvider())
    options.setdefault("meter_provider", MeterProvider([InMemoryMetricReader()]))
    instrumentor.instrument(skip_dep_check=True, **options)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def harm(without: tuple[Any, Any], seen: list[Outcome], log: Log) -> list[str]:
    """How a run differs from one without us; one warning of ours for each place is no difference."""
    found = [
        f"{with_us!r:.200} instead of {before!r:.200}"
        for before, with_us in zip(without[0], seen, strict=False)
        if before != with_us
    ]
    if len(seen) != len(without[0]):
        found.append(f"{len(seen)} outcomes instead of {len(without[0])}")
    extra, missing = Counter(log.host) - Counter(without[1]), Counter(without[1]) - Counter(log.host)
    if extra or missing:
        found.append(f"the host's log has {dict(extra)!r:.300} and lacks {dict(missing)!r:.300}")
    messages = Counter(record.getMessage() for record in log.ours)
    for text, count in messages.items():
        if count > 1:
            found.append(f"{count} times: {text}")
    for record in log.ours:
        if record.levelno != logging.WARNING or record.exc_info or OURS in record.getMessage():
            found.append(f"{record.levelname} with {record.exc_info}: {record.getMessage()}")
    return found


# --- every function of ours -----------------------------------------------------------------------------------

EXEMPT = {
    "guard.": "is what contains the failures",
    "instrumentor.": "is what contains the failures of instrument(), and calls nothing of the host",
    "hooks.Patcher.revert": "is called by uninstrument(), not by the host",
    "hooks._Patch.revert": "the same; what it leaves behind would disturb the next run",
    "hooks._CellPatch.revert": "the same",
    "hooks._ObservedGenerator.": "is the host's generator, with our code around it",
    "exporter": "runs in the SDK's exporting thread, and has tests of its own",
    "operation.Operation.conclude": "is what contains the end of an operation; Telemetry.finish is inside",
    "operation.Operation.settle": "the same",
    "internal.Internal.conclude": "is what contains the end of an internal span; Internal.settle is inside",
    "operation.attached": "makes a context current, as the OpenTelemetry API does; that does not raise",
    "operation.detached": "the same, the other way round",
    "targets.gateway_upstream._calling": "is the host's block, with our code around it",
    "targets.gateway_upstream._handshake": "the same",
    "operation.outside_spans": "is the host's call, in another context",
    "operation.within": "is the host's call, with our code around it",
    "operation._as_told": "returns its argument, inside of conclude",
    "operation.Operation.__init__": "keeps its arguments",
    "operation.Operation.__del__": "cannot raise: what it raises is printed; it only calls settle",
    "targets.fastmcp._SamplingTracer.start_as_current_span": "is what contains the failures of what it calls",
    "targets.sdk_v1_taps._TappedStream.": "is the host's stream, with our code around it",
    "proxy.": "is the host's object, with nothing of ours",
    "message.Message.is_request": "compares with None",
    "targets.arguments.": "looks into a tuple and a dictionary",
    "targets.sdk_v1_taps._receive": "is the host's call, with our code around it",
    "targets.sdk_v2_outbound._result_reader": "makes a closure, which is guarded where it is called",
    "targets.sdk_v2_sessions._NoSpan.": "returns a constant",
    "targets.sdk_v2_modern_http.is_resolving_schema": "looks into a context variable",
    "telemetry.Telemetry.is_active": "returns an attribute, before anything of ours runs",
}


class BrokenError(RuntimeError):
    def __init__(self) -> None:
        super().__init__(OURS)


@dataclass(frozen=True)
class Place:
    """A function of ours, and where it is."""

    module: ModuleType
    owner: Any
    name: str

    @property
    def label(self) -> str:
        owner = "" if self.owner is self.module else f"{self.owner.__name__}."
        return f"{self.module.__name__.removeprefix(PACKAGE + '.')}.{owner}{self.name}"

    @property
    def is_exempt(self) -> bool:
        return self.label.startswith(tuple(EXEMPT))


def function_in(value: Any) -> FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    return value if isinstance(value, FunctionType) else None


def our_modules() -> list[ModuleType]:
    """All of them, the adapters of this SDK included; those of the other cannot be reached."""
    other_sdk = "sdk_v1" if sdk.SDK2 else "sdk_v2"
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    return [importlib.import_module(name) for name in names if not name.rpartition(".")[2].startswith(other_sdk)]


def places_of(module: ModuleType) -> Iterator[Place]:
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    for owner in (module, *(one for one in classes if one.__module__ == module.__name__)):
        for name, value in vars(owner).items():
            function = function_in(value)
            if function is not None and inspect.unwrap(function).__code__.co_filename == module.__file__:
                yield Place(module, owner, name)


ALL_PLACES = [place for module in our_modules() for place in places_of(module) if not place.is_exempt]

Replace = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def replaced(place: Place, replace: Replace) -> Iterator[None]:
    """Put something else in the place of a function: wherever it is known by name, inside of its guard."""
    value = vars(place.owner)[place.name]
    function = function_in(value)
    assert function is not None
    guarded = getattr(function, "__wrapped__", None)
    with ExitStack() as undo:
        if guarded is not None:
            cells = [cell for cell in function.__closure__ or () if cell.cell_contents is guarded]
            assert len(cells) == 1, f"{place.label} is wrapped in a way this test does not know"
            cells[0].cell_contents = replace(guarded)
            undo.callback(setattr, cells[0], "cell_contents", guarded)
        elif place.owner is place.module:
            new = replace(function)
            for module in [one for name, one in sys.modules.items() if name.startswith(PACKAGE)]:
                for name in [name for name, one in vars(module).items() if one is function]:
                    setattr(module, name, new)
                    undo.callback(setattr, module, name, function)
        else:
            kind: Any = type(value) if not isinstance(value, FunctionType) else lambda new: new
            setattr(place.owner, place.name, kind(replace(function)))
            undo.callback(setattr, place.owner, place.name, value)
        yield


def counting(place: Place, calls: Counter[Place]) -> Replace:
    def replace(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[place] += 1
            return function(*args, **kwargs)

        return counted

    return replace


def breaking(calls: Counter[Place], place: Place) -> Replace:
    def replace(function: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*args: Any, **kwargs: Any) -> Any:
            calls[place] += 1
            raise BrokenError

        async def broken_coroutine(*args: Any, **kwargs: Any) -> Any:
            broken()

        return broken_coroutine if inspect.iscoroutinefunction(function) else broken

    return replace


Work = Callable[[], Awaitable[list[Outcome]]]


async def places_called(work: Work, **options: Any) -> list[Place]:
    """The functions of ours that ``work`` calls, with these options of the instrumentation."""
    calls: Counter[Place] = Counter()
    with instrumented(**options):
        await work()  # what is done once in a process is done now
    with ExitStack() as stack:
        for place in ALL_PLACES:
            stack.enter_context(replaced(place, counting(place, calls)))
        with instrumented(**options):
            await work()
        gc.collect()
    return [place for place in ALL_PLACES if calls[place]]


async def break_each(
    without: tuple[Any, Any], work: Work, places: Sequence[Place], host_log: bool = True, /, **options: Any
) -> list[str]:
    """How ``work`` differs from what it was ``without`` us, for each of the places that is made to raise.

    Args:
        host_log: whether what the host logs is compared as well.
    """
    harmed = []
    for place in places:
        calls: Counter[Place] = Counter()
        with listening() as log, replaced(place, breaking(calls, place)), instrumented(**options):
            seen = await work()
        found = harm(without, seen, log if host_log else Log(ours=log.ours))
        assert calls[place], f"{place.label} was not called at all"
        if found:
            harmed.append(f"{place.label} raises:\n    " + "\n    ".join(found[:4]))
    return harmed
