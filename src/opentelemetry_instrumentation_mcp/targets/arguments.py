"""Reading what the host passed, positional or by keyword, without touching it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], index: int, name: str, default: Any = None) -> Any:
    """The argument called ``name`` at position ``index`` (without ``self``)."""
    return args[index] if len(args) > index else kwargs.get(name, default)


def leading(args: tuple[Any, ...], kwargs: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """The first arguments (without ``self``), which are called ``names``; None for those not given."""
    given = len(args)
    if given >= len(names):
        return args[: len(names)]
    return (*args, *[kwargs.get(name) for name in names[given:]])


def with_argument(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: int, name: str, value: Any
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """``args`` and ``kwargs`` with one argument replaced, in the place where the caller put it."""
    if len(args) > index:
        return (*args[:index], value, *args[index + 1 :]), kwargs
    return args, {**kwargs, name: value}
