"""The patch engine on modules made for the purpose."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from opentelemetry_instrumentation_mcp import guard, hooks
from opentelemetry_instrumentation_mcp.hooks import CONTEXT_MANAGER, Around, Patcher, Target

SOURCE = """
import functools
from contextlib import asynccontextmanager, contextmanager

class Thing:
    def method(self, value, *, twice=False):
        return value * 2 if twice else value

    @classmethod
    def build(cls):
        return cls()

    @staticmethod
    def fixed():
        return "fixed"

class Derived(Thing):
    pass

def function():
    return "plain"

def calls_function():
    return function()

@asynccontextmanager
async def transport(name):
    yield (name, "streams")

@contextmanager
def span(name):
    yield name

def deprecated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@deprecated
@asynccontextmanager
async def old_transport(name):
    yield (name, "streams")
"""


class Calls(list[str]):
    """What the adapters see; doubles as their context."""

    active = True


def count(calls: Calls) -> Any:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append(wrapped.__name__)
        return wrapped(*args, **kwargs)

    return wrapper


def observe(calls: Calls) -> Any:
    def observer(yielded: Any, generator: Any, args: Any, kwargs: Any) -> None:
        calls.append(yielded[0])

    return observer


def replace(calls: Calls) -> Any:
    def build(generator_function: Any) -> Any:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            calls.append("replaced")
            yield from (f"ours, not {name}" for name in generator_function(*args, **kwargs))

        return replaced

    return Around(build)


def broken_factory(calls: Calls) -> Any:
    raise RuntimeError("ours")


@pytest.fixture(autouse=True)
def adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("opentelemetry_instrumentation_mcp.targets.fake")
    vars(module).update(count=count, observe=observe, replace=replace, broken=broken_factory)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    guard.forget_reports()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that is not imported yet."""
    name = f"lib_{tmp_path.name.replace('-', '_')}"
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def target(library: str, attribute: str, adapter: str = "fake:count", covers: str = "", **more: Any) -> Target:
    return Target("fake", f"{library}.module", attribute, adapter, covers, **more)


def patcher(calls: Calls, *targets: Target) -> Patcher:
    return Patcher(targets, lambda: calls, lambda: calls.active)


def test_patches_when_the_module_is_imported(library: str) -> None:
    calls = Calls()
    engine = patcher(calls, target(library, "Thing.method"))
    engine.apply()
    assert f"{library}.module" not in sys.modules, "the engine imported the library"
    module = importlib.import_module(f"{library}.module")
    assert module.Thing().method(1) == 1
    assert module.Thing().method(value=2, twice=True) == 4
    assert calls == ["method", "method"]


def test_patches_what_is_imported_already_and_restores_it(library: str) -> None:
    module = importlib.import_module(f"{library}.module")
    names = ("method", "build", "fixed")
    before = {name: vars(module.Thing)[name] for name in names}
    thing, calls = module.Thing(), Calls()
    engine = patcher(calls, *(target(library, f"Thing.{name}") for name in names), target(library, "function"))
    engine.apply()
    thing.method(1), thing.fixed(), module.Thing.build(), module.calls_function()
    assert calls == ["method", "fixed", "build", "function"]
    engine.revert()
    assert {name: vars(module.Thing)[name] for name in names} == before
    thing.method(1), module.calls_function()
    assert len(calls) == 4


def test_inherited_methods_are_not_left_behind(library: str) -> None:
    module = importlib.import_module(f"{library}.module")
    calls = Calls()
    engine = patcher(calls, target(library, "Derived.method"))
    engine.apply()
    module.Derived().method(1), module.Thing().method(1)
    assert calls == ["method"]
    engine.revert()
    assert "method" not in vars(module.Derived)


def test_is_idempotent_and_can_come_again(library: str) -> None:
    module = importlib.import_module(f"{library}.module")
    calls = Calls()
    first = patcher(calls, target(library, "Thing.method"))
    first.apply()
    first.apply()
    module.Thing().method(1)
    assert calls == ["method"]
    first.revert()
    second = patcher(calls, target(library, "Thing.method"))
    second.apply()
    module.Thing().method(1)
    assert calls == ["method", "method"]
    second.revert()
    assert not hooks.is_ours(vars(module.Thing)["method"])


def test_revert_neutralises_pending_hooks(library: str) -> None:
    calls = Calls()
    engine = patcher(calls, target(library, "Thing.method"))
    engine.apply()
    engine.revert()
    module = importlib.import_module(f"{library}.module")
    assert not hooks.is_ours(vars(module.Thing)["method"])
    again = patcher(calls, target(library, "Thing.method"))
    again.apply()
    module.Thing().method(1)
    assert calls == ["method"]
    again.revert()


def test_escaped_wrappers_pass_through(library: str) -> None:
    module = importlib.import_module(f"{library}.module")
    calls = Calls()
    engine = patcher(calls, target(library, "Thing.method"))
    engine.apply()
    escaped = module.Thing().method
    engine.revert()
    calls.active = False
    assert escaped(3) == 3
    assert calls == []


