"""The reader of published releases, on tiny packages."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from opentelemetry_instrumentation_mcp.hooks import CONTEXT_MANAGER, Target
from seams.adapters import Adapters
from seams.source import Parameters, Sources
from seams.survey import Distribution, Release, by_release, in_ranges, targets_of

PACKAGE = {
    "host/__init__.py": "from .server import Server as Front, serve\nfrom .deep import *",
    "host/server.py": """
        import functools
        from contextlib import asynccontextmanager
        from typing import TYPE_CHECKING, Generic, TypeVar, overload

        import outside
        from host import deep
        from . import base as _base
        from .deep import helper as renamed
        from outside import foreign

        if TYPE_CHECKING:
            def only_for_types(): ...

        raise SystemExit("nothing of this may run")

        async def serve(request, /, db=None, *rest, user, **more): ...

        @asynccontextmanager
        async def connect(url, headers=None): ...

        try:
            import fast
        except ImportError:
            def fallback(slow): ...
        else:
            def fallback(fast): ...

        if functools:
            def choose(first): ...
        else:
            def choose(second): ...

        state = made = object()

        class Server(_base.Base[int]):
            declared: int
            valued: int = 1

            def own(self, a): ...

            class Inner:
                def method(self, a): ...

            @overload
            def many(self, a): ...
            def many(self, b): ...

            @staticmethod
            def plain(a): ...

            @property
            def size(self): ...
            @size.setter
            def size(self, value): ...

        class Child(Server, outside.Base):
            def own(self, a, *, b): ...
    """,
    "host/base.py": """
        from .deep import Root

        class Base(Root):
            async def inherited(self, message): ...
    """,
    "host/deep.py": """
        def helper(x): ...
        def _hidden(): ...

        class Root:
            def at_the_root(self): ...
    """,
    "host/circle.py": "from .circle_too import x",
    "host/circle_too.py": "from .circle import x",
}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    write(tmp_path, PACKAGE)
    return Sources(tmp_path)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "attribute", "expected"),
    [
        ("host.server", "serve", "async def (request, db, *rest, user, **more)"),
        ("host.server", "connect", "@asynccontextmanager async def (url, headers)"),
        ("host.server", "Server.own", "def (a)"),
        ("host.server", "Server.many", "def (b)"),
        ("host.server", "Server.plain", "@staticmethod def (a)"),
        ("host.server", "Server.size", "@property def ()"),
        ("host.server", "Server.valued", "name"),
        ("host.server", "Server", "class"),
        ("host.server", "state", "name"),
        ("host.server", "made", "name"),
        ("host.server", "Child.own", "def (a, *, b)"),
        ("host.server", "Child.many", "from host.server.Server: def (b)"),
        ("host.server", "Child.inherited", "from host.base.Base: async def (message)"),
        ("host.server", "Child.at_the_root", "from host.deep.Root: def ()"),
        ("host.server", "renamed", "from host.deep: def (x)"),
        ("host.server", "foreign", "from outside: import"),
        ("host.server", "foreign.attribute", "from outside: import"),
        ("host.server", "outside.Class.method", "from outside: import"),
        ("host.server", "deep", "module"),
        ("host.server", "deep.helper", "from host.deep: def (x)"),
        ("host.server", "_base.Base.inherited", "from host.base.Base: async def (message)"),
        ("host.server", "Server.Inner.method", "def (a)"),
        ("host.server", "functools", "from functools: import"),
        ("host.server", "fallback", "def (fast)"),
        ("host.server", "choose", "def (first)"),
        ("host", "serve", "from host.server: async def (request, db, *rest, user, **more)"),
        ("host", "Front.own", "from host.server.Server: def (a)"),
        ("host", "helper", "from host.deep: def (x)"),
        ("host.server", "gone|Server.gone|Server.own|serve", "Server.own: def (a)"),
    ],
)
def test_what_is_there(sources: Sources, module: str, attribute: str, expected: str) -> None:
    assert str(sources.find(module, attribute)) == expected


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("host.gone", "serve"),
        ("host.server", "gone"),
        ("host.server", "helper"),  # has another name there
        ("host.server", "only_for_types"),
        ("host.server", "Server.declared"),
        ("host.server", "Server.gone"),
        ("host.server", "Gone.own"),
        ("host.server", "serve.own"),
        ("host", "_hidden"),  # a star takes no private names
        ("host", "Server.own"),
        ("outside", "Base"),
        ("host.server", "_base.gone"),
        ("host.server", "Server.Inner.gone"),
        ("host.server", "serve.own.more"),
    ],
)
def test_what_is_not_there(sources: Sources, module: str, attribute: str) -> None:
    assert sources.find(module, attribute) is None


def test_imports_in_a_circle_come_to_an_end(sources: Sources) -> None:
    assert str(sources.find("host.circle", "x")).endswith(": import")


def test_where_an_argument_may_stand() -> None:
    parameters = Parameters(("request", "db"), ("user",))
    assert [parameters.has(name) for name in ("db", "user", "gone")] == [True, True, False]
    assert not parameters.misplaces("db", 1)
    assert parameters.misplaces("db", 0) and parameters.misplaces("db", 2)
    # Nothing else can be there: it is read by keyword then.
    assert not parameters.misplaces("user", 2)
    assert parameters.misplaces("user", 1)
    # What is not there at all is told apart from what is elsewhere.
    assert not parameters.misplaces("gone", 0)
    assert Parameters(keywords="more").has("anything")


ADAPTERS = {
    "host.py": """
        from .shared import read_state

        _USER = "user"

        def wrap(telemetry):
            def wrapper(wrapped, instance, args, kwargs):
                request, db = leading(args, kwargs, "request", "db")
                user = argument(args, kwargs, 2, _USER)
                other.get("not one")
                if "flag" in kwargs:
                    kwargs["item"]
                return wrapped(*read(args, kwargs), **kwargs)
            return wrapper

        def read(args, kwargs):
            read_state(instance, kwargs)
            return with_argument(args, kwargs, 4, "headers", kwargs.get("headers"))

        def unrelated(args, kwargs):
            kwargs.get("unrelated")

        def _make(describe):
            def wrapper(wrapped, instance, args, kwargs):
                return describe(kwargs.get("made"))
            return wrapper

        def _describe(args, kwargs):
            return argument(args, kwargs, 1, "described")

        made = _make(_describe)
    """,
    "shared.py": """
        def read_state(instance, kwargs):
            read_state(instance, kwargs)
            kwargs.get("state")
    """,
}


@pytest.fixture
def adapters(tmp_path: Path) -> Adapters:
    write(tmp_path, ADAPTERS)
    return Adapters(tmp_path)


def test_what_an_adapter_reads(adapters: Adapters) -> None:
    assert adapters.reads("host:wrap") == {
        "db": 1,
        "flag": None,
        "headers": 4,
        "item": None,
        "request": 0,
        "state": None,
        "user": 2,
    }
    assert adapters.reads("host:made") == {"described": 1, "made": None}


@pytest.mark.parametrize("adapter", ["gone:wrap", "host:gone"])
def test_an_adapter_that_is_not_there(adapters: Adapters, adapter: str) -> None:
    with pytest.raises(LookupError):
        adapters.reads(adapter)


HOST = Distribution("host-dist", "host", ("1.0", "1.1", "2.0"))
SERVE = Target("host", "host.server", "serve", "host:wrap", "serving")
OWN = Target("host", "host.server", "Server.own", "host:wrap", major=2)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    for release in HOST.releases:
        write(tmp_path / f"host-dist-{release}", PACKAGE)
    return tmp_path


def test_a_release_is_described_for_what_is_read(wheels: Path) -> None:
    release = Release(wheels, HOST, "1.1")
    line = "async def (request, db, *rest, user, **more)"
    assert release.describe(SERVE, {"db": 1, "anything": None}) == line
    assert release.misplaced(SERVE, {"db": 1, "request": 1, "user": 2}) == ["request", "user"]
    assert release.describe(OWN, {}) is None  # of another generation
    assert Release(wheels, HOST, "2.0").describe(OWN, {"a": 0, "b": 1}) == "def (a), without b"
    assert release.describe(SERVE._replace(attribute="gone"), {}) is None


def test_what_can_not_be_wrapped(wheels: Path) -> None:
    release = Release(wheels, HOST, "1.0")
    assert not release.unfit(SERVE)
    assert release.unfit(SERVE._replace(attribute="state"))
    assert release.unfit(SERVE._replace(how=CONTEXT_MANAGER))
    assert not release.unfit(SERVE._replace(attribute="connect", how=CONTEXT_MANAGER))


def test_a_release_that_was_not_fetched(wheels: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nox -s seams"):
        Release(wheels, HOST, "3.0")


def test_the_table_is_read_by_package() -> None:
    other = SERVE._replace(module="hostess.server")
    assert targets_of(HOST, (SERVE, OWN, other)) == {"host.server:serve": SERVE, "host.server:Server.own": OWN}


def test_releases_in_ranges_and_back() -> None:
    there: dict[str, str | None] = {"1.0": None, "1.1": "def ()", "1.2": "def ()", "2.0": "def (a)"}
    ranges = in_ranges(there)
    assert ranges == {"1.0": None, "1.1 to 1.2": "def ()", "2.0": "def (a)"}
    assert by_release(ranges, tuple(there)) == there
    # Of a release that is new nothing is known: it is expected to be like the one before.
    assert by_release(ranges, (*there, "2.1"))["2.1"] == "def (a)"
