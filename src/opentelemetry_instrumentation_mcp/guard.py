"""Containment: a failure of ours is logged once per place, at WARNING, and never reaches the host."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("opentelemetry_instrumentation_mcp")

_reported: set[str] = set()


def report(place: str, error: BaseException) -> None:
    """Log ``error`` the first time it happens at ``place``, without its text: that may quote the host's data.

    At DEBUG the frames come along, without their texts as well.
    """
    if place in _reported:
        return
    _reported.add(place)
    logger.warning(
        "Failed to %s (%s); the application is not affected, telemetry of such calls is incomplete. "
        "Further failures of this kind are not logged.%s",
        place,
        type(error).__qualname__,
        f"\n{frames_of(error)}" if logger.isEnabledFor(logging.DEBUG) else "",
    )


def frames_of(error: BaseException, limit: int = 50) -> str:
    """Where ``error`` and those behind it were raised: the ``limit`` innermost frames and class names, no texts."""
    from traceback import format_tb

    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(seen) < 10:
        seen.add(id(current))
        parts.append("".join(format_tb(current.__traceback__, -limit)) + type(current).__qualname__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n\n".join(parts)


def report_once(key: str, message: str, *arguments: Any) -> None:
    """Log ``message`` at WARNING the first time ``key`` comes up."""
    if key not in _reported:
        _reported.add(key)
        logger.warning(message, *arguments)


def forget_reports() -> None:
    """Make every place report again: a new ``instrument()`` is a new chance to see what fails."""
    _reported.clear()


def contained(place: str) -> Callable[[Callable[P, T]], Callable[P, T | None]]:
    """Decorate a function of ours that runs inside the host's call: any ``Exception`` becomes None and a report."""

    def decorate(function: Callable[P, T]) -> Callable[P, T | None]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T | None:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                report(place, error)
                return None

        return guarded

    return decorate
