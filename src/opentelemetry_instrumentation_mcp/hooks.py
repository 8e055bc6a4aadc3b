"""The patch engine: a table of targets, applied when their modules are imported, guarded, revertible.

Importing a library is the user's business: nothing here imports one. Post-import hooks (wrapt) fire when the user
does; an exception in them would break the user's import, so none leaves this module.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from importlib import metadata
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, cast

import wrapt

from .guard import contained, report, report_once
from .proxy import FunctionWrapper, ObjectProxy

METHOD, CONTEXT_MANAGER = "method", "context manager"


class Target(NamedTuple):
    """One place in a library that is wrapped.

    Attributes:
        name: the group it belongs to, as ``DISABLED_TARGETS`` knows it.
        module: the module whose import triggers the patch.
        attribute: ``Class.method`` or ``function``; several, separated by ``|``, are alternatives across versions.
        adapter: ``module:factory`` below :mod:`.targets`; the factory takes the telemetry and returns the wrapper.
        covers: what stays untraced if the attribute is missing; empty if a missing one loses nothing.
        major: the major version of the library that has it, None for all.
        how: ``method`` (also for functions looked up in their own module) or ``context manager`` (a function
            made by ``asynccontextmanager`` or ``contextmanager``, wrapped inside so that names imported earlier are
            covered too; the wrapper observes the asynchronous ones, and replaces the generator if it is ``Around``).
    """

    name: str
    module: str
    attribute: str
    adapter: str
    covers: str = ""
    major: int | None = None
    how: str = METHOD


class Around:
    """A wrapper that builds the replacement itself, which saves the calls in between.

    ``build`` gets the function and returns one of the same kind that takes the same arguments (of a method: ``self``
    first) and is a pass-through when the wrappers are switched off.
    """

    __slots__ = ("build",)

    def __init__(self, build: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self.build = build

    def __call__(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the same for anything that can be called, as the other wrappers do."""

        if instance is None:
            return self.build(wrapped)(*args, **kwargs)

        def call(_: Any, /, *args: Any, **kwargs: Any) -> Any:
            return wrapped(*args, **kwargs)

        return self.build(call)(instance, *args, **kwargs)

    def unless(self, passes: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], bool], place: str) -> Around:
        """The same for methods, but that those calls go straight to the original for which ``passes`` holds.

        Args:
            passes: gets ``self``, positional and named arguments. It spares coroutine functions a second coroutine.
            place: what it does, for the report of its failure.
        """

        def build(call: Callable[..., Any]) -> Callable[..., Any]:
            wrapped = self.build(call)

            def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
                try:
                    goes_straight = passes(self, args, kwargs)
                except Exception as error:
                    report(place, error)
                    goes_straight = True
                return (call if goes_straight else wrapped)(self, *args, **kwargs)

            return method

        return Around(build)


# wrapt keeps attributes of this prefix to itself. The value is the wrapper: a copied attribute marks nothing.
_OURS = "_self_otel_mcp_wrapper"


def _wrap(original: Any, wrapper: Any, is_active: Callable[[], bool], *, is_method: bool) -> Any:
    """``original`` with ``wrapper(wrapped, instance, args, kwargs)`` around it, whoever calls it and how."""
    if not isinstance(original, FunctionType):
        return FunctionWrapper(original, wrapper, enabled=is_active)
    if isinstance(wrapper, Around):
        replacement = wrapper.build(original)
        if inspect.iscoroutinefunction(original) or not inspect.iscoroutinefunction(replacement):
            return functools.wraps(original)(_like(original, replacement))
    # wrapt's wrapper costs a microsecond per call, which for plain functions buys nothing.

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        bound = original.__get__(self)
        return wrapper(bound, self, args, kwargs) if is_active() else bound(*args, **kwargs)

    def function(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, None, args, kwargs) if is_active() else original(*args, **kwargs)

    replacement = method if is_method else function
    return functools.wraps(original)(_like(original, replacement))


def _like(original: Any, replacement: Any) -> Any:
    """``replacement`` in the eyes of ``iscoroutinefunction`` being what ``original`` is."""
    if not inspect.iscoroutinefunction(original) or inspect.iscoroutinefunction(replacement):
        return replacement
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(replacement)

    async def coroutine_function(*args: Any, **kwargs: Any) -> Any:
        return await replacement(*args, **kwargs)

    return coroutine_function


