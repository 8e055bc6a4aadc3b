"""How far the value behind a label reaches: quoted, bare, of several words, in brackets, in an indented block."""

from __future__ import annotations

import re

from .data import MASK, load
from .scan import Scan

_QUOTE = re.compile(r"[rbfuRBFU@$]{0,2}(?:(\\{0,9})(\"\"\"|'''|[\"'`])|&quot;|&#34;|&#39;|&#x27;|&apos;|%22|%27)")
_QUOTE_STARTS = frozenset("\"'`\\&%rbfuRBFU@$")
# A quote ends a bare value only where structure follows it: a password may contain quotes.
_BARE = re.compile(
    r"(?:[^\s\"'`<>\\]+|\\{0,9}[\"'`][^\s,:;)\]}\"'`<>\\]|<[^/A-Za-z!\s]|>[^\s<]|\\[^\"'`\s]|\\(?=\s|$))+"
)
_LINE = re.compile(r"(?:[^\n\r\"'`\\=]+|=\\{0,9}\"[^\"\n]*\"|=|\\{0,9}[\"'`][^\s,)\]}\"'`<>\\]|\\[^\"'`])+")
_STOP = re.compile(r"(?:&amp;|[&;,|])\s{0,4}\\{0,9}[\"']?[A-Za-z_][\w.-]{0,64}\\{0,9}[\"']?[=:]")
_STOP_START = re.compile(r"[&;,|]")
_LABEL = re.compile(r"[\w.\"'-]{1,64}[ \t]{0,16}[=:]")
_WORD = re.compile(r"[ \t]{1,16}([^\s\"'`<>|&;#()\[\]{}\\]+)")
_OPTION = re.compile(r"--?[A-Za-z]")
_CREDENTIALS = re.compile(r"(?:[ \t]|%20){1,4}[\w.~+/=*][\w.~+/=*-]*")
_ANGLE = re.compile(r"<[^<>\s/][^<>\s]{0,255}>")
_ADJACENT = re.compile(r"[ \t]{1,4}(?:\+[ \t]{0,4})?([\"'])([^\"'\n]{1,512})\1")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]{2,24}[ \t]+")
_CHUNK = 128
_LONGEST_STEP = 32
_FLOW = 256
_BEHIND = 80
_COUNT = re.compile(r"\d{1,15}(?:\.\d+)?(?:[\s,;)]|$)")
_BRACKET = re.compile(r"[\[\](){}\n]")
_BLOCK = re.compile(r"[|>][+-]?\d?[+-]?[ \t]*(?:#[^\n]*)?\r?\n")
_ENTRY = re.compile(r"[+ \t-]*[\"']?[\w.-]+[\"']?[ \t]*[:=]")
_LAST_WORD = re.compile(r"[\W_]")
_INDENT = re.compile(r"[+-]?[ \t]*")
_TRAILING = ",;.)]}:"
_CLOSERS = frozenset("[{")
_TUPLES = ("('", '("')


