"""Bounded sets of names: what a peer says becomes a metric attribute only after it proved to exist."""

from __future__ import annotations


class Admission:
    """Names allowed on metrics; at most ``limit`` of them, so that no peer can make a time series explode.

    A name is admitted by evidence (a successful call, a listing), never by a mere request for it.
    """

    __slots__ = ("_limit", "_names")

    def __init__(self, limit: int, names: frozenset[str] = frozenset()) -> None:
        self._names: set[str] = set(names)
        self._limit = limit + len(names)

    def accepts(self, name: str, *, proven: bool) -> bool:
        """Whether ``name`` may appear; ``proven`` admits it from now on, if there is room."""
        if name in self._names:
            return True
        if not proven or len(self._names) >= self._limit:
            return False
        self._names.add(name)
        return True