class _Patch(NamedTuple):
    parent: Any
    name: str
    wrapper: Any
    original: Any
    inherited: bool

    def revert(self) -> None:
        if attribute_of(self.parent, self.name) is not self.wrapper:
            return  # somebody wrapped ours in turn; ours is a pass-through from now on
        if self.inherited:
            delattr(self.parent, self.name)
        else:
            setattr(self.parent, self.name, self.original)


class _CellPatch(NamedTuple):
    cell: Any
    wrapper: Any
    original: Any

    def revert(self) -> None:
        if self.cell.cell_contents is self.wrapper:
            self.cell.cell_contents = self.original


class Patcher:
    """Applies targets now or when their modules are imported, and takes them back."""

    def __init__(
        self,
        targets: tuple[Target, ...],
        context: Callable[[], Any],
        is_active: Callable[[], bool],
        libraries: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            targets: the table.
            context: returns what the adapters' factories are called with; asked when the first patch is made.
            is_active: asked at every call of a wrapper; when it says no, the wrapper is a pass-through.
            libraries: packages whose import, once complete, completes that of half-imported modules.
        """
        self._modules = {*libraries, *(target.module for target in targets)}
        self._targets = targets
        self._context = context
        self._is_active = is_active
        self._patches: dict[Target, _Patch | _CellPatch] = {}
        self._half_imported: set[str] = set()

    def apply(self) -> None:
        """Patch what is imported already and arrange for the rest; never raises."""
        global _current
        _current = self
        for module_name in sorted(self._modules):
            if module_name in sys.modules:
                self.patch_module(module_name, complete=False)
            elif module_name not in _pending:
                _pending.add(module_name)
                wrapt.register_post_import_hook(_on_import, module_name)

    def revert(self) -> None:
        """Restore every attribute and neutralise hooks still pending."""
        global _current
        if _current is self:
            _current = None
        for target, patch in self._patches.items():
            try:
                patch.revert()
            except Exception as error:
                report(f"restore {target.module}.{target.attribute}", error)
        self._patches.clear()

    def patch_module(self, module_name: str, *, complete: bool) -> None:
        """Patch an imported module, and those that were half-imported before.

        Args:
            module_name: a module in ``sys.modules``.
            complete: whether its import is known to have ended; its loader's flag is still up when hooks fire.
        """
        for name in (module_name, *(self._half_imported - {module_name})):
            module = sys.modules.get(name)
            if module is None:
                continue
            self._half_imported.discard(name)
            half = _is_initializing(module) and not (complete and name == module_name)
            for target in self._targets:
                if target.module == name and target not in self._patches:
                    self._patch(module, target, half)

    @contained("apply a patch")
    def _patch(self, module: ModuleType, target: Target, half_imported: bool) -> None:
        library = target.module.partition(".")[0]
        if target.major is not None and target.major != _major_version(library):
            return
        found = find_attribute(module, target.attribute)
        if found is None:
            if half_imported:
                self._half_imported.add(target.module)
            elif target.covers:
                report_once(
                    f"missing {target.module}.{target.attribute}",
                    "%s %s has no %s.%s: %s stays untraced",
                    library,
                    _version(library),
                    target.module,
                    target.attribute,
                    target.covers,
                )
            return
        adapter_module, _, factory_name = target.adapter.partition(":")
        adapters = importlib.import_module(f".targets.{adapter_module}", __package__)
        wrapper = getattr(adapters, factory_name)(self._context())
        patch_how = self._patch_context_manager if target.how == CONTEXT_MANAGER else self._patch_attribute
        patch = patch_how(*found, wrapper)
        if patch is not None:
            self._patches[target] = patch
        elif target.covers:
            report_once(f"odd {target}", "%s.%s: %s stays untraced", target.module, target.attribute, target.covers)

    def _patch_attribute(self, parent: Any, name: str, wrapper: Any) -> _Patch | None:
        own = attribute_of(parent, name)
        inherited = own is None
        original = getattr(parent, name) if inherited else own
        if is_ours(original):
            # Imported by name from a module where it was patched before: to be restored as well.
            return _Patch(parent, name, original, original.__wrapped__, inherited)
        replacement = _wrap(original, wrapper, self._is_active, is_method=isinstance(parent, type))
        setattr(replacement, _OURS, replacement)
        setattr(parent, name, replacement)
        return _Patch(parent, name, replacement, original, inherited)

    def _patch_context_manager(self, parent: Any, name: str, observe: Any) -> _CellPatch | None:
        function = getattr(parent, name)
        cell = _generator_cell(function)
        if cell is None:
            return None
        generator_function = cell.cell_contents
        is_active = self._is_active
        if isinstance(observe, Around):
            replacement = functools.wraps(generator_function)(observe.build(generator_function))
            cell.cell_contents = replacement
            return _CellPatch(cell, replacement, generator_function)

        @functools.wraps(generator_function)
        def observed(*args: Any, **kwargs: Any) -> Any:
            generator = generator_function(*args, **kwargs)
            return _ObservedGenerator(generator, observe, args, kwargs) if is_active() else generator

        cell.cell_contents = observed
        return _CellPatch(cell, observed, generator_function)


class _ObservedGenerator(ObjectProxy):
    """The generator behind an ``asynccontextmanager``; shows what it yields to an observer, attaches nothing."""

    def __init__(self, generator: AsyncGenerator[Any, None], observe: Any, args: Any, kwargs: Any) -> None:
        super().__init__(generator)
        self._self_observation: tuple[Any, Any, Any] | None = (observe, args, kwargs)

    async def __anext__(self) -> Any:
        value = await self.__wrapped__.__anext__()
        if self._self_observation is not None:
            observe, args, kwargs = self._self_observation
            self._self_observation = None
            try:
                observe(value, self.__wrapped__, args, kwargs)
            except Exception as error:
                report("observe a transport", error)
        return value


# The only global state: one hook per module not yet imported, and the patcher they serve.
_pending: set[str] = set()
_current: Patcher | None = None


def _on_import(module: ModuleType) -> None:
    try:
        _pending.discard(module.__name__)
        if _current is not None:
            _current.patch_module(module.__name__, complete=True)
    except Exception as error:
        report("handle the import of a library", error)


def find_attribute(module: ModuleType, attribute: str) -> tuple[Any, str] | None:
    """The owner and the name of the first alternative of ``attribute`` that exists, None if none does."""
    for alternative in attribute.split("|"):
        owner, _, name = alternative.rpartition(".")
        parent: Any = module
        for part in owner.split(".") if owner else ():
            parent = getattr(parent, part, None)
        if parent is not None and hasattr(parent, name):
            return parent, name
    return None


def _generator_cell(function: Any) -> Any:
    """The closure cell in which ``contextmanager`` and its asynchronous twin keep the function they decorate."""
    # Other decorators may stand above it; the function it decorates is at the end of the chain, below its helper.
    while isinstance(function, FunctionType):
        if "func" in function.__code__.co_freevars and not inspect.isasyncgenfunction(function):
            return (function.__closure__ or ())[function.__code__.co_freevars.index("func")]
        function = getattr(function, "__wrapped__", None)
    return None


def attribute_of(owner: Any, name: str) -> Any:
    """The attribute ``name`` as ``owner`` itself has it: not bound, not inherited; None if it has none."""
    return cast("dict[str, Any]", vars(owner)).get(name)


def is_ours(function: Any) -> bool:
    """Whether ``function`` is a wrapper put in place by this engine."""
    return function is not None and getattr(function, _OURS, None) is function


def _is_initializing(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


# What a library is installed as, where that is not its name.
_DISTRIBUTIONS = {"mcpgateway": "mcp-contextforge-gateway"}


def _version(library: str) -> str:
    try:
        return metadata.version(_DISTRIBUTIONS.get(library, library))
    except metadata.PackageNotFoundError:
        return "(unknown version)"


@functools.cache
def _major_version(library: str) -> int | None:
    major = _version(library).partition(".")[0]
    return int(major) if major.isdigit() else None
