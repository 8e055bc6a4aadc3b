"""Reading foreign objects without running their code: types by their real class, attributes by their real storage."""

from __future__ import annotations

import datetime
import decimal
import gc
import pathlib
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from .data import load

_class_dict: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_class_mro: Callable[[type], Any] = type.__dict__["__mro__"].__get__
_items_of: Callable[[Any], Iterable[tuple[Any, Any]]] = cast("Any", dict).items
_class_name: Callable[[type], Any] = type.__dict__["__name__"].__get__
# Classes with one of these in their dictionary only hold data: dataclasses, pydantic 2 and 1, attrs, msgspec.
_RECORD_MARKS = (
    "__dataclass_fields__",
    "__pydantic_fields__",
    "__pydantic_core_schema__",
    "__attrs_attrs__",
    "__struct_fields__",
    "__fields__",
)
_LARGEST_DECIMAL = 1_024
_PATHS = (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath)


def type_name(cls: type) -> str:
    """The name of ``cls`` between angle brackets, without characters that do not belong into a name."""
    name = str(_class_name(cls))[: load()["limits"]["type_name"]]
    return "<" + "".join(c for c in name if c.isascii() and (c.isalnum() or c == "_")) + ">"


def inherits(cls: type, base: type) -> bool:
    """``issubclass`` for a ``base`` with a metaclass, whose own check asks ``cls``."""
    return any(known is base for known in _class_mro(cls))


def is_record(cls: type) -> bool:
    """Whether instances of ``cls`` are nothing but named values."""
    return any(mark in _class_dict(base) for base in _class_mro(cls) for mark in _RECORD_MARKS)


def class_attribute(cls: type, name: str) -> Any:
    """What a class or one of its bases has under ``name``, without descriptors being run; None if nothing."""
    for base in _class_mro(cls):
        found = _class_dict(base).get(name)
        if found is not None:
            return found
    return None


def field_names(cls: type) -> tuple[str, ...]:
    """The names of the items of a named tuple."""
    fields = class_attribute(cls, "_fields")
    if type(fields) is tuple and all(type(field) is str for field in cast("tuple[object, ...]", fields)):
        return cast("tuple[str, ...]", fields)
    return ()


def instance_dict(value: object) -> dict[str, Any] | None:
    """The dictionary an object keeps its attributes in."""
    for base in _class_mro(type(value)):
        descriptor = _class_dict(base).get("__dict__")
        if type(descriptor) is types.GetSetDescriptorType:
            found = descriptor.__get__(value)
            return cast("dict[str, Any]", found) if issubclass(type(found), dict) else None
    return None


def slot(value: object, name: str) -> Any:
    """The value of an attribute kept in a slot, or None."""
    for base in _class_mro(type(value)):
        descriptor = _class_dict(base).get(name)
        if type(descriptor) is types.MemberDescriptorType:
            try:
                return descriptor.__get__(value)
            except AttributeError:
                return None
    return None


def record_items(value: object) -> Iterator[tuple[str, Any]]:
    """Names and values of a record, as its fields are called on the wire; hidden and private ones are left out."""
    cls = type(value)
    fields = _fields(cls)
    stored = instance_dict(value)
    if stored:
        for name, item in _items_of(stored):
            if type(name) is str and not name.startswith("_"):
                wire = _wire_name(fields.get(name), name)
                if wire:
                    yield wire, item
    for base in reversed(_class_mro(cls)):
        for name, descriptor in _class_dict(base).items():
            if type(descriptor) is types.MemberDescriptorType and not name.startswith("_"):
                try:
                    item = descriptor.__get__(value)
                except AttributeError:
                    continue
                yield name, item
    extra = slot(value, "__pydantic_extra__")
    if issubclass(type(extra), dict):
        members = _items_of(extra)
        yield from ((name, item) for name, item in members if type(name) is str)


def _fields(cls: type) -> dict[str, Any]:
    for name in ("__pydantic_fields__", "__fields__"):
        fields = class_attribute(cls, name)
        if type(fields) is dict:
            return cast("dict[str, Any]", fields)
    return {}


def _wire_name(field: object, name: str) -> str | None:
    if field is None:
        return name
    if slot(field, "exclude") is True:
        return None
    for attribute in ("serialization_alias", "alias"):
        alias = slot(field, attribute)
        if type(alias) is str:
            return alias
    return name


def hidden_fields(cls: type) -> frozenset[str]:
    """The fields of a dataclass that it does not show in its own representation."""
    fields = class_attribute(cls, "__dataclass_fields__")
    if type(fields) is not dict:
        return frozenset()
    return frozenset(name for name, field in cast("dict[str, Any]", fields).items() if slot(field, "repr") is False)


def enum_value(value: object) -> Any:
    """The value of a member of an enumeration."""
    return (instance_dict(value) or {}).get("_value_")


def proxied(value: object) -> Any:
    """The mapping behind a read-only view of it."""
    found = gc.get_referents(value)
    return found[0] if found else None


def _is_plain_zone(zone: object) -> bool:
    cls = type(zone)
    zoneinfo = sys.modules.get("zoneinfo")
    return zone is None or cls is datetime.timezone or (zoneinfo is not None and cls is zoneinfo.ZoneInfo)


def plain_text(value: object) -> str | None:
    """The text of an object of a few exact classes of the standard library, or None."""
    cls = type(value)  # compared with `is`: `==` and `in` would ask the metaclass
    if cls is uuid.UUID or cls is datetime.timedelta or any(cls is path for path in _PATHS):
        return str(value)
    if cls is decimal.Decimal and sys.getsizeof(value) <= _LARGEST_DECIMAL:
        return str(value)
    if cls is datetime.date:
        return str(value)
    if (cls is datetime.datetime or cls is datetime.time) and _is_plain_zone(cast("datetime.time", value).tzinfo):
        return cast("datetime.time", value).isoformat()
    return None
