"""The payload policy: any object or text in, redacted and bounded text out. Loaded when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .policy import Policy, PolicySettings

__all__ = ["Policy", "PolicySettings"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import policy

    return getattr(policy, name)
