"""Secrets inside of texts: finds them, masks them, and keeps what is cut from showing half of one."""

from __future__ import annotations

import logging
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate

from . import manifests
from .data import CUT, INVISIBLE, MASK, fold, load
from .keys import Names
from .labels import Labels
from .scan import Scan, outer_first, replace
from .shapes import Shapes
from .stems import Stems
from .urls import Urls

Detector = Callable[[str], Iterable[tuple[int, int]]]
Found = tuple[int, int, str]

_logger = logging.getLogger("opentelemetry_instrumentation_mcp")
_URL_RUN = re.compile(r"(?:[^\s<>\"'`\\]+|\\[^\"'`nrt\s]|[\"'`<>][^\s,:;)\]}\"'`<>/][^\s\"]{0,256}@)+")
_SCHEME = "abcdefghijklmnopqrstuvwxyz0123456789+.-"
_BEHIND_URL = ".,;:!?)]}*_"
_DSN = re.compile(r"@(?:tcp|unix)?\(")
_MAX_USER_INFO = 256
_LONG = 2_048
_SHORTEST = 5  # pw=x
_SHORTEST_DOCUMENT = 8  # {"pw":1}
_BLANK = (" ", "\n", "\t", "\r")
# Texts of nothing but words and the commonest separators.
_PLAIN = re.compile(r"[A-Za-z0-9_ \n=:.,-]*")
_PLAIN_OR_MASKED = re.compile(r"[A-Za-z0-9_ \n=:.,*-]*")
_OPENING = frozenset(("", " ", "\n", "\t", "=", ":", '"', "'", "/"))
_CLOSING = frozenset(("", " ", "\n", '"', "'", "&", "@"))
_OPENERS = ("{", "[", '"')
_DOCUMENT_STARTS = frozenset((*_OPENERS, *_BLANK))
_MAX_SCHEME = 32
_ROUNDS = 4
_ESCAPE = "\x1b"
_HIDDEN = re.compile(f"{INVISIBLE.pattern}|{_ESCAPE}\\[[0-9;]{{0,32}}m")  # colours of terminals, too
_TAIL = " \t\n\r"


