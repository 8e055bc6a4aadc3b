"""Secrets that need no label: tokens known by their shape, key blocks, authorization schemes, password hashes."""

from __future__ import annotations

import base64
import binascii
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .data import load
from .scan import Scan, occurrences

# Tokens are long runs of these; in plain prose there is none, which one translated copy of the text tells.
_RUN_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.~"
_RUN = 20
_RUN_TABLE = [" "] * 128
for _character in _RUN_CHARACTERS:
    _RUN_TABLE[ord(_character)] = "a"
_RUN_MAP = "".join(_RUN_TABLE)
_PARTS = re.compile(r"[_.~-]+(?=[A-Za-z0-9])")
_BEFORE = 24
_AFTER_SCHEME = " \t\n\r\v\f\x1c\x1d\x1e\x1f\"'%20"

_BEARER = re.compile(r"bearer(?:[ \t=:+]|%20|\\t)+(?:\\{0,9}[\"'])?([\w.~+/=*%-]+)")
_BASIC = re.compile(r"basic(?:[ \t]|%20)+(?:\\{0,9}[\"'])?([A-Za-z0-9+/=_*-]{4,})")
_SHORT_WORD = 3

# The blanks also as URLs write them.
_PEM = r"(?: |\+|%20)(?:[A-Z0-9]{1,16}(?: |\+|%20)){0,4}PRIVATE(?: |\+|%20)KEY(?:(?: |\+|%20)BLOCK)?[ +]?-----?"
_PEM_BEGIN = re.compile("-----?[ +]?BEGIN" + _PEM)
_PEM_END = re.compile("-----?[ +]?END" + _PEM)
_PEM_LINE = re.compile(r"(?:[A-Za-z0-9+/=]{1,80}|[A-Za-z-]{1,20}: [^\n]{0,120})?[ \t\r]*")


