"""Any object as a tree of plain Python values, as far as a budget reaches, without running foreign code."""

from __future__ import annotations

import collections
import enum
import json
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import isfinite, isnan
from typing import Any, cast

from . import objects
from .data import MASK, class_of, load, well_formed
from .keys import SENSITIVE, SOFT, Names, is_code, is_tally
from .ledger import Ledger
from .pairs import Pairs

_KEPT_KEYS = 4_096
_LONGEST_WORD = 19  # shorter than any token that is known by its shape


_USER_CLASSES = (collections.UserDict, collections.UserList, collections.UserString)


# The methods of the built-in classes, so that those of a subclass are not called.
_items_of: Callable[[Any], Iterable[tuple[Any, Any]]] = cast("Any", dict).items
_iterate_tuple: Callable[[Any], Iterator[Any]] = cast("Any", tuple).__iter__
_arguments: Callable[[Any], Any] = BaseException.__dict__["args"].__get__
_SEQUENCES: tuple[tuple[type, Callable[[Any], Iterator[Any]]], ...] = (
    (list, cast("Any", list).__iter__),
    (tuple, _iterate_tuple),
    (collections.deque, cast("Any", collections.deque).__iter__),
)
_SETS: tuple[tuple[Any, Callable[[Any], Iterator[Any]]], ...] = (
    (set, cast("Any", set).__iter__),
    (frozenset, cast("Any", frozenset).__iter__),
)


