"""Stems: the parts of names that may announce a secret, and the quickest way to know which of them a text has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import repeat

from .data import load
from .keys import Names

_FAR_APART = 32
_ENDS_OF_NAMES = ('":', "':", '" :', "' :")
_MEMBER = ""  # in the place of a stem: a short name, where it is that of a member of an object
_SHARED = ("ss", "ok", "cre")


class Stems:
    """The stems of the policy and of the user's own names."""

    def __init__(self, names: Names) -> None:
        text = load()["text"]
        stems = [*text["stems"], *sorted(names.stems - set(text["stems"]))]
        self._gates = _gated(stems)
        before_equals: list[str] = text["stems_before_equals"]
        self._before_equals = tuple(stem for stem in before_equals if stem[-1] == "=")
        self._names_before_equals = tuple(stem[:-1] for stem in self._before_equals)
        self._with_equals = [stem for stem in before_equals if stem[-1] != "=" and stem not in stems]
        self._quoted: list[str] = text["stems_quoted"]
        self._statements: list[str] = text["statements"]

    def stems_in(self, low: str, among: list[str] | None = None) -> list[str]:
        """The stems that occur in ``low``: without one there is no label in it.

        Args:
            low: a folded text.
            among: those that may occur, if that is known.
        """
        if among is not None:
            return self._stems_among(low, among)
        stems = [stem for gate, gated in self._gates if gate in low for stem in gated if stem in low]
        if "=" in low or "\uff1d" in low:
            stems += [stem for stem in self._with_equals if stem in low]
            # What ends with the sign is looked for where the sign is, in one pass, unless it is everywhere.
            many = low.count("=") * _FAR_APART > len(low)
            if many or any(map(str.endswith, low.split("=")[:-1], repeat(self._names_before_equals))):
                stems += [stem for stem in self._before_equals if stem in low]
        if "'" in low or '"' in low:
            stems += [statement for statement in self._statements if statement in low]
            # Short names, where nothing but a member of an object can be meant.
            if any(
                _has_short_name(low, end) for end in _ENDS_OF_NAMES if end[0] in low and end in low
            ) and _members().search(low):
                stems.append(_MEMBER)
        return stems

    def _stems_among(self, low: str, stems: list[str]) -> list[str]:
        unfit = [] if "=" in low or "\uff1d" in low else self._with_equals
        if "'" not in low and '"' not in low:
            unfit = unfit + self._statements
        return [stem for stem in stems if stem in low and stem not in unfit]

    def document_stems_in(self, low: str) -> bool:
        """Whether a JSON text may hold a sensitive name, also one that is too short to be looked for in prose."""
        for gate, gated in self._gates:
            if gate in low and any(stem in low for stem in gated):
                return True
        return any(stem in low for stem in self._quoted)


def places_of(stems: Iterable[str], low: str) -> list[tuple[int, str]]:
    """Where ``stems`` are in ``low``, in order."""
    places: list[tuple[int, str]] = []
    for stem in stems:
        if stem == _MEMBER:
            places += [(found.start(1), stem) for found in _members().finditer(low)]
            continue
        position = low.find(stem)
        while position >= 0:
            places.append((position, stem))
            position = low.find(stem, position + len(stem))
    places.sort()
    return places


@lru_cache(maxsize=1)
def _short_names() -> tuple[str, ...]:
    return tuple(stem.strip('"') for stem in load()["text"]["stems_quoted"] if stem[0] == '"')


def _has_short_name(low: str, end: str) -> bool:
    """Whether a short name is in front of an ``end`` of names, with or without backslashes: seen without a regular
    expression, which would try each line and comma."""
    names = map(str.rstrip, low.split(end)[:-1], repeat("\\"))
    return any(map(str.endswith, names, repeat(_short_names())))


@lru_cache(maxsize=1)
def _members() -> re.Pattern[str]:
    names = "|".join(map(re.escape, _short_names()))
    before = r"[{,\n](?:\s|\\{1,9}n){0,24}\\{0,9}[\"']"
    return re.compile(rf"{before}({names})(?=\\{{0,9}}[\"'] ?:)")


def _gated(stems: list[str]) -> list[tuple[str, list[str]]]:
    """``stems`` by a part that several of them share: where it is missing, one look is enough for all."""
    gates: list[tuple[str, list[str]]] = []
    rest = stems
    for shared in _SHARED:
        gates.append((shared, [stem for stem in rest if shared in stem]))
        rest = [stem for stem in rest if shared not in stem]
    return [*((gate, found) for gate, found in gates if found), *((stem, [stem]) for stem in rest)]
