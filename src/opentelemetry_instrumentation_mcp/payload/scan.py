"""One text under examination, and how what was found in it becomes the cleaned text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .data import MASK

Span = tuple[int, int]


@dataclass(slots=True)
class Scan:
    """A text, its folded copy of the same length, and the secrets found so far.

    Attributes:
        text: what is cleaned.
        low: the same in plain lower-case letters.
        cut: whether ``text`` is the beginning of something longer.
        pairs: patterns of what is secret only because something else was found.
        certain: those of the spans that are what they are whatever the lines around them say.
        unsure: where a label was looked at closely, and how far that reached.
        steps: characters examined so far, so that tests can count work without a clock.
    """

    text: str
    low: str
    cut: bool = False
    spans: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    steps: int = 0
    pairs: set[re.Pattern[str]] = field(default_factory=set[re.Pattern[str]])
    certain: set[tuple[int, int, str]] = field(default_factory=set[tuple[int, int, str]])
    unsure: list[Span] = field(default_factory=list[Span])

    def mask(self, start: int, end: int, mark: str = MASK) -> None:
        """Note that ``text[start:end]`` is secret."""
        if end > start:
            self.spans.append((start, end, mark))

    def end_of_line(self, position: int) -> int:
        """Where the line of ``position`` ends."""
        end = self.text.find("\n", position)
        return len(self.text) if end < 0 else end


def occurrences(text: str, literal: str) -> Iterable[int]:
    """Where ``literal`` is in ``text``."""
    position = text.find(literal)
    while position >= 0:
        yield position
        position = text.find(literal, position + len(literal))


def outer_first(span: tuple[int, int, str]) -> tuple[int, int]:
    """The order of spans: by where they begin, the longest first."""
    return span[0], -span[1]


def replace(text: str, spans: list[tuple[int, int, str]], end: int) -> str:
    """``text`` up to ``end`` with the union of ``spans``, sorted by ``outer_first``, replaced by their marks."""
    pieces: list[str] = []
    position = 0
    last_end = -1
    for start, stop, mark in spans:
        if start >= end:
            break
        if start < last_end:
            last_end = max(last_end, stop)
            position = max(position, last_end)
            continue
        pieces += (text[position:start], mark)
        position = last_end = stop
    pieces.append(text[position:end])
    return "".join(pieces)
