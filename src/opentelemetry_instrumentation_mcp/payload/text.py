"""Secrets inside of texts: finds them, masks them, and keeps what is cut from showing half of one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable

from .data import CUT, INVISIBLE, MASK, fold, load
from .keys import Names
from .labels import Labels
from .scan import Scan, replace
from .shapes import Shapes
from .urls import Urls

Detector = Callable[[str], Iterable[tuple[int, int]]]

_logger = logging.getLogger("opentelemetry_instrumentation_mcp")
_URL_RUN = re.compile(r"(?:[^\s<>\"'`\\]|\\[^\"'`nrt\s]|[\"'`<>][^\s,:;)\]}\"'`<>/][^\s\"]{0,256}@)+")
_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+.-")
_DSN = re.compile(r"[^\s:@/\"'=]{1,64}:([^\s\"']{1,128})@(?:tcp|unix|udp)?\(")
_MAX_SCHEME = 32
_ROUNDS = 4
_TAIL = " \t\n\r"


class Text:
    """Cleans texts.

    Args:
        names: decides about labels.
        patterns: regular expressions of the user; a bad one is reported by the logger and ignored.
        detector: finds spans to mask that no pattern describes; if it raises, the whole text is masked.
    """

    def __init__(self, names: Names, patterns: tuple[str, ...] = (), detector: Detector | None = None) -> None:
        self._labels = Labels(names)
        self._shapes = Shapes()
        self._urls = Urls(names, self._is_secret)
        self._patterns = _compiled(patterns)
        self._detector = detector
        self._slack: int = load()["limits"]["slack"]
        self.last_steps = 0

    @property
    def urls(self) -> Urls:
        """The rules for URLs."""
        return self._urls

    def holds_labels(self, low: str) -> bool:
        """Whether the folded text ``low`` may hold a label of a secret in a document."""
        return bool(self._labels.document_stems_in(low) or self._patterns or self._detector)

    def is_suspicious(self, document: str) -> bool:
        """Whether strings in the JSON text ``document`` may hold secrets; a cheap look at all of them at once."""
        if self._patterns or self._detector:
            return True
        low = fold(document)
        if self._labels.document_stems_in(low.replace("\\", "") if '\\"' in low else low) or "\\u" in low:
            return True
        scan = Scan(document, low)
        if "://" in document:
            if "@" in document and "\\" in document:
                return True
            self._find_urls(scan, 0)
        self._shapes.find(scan)
        if not document.isascii() and INVISIBLE.search(document):
            return True
        return bool(scan.spans) or any(literal in low for literal in ("identified by", "=", "@tcp(", "@unix(", "@("))

    def clean(self, text: str, *, cut: bool = False) -> str:
        """``text`` with its secrets replaced by the mask.

        Args:
            cut: ``text`` is the beginning of a longer one: what may be half a secret at its end is left out.
        """
        spans = self._find(text, cut)
        end = self._last_boundary(text) if cut else len(text)
        return text if not spans and end == len(text) else replace(text, spans, end)

    def settled(self, text: str, limit: int) -> str:
        """``text``, cut to ``limit`` characters if it is longer, in a form that cleaning leaves as it is."""
        result = text if len(text) <= limit else text[: limit - len(CUT)] + CUT
        for _ in range(_ROUNDS):
            again = self.clean(result)
            if again == result:
                return result
            result = again if len(again) <= limit else again[: limit - len(CUT)] + CUT
        return MASK

    def _last_boundary(self, text: str) -> int:
        earliest = max(0, len(text) - self._slack)
        return next((i for i in range(len(text) - 1, earliest, -1) if text[i] in _TAIL), earliest)

    def _is_secret(self, text: str, depth: int) -> bool:
        return bool(self._find(text, cut=False, depth=depth))

    def _find(self, text: str, cut: bool, depth: int = 0) -> list[tuple[int, int, str]]:
        if not text.isascii() and INVISIBLE.search(text):
            return self._find_behind_invisible(text, cut, depth)
        scan = Scan(text, fold(text), cut)
        stems = self._labels.stems_in(scan.low)
        if stems:
            self._labels.find(scan, stems)
        if "://" in text:
            self._find_urls(scan, depth)
        self._shapes.find(scan)
        if "@" in text and "(" in text:
            for match in _DSN.finditer(text):
                scan.mask(match.start(1), match.end(1))
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                if match.group().strip("*"):
                    scan.mask(match.start(), match.end())
        if self._detector:
            self._detect(scan)
        self.last_steps = scan.steps
        return scan.spans

    def _find_behind_invisible(self, text: str, cut: bool, depth: int) -> list[tuple[int, int, str]]:
        places = [index for index, character in enumerate(text) if not INVISIBLE.match(character)]
        found = self._find("".join([text[index] for index in places]), cut, depth)
        return [(places[start], places[end - 1] + 1, mark) for start, end, mark in found]

    def _find_urls(self, scan: Scan, depth: int) -> None:
        text, done = scan.text, 0
        position = text.find("://")
        while position >= 0:
            start = position
            while start > max(done, position - _MAX_SCHEME) and scan.low[start - 1] in _SCHEME:
                start -= 1
            run = _URL_RUN.match(text, position)
            end = run.end() if run else position + 3
            scan.steps += end - start
            while end > position + 3 and text[end - 1] in ".,;:!?)]}*_":
                end -= 1
            for first, last in self._urls.spans(text[start:end], depth):
                scan.mask(start + first, start + last)
            done = max(end, position + 3)
            position = text.find("://", done)

    def _detect(self, scan: Scan) -> None:
        assert self._detector
        try:
            for start, end in self._detector(scan.text):
                start, end = max(0, int(start)), min(len(scan.text), int(end))
                if scan.text[start:end].strip("*"):
                    scan.mask(start, end)
        except Exception:
            scan.mask(0, len(scan.text))


def _compiled(patterns: tuple[str, ...]) -> list[re.Pattern[str]]:
    found: list[re.Pattern[str]] = []
    for pattern in patterns:
        try:
            found.append(re.compile(pattern))
        except (re.error, TypeError, ValueError, OverflowError, RecursionError) as error:
            _logger.warning("The redaction pattern %r is ignored, it is no regular expression: %s", pattern, error)
    return found