@dataclass(frozen=True)
class _Shape:
    source: str
    before: str
    digit: bool
    pairs_with: str | None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The shape as a regular expression; most are never asked for."""
        return re.compile(self.source)


class Shapes:
    """The token shapes of the policy, found by their first letters at the beginning of the parts of long runs."""

    def __init__(self) -> None:
        self._by_head: dict[str, list[_Shape]] = defaultdict(list)
        self._inside: list[tuple[str, re.Pattern[str]]] = []
        for shape in load()["shapes"]:
            if "inside" in shape:
                self._inside.append((shape["inside"], re.compile(shape["pattern"])))
                continue
            known = _Shape(
                shape["pattern"], shape.get("before", ""), shape.get("digit", False), shape.get("pairs_with")
            )
            for head in sorted({prefix[:2] for prefix in shape["prefixes"]}):
                self._by_head[head].append(known)
        # Whether a later part of a run may be the beginning of a token, in one look at the run.
        later = [
            head for head, shapes in sorted(self._by_head.items()) if any(_may_be_inside(shape) for shape in shapes)
        ]
        self._later_head = re.compile(f"[_.~-](?:{'|'.join(map(re.escape, later))})")
        self._patterns: dict[str, list[tuple[re.Pattern[str], int]]] = defaultdict(list)
        for entry in load()["patterns"]:
            self._patterns[entry["gate"]].append((re.compile(entry["pattern"]), entry.get("group", 0)))
        text = load()["text"]
        self._words_after_scheme = frozenset(text["words_after_scheme"])
        self._schemes = frozenset(text["schemes_before_runs"])
        self._ends_of_schemes = tuple(self._schemes)

    def find(self, scan: Scan) -> None:
        """Note every secret in ``scan`` that shows without a label."""
        self._runs(scan)
        if "bearer" in scan.low:
            self._bearer(scan)
        if "basic" in scan.low:
            self._basic(scan)
        if "PRIVATE" in scan.text:
            _key_blocks(scan)
        for gate, patterns in self._patterns.items():
            if gate[-1] in scan.text and gate in scan.text:
                for pattern, group in patterns:
                    for match in pattern.finditer(scan.text):
                        scan.mask(match.start(group), match.end(group))

    def _runs(self, scan: Scan) -> None:
        text = scan.text
        runs = text.translate(_run_table())
        needle = "a" * _RUN
        position = runs.find(needle)
        while position >= 0:
            end = runs.find(" ", position + _RUN)
            end = len(text) if end < 0 else end
            self._run(scan, position, end)
            position = runs.find(needle, end)
        if scan.pairs:
            self._pairs(scan)

    def _run(self, scan: Scan, start: int, end: int) -> None:
        text = scan.text
        scan.steps += end - start
        run = text[start:end]
        for literal, pattern in self._inside:
            if literal in run:
                for match in pattern.finditer(text, start, end):
                    scan.mask(match.start(), match.end())
        escaped = start > 0 and text[start - 1] == "\\" and text[start] in "nrt"
        heads = self._by_head
        if escaped or run[:2] in heads or run[0] in heads or self._later_head.search(text, start, end):
            self._parts(scan, start, start + escaped, end)
        before = scan.low[max(0, start - _BEFORE) : start]
        if before.rstrip(_AFTER_SCHEME).endswith(self._ends_of_schemes) or not before.isascii():
            self._behind_scheme(scan, start, end, before)

    def _behind_scheme(self, scan: Scan, start: int, end: int, before: str) -> None:
        """Mask the run if the word in front of it is an authorization scheme."""
        run = scan.text[start:end]
        words = before.replace("%20", " ").rstrip("\"'").split()[-1:]
        if words and words[0].strip("\"'") in self._schemes and (run != run.lower() or not run.isalpha()):
            scan.mask(start, _token_end(scan.text, end))

    def _parts(self, scan: Scan, start: int, first: int, end: int) -> None:
        """Try the shapes at the beginning of the run, at ``first``, and of its other parts."""
        done = self._part(scan, first, start)
        if done < end:
            for part in _PARTS.finditer(scan.text, start, end):
                if part.end() >= done:
                    done = self._part(scan, part.end(), done)

    def _part(self, scan: Scan, position: int, done: int) -> int:
        """Try the shapes at ``position``; the end of what is done."""
        head = scan.text[position : position + 2]
        for shape in self._by_head.get(head, ()):
            done = max(done, self._try(scan, shape, position))
        for shape in self._by_head.get(head[:1], ()) if len(head) > 1 else ():
            done = max(done, self._try(scan, shape, position))
        return done

    @staticmethod
    def _try(scan: Scan, shape: _Shape, position: int) -> int:
        text = scan.text
        if shape.before and not text.endswith(shape.before, 0, position):
            return position
        match = shape.pattern.match(text, position)
        if not match:
            scan.steps += 32
            return position
        scan.steps += match.end() - position
        if shape.digit and not any(character.isdigit() for character in match.group()):
            return match.end()
        scan.mask(position, match.end())
        if shape.pairs_with:
            scan.pairs.add(shape.pairs_with)
        return match.end()

    @staticmethod
    def _pairs(scan: Scan) -> None:
        """The other halves of what was found: random characters that mean nothing on their own."""
        for pattern in scan.pairs:
            for match in re.finditer(pattern, scan.text):
                if _is_mixed(match.group()):
                    scan.mask(match.start(), match.end())

    def _bearer(self, scan: Scan) -> None:
        done = 0
        for position in occurrences(scan.low, "bearer"):
            match = _BEARER.match(scan.low, position) if position >= done else None
            if not match:
                continue
            done = match.end()
            word = match.group(1)
            plain = word.strip(".=/+-~%") in self._words_after_scheme or (
                len(word) <= _SHORT_WORD and scan.text[match.start(1) : match.end(1)].isalpha() and word.isalpha()
            )
            if not plain:
                scan.mask(match.start(1), match.end(1))

    @staticmethod
    def _basic(scan: Scan) -> None:
        for match in _BASIC.finditer(scan.low):
            word = scan.text[match.start(1) : match.end(1)]
            if any(character.isdigit() or character in "=*" for character in word) or _is_pair(word):
                scan.mask(match.start(1), match.end(1))


def _may_be_inside(shape: _Shape) -> bool:
    """Whether a token of this shape may begin at a later part of a run: what stands before it is in the run."""
    return shape.before[-1:] in _RUN_CHARACTERS


@lru_cache(maxsize=1)
def _run_table() -> dict[int, str]:
    return _RunTable()


class _RunTable(dict[int, str]):
    def __missing__(self, code: int) -> str:
        value = _RUN_MAP[code] if code < 128 else " "
        if code < 128:
            self[code] = value
        return value


def _is_pair(word: str) -> bool:
    """Whether ``word`` is the base64 form of ``user:password``."""
    try:
        return b":" in base64.b64decode(word[: len(word) // 4 * 4].encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return False


def _is_mixed(word: str) -> bool:
    return word.lower() != word != word.upper() and any(character.isdigit() for character in word)


def _token_end(text: str, position: int) -> int:
    while position < len(text) and (text[position].isalnum() or text[position] in "+/=_-.~"):
        position += 1
    return position


def _key_blocks(scan: Scan) -> None:
    """Private keys in PEM form, whole, from a beginning without an end, or up to an end without a beginning."""
    text = scan.text
    position = 0
    while position < len(text):
        end = _PEM_END.search(text, position)
        begin = _PEM_BEGIN.search(text, position, end.start() if end else len(text))
        if begin:
            scan.mask(begin.start(), end.end() if end else len(text))
        elif end:
            scan.mask(_start_of_block(text, position, end.start()), end.end())
        if not end:
            break
        position = end.end()


def _start_of_block(text: str, earliest: int, position: int) -> int:
    newline = "\\n" if text.endswith("\\n", 0, position) else "\n"
    while position > earliest:
        line = text.rfind(newline, earliest, max(earliest, position - len(newline)))
        start = earliest if line < 0 else line + len(newline)
        if not _PEM_LINE.fullmatch(text, start, max(start, position - len(newline))):
            break
        position = start
    return position
