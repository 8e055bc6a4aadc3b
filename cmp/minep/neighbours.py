"""Names and values that stand beside each other: pairs in lists, members of objects, elements of markup."""

from __future__ import annotations

import re

from .data import load
from .keys import Names
from .scan import Scan
from .values import Values

_PAIR = re.compile(
    r"([\w.-]{0,64})(?:\\{0,9}[\"'`]|&quot;|%22)(?:\s|%20){0,8}(?:(?:,|%2c)(?:\s|%20){0,16})?"
    r"(?:\\{0,9}[\"']|&quot;|%22)?([\w-]{1,20})(?:\\{0,9}[\"']|&quot;|%22)?\s{0,4}(?:=>|[:=]|%3a)(?:\s|%20){0,8}"
)
_LIST = re.compile(r"([\w.-]{0,64})\\{0,9}[\"'`]\s{0,8},\s{0,16}(?=[bru]?\\{0,9}[\"'`])")
_ELEMENT = re.compile(r"([\w.-]{0,64})(?:\s[^<>]{0,256})?>")
_ATTRIBUTE = re.compile(r"([\w.-]{0,64})[\"'](?:\s[^<>]{0,256})?>")
_NEXT_MEMBER = re.compile(
    r"([\w.-]{0,64})[ \t]{0,8}(?:,[ \t]{0,8}|\r?\n[ \t-]{0,64})([\w-]{1,20})[ \t]{0,4}[:=][ \t]{0,8}"
)
_NAME_MEMBER = re.compile(r"(?:name|key|header|field)\\{0,9}[\"']?\s{0,4}[:=]\s{0,8}(?:\\{0,9}[\"'])?$")
_REST = re.compile(r"[\w.-]{0,64}")
_ENTRY = re.compile(r"(?:key|name)=[\"']$")
_CLOSED_PAIR = re.compile(r"[bru]?\\{0,9}([\"'`])[^\"'`]{0,4096}\\{0,9}\1\s{0,4}[\])]")
# Between a value that comes first and the name behind it.
_BETWEEN = re.compile(
    r"(\\{0,9}[\"'])\s{0,4},\s{0,16}(?:\\{0,9}[\"'])?[\w-]{1,20}(?:\\{0,9}[\"'])?\s{0,4}:\s{0,8}\\{0,9}[\"']$"
)
_VALUE_KEY = re.compile(r"([\w-]{1,20})(?:\\{0,9}[\"'])?\s{0,4}:\s{0,8}$")
_NEAR = 96
_LONGEST_VALUE = 4_096


class Neighbours:
    """Masks values by what stands beside them; ``position`` is where a stem is, ``start`` where its name begins.

    Every operation gives the end of what it masked, or ``position``.
    """

    def __init__(self, names: Names, values: Values) -> None:
        policy = load()["names"]
        self._names = names
        self._values = values
        self._headers = frozenset(policy["header_pairs"])
        self._pair_values = frozenset(policy["pair_values"])
        self._close = -1

    def begin(self) -> None:
        """A new text."""
        self._close = -1

    def _grade(self, scan: Scan, start: int, end: int) -> int:
        return self._names.grade(scan.text[start:end].strip("-."))

    def quoted(self, scan: Scan, start: int, position: int) -> int:
        """``"name": "x-api-key", "value": "..."``, ``["cookie", "..."]``, ``"--token", "..."`` and their like."""
        pair = _PAIR.match(scan.low, position)
        if pair and pair.group(2) in self._pair_values and self._grade(scan, start, pair.end(1)):
            return max(pair.end(1), self._values.mask(scan, pair.end(), document=True))
        listed = _LIST.match(scan.low, position)
        if listed and self._is_listed(scan, start, listed):
            return max(listed.end(1), self._values.mask(scan, listed.end()))
        return self._value_first(scan, start, position)

    def _is_listed(self, scan: Scan, start: int, listed: re.Match[str]) -> bool:
        name = scan.low[start : listed.end(1)]
        if name in self._headers:
            return True
        opened = scan.text[max(0, start - 4) : start].rstrip("\"'`\\bru").endswith(("[", "("))
        alone = opened and _CLOSED_PAIR.match(scan.text, listed.end())
        return bool((name.startswith("--") or alone) and self._grade(scan, start, listed.end(1)))

    def _value_first(self, scan: Scan, start: int, position: int) -> int:
        text = scan.text
        if not _NAME_MEMBER.search(scan.low, max(0, start - 40), start):
            return position
        between = _BETWEEN.search(text, max(0, start - _NEAR), start)
        rest = _REST.match(scan.low, position)
        if not between or not rest or not self._grade(scan, start, rest.end()):
            return position
        quote, end = between.group(1), between.start(1)
        opening = text.rfind(quote, max(0, end - _LONGEST_VALUE), end)
        key = _VALUE_KEY.search(scan.low, max(0, opening - 40), max(0, opening))
        if opening < 0 or not key or key.group(1) not in self._pair_values:
            return position
        scan.mask(opening + len(quote), end)
        return rest.end()

    def member(self, scan: Scan, start: int, position: int) -> int:
        """``name: X, value: ...`` and the same in two lines."""
        if not _NAME_MEMBER.search(scan.low, max(0, start - 24), start):
            return position
        member = _NEXT_MEMBER.match(scan.low, position)
        if member and member.group(2) in self._pair_values and self._grade(scan, start, member.end(1)):
            return max(member.end(1), self._values.mask(scan, member.end()))
        return position

    def element(self, scan: Scan, start: int, position: int) -> int:
        """``<password>...</password>`` and ``<entry key="password">...</entry>``."""
        text, before = scan.text, scan.text[start - 1]
        entry = before in "\"'"
        element = self._opening(scan, start, position, entry)
        if not element or not self._grade(scan, start, element.end(1)) or text.endswith("/>", 0, element.end()):
            return position
        if self._close < position:
            close = text.find("</", position)
            self._close = len(text) if close < 0 else close
        if self._close >= len(text) and not scan.cut:
            return position
        value, end = element.end(), max(self._close, element.end())
        if text[value:end].strip() == "" or (entry and "\n" in text[value:end]):
            return position
        scan.mask(value, end)
        return end

    @staticmethod
    def _opening(scan: Scan, start: int, position: int, entry: bool) -> re.Match[str] | None:
        if entry:
            named = _ENTRY.search(scan.low, max(0, start - 8), start)
            return _ATTRIBUTE.match(scan.low, position) if named else None
        opening = scan.text.rfind("<", max(0, start - 32), start)
        prefix = scan.text[opening + 1 : start].removesuffix(":")
        if opening < 0 or not all(character.isalnum() or character in "_.-" for character in prefix):
            return None
        return _ELEMENT.match(scan.low, position)
