"""What a package has at a name, read from its sources: nothing is imported, nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MANAGERS = frozenset({"asynccontextmanager", "contextmanager"})
_MOST_STEPS = 20  # of imports and base classes on the way to a definition: they may form a circle


@dataclass(frozen=True)
class Parameters:
    """The parameters of a function, without `self` or `cls` if it is a method."""

    positional: tuple[str, ...] = ()
    keyword_only: tuple[str, ...] = ()
    rest: str = ""
    keywords: str = ""

    def __str__(self) -> str:
        star = [f"*{self.rest}"] if self.rest or self.keyword_only else []
        keywords = [f"**{self.keywords}"] if self.keywords else []
        return f"({', '.join([*self.positional, *star, *self.keyword_only, *keywords])})"

    @property
    def names(self) -> tuple[str, ...]:
        """What can be passed by keyword."""
        return self.positional + self.keyword_only

    def has(self, name: str) -> bool:
        """Whether a caller can pass `name`, as far as the signature tells."""
        return name in self.names or bool(self.keywords)

    def misplaces(self, name: str, index: int) -> bool:
        """Whether `name` is there, but another argument may stand at `index`."""
        if name not in self.names:
            return False
        if index < len(self.positional):
            return self.positional[index] != name
        return bool(self.rest) or name in self.positional


@dataclass(frozen=True)
class Found:
    """What there is at a name."""

    kind: str
    """`def`, `async def`, `class`, `module`, `name` (assigned), or `import` (of what is not in the folders)."""
    parameters: Parameters | None = None
    decorators: tuple[str, ...] = ()
    origin: str = ""
    """The module or class it comes from, if that is another than it was asked for in."""
    alternative: str = ""
    """Which of several names it has."""

    def __str__(self) -> str:
        origin = f"from {self.origin}: " if self.origin else ""
        origin = f"{self.alternative}: {origin}" if self.alternative else origin
        decorators = "".join(f"@{decorator} " for decorator in self.decorators)
        return f"{origin}{decorators}{self.kind}{f' {self.parameters}' if self.parameters else ''}"

    @property
    def is_callable(self) -> bool:
        return self.kind not in ("name", "class", "module") and "property" not in self.decorators

    @property
    def is_context_manager(self) -> bool:
        return any(decorator.rpartition(".")[2] in MANAGERS for decorator in self.decorators)


class Sources:
    """The packages below some folders, such as wheels that were unpacked there."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._modules: dict[str, _Scope | None] = {}

    def find(self, module: str, attribute: str) -> Found | None:
        """What `module` has at `attribute`: `function`, `Class.method`; None if there is no such name.

        Of alternatives, separated by `|`, the first that exists.
        """
        alternatives = attribute.split("|")
        for alternative in alternatives:
            found = self._find(module, alternative)
            if found is not None:
                return replace(found, alternative=alternative) if len(alternatives) > 1 else found
        return None

    def _find(self, module: str, attribute: str) -> Found | None:
        scope = self._module(module)
        node: ast.AST | None = None
        asked = place = module
        for part in attribute.split("."):
            if scope is None:
                return None
            if node is not None:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    # The attribute of something that is not in the folders: whether it is there can't be known.
                    return _describe(node, scope, asked=place)
                if not isinstance(node, ast.ClassDef):
                    return None
                found = self._inherited(node, scope, part, _MOST_STEPS)
            else:
                found = self._definition(scope, part, _MOST_STEPS)
            if found is None:
                return None
            place = asked
            asked = f"{asked}.{part}"
            node, scope = found
            if isinstance(node, (ast.Import, ast.ImportFrom)) and (inside := self._module_of(node, scope, part)):
                node, scope = None, inside
        if node is None or scope is None:
            return Found("module")
        return _describe(node, scope, asked=place)

    def _module_of(self, node: ast.Import | ast.ImportFrom, scope: _Scope, name: str) -> _Scope | None:
        return self._module(scope.module_behind(node, name)) if name in scope.names else None

    def _module(self, name: str) -> _Scope | None:
        if name not in self._modules:
            self._modules[name] = None
            for folder in self._folders:
                stem = folder.joinpath(*name.split("."))
                for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
                    if path.is_file():
                        tree = ast.parse(path.read_text(encoding="utf-8"))
                        self._modules[name] = _Scope(name, tree.body, is_package=path.name == "__init__.py")
                        return self._modules[name]
        return self._modules[name]

    def _definition(self, scope: _Scope, name: str, steps: int) -> tuple[ast.AST, _Scope] | None:
        """The statement that makes `name` in a module, and its module; imports are followed."""
        statement = scope.names.get(name)
        if isinstance(statement, ast.ImportFrom) and steps:
            source, original = scope.imported(statement, name)
            module = self._module(source)
            found = self._definition(module, original, steps - 1) if module else None
            # What is a module itself, or not in the folders, is an import all the same.
            return found or (statement, scope)
        if statement is not None:
            return statement, scope
        for star in scope.stars if steps else ():
            module = self._module(scope.source_of(star))
            found = self._definition(module, name, steps - 1) if module and not name.startswith("_") else None
            if found:
                return found
        return None

    def _inherited(self, node: ast.ClassDef, scope: _Scope, name: str, steps: int) -> tuple[ast.AST, _Scope] | None:
        """The statement that makes the attribute `name` of a class or of what it inherits from."""
        body = _Scope(f"{scope.name}.{node.name}", node.body, is_class=True)
        if name in body.names:
            return body.names[name], body
        for base in node.bases if steps else ():
            found = self._base(base.value if isinstance(base, ast.Subscript) else base, scope)
            if found and isinstance(found[0], ast.ClassDef):
                inherited = self._inherited(found[0], found[1], name, steps - 1)
                if inherited:
                    return inherited
        return None

    def _base(self, base: ast.expr, scope: _Scope) -> tuple[ast.AST, _Scope] | None:
        if isinstance(base, ast.Name):
            return self._definition(scope, base.id, _MOST_STEPS)
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
            statement = scope.names.get(base.value.id)
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                module = self._module(scope.module_behind(statement, base.value.id))
                return self._definition(module, base.attr, _MOST_STEPS) if module else None
        return None