class Text:
    """Cleans texts.

    Args:
        names: decides about labels.
        patterns: regular expressions of the user; a bad one is reported by the logger and ignored.
        detector: finds spans to mask that no pattern describes; if it raises, the whole text is masked.
    """

    def __init__(self, names: Names, patterns: tuple[str, ...] = (), detector: Detector | None = None) -> None:
        self._stems = Stems(names)
        self._labels = Labels(names)
        self._shapes = Shapes()
        self._urls = Urls(names, self._is_secret)
        self._patterns = _compiled(patterns)
        self._detector = detector
        self._slack: int = load()["limits"]["slack"]
        self.last_steps = 0

    @property
    def has_own_rules(self) -> bool:
        """Whether the user added patterns or a detector."""
        return bool(self._patterns or self._detector)

    @property
    def urls(self) -> Urls:
        """The rules for URLs."""
        return self._urls

    def may_be_document(self, text: str) -> bool:
        """Whether ``text`` looks like JSON and may hold a sensitive name."""
        if len(text) < _SHORTEST_DOCUMENT:
            return False
        first = text.lstrip()[:1] if text[0] in _BLANK else text[0]
        if first not in _OPENERS:
            return False
        if first == '"' and "\\" not in text:
            return bool(self._stems.stems_in(fold(text)))
        return bool(self._stems.document_stems_in(fold(text)) or self._patterns or self._detector)

    def suspects(self, texts: list[str]) -> dict[str, Scan | None]:
        """Which of ``texts`` may hold secrets: a look at all of them at once, then at those in which something is.

        Returns:
            What was found in a text, for ``clean``; None if nobody looked at it alone.
        """
        if self._patterns or self._detector:
            return dict.fromkeys(texts)
        found: dict[str, Scan | None] = {}
        short: list[str] = []
        for text in texts:
            if len(text) > _LONG or (text[:1] in _DOCUMENT_STARTS and self.may_be_document(text)):
                found[text] = None
            elif len(text) >= _SHORTEST:
                short.append(text)
        joined = "\n".join(short)
        if not short:
            return found
        scan = self._scan(joined, cut=False)
        if scan.spans and len(short) == 1:
            found[short[0]] = scan
        elif scan.spans:
            found.update(_found_in_each(short, scan))
        return found

    def clean(self, text: str, *, cut: bool = False, found: Scan | None = None) -> str:
        """``text`` with its secrets replaced by the mask.

        Args:
            cut: ``text`` is the beginning of a longer one: what may be half a secret at its end is left out.
            found: what ``suspects`` found in ``text``.
        """
        scan = found or self._scan(text, cut)
        spans = scan.spans
        end = self.last_boundary(text) if cut else len(text)
        if not spans and end == len(text):
            return text
        spans.sort(key=outer_first)
        cleaned = replace(text, spans, end)
        if cut:  # looked at again when it is known how much of it is shown
            return cleaned
        if (len(text) > _LONG or _PLAIN.fullmatch(text)) and _stand_alone(text, spans):
            return cleaned
        # What was masked may make its surroundings mean something else.
        for _ in range(_ROUNDS):
            if cleaned == text:
                return text
            text = cleaned
            scan = self._scan(text, cut=False, stems=scan.stems)
            cleaned = replace(text, sorted(scan.spans, key=outer_first), len(text))
        return text if cleaned == text else MASK

    def settled(self, text: str, limit: int) -> str:
        """``text``, cut to ``limit`` characters if it is longer, in a form that cleaning leaves as it is."""
        for _ in range(_ROUNDS):
            cleaned = self.clean(text if len(text) <= limit else text[: limit - len(CUT)] + CUT)
            if cleaned == text:
                return text
            text = cleaned
        return MASK

    def last_boundary(self, text: str) -> int:
        """Where to end a text that was cut, so that it does not show a part of a secret."""
        earliest = max(0, len(text) - self._slack)
        return next((i for i in range(len(text) - 1, earliest, -1) if text[i] in _TAIL), earliest)

    def _is_secret(self, text: str, depth: int) -> bool:
        return bool(self._find(text, cut=False, depth=depth))

    def _find(self, text: str, cut: bool, depth: int = 0) -> list[Found]:
        return self._scan(text, cut, depth).spans

    def _scan(self, text: str, cut: bool, depth: int = 0, stems: list[str] | None = None) -> Scan:
        """Look at ``text``; ``stems`` are those that may be in it, if that is known: masking adds none."""
        if (not text.isascii() and INVISIBLE.search(text)) or _ESCAPE in text:
            return self._scan_behind_hidden(text, cut, depth)
        return self._scan_visible(text, cut, depth, stems)

    def _scan_visible(self, text: str, cut: bool, depth: int, stems: list[str] | None = None) -> Scan:
        scan = Scan(text, fold(text), cut)
        scan.stems = self._stems.stems_in(scan.low, stems)
        if scan.stems:
            self._labels.find(scan)
        if "/" in text and "://" in text:
            self._find_urls(scan, depth)
        self._shapes.find(scan)
        if "@" in text and "(" in text:
            _find_dsn(scan)
        if scan.stems and "secret" in scan.stems and manifests.MARK in text:
            manifests.find(scan)
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                if match.group().strip("*"):
                    scan.mask(match.start(), match.end())
        if self._detector:
            self._detect(scan)
        self.last_steps = scan.steps
        return scan

    def _scan_behind_hidden(self, text: str, cut: bool, depth: int) -> Scan:
        places: list[int] = []
        position = 0
        for hidden in _HIDDEN.finditer(text):
            places.extend(range(position, hidden.start()))
            position = hidden.end()
        places.extend(range(position, len(text)))
        scan = Scan(text, text, cut)
        for start, end, mark in self._scan_visible("".join([text[index] for index in places]), cut, depth).spans:
            scan.mask(places[start], places[end - 1] + 1, mark)
        return scan

    def _find_urls(self, scan: Scan, depth: int) -> None:
        text, done = scan.text, 0
        position = text.find("://")
        while position >= 0:
            earliest = max(done, position - _MAX_SCHEME)
            start = earliest + len(scan.low[earliest:position].rstrip(_SCHEME))
            run = _URL_RUN.match(text, position)
            end = run.end() if run else position + 3
            scan.steps += end - start
            end = position + len(text[position:end].rstrip(_BEHIND_URL))
            for first, last in self._urls.spans(text[start:end], depth):
                scan.mask(start + first, start + last)
            done = end
            position = text.find("://", done)

    def _detect(self, scan: Scan) -> None:
        assert self._detector
        try:
            for found in self._detector(scan.text):
                start, end = max(0, int(found[0])), min(len(scan.text), int(found[1]))
                if scan.text[start:end].strip("*"):
                    scan.mask(start, end)
        except Exception:
            scan.mask(0, len(scan.text))


