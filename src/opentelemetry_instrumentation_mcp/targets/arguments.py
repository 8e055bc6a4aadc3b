"""Reading what the host passed, positional or by keyword, without touching it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], index: int, name: str, default: Any = None) -> Any:
    """The argument called ``name`` at position ``index`` (without ``self``)."""
    return args[index] if len(args) > index else kwargs.get(name, default)


def with_argument(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], index: int, name: str, value: Any
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """``args`` and ``kwargs`` with one argument replaced, in the place where the caller put it."""
    if len(args) > index:
        return (*args[:index], value, *args[index + 1 :]), kwargs
    return args, {**kwargs, name: value}
