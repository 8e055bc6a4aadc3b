"""Any Python object: nothing of it runs, nothing it hides gets out, nothing it does stops the program."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import itertools
import json
import math
import pathlib
import threading
import types
import uuid
from typing import Any, NamedTuple

import pydantic
import pytest

from opentelemetry_instrumentation_mcp.payload import Policy

POLICY = Policy()
CANARY = "CANARY-7f3a9c1e5b"


def cleaned(value: Any) -> Any:
    text = POLICY.json(value)
    text.encode("utf-8")
    result = json.loads(text)
    assert "not serializable" not in text
    assert POLICY.json(result) == text, "not idempotent"
    assert POLICY.structured(value) == result
    return result


class Fatal(BaseException):
    """What a hostile method raises: nothing that is caught by `except Exception`."""


def fatal(*_: Any, **__: Any) -> Any:
    raise Fatal


HOOKS = (
    "__repr__", "__str__", "__iter__", "__getattr__", "__len__", "__bool__", "__eq__", "__hash__", "__format__",
    "__getitem__", "__contains__", "__next__", "__reduce__", "__dir__", "__int__", "__float__",
    "__index__", "__lt__", "__bytes__", "keys", "items", "values", "get", "model_dump", "dict", "to_dict", "isoformat",
    "encode", "lower", "strip",
)  # fmt: skip
HOSTILE: dict[str, Any] = dict.fromkeys(HOOKS, fatal)


class Meta(type):
    """A class whose own attributes, comparison and hash run code."""

    __eq__ = __hash__ = __repr__ = __instancecheck__ = __subclasscheck__ = fatal

    def __getattribute__(cls, name: str) -> Any:
        raise Fatal


def hostile(base: type, value: Any) -> Any:
    kind = types.new_class("Hostile", (base,), {}, lambda body: body.update(HOSTILE))
    return base.__new__(kind, value)


def test_hostile_values() -> None:
    odd = types.new_class("Plain", (), {}, lambda body: body.update(HOSTILE))()
    for value, expected in (
        (hostile(str, "password=" + CANARY), "password=***"),
        (hostile(int, 5), 5),
        (hostile(float, 1.5), 1.5),
        (hostile(bytes, b"token=" + CANARY.encode()), "token=***"),
        (odd, "<Plain>"),
    ):
        assert cleaned([value, {"x": value}]) == [expected, {"x": expected}]


@pytest.mark.parametrize(
    "base", [dict, list, tuple, set, frozenset, collections.deque, collections.UserDict, Exception]
)
def test_hostile_containers(base: type) -> None:
    content = {"password": CANARY, "n": "1"} if base in (dict, collections.UserDict) else ["password", CANARY]
    quiet = types.new_class("Hostile", (base,), {}, lambda body: None)
    value = quiet(*content) if base is Exception else quiet(content)
    for name in HOOKS:
        if name != "__hash__":
            setattr(quiet, name, fatal)
    result = cleaned([value])[0]
    assert "password" in json.dumps(result)
    if not issubclass(base, (set, frozenset)):  # what has no order has no pairs
        assert CANARY not in json.dumps(result)


def test_what_lies_about_its_class() -> None:
    class Liar:
        __class__ = dict  # type: ignore[assignment]

    class Property:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise Fatal

        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise Fatal

    hidden = type.__call__(Meta, "Secretive", (), {})
    assert cleaned([Liar(), Property(), object.__new__(hidden), hidden]) == [
        "<Liar>",
        "<Property>",
        "<Secretive>",
        "<Meta>",
    ]


def test_what_never_ends() -> None:
    class Endless:
        def __iter__(self) -> Any:
            return itertools.count()

    endless: list[Any] = []
    endless.append(endless)
    looped: dict[str, Any] = {"a": 1}
    looped["self"] = looped
    assert cleaned([itertools.count(), Endless(), (n for n in itertools.count())]) == [
        "<count>",
        "<Endless>",
        "<generator>",
    ]
    assert cleaned(endless) == ["<cycle>"]
    assert cleaned(looped) == {"a": 1, "self": "<cycle>"}


def test_deep_nesting() -> None:
    deep: Any = CANARY
    for _ in range(1_000_000):
        deep = [deep]
    text = json.dumps(cleaned(deep))
    assert "<too deep>" in text
    assert CANARY not in text
    while type(deep) is list and deep:  # or the interpreter recurses when it frees it
        deep = deep.pop()
    deep = {"token": CANARY}
    for _ in range(300):
        deep = {"a": deep}
    assert CANARY not in json.dumps(cleaned(deep))
    assert CANARY not in json.dumps(cleaned({"t": json.dumps(deep)}))
    assert CANARY not in json.dumps(cleaned({"t": "[" * 100_000 + '"password=' + CANARY}))


def test_documents_in_documents_in_documents() -> None:
    text = json.dumps({"password": CANARY})
    for _ in range(8):
        text = json.dumps({"t": text})
    assert CANARY not in POLICY.json(text)
    assert CANARY not in POLICY.text(text, 100_000)


class Point(NamedTuple):
    x: int
    password: str


class Color(enum.Enum):
    RED = "red"
    SECRET = "token=" + CANARY


@dataclasses.dataclass
class Account:
    name: str
    password: str
    notes: list[str] = dataclasses.field(default_factory=list)
    internal: str = dataclasses.field(default=CANARY, repr=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    name: str
    api_key: str


class Inner(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    is_error: bool = pydantic.Field(default=False, alias="isError")
    token: pydantic.SecretStr = pydantic.SecretStr(CANARY)
    key: str = pydantic.Field(default=CANARY, exclude=True)

    def model_dump(self, **_: Any) -> Any:
        raise Fatal

    def __repr__(self) -> str:
        raise Fatal


class Model(pydantic.BaseModel):
    inner: Inner
    text: str = "password=" + CANARY
    secret_note: pydantic.SecretStr = pydantic.SecretStr(CANARY)
    plain: pydantic.SecretStr = pydantic.SecretStr(CANARY)


def test_records() -> None:
    assert cleaned(Point(1, CANARY)) == {"x": 1, "password": "***"}
    assert cleaned(Account("bob", CANARY, ["token: " + CANARY])) == {
        "name": "bob",
        "password": "***",
        "notes": ["token: ***"],
        "internal": "***",
    }
    assert cleaned(Slotted("bob", CANARY)) == {"name": "bob", "api_key": "***"}
    model = Model(inner=Inner(isError=True, extra=1))  # type: ignore[call-arg]
    assert cleaned(model) == {
        "inner": {"isError": True, "token": "***", "extra": 1},
        "text": "password=***",
        "secret_note": "***",
        "plain": "<SecretStr>",
    }


def test_objects_of_the_standard_library() -> None:
    class Zone(datetime.tzinfo):
        utcoffset = dst = tzname = fatal

    midnight = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    for value, expected in {
        midnight.replace(tzinfo=None): "2026-01-02T00:00:00",
        midnight: "2026-01-02T00:00:00+00:00",
        datetime.date(2026, 1, 2): "2026-01-02",
        decimal.Decimal("1.50"): "1.50",
        decimal.Decimal("1" * 100_000): "<Decimal>",
        uuid.UUID(int=1): "00000000-0000-0000-0000-000000000001",
        pathlib.PurePosixPath("/a/b"): "/a/b",
        threading.Lock(): "<lock>",
        print: "<builtin_function_or_method>",
        json: "<module>",
        int: "<type>",
        ...: "<ellipsis>",
        1j: "<complex>",
    }.items():
        assert cleaned([value]) == [expected]
    assert cleaned([midnight.replace(tzinfo=Zone())]) == ["<datetime>"]
    assert cleaned([Color.RED, Color.SECRET]) == ["red", "token=***"]
    assert cleaned(types.MappingProxyType({"password": CANARY, "n": 1})) == {"password": "***", "n": 1}
    assert cleaned(collections.UserDict({"password": CANARY})) == {"password": "***"}
    assert cleaned(collections.deque([1, 2])) == [1, 2]
    assert cleaned(ValueError("password=" + CANARY, 1)) == {"type": "ValueError", "args": ["password=***", 1]}


def test_sets_have_an_order() -> None:
    assert cleaned({"b", "a", "c"}) == ["a", "b", "c"]
    assert cleaned({3, 1, "x"}) == [1, 3, "x"]
    assert cleaned({"password", CANARY})[0] in {"***", CANARY}
    assert cleaned(frozenset(range(100_000))) == "<large set>"


def test_numbers() -> None:
    assert cleaned([math.nan, math.inf, -math.inf, 10**400, -(10**30), True, 0.1]) == [
        "NaN", "Infinity", "-Infinity", "<large integer>", -(10**30), True, 0.1,
    ]  # fmt: skip
    assert POLICY.json([1e16, 1e-7, -0.0, 5.0]) == "[1e+16,1e-07,-0.0,5.0]"


def test_bytes() -> None:
    assert cleaned([b"password=" + CANARY.encode(), bytearray(b"ab"), b"\xff\x00", memoryview(b"x")]) == [
        "password=***", "ab", "<bytes>", "<bytes>",
    ]  # fmt: skip
    assert cleaned([(b"authorization", CANARY.encode()), (b"accept", b"*/*")]) == [
        ["authorization", "***"],
        ["accept", "*/*"],
    ]


def test_odd_keys() -> None:
    value = {
        1: "c", None: "b", 1.5: "d", b"password": CANARY, (1, 2): "e", "1": "f", Color.RED: "g", "\ud800": "h",
    }  # fmt: skip
    assert cleaned(value) == {
        "1": "c", "null": "b", "1.5": "d", "password": "***", "<tuple>": "e", "1#5": "f", "red": "g", "\ufffd": "h",
    }  # fmt: skip
    assert len(POLICY.json({"x" * 1_000_000: 1})) < 400


def test_lone_surrogates() -> None:
    assert cleaned(["a\ud800b", {"k\udfff": "v"}]) == ["a\ufffdb", {"k\ufffd": "v"}]
    assert POLICY.text("a\ud800b") == "a\ufffdb"
    assert POLICY.attribute("k", "a\ud800b") == "a\ufffdb"
    POLICY.url("https://h/\ud800").encode()


def test_containers_that_change_while_they_are_read() -> None:
    value: dict[str, Any] = {str(n): n for n in range(50)}

    class Grow(collections.UserString):
        pass

    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            value[f"x{number % 500}"] = Grow("x")
            value.pop(f"x{(number + 250) % 500}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            json.loads(POLICY.json(value))
    finally:
        stop.set()
        thread.join()


def test_strange_arguments() -> None:
    for odd in (None, 5, b"x", object(), ["x"]):
        assert isinstance(POLICY.text(odd), str)  # type: ignore[arg-type]
        assert isinstance(POLICY.url(odd), str)  # type: ignore[arg-type]
        assert POLICY.is_sensitive(odd) in {True, False}  # type: ignore[arg-type]
        POLICY.attribute(odd, odd)  # type: ignore[arg-type]