def _found_in_each(texts: list[str], scan: Scan) -> dict[str, Scan | None]:
    """What the scan of all ``texts``, each in lines of its own, says about those in which it found something.

    A text of plain words in which there is nothing but certain spans need not be looked at alone: its own scan would
    find the same. Its equals sign is there so that the same stems are looked for.
    """
    ends = list(accumulate(len(text) + 1 for text in texts))
    found: dict[str, Scan | None] = {}
    certain: dict[int, Scan] = {}
    for span in scan.spans:
        start, end, mark = span
        index = bisect_right(ends, start)
        if span in scan.certain:  # in one line
            text = texts[index]
            found[text] = None
            begin = ends[index] - len(text) - 1
            if index not in certain:
                certain[index] = Scan(text, text)
            certain[index].mask(start - begin, end - begin, mark)
        else:
            scan.unsure.append((start, end))
            found.update(dict.fromkeys(texts[index : bisect_left(ends, end) + 1]))
    unsure = {i for start, end in scan.unsure for i in range(bisect_right(ends, start), bisect_left(ends, end) + 1)}
    for index, alone in certain.items():
        if index not in unsure and "=" in alone.text and _PLAIN_OR_MASKED.fullmatch(alone.text):
            found[alone.text] = alone
    return found


def _stand_alone(text: str, spans: list[Found]) -> bool:
    """Whether each of the sorted spans is in one line and set off, so that masking it changes nothing around it."""
    last = 0
    for start, end, _ in spans:
        if end <= last:
            continue
        before = text[start - 1 : start]
        if (
            start < last
            or before not in _OPENING
            or text[end : end + 1] not in _CLOSING
            or text.find("\n", start, end) >= 0
        ):
            return False
        last = end
    return True


def _find_dsn(scan: Scan) -> None:
    """``user:password@tcp(host)``: data source names without a scheme."""
    for mark in _DSN.finditer(scan.low):
        at = mark.start()
        start = max(0, at - _MAX_USER_INFO)
        begin = max(scan.text.rfind(blank, start, at) for blank in " \t\n\"'`=") + 1
        colon = scan.text.find(":", begin or start, at)
        if colon > 0 and not scan.text.startswith("//", colon + 1):
            scan.mask(colon + 1, at)


def _compiled(patterns: tuple[str, ...]) -> list[re.Pattern[str]]:
    found: list[re.Pattern[str]] = []
    for number, pattern in enumerate(patterns, 1):
        try:
            found.append(re.compile(pattern))
        except (re.error, TypeError, ValueError, OverflowError, RecursionError):
            # It is not quoted: it may be the very secret.
            _logger.warning("Redaction pattern %d of %d is ignored, it is no regular expression", number, len(patterns))
    return found