class CutStr(str):
    """The beginning of a longer string."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """The members of a parsed JSON object, in order; one name may occur twice."""


class Tree:
    """Builds one tree; secrets under sensitive names are masked on the way, texts are left to be cleaned.

    Args:
        names: decides about names.
        clean_key: cleans the text of a key.
        keys: decisions about keys, kept for the next tree.
        room: characters to spend; what does not fit is left out.
        ledger: notes what is masked and whether something is left out.
        every_key: whether keys that are ordinary words may hold something to mask: only the user's own rules say so.
    """

    def __init__(
        self,
        names: Names,
        clean_key: Callable[[str], str],
        keys: dict[str, tuple[str, int, bool]],
        room: int,
        ledger: Ledger,
        *,
        every_key: bool = False,
    ) -> None:
        limits, marks = load()["limits"], load()["marks"]
        self._names = names
        self._pairs = Pairs(names, ledger)
        self._ledger = ledger
        self._clean_key = clean_key
        self._longest_word = -1 if every_key else _LONGEST_WORD
        self._keys = keys
        self._room = room
        self._slack: int = limits["slack"]
        self._depth: int = limits["depth"]
        self._name: int = limits["name"]
        self._set_items: int = limits["set_items"]
        self._integer_bits: int = limits["integer_bits"]
        self._marks: dict[str, str] = marks
        self._path: set[int] = set()

    def build(self, value: object, depth: int = 0) -> Any:
        """The plain form of ``value``."""
        cls = type(value)
        if cls is str:
            return self._string(cast("str", value))
        if value is None or cls is bool:
            self._room -= 5
            return value
        if cls is int or cls is float:
            return self._number(cast("int | float", value))
        if cls is dict or cls is list or cls is tuple or cls is Members:
            return self._container(value, depth)
        return self._other(value, cls, depth)

    def _other(self, value: Any, cls: Any, depth: int) -> Any:
        if issubclass(cls, enum.Enum):
            return self.build(objects.enum_value(value), depth + 1) if depth < self._depth else self._marks["depth"]
        if issubclass(cls, str):
            return self._string(value)
        if issubclass(cls, (int, float)):
            return self._number(value)
        if issubclass(cls, (bytes, bytearray, memoryview)):
            return self._bytes(value)
        text = objects.plain_text(value)
        return self._container(value, depth) if text is None else self._string(text)

    def _string(self, value: str) -> str:
        length = str.__len__(value)
        if length <= self._room:
            self._room -= length + 3
            text = well_formed(value if type(value) is str else str.__getitem__(value, slice(0, length)))
            self._ledger.texts.append(text)
            return text
        self._ledger.cut = True
        piece = str.__getitem__(value, slice(0, max(0, self._room) + self._slack))
        self._room = -1
        return self._cut(piece)

    def _cut(self, piece: str) -> CutStr:
        self._ledger.has_cut_text = True
        return CutStr(well_formed(piece))

    def _number(self, value: float) -> Any:
        self._room -= 8
        if issubclass(type(value), int):
            number: int = int.__add__(cast("int", value), 0)
            bits = int.bit_length(number)
            large = bits > self._integer_bits
            self._room -= 0 if large else bits // 4
            return self._marks["large_integer"] if large else number
        real = float.__add__(value, 0.0) if type(value) is not float else value
        if isfinite(real):
            return real
        if isnan(real):
            return "NaN"
        return "Infinity" if real > 0 else "-Infinity"

    def _bytes(self, value: Any) -> str:
        if issubclass(type(value), memoryview):
            return self._marks["bytes"]
        base = bytes if issubclass(type(value), bytes) else bytearray
        length = base.__len__(value)
        window = max(0, self._room) + self._slack
        piece = bytes(base.__getitem__(value, slice(0, window)))
        text = piece.decode("utf-8", "ignore" if length > window else "replace")
        if "\ufffd" in text or "\x00" in text:
            self._room -= 8
            return self._marks["bytes"]
        if length > window:
            self._ledger.cut, self._room = True, -1
            return self._cut(text)
        return self._string(text)

    def _container(self, value: Any, depth: int) -> Any:
        if depth >= self._depth:
            self._room -= 12
            self._ledger.masked += 1  # nobody looked inside
            return self._marks["depth"]
        if id(value) in self._path:
            self._room -= 8
            return self._marks["cycle"]
        self._path.add(id(value))
        self._room -= 2
        try:
            built = self._inside(value, class_of(value), depth + 1)
        except Exception:  # containers that change while they are read
            self._ledger.cut = True
            return objects.type_name(class_of(value))
        finally:
            self._path.discard(id(value))
        if self._ledger.has_cut_text:
            self._ledger.around_cut.add(id(built))
        return built

    def _inside(self, value: Any, cls: Any, depth: int) -> Any:
        if cls is Members or issubclass(cls, dict):
            return self._members(value if cls is Members else _items_of(value), depth)
        if cls is list:
            return self._items(value, depth)
        if issubclass(cls, tuple):
            fields = objects.field_names(class_of(value))
            if fields:
                return self._members(zip(fields, _iterate_tuple(value), strict=False), depth)
        for base, iterate in _SEQUENCES:
            if issubclass(cls, base):
                return self._items(iterate(value), depth)
        for base, iterate in _SETS:
            if issubclass(cls, base):
                return self._set(iterate(value), base.__len__(value), depth)
        return self._object(value, cls, depth)

    def _object(self, value: Any, cls: Any, depth: int) -> Any:
        if issubclass(cls, BaseException):
            return self._members((("type", objects.type_name(cls)[1:-1]), ("args", _arguments(value))), depth)
        if class_of(value) is types.MappingProxyType and issubclass(type(objects.proxied(value)), dict):
            return self._members(_items_of(objects.proxied(value)), depth)
        if any(objects.inherits(cls, base) for base in _USER_CLASSES):
            return self.build((objects.instance_dict(value) or {}).get("data"), depth)
        if objects.is_record(cls):
            hidden = objects.hidden_fields(cls)
            items = ((name, MASK if name in hidden else item) for name, item in objects.record_items(value))
            return self._members(items, depth)
        self._room -= 16
        return objects.type_name(cls)

    def _items(self, items: Iterable[Any], depth: int) -> list[Any]:
        result: list[Any] = []
        build = self.build
        for item in items:
            if self._room < 0:
                self._ledger.cut = True
                break
            self._room -= 1
            result.append(build(item, depth))
        return self._pairs.in_list(result)

    def _set(self, items: Iterator[Any], length: int, depth: int) -> Any:
        if length > self._set_items:
            self._room -= 12
            return self._marks["large_set"]
        # Sorted by what they become: the order of a set differs from run to run.
        built = sorted((self.build(item, depth) for item in islice(items, length)), key=_sort_key)
        return self._pairs.in_list(built)

    def _members(self, members: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        keys, texts, longest = self._keys, self._ledger.texts, self._integer_bits
        may_be_pair = False
        for key, item in members:
            if self._room < 0:
                self._ledger.cut = True
                break
            known = keys.get(key) if type(key) is str else None
            name, level, part_of_pair = known or self._decide(key)
            may_be_pair |= part_of_pair
            room = self._room - len(name) - 4
            cls = class_of(item)
            # What most values are is decided here, without a call.
            if level and _is_secret(item, level, name):
                built: Any = MASK
                self._ledger.masked += 1
                self._room = room - 5
            elif cls is str and len(item) <= room and item.isascii():
                built = item
                self._room = room - len(item) - 3
                texts.append(item)
            elif cls is int and (bits := item.bit_length()) <= longest:
                built = item
                self._room = room - 8 - bits // 4
            elif item is None or cls is bool:
                built = item
                self._room = room - 5
            elif cls is float and isfinite(item):
                built = item
                self._room = room - 8
            else:
                self._room = room
                built = self.build(item, depth)
                # What stands for an object, or the plain form of a foreign number, may be what is secret here.
                if level and _is_secret(built, level, name):
                    built = MASK
                    self._ledger.masked += 1
            result[name if name not in result else _unique(name, result)] = built
        return self._pairs.in_object(result) if may_be_pair else result

    def _decide(self, key: object) -> tuple[str, int, bool]:
        """What a key becomes, the grade of its name, and whether it may be part of a pair."""
        original = name = self._key(key)
        if len(name) > self._longest_word or not name.isidentifier():
            name = self._key_text(name)
            self._ledger.masked += name != original
        grade = self._names.grade
        level = grade(name) or (grade(original[: self._name]) if name != original else 0)
        decided = name, level, self._pairs.may_name_member(name)
        if type(key) is str and name == original and len(name) <= self._name and len(self._keys) < _KEPT_KEYS:
            self._keys[name] = decided
        return decided

    def _key(self, key: object) -> str:
        cls = type(key)
        if issubclass(cls, str):
            return str.__getitem__(cast("str", key), slice(0, self._name + self._slack))
        if key is None or cls is bool:
            return {None: "null", True: "true", False: "false"}[cast("bool | None", key)]
        if issubclass(cls, (int, float)):
            return str(self._number(cast("float", key)))
        if issubclass(cls, (bytes, bytearray)):
            return self._bytes(key)[: self._name + self._slack]
        if issubclass(cls, enum.Enum):
            value = objects.enum_value(key)
            return self._key(value) if not issubclass(type(value), enum.Enum) else objects.type_name(cls)
        return objects.plain_text(key) or objects.type_name(cls)

    def _key_text(self, name: str) -> str:
        # Texts that long are no names; the beginning is enough to tell them apart.
        return self._clean_key(well_formed(name[: self._name + self._slack]))


def _is_secret(item: object, level: int, name: str) -> bool:
    """Whether ``item`` under a name of this grade can be a secret: nothing, yes, no and counts are none."""
    cls = type(item)
    if item is None or cls is bool:
        return False
    if cls is str and (not item or item == MASK):
        return False
    if level == SOFT:
        return issubclass(cls, (str, bytes, bytearray)) or (cls is int and is_code(name, cast("int", item)))
    if issubclass(cls, (int, float)):
        return not is_tally(name)
    return level == SENSITIVE


def _unique(name: str, taken: dict[str, Any]) -> str:
    number = len(taken)
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _sort_key(value: Any) -> tuple[str, str]:
    return type(value).__name__, json.dumps(value, ensure_ascii=False, sort_keys=True)