class Values:
    """Notes the secret value that begins at a position, and says where it ends."""

    def __init__(self) -> None:
        text, limits = load()["text"], load()["limits"]
        self._placeholder = limits["placeholder"]
        self._words = limits["words_of_value"]
        self._plain = frozenset(text["plain_values"])
        self._schemes = frozenset(text["schemes_before_runs"])
        self._placeholders = re.compile("|".join(text["placeholders"]))
        self._program = re.compile("|".join(text["placeholders"] + text["program"]))

    def mask(
        self,
        scan: Scan,
        position: int,
        *,
        label: str = "",
        several: bool = False,
        line: bool = False,
        number: bool = False,
        document: bool = False,
    ) -> int:
        """Mask the value at ``position``; the result is its end, or ``position`` if it is a placeholder or nothing.

        Args:
            label: the name in front, in lower case.
            several: the value may be of several words.
            line: the value is the rest of the line.
            number: a number is a count, not a secret.
            document: the label was quoted, so a bare value is replaced by a quoted mark to keep JSON what it is.
        """
        text = scan.text
        if position >= len(text) or text[position] in "\r\n":
            return self._block(scan, position)
        first = text[position]
        quote = _QUOTE.match(text, position) if first in _QUOTE_STARTS else None
        if quote:
            return self._quoted(scan, quote)
        if first in "|>" and _BLOCK.match(text, position):
            return self._block(scan, text.find("\n", position))
        if number and _COUNT.match(text, position):
            return position
        if line:
            return self._rest_of_line(scan, position, label)
        end = position
        if first in _CLOSERS or (first == "(" and text.startswith(_TUPLES, position)):
            end = self._bracketed(scan, position) if document else self._flow(scan, position, label)
        return end if end > position else self._bare(scan, position, label, several, number, document)

    def _bare(self, scan: Scan, position: int, label: str, several: bool, number: bool, document: bool) -> int:
        """Mask a value without quotes."""
        text = scan.text
        found, end, stopped = self._extent(scan, position)
        if not found:
            return self._angle(scan, position)
        whole = end
        while end > position + 1 and text[end - 1] in _TRAILING:
            end -= 1
        is_number = _is_number(text[position:end])
        if (number and is_number) or self._is_plain(scan, position, end, whole, label):
            return position
        if several and not stopped and whole == end:
            end = self._several(scan, end)
        scan.mask(position, end, f'"{MASK}"' if document and is_number else MASK)
        return max(end, position + 1)

    def _extent(self, scan: Scan, position: int) -> tuple[bool, int, bool]:
        """Whether a bare value begins here, its end, and whether a label ends it; looks no further than needed."""
        text, size = scan.text, _CHUNK
        while True:
            limit = position + size
            found = _BARE.match(text, position, limit)
            if not found:
                return False, position, False
            end = found.end()
            scan.steps += end - position
            if scan.low[position:end] in self._schemes:
                credentials = _CREDENTIALS.match(text, end)
                end = credentials.end() if credentials else end
            first = _STOP_START.search(text, position, end)
            stop = _STOP.search(text, first.start(), end + _BEHIND) if first else None
            if stop and stop.start() < end:
                return True, stop.start(), True
            if end < limit - _LONGEST_STEP or limit >= len(text):
                return True, end, False
            size *= 4

    def _angle(self, scan: Scan, position: int) -> int:
        """Mask what is between angle brackets, if it is more than the name of what to put there."""
        found = _ANGLE.match(scan.text, position)
        if not found or self._placeholders.match(found.group()):
            return position
        scan.mask(position, found.end())
        return found.end()

    def _is_plain(self, scan: Scan, start: int, end: int, whole: int, label: str) -> bool:
        """Whether a bare value is a placeholder, a type or a piece of program, not a secret."""
        if end - start > self._placeholder:
            return False
        value, low = scan.text[start:end], scan.low[start:end]
        if low in self._plain or (end - start <= 2 and value.isdigit()):
            return True
        if label.endswith(low) and _LAST_WORD.split(label)[-1] == low:
            passed_on = scan.text[whole : whole + 1] in ("", "\n", ",") or whole > end or value.isupper()
            if passed_on:
                return True
        if "[" in value or "(" in value or value[-2:] == "{{":
            line = scan.text[start : min(scan.end_of_line(start), start + self._placeholder)].rstrip(" ,;:")
            if self._program.match(line):
                return True
        if self._program.match(value):
            return True
        return end < whole <= start + self._placeholder and bool(self._program.match(scan.text[start:whole]))

    def _quoted(self, scan: Scan, quote: re.Match[str]) -> int:
        text, start = scan.text, quote.end()
        end, after = self._closing(scan, quote)
        inner = text[start : min(end, start + self._placeholder)]
        if end - start < self._placeholder and (
            (not inner.strip("* ") and "*" not in inner) or self._placeholders.match(inner)
        ):
            return start
        scan.steps += end - start
        scan.mask(start, end)
        # Strings glued together by a shell.
        glued = (
            _BARE.match(text, after) if after < len(text) and (text[after].isalnum() or text[after] in "\"'") else None
        )
        if glued and not quote.group(1) and text[after : after + 2] not in ('""', "''"):
            scan.mask(after, glued.end())
            return glued.end()
        adjacent = _ADJACENT.match(text, after)
        while adjacent:
            scan.mask(adjacent.start(2), adjacent.end(2))
            after = adjacent.end()
            adjacent = _ADJACENT.match(text, after)
        return max(after, start + 1)

    @staticmethod
    def _closing(scan: Scan, quote: re.Match[str]) -> tuple[int, int]:
        """Where the quoted value ends, and where its closing quote does."""
        text, start = scan.text, quote.end()
        token = quote.group(2)
        if token is None:
            mark = quote.group().lstrip("rbfuRBFU@$")
            end = text.find(mark, start)
            return (end, end + len(mark)) if end >= 0 else (scan.end_of_line(start), scan.end_of_line(start))
        escapes = len(quote.group(1))
        position = text.find(token, start)
        while position >= 0:
            slashes = 0
            while position - slashes > start and text[position - slashes - 1] == "\\":
                slashes += 1
            doubled = token == "'" and not escapes and text.startswith("''", position) and position > start
            if doubled:
                position = text.find(token, position + 2)
                continue
            if (slashes % 2 == 0) if not escapes else slashes <= escapes:
                end = position - (min(slashes, escapes) if escapes else 0)
                return end, position + len(token)
            position = text.find(token, position + 1)
        end = len(text) if scan.cut or len(token) > 1 else scan.end_of_line(start)
        return end, end

    def _several(self, scan: Scan, end: int) -> int:
        """The end of a value that goes on after its first word, up to what looks like the next thing."""
        text = scan.text
        for _ in range(self._words - 1):
            word = _WORD.match(text, end)
            if not word or _OPTION.match(text, word.start(1)) or _LABEL.match(text, word.start(1)):
                break
            scan.steps += word.end() - end
            stop = word.end()
            while stop > word.start(1) and text[stop - 1] in _TRAILING:
                stop -= 1
            end = max(stop, word.start(1))
            if stop < word.end():
                break
        return end

    def _rest_of_line(self, scan: Scan, start: int, label: str) -> int:
        text = scan.text
        found = _LINE.match(text, start)
        if not found:
            return start
        end = start + len(found.group().rstrip(" \t"))
        scan.steps += end - start
        scheme = _SCHEME.match(text, start, end)
        if self._is_plain(scan, start, end, end, label) or (
            scheme and self._is_plain(scan, scheme.end(), end, end, label)
        ):
            return start
        scan.mask(start, end)
        return end

    def _flow(self, scan: Scan, start: int, label: str) -> int:
        """Mask a list or mapping of several items that ends in the line it begins in."""
        depth = 0
        for bracket in _BRACKET.finditer(scan.text, start, start + _FLOW):
            scan.steps += 1
            if bracket.group() == "\n":
                break
            depth += 1 if bracket.group() in "[({" else -1
            if depth == 0:
                end = bracket.end()
                inner = scan.text[start + 1 : end - 1]
                if not inner.strip() or self._is_plain(scan, start, end, end, label):
                    return start
                scan.mask(start, end)
                return end
        return start

    @staticmethod
    def _bracketed(scan: Scan, start: int) -> int:
        """Mask an array or object, up to the bracket that closes it, or to the end if none does."""
        depth, end = 0, len(scan.text)
        for bracket in _BRACKET.finditer(scan.text, start):
            if bracket.group() in "[({":
                depth += 1
            elif bracket.group() in "])}":
                depth -= 1
                if depth == 0:
                    end = bracket.end()
                    break
        scan.steps += end - start
        if scan.text[start:end].strip("[]{}() \n\r\t") == "":
            return start
        scan.mask(start, end, f'"{MASK}"')
        return end

    @staticmethod
    def _block(scan: Scan, position: int) -> int:
        """Mask the lines below a label that are indented more than it is and are no labels themselves."""
        text = scan.text
        if position >= len(text) or text[position] not in "\r\n":
            return position
        line = text.rfind("\n", max(0, position - 4096), position) + 1
        indent = len(_INDENT.match(text, line).group())  # type: ignore[union-attr]
        block = bool(re.search(r"[|>][+-]?\d?[+-]?[ \t]*(?:#[^\n]*)?\r?$", text[max(line, position - 80) : position]))
        start = end = -1
        cursor = text.find("\n", position) + 1
        while 0 < cursor < len(text):
            stop = scan.end_of_line(cursor)
            own = len(_INDENT.match(text, cursor).group())  # type: ignore[union-attr]
            if text[cursor:stop].strip():
                if own <= indent or (not block and _ENTRY.match(text, cursor)):
                    break
                start = cursor + own if start < 0 else start
                end = stop
            cursor = stop + 1
        scan.steps += max(0, end - position)
        if start < 0:
            return position
        scan.mask(start, end)
        return end


def _is_number(value: str) -> bool:
    return bool(value) and value.lstrip("-").replace(".", "", 1).isdigit()