class _Scope:
    """The names that a module's or a class's own statements make."""

    def __init__(self, name: str, body: list[ast.stmt], *, is_package: bool = False, is_class: bool = False) -> None:
        self.name = name
        self.is_class = is_class
        self._package = name if is_package else name.rpartition(".")[0]
        self.names: dict[str, ast.stmt] = {}
        self.stars: list[ast.ImportFrom] = []
        for statement in _statements(body):
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                self.stars.append(statement)
            for made in _names_made_by(statement):
                self.names[made] = statement

    def source_of(self, statement: ast.ImportFrom) -> str:
        """The full name of the module that a `from ... import` takes from."""
        if not statement.level:
            return statement.module or ""
        parts = self._package.split(".")
        parts = parts[: len(parts) - statement.level + 1]
        return ".".join([*parts, *([statement.module] if statement.module else [])])

    def imported(self, statement: ast.ImportFrom, name: str) -> tuple[str, str]:
        """The module and the name that `name` is imported from."""
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        return self.source_of(statement), original

    def module_behind(self, statement: ast.Import | ast.ImportFrom, name: str) -> str:
        """The module that `name` stands for."""
        if isinstance(statement, ast.ImportFrom):
            return ".".join(self.imported(statement, name))
        return next((alias.name for alias in statement.names if alias.asname == name), name)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, with those of its conditions, later ones last; never those only for type checkers."""
    for statement in body:
        if isinstance(statement, ast.If):
            # Of two definitions the first branch counts, as it is usually the one that applies.
            yield from _statements(statement.orelse)
            if ast.unparse(statement.test).rpartition(".")[2] != "TYPE_CHECKING":
                yield from _statements(statement.body)
        elif isinstance(statement, ast.Try):
            for part in ([h for handler in statement.handlers for h in handler.body], statement.body):
                yield from _statements(part)
            yield from _statements([*statement.orelse, *statement.finalbody])
        elif isinstance(statement, (ast.With, ast.AsyncWith, ast.For, ast.While)):
            yield from _statements(statement.body)
        else:
            yield statement


def _names_made_by(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, FUNCTIONS):
        last = {ast.unparse(decorator).rpartition(".")[2] for decorator in statement.decorator_list}
        if not last & {"overload", "setter", "deleter"}:
            yield statement.name
    elif isinstance(statement, ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names if alias.name != "*")
    elif isinstance(statement, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id


def _describe(statement: ast.AST, scope: _Scope, *, asked: str) -> Found:
    origin = "" if scope.name == asked else scope.name
    if isinstance(statement, FUNCTIONS):
        kind = "async def" if isinstance(statement, ast.AsyncFunctionDef) else "def"
        decorators = tuple(
            ast.unparse(node.func if isinstance(node, ast.Call) else node) for node in statement.decorator_list
        )
        parameters = parameters_of(statement)
        if scope.is_class and "staticmethod" not in decorators:
            parameters = replace(parameters, positional=parameters.positional[1:])
        return Found(kind, parameters, decorators, origin)
    if isinstance(statement, ast.ClassDef):
        return Found("class", origin=origin)
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        is_from = isinstance(statement, ast.ImportFrom)
        return Found("import", origin=scope.source_of(statement) if is_from else statement.names[0].name)
    return Found("name", origin=origin)


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Parameters:
    """All the parameters of a function, in the order of its signature."""
    given = function.args
    return Parameters(
        positional=tuple(parameter.arg for parameter in (*given.posonlyargs, *given.args)),
        keyword_only=tuple(parameter.arg for parameter in given.kwonlyargs),
        rest=given.vararg.arg if given.vararg else "",
        keywords=given.kwarg.arg if given.kwarg else "",
    )
