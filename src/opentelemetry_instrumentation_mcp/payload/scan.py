"""One text under examination, and how what was found in it becomes the cleaned text."""

from __future__ import annotations

from collections.abc import Iterable

from .data import MASK

Span = tuple[int, int]


class Scan:
    """A text, its folded copy of the same length, and the secrets found so far.

    Attributes:
        text: what is cleaned.
        low: the same in plain lower-case letters.
        cut: whether ``text`` is the beginning of something longer.
        spans: the secrets: start, end and what replaces them.
        stems: the parts of names in it that may announce a secret, if they were looked for.
        steps: characters examined so far, so that tests can count work without a clock.
        netrc: whether it looks like a netrc file, once that was asked.
        pairs: regular expressions of what is secret only because something else was found.
        certain: those of the spans that are what they are whatever the lines around them say.
        unsure: where a label was looked at closely, and how far that reached.
    """

    __slots__ = ("certain", "cut", "low", "netrc", "pairs", "spans", "stems", "steps", "text", "unsure")

    def __init__(self, text: str, low: str, cut: bool = False) -> None:
        self.text = text
        self.low = low
        self.cut = cut
        self.spans: list[tuple[int, int, str]] = []
        self.stems: list[str] | None = None
        self.steps = 0
        self.netrc: bool | None = None
        self.pairs: set[str] = set()
        self.certain: set[tuple[int, int, str]] = set()
        self.unsure: list[Span] = []

    def mask(self, start: int, end: int, mark: str = MASK) -> None:
        """Note that ``text[start:end]`` is secret."""
        if end > start:
            self.spans.append((start, end, mark))

    def mask_for_certain(self, span: Span) -> int:
        """Note that ``span`` is secret, whatever is around it; its end."""
        secret = (*span, MASK)
        self.spans.append(secret)
        self.certain.add(secret)
        return span[1]

    def is_netrc(self) -> bool:
        """Whether ``text`` looks like a netrc file."""
        if self.netrc is None:  # looked for once, and only where it matters
            self.netrc = "login " in self.low and "machine " in self.low
        return self.netrc

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