def test_a_wrapper_around_ours_survives(library: str) -> None:
    module = importlib.import_module(f"{library}.module")
    calls = Calls()
    engine = patcher(calls, target(library, "Thing.method"))
    engine.apply()
    ours = module.Thing.method
    module.Thing.method = lambda self, value: ours(self, value) + 1
    engine.revert()
    calls.active = False
    assert module.Thing().method(1) == 2, "somebody else's wrapper was thrown away"
    assert calls == []


@pytest.mark.parametrize("adapter", ["fake:broken", "fake:missing", "no_such_module:anything"])
def test_our_failure_never_breaks_an_import(library: str, adapter: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = patcher(Calls(), target(library, "Thing.method", adapter), target(library, "function"))
    engine.apply()
    with caplog.at_level(logging.WARNING):
        module = importlib.import_module(f"{library}.module")
    assert module.Thing().method(1) == 1
    assert module.function() == "plain"
    assert len(caplog.records) == 1
    engine.revert()


def test_missing_names_are_reported_once(library: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = patcher(
        Calls(),
        target(library, "Thing.gone", covers="what gone did"),
        target(library, "Nothing.method", covers=""),
        target(library, "Thing.gone|Thing.method"),
    )
    engine.apply()
    with caplog.at_level(logging.WARNING):
        module = importlib.import_module(f"{library}.module")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    for part in (library, "Thing.gone", "what gone did"):
        assert part in messages[0]
    assert hooks.is_ours(vars(module.Thing)["method"]), "the alternative was not taken"
    engine.revert()


def test_half_imported_modules_are_completed_later(library: str, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()
    engine = Patcher(
        (target(library, "Thing.method", covers="methods"),),
        lambda: calls,
        lambda: True,
        libraries=(f"{library}.last",),
    )
    sys.modules["__engine__"] = engine  # type: ignore[assignment]
    package = Path(next(p for p in sys.path if (Path(p) / library).is_dir())) / library
    (package / "module.py").write_text("import sys\nsys.modules['__engine__'].apply()\n" + SOURCE)
    (package / "last.py").write_text("")
    try:
        with caplog.at_level(logging.WARNING):
            module = importlib.import_module(f"{library}.module")
            assert not caplog.records
            importlib.import_module(f"{library}.last")
        module.Thing().method(1)
        assert calls == ["method"]
    finally:
        del sys.modules["__engine__"]
        engine.revert()


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["transport", "old_transport"])
async def test_context_managers_are_seen_even_if_imported_before(library: str, name: str) -> None:
    module = importlib.import_module(f"{library}.module")
    imported_before = getattr(module, name)
    calls = Calls()
    engine = patcher(calls, target(library, name, "fake:observe", how=CONTEXT_MANAGER))
    engine.apply()
    assert getattr(module, name) is imported_before, "the function was replaced"
    async with imported_before("one") as streams:
        assert streams == ("one", "streams")
    with pytest.raises(LookupError):
        async with imported_before(name="two"):
            raise LookupError
    assert calls == ["one", "two"]
    engine.revert()
    async with imported_before("three"):
        pass
    assert calls == ["one", "two"]


def test_context_managers_are_replaced_even_if_imported_before(library: str) -> None:
    module = importlib.import_module(f"{library}.module")
    imported_before = module.span
    calls = Calls()
    engine = patcher(calls, target(library, "span", "fake:replace", how=CONTEXT_MANAGER))
    engine.apply()
    engine.apply()
    with imported_before("theirs") as value:
        assert value == "ours, not theirs"
    assert calls == ["replaced"]
    engine.revert()
    with imported_before("theirs") as value:
        assert value == "theirs"


def test_a_context_manager_of_another_make_is_left_alone(library: str, caplog: pytest.LogCaptureFixture) -> None:
    module = importlib.import_module(f"{library}.module")

    class Transport:
        def __call__(self) -> Any:
            return nullcontext()

    module.transport = Transport()
    engine = patcher(Calls(), target(library, "transport", "fake:observe", "its streams", how=CONTEXT_MANAGER))
    with caplog.at_level(logging.WARNING):
        engine.apply()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    engine.revert()


def test_what_was_imported_by_name_while_patched_is_restored_as_well(library: str, tmp_path: Path) -> None:
    """Else it would keep a wrapper that is switched off, and the next engine would take it for its own."""
    (tmp_path / library / "importer.py").write_text(f"from {library}.module import function\n")
    targets = [target(library, "function"), Target("fake", f"{library}.importer", "function", "fake:count")]
    first = Calls()
    engine = patcher(first, *targets)
    engine.apply()
    module, importer = (importlib.import_module(f"{library}.{name}") for name in ("module", "importer"))
    assert importer.function() == "plain"
    assert first == ["function"]
    engine.revert()
    assert importer.function is module.function
    assert not hooks.is_ours(importer.function)
    second = Calls()
    again = patcher(second, *targets)
    again.apply()
    importer.function(), module.calls_function()
    assert (len(first), len(second)) == (1, 2)
    again.revert()
