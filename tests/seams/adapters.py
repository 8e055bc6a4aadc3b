"""Which arguments of the host's functions the adapters read, from the adapters' own sources.

A convention of `targets/` makes it possible: what the host passed is called `args` and `kwargs`, and is read by
`argument`, `leading`, `with_argument`, `kwargs.get("x")`, `kwargs["x"]` or `"x" in kwargs`, in the function that the
table names, in those of its module that it mentions, or in those of other modules that it hands `kwargs` to.
"""

from __future__ import annotations

import ast
from pathlib import Path

from .source import FUNCTIONS

Reads = dict[str, "int | None"]
"""By the name of a parameter: the position it is read from if it is given there; None if by keyword only."""

_KEYWORDS = "kwargs"
_BY_INDEX = ("argument", "with_argument")


class Adapters:
    """The modules of a folder of adapters."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, ast.Module] = {}

    def reads(self, adapter: str) -> Reads:
        """What the adapter `module:factory` reads.

        Raises:
            LookupError: there is no such module or factory.
        """
        module, _, factory = adapter.partition(":")
        found: Reads = {}
        self._collect(module, factory, found, set())
        return dict(sorted(found.items()))

    def _module(self, name: str) -> ast.Module:
        if name not in self._modules:
            path = self._folder / f"{name}.py"
            if not path.is_file():
                raise LookupError(f"no adapters in {name}")
            self._modules[name] = ast.parse(path.read_text(encoding="utf-8"))
        return self._modules[name]

    def _collect(self, module: str, function: str, found: Reads, seen: set[tuple[str, str]]) -> None:
        if (module, function) in seen:
            return
        seen.add((module, function))
        tree = self._module(module)
        definitions = [
            node for node in ast.walk(tree) if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name == function
        ]
        if not definitions:
            source = self._imported(tree, function)
            if source is not None:
                self._collect(source, function, found, seen)
                return
            # A factory may also be made by another: `close = _closer(...)`.
            definitions = [
                node
                for node in tree.body
                if isinstance(node, ast.Assign)
                and any(isinstance(target, ast.Name) and target.id == function for target in node.targets)
            ]
        if not definitions:
            raise LookupError(f"no {function} in {module}")
        constants = _constants(tree)
        local = {node.name for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))}
        for definition in definitions:
            for node in ast.walk(definition):
                for name, index in _reads_of(node, constants):
                    found[name] = index if found.get(name) is None else found[name]
                for name in [*_mentioned(node, local), *_hands_on(node)]:
                    try:
                        self._collect(module, name, found, seen)
                    except LookupError:
                        continue  # not one of ours

    def _imported(self, tree: ast.Module, name: str) -> str | None:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                names = {alias.asname or alias.name for alias in node.names}
                if name in names and (self._folder / f"{node.module}.py").is_file():
                    return node.module
        return None


def _constants(tree: ast.Module) -> dict[str, str]:
    """The strings that have a name in the module."""
    named: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            named.update({target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)})
    return named


def _reads_of(node: ast.AST, constants: dict[str, str]) -> list[tuple[str, int | None]]:
    """The arguments that this expression reads from `args` and `kwargs`."""

    def text(expression: ast.expr) -> str | None:
        if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
            return expression.value
        return constants.get(expression.id) if isinstance(expression, ast.Name) else None

    if isinstance(node, ast.Subscript) and _is_keywords(node.value):
        name = text(node.slice)
        return [(name, None)] if name else []
    if isinstance(node, ast.Compare) and any(_is_keywords(operand) for operand in node.comparators):
        name = text(node.left)
        return [(name, None)] if name else []
    if not isinstance(node, ast.Call):
        return []
    function, given = node.func, node.args
    if (
        isinstance(function, ast.Attribute)
        and function.attr in ("get", "pop")
        and _is_keywords(function.value)
        and given
    ):
        name = text(given[0])
        return [(name, None)] if name else []
    if not isinstance(function, ast.Name) or not any(_is_keywords(value) for value in given):
        return []
    if function.id in _BY_INDEX and len(given) > 3 and isinstance(given[2], ast.Constant):
        name = text(given[3])
        return [(name, given[2].value)] if name and isinstance(given[2].value, int) else []
    if function.id == "leading":
        return [(name, index) for index, value in enumerate(given[2:]) if (name := text(value))]
    return []


def _mentioned(node: ast.AST, local: set[str]) -> list[str]:
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in local else []


def _hands_on(node: ast.AST) -> list[str]:
    """The functions that this expression hands `kwargs` to."""
    if not isinstance(node, ast.Call):
        return []
    passed = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg)]
    if not any(_is_keywords(value) for value in passed):
        return []
    if isinstance(node.func, ast.Name) and node.func.id not in (*_BY_INDEX, "leading"):
        return [node.func.id]
    return [node.func.attr] if isinstance(node.func, ast.Attribute) else []


def _is_keywords(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == _KEYWORDS
