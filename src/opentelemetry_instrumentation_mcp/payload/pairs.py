"""Names that are values: ``["cookie", "..."]``, ``{"name": "x-api-key", "value": "..."}``, ``["--token", "..."]``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, cast

from .data import MASK, class_of, load
from .keys import SENSITIVE, Names
from .ledger import Ledger

_MAX_NAME = 80
_MAX_WORDS = 4
_NO_NAME = re.compile(r"[=<>{}\"'\n/\\*]|:.")
_ROWS = ("rows", "data", "values", "records")
_COLUMNS = frozenset({"columns", "headers", "fields", "header"})


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    policy = load()["names"]
    return frozenset(policy["pair_names"]), frozenset(policy["pair_values"]), frozenset(policy["header_pairs"])


@lru_cache(maxsize=1)
def _secret_kinds() -> tuple[list[tuple[str, str, list[str]]], frozenset[str]]:
    kinds: list[tuple[str, str, list[str]]] = load()["names"]["secret_kinds"]
    return kinds, frozenset(key for key, _, _ in kinds)


class Pairs:
    """Masks the values of names that stand beside them in lists and objects of plain values."""

    def __init__(self, names: Names, ledger: Ledger) -> None:
        self._names = names
        self._ledger = ledger
        self._pair_names, self._pair_values, self._headers = _vocabulary()
        self._kinds, self._kind_names = _secret_kinds()

    def _grade(self, name: object) -> int:
        if type(name) is not str or not 2 < len(name) <= _MAX_NAME:
            return 0
        if not name.isidentifier() and (name.count(" ") >= _MAX_WORDS or _NO_NAME.search(name)):
            return 0
        return self._names.grade(name)

    def _mask(self, container: Any, key: Any) -> None:
        if container[key] != MASK:
            container[key] = MASK
            self._ledger.masked += 1

    def in_list(self, items: list[Any]) -> list[Any]:
        """``items`` with the values masked whose sensitive name is the item before."""
        if len(items) < 2:
            return items
        if len(items) == 2:
            if type(items[0]) is str and _is_value(items[1]) and self._grade(items[0]) == SENSITIVE:
                self._mask(items, 1)
            return items
        for index in range(len(items) - 1):
            name = items[index]
            if type(name) is str and _is_value(items[index + 1]) and self._announces(name, items[index + 1]):
                self._mask(items, index + 1)
        return items

    def _announces(self, name: str, value: object) -> bool:
        if name[:1] == "-":
            option = name.lstrip("-")
            return "=" not in name and not str(value).startswith("-") and self._grade(option) > 0
        return name.lower() in self._headers

    def may_name_member(self, name: str) -> bool:
        """Whether a member of this name can make ``in_object`` mask something; without one it masks nothing."""
        return name in _COLUMNS or name.lower() in self._pair_values or name in self._kind_names

    def in_object(self, members: dict[str, Any]) -> dict[str, Any]:
        """``members`` with the value masked whose sensitive name is another member."""
        values = [key for key in members if key.lower() in self._pair_values]
        if values and any(key.lower() in self._pair_names and self._grade(item) for key, item in members.items()):
            for key in values:
                if _is_value(members[key]):
                    self._mask(members, key)
        for key, kind, secret in self._kinds:
            if members.get(key) == kind:
                self._mask_members(members, secret)
        return self._in_table(members)

    def _mask_members(self, members: dict[str, Any], keys: list[str]) -> None:
        """Mask the values under ``keys``, or those inside of an object there."""
        for key in keys:
            inner: Any = members.get(key)
            if type(inner) is dict:
                self._mask_members(cast("dict[str, Any]", inner), list(cast("dict[str, Any]", inner)))
            elif _is_value(inner):
                self._mask(members, key)

    def _in_table(self, members: dict[str, Any]) -> dict[str, Any]:
        columns = next((members[key] for key in sorted(_COLUMNS) if type(members.get(key)) is list), None)
        if columns is None:
            return members
        secret = [index for index, column in enumerate(columns) if self._grade(_column_name(column)) == SENSITIVE]
        rows: list[Any] = (
            [row for key in _ROWS if type(members.get(key)) is list for row in members[key]] if secret else []
        )
        for row in rows:
            for index in secret:
                if class_of(row) is list and index < len(row) and _is_value(row[index]):
                    self._mask(row, index)
        return members


def _column_name(column: object) -> object:
    return cast("dict[str, Any]", column).get("name") if type(column) is dict else column


def _is_value(item: object) -> bool:
    return item is not None and item != "" and type(item) is not bool
