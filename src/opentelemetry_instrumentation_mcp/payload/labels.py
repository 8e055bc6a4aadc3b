"""Secrets that follow a label: assignments, headers, options, quoted names, elements, statements."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .data import MASK, load
from .keys import SENSITIVE, SOFT, Names, is_tally, singular, words_of
from .scan import Scan, occurrences
from .values import Values

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_MAX_NAME = 64
# The rest of a name, what closes it, and what separates it from its value.
_AFTER = re.compile(
    r"([\w.\[-]{0,64})((?:\\*[\"'`\]?!*]|&quot;|&#34;|&#39;|&#x27;|&apos;|%22|%27|__){0,6})"
    r"[ \t]{0,32}(?:(?:%20|&nbsp;|\\t)[ \t]{0,8})?(=>|:=|<-|->|[=!]?={1,3}|:|%3d|%3a|&#61;|&#58;|&equals;|&colon;|＝|：)"
    r"[ \t]{0,32}(?:(?:%20|&nbsp;|\\t)[ \t]{0,8})?(?:(?:\*\*|__)[ \t]{1,8})?"
)
_MORE_WORDS = re.compile(r"([\w.-]{0,64} ([\w.-]{1,32}))(?=[\"'`\]?!*]{0,4}[ \t]{0,8}[=:＝：])")
_IS = re.compile(r"([\w.-]{0,64})[\"'`]?[ \t]{1,4}(?:is|was|are|to)[ \t:]{1,4}(?=[^\s])")
_SPACED = re.compile(r"([\w.-]{0,64})[ \t]{1,8}(?=[^\s=:])")
_OPTION = re.compile(r"([\w.-]{0,64})([ \t]*\\\r?\n[ \t]*|[ \t]+)(?=[^\s=:-]|-[^-a-z\s])")
_PAIR = re.compile(
    r"([\w.-]{0,64})(?:\\*[\"'`]|&quot;|%22)(?:\s|%20){0,8}(?:(?:,|%2c)(?:\s|%20){0,16})?"
    r"(?:\\*[\"']|&quot;|%22)?([\w-]{1,20})(?:\\*[\"']|&quot;|%22)?\s{0,4}(?:=>|[:=]|%3a)(?:\s|%20){0,8}"
)
_LIST = re.compile(r"([\w.-]{0,64})\\*[\"'`]\s{0,8},\s{0,16}(?=[bru]?\\*[\"'`])")
_ELEMENT = re.compile(r"([\w.-]{0,64})(?:\s[^<>]{0,256})?>")
_ATTRIBUTE = re.compile(r"([\w.-]{0,64})[\"'](?:\s[^<>]{0,256})?>")
_VALUE_FIRST = re.compile(
    r"(?:\\*[\"'])?([\w-]{1,20})(?:\\*[\"'])?\s{0,4}:\s{0,8}(\\*[\"'])(.*?)\2\s{0,4},\s{0,16}(?:\\*[\"'])?"
    r"[\w-]{1,20}(?:\\*[\"'])?\s{0,4}:\s{0,8}(?:\\*[\"'])$",
    re.DOTALL,
)
_SETTLED = re.compile(r"\*{3}(?:\n|$|\\*[\"'](?:[,}\]]|$))")
# The common case: name=word, name: word, "name": "word", followed by something that ends the word.
_SIMPLE = re.compile(
    r"([\w-]{0,32})(\\?[\"']?) ?[=:] ?(\\?[\"']?)([\w+~!%@#-][\w+/~!%@#.=-]{2,255})(\\?[\"']|[\s,;&)\]}<]|$)"
)
_NOT_AFTER_WORD = frozenset(('"', "'", '\\"', "\\'", ",", ";", ")", "]", "}", "<"))
_DIGIT = re.compile(r"\d")
_NAME_MEMBER = re.compile(r"(?:name|key|header|field)\\*[\"']?\s{0,4}[:=]\s{0,8}(?:\\*[\"'])?$")
_NEXT_MEMBER = re.compile(
    r"([\w.-]{0,64})[ \t]{0,8}(?:,[ \t]{0,8}|\r?\n[ \t-]{0,64})([\w-]{1,20})[ \t]{0,4}[:=][ \t]{0,8}"
)
_ASSIGNS = re.compile(r"(?:^|[\s;&])(?:env|setenv|arg|set -g?x) $")
_REST = re.compile(r"[\w.-]{0,64}")
_BACK = 512
_WHOLE_STEMS = frozenset(("signature=", "sig="))
_CACHED_LABELS = 1_024
_LETTER_ESCAPES = frozenset("nrt")


@dataclass(frozen=True)
class _Kind:
    """What the value of a label may be: several words, the rest of the line, a count."""

    grade: int
    several: bool
    line: bool
    number: bool


class Labels:
    """Finds labelled secrets: looks at the places where a stem of the policy occurs, and only there."""

    def __init__(self, names: Names) -> None:
        policy = load()
        self._names = names
        self._values = Values()
        self._kinds: dict[str, _Kind] = {}
        self._stems = [*policy["text"]["stems"], *sorted(names.stems - set(policy["text"]["stems"]))]
        self._before_equals: list[str] = policy["text"]["stems_before_equals"]
        self._quoted: list[str] = policy["text"]["stems_quoted"]
        self._statements: list[str] = policy["text"]["statements"]
        self._multiword = frozenset(policy["names"]["multiword"])
        self._whole_line = frozenset(policy["names"]["whole_line"])
        self._second_words = frozenset(policy["text"]["second_words"])
        self._quotable = frozenset(policy["text"]["quotable_after"])
        self._header_pairs = frozenset(policy["names"]["header_pairs"])
        self._pair_names = frozenset(policy["names"]["pair_names"])
        self._pair_values = frozenset(policy["names"]["pair_values"])

    def stems_in(self, low: str) -> list[str]:
        """The stems that occur in ``low``: without one there is no label in it."""
        stems = [stem for stem in self._stems if stem in low]
        if "=" in low or "＝" in low:
            stems += [stem for stem in self._before_equals if stem in low]
        return stems + [statement for statement in self._statements if statement in low]

    def document_stems_in(self, low: str) -> bool:
        """Whether a JSON text may hold a sensitive name, also one that is too short to be looked for in prose."""
        return any(stem in low for stem in self._stems) or any(stem in low for stem in self._quoted)

    def find(self, scan: Scan, stems: list[str]) -> None:
        """Note every labelled secret in ``scan``."""
        hits = sorted({(position, stem) for stem in stems for position in occurrences(scan.low, stem)})
        done = 0
        elements = -1
        netrc = "login " in scan.low and "machine " in scan.low
        for position, stem in hits:
            if position < done:
                continue
            scan.steps += _MAX_NAME
            if stem in self._statements:
                after = _SPACED.match(scan.low, position + len(stem))
                if after:
                    done = self._values.mask(scan, after.end())
                continue
            start = self._start_of_name(scan, position)
            simple = _SIMPLE.match(scan.low, position)
            if simple and self._is_simple(scan, start, simple):
                scan.mask(simple.start(4), simple.end(4))
                done = simple.end(4)
                continue
            end = self._labelled(scan, start, position, stem)
            if end <= position:
                end = self._unseparated(scan, start, position, netrc=netrc)
            if end <= position and scan.text[max(0, start - 1)] in "<:\"'":
                if elements < position:
                    elements = scan.text.find("</", position)
                    elements = len(scan.text) if elements < 0 else elements
                end = self._element(scan, start, position, elements)
            if end <= position:
                rest = _REST.match(scan.low, position)
                end = rest.end() if rest else end
            done = max(done, end)

    def _is_simple(self, scan: Scan, start: int, simple: re.Match[str]) -> bool:
        """Whether this is the common case, one plain word as the value, which needs no closer look."""
        quote, value = simple.group(3), simple.group(4)
        if quote != simple.group(5) if quote else simple.group(5) in _NOT_AFTER_WORD:
            return False
        kind = self._kind(scan.text[start : simple.end(1)])
        if kind.grade < SENSITIVE or kind.line or value.isdigit() or not _DIGIT.search(value):
            return False
        return not kind.several or bool(quote) or simple.group(5) in ("", "\n", "&")

    @staticmethod
    def _start_of_name(scan: Scan, position: int) -> int:
        low, start = scan.low, position
        earliest = max(0, position - _MAX_NAME)
        while start > earliest and (low[start - 1] in _NAME or low[start - 1].isalnum()):
            start -= 1
        if start and scan.text[start - 1] == "\\" and low[start] in _LETTER_ESCAPES and start < position:
            start += 1
        return start

    def _grade(self, scan: Scan, start: int, end: int) -> int:
        return self._names.grade(scan.text[start:end].strip("-."))

    def _labelled(self, scan: Scan, start: int, position: int, stem: str) -> int:
        """``name=value`` in all its forms; the end of the value, or ``position``."""
        after = _AFTER.match(scan.low, position)
        if not after:
            more = _MORE_WORDS.match(scan.low, position)
            after = _AFTER.match(scan.low, more.end(1)) if more else None
            if not after or not more or more.group(2) not in self._second_words:
                return position
            if self._grade(scan, start, more.end(1)) < SENSITIVE:
                return position
            name_end = more.end(1)
            grade = SENSITIVE
        else:
            name_end = after.end(1)
            grade = self._grade(scan, start, name_end)
        if scan.text.startswith(MASK, after.end()) and _SETTLED.match(scan.text, after.end()):
            return after.end()
        separator = after.group(3)
        if separator == ":" and scan.low[after.start(3) + 1 : after.start(3) + 2] == ":":
            return position
        if separator == ":" and scan.low.startswith("//", after.start(3) + 1):
            return position
        if stem == "token" and separator == ":" and scan.low.endswith("unexpected ", 0, start):
            return position
        if grade < SENSITIVE:
            grade = max(grade, self._grade_of_several(scan, start, name_end))
        closing = after.group(2)
        tight = separator in ("=", ":=", "%3d", "=>") or any(mark in closing for mark in ('"', "'", "quot", "%22"))
        if (grade == SOFT and not tight) or (not grade and not self._is_equals_stem(stem, tight, start, position)):
            return position
        return self._mask(scan, start, name_end, after)

    @staticmethod
    def _is_equals_stem(stem: str, tight: bool, start: int, position: int) -> bool:
        return tight and stem in _WHOLE_STEMS and start == position

    def _mask(self, scan: Scan, start: int, name_end: int, after: re.Match[str]) -> int:
        label = scan.low[start:name_end]
        kind = self._kind(scan.text[start:name_end])
        label = label.strip("-._")
        closing = after.group(2)
        value = after.end()
        if _is_directory(scan.text, start, name_end, value):
            return name_end
        end = self._values.mask(
            scan,
            value,
            label=label,
            several=kind.several,
            line=kind.line and not closing.strip("*_]"),
            number=kind.number,
            document='"' in closing or "'" in closing,
        )
        return max(end, name_end)

    def _kind(self, name: str) -> _Kind:
        known = self._kinds.get(name)
        if known is None:
            words = [singular(word) for word in words_of(name)] or [name]
            several = name[:1] != "-" and (not self._multiword.isdisjoint(words) or words[-1].endswith("password"))
            grade = self._names.grade(name.strip("-."))
            known = _Kind(grade, several, words[-1] in self._whole_line, is_tally(name))
            if len(self._kinds) < _CACHED_LABELS:
                self._kinds[name] = known
        return known

    def _grade_of_several(self, scan: Scan, start: int, end: int) -> int:
        """The grade of a name written in words: ``api key``, ``Client Secret``."""
        low = scan.low
        if self._names.keeps(scan.text[start:end]):
            return 0
        for _ in range(2):
            if start < 2 or low[start - 1] != " " or low[start - 2] not in _NAME:
                break
            start -= 1
            earliest = max(0, start - 24)
            while start > earliest and low[start - 1] in _NAME:
                start -= 1
            grade = self._grade(scan, start, end)
            if grade == SENSITIVE:
                return grade
        return 0

    def _unseparated(self, scan: Scan, start: int, position: int, *, netrc: bool) -> int:
        """Options and statements, where the value follows a blank; ``the password is x``; pairs in lists."""
        low = scan.low
        if low[start] == "-":
            option = _OPTION.match(low, position)
            if option and self._grade(scan, start, option.end(1)):
                return self._option(scan, start, option)
        if start > 3 and low[start - 1] == " " and _ASSIGNS.search(low, max(0, start - 12), start):
            spaced = _SPACED.match(low, position)
            if spaced and self._grade(scan, start, spaced.end(1)):
                return self._values.mask(scan, spaced.end())
        if _NAME_MEMBER.search(low, max(0, start - 24), start):
            member = _NEXT_MEMBER.match(low, position)
            if member and member.group(2) in self._pair_values and self._grade(scan, start, member.end(1)):
                return max(member.end(1), self._values.mask(scan, member.end()))
        before = scan.text[start - 1] if start else ""
        if before in ('"', "'", "`", ";") or low.startswith("%22", max(0, start - 3)):
            return self._pair(scan, start, position)
        said = _IS.match(low, position)
        if said and self._is_label(scan, start, said.end(1)):
            return self._said(scan, said)
        spaced = _SPACED.match(low, position)
        if spaced and low[start : spaced.end(1)].strip("-._") in self._quotable:
            if scan.text[spaced.end()] in "'\"" or netrc:
                return self._values.mask(scan, spaced.end(), label=low[start : spaced.end(1)])
        return position

    def _is_label(self, scan: Scan, start: int, end: int) -> bool:
        return self._grade(scan, start, end) == SENSITIVE or self._grade_of_several(scan, start, end) == SENSITIVE

    def _option(self, scan: Scan, start: int, option: re.Match[str]) -> int:
        text = scan.text
        if len(option.group(2)) > 1 and "\n" not in option.group(2):
            # Two blanks and a word: the column of descriptions of a help text.
            word = re.compile(r"[\w.,;:()-]+").match(text, option.end())
            if word and word.group().rstrip(".,;:()").replace("-", "").isalpha():
                return option.end(1)
        label = scan.low[start : option.end(1)].strip("-")
        return max(option.end(1), self._values.mask(scan, option.end(), label=label))

    def _said(self, scan: Scan, said: re.Match[str]) -> int:
        text, value = scan.text, said.end()
        if text[value] in "\"'`":
            return self._values.mask(scan, value)
        word = re.compile(r"[^\s\"'`<>]{1,128}").match(text, value)
        found = word.group().rstrip(".,;:!?)") if word else ""
        if len(found) < 6 or not any(c.isdigit() for c in found) or not any(c.isalpha() for c in found):
            return said.end(1)
        return self._values.mask(scan, value)

    def _pair(self, scan: Scan, start: int, position: int) -> int:
        """``"name": "x-api-key", "value": "..."``, ``["cookie", "..."]``, ``"--token", "..."`` and their like."""
        low, text = scan.low, scan.text
        pair = _PAIR.match(low, position)
        if pair and pair.group(2) in self._pair_values and self._grade(scan, start, pair.end(1)):
            return max(pair.end(1), self._values.mask(scan, pair.end(), document=True))
        listed = _LIST.match(low, position)
        if listed:
            name = low[start : listed.end(1)]
            alone = text[max(0, start - 4) : start].rstrip("\"'`\\bru").endswith(("[", "("))
            if name in self._header_pairs or (
                (name.startswith("--") or (alone and _is_closed_pair(text, listed.end())))
                and self._grade(scan, start, listed.end(1))
            ):
                return max(listed.end(1), self._values.mask(scan, listed.end()))
        if _NAME_MEMBER.search(low, max(0, start - 40), start):
            first = _VALUE_FIRST.search(text, max(0, start - _BACK), start)
            rest = _REST.match(low, position)
            if first and rest and first.group(1).lower() in self._pair_values and self._grade(scan, start, rest.end()):
                scan.mask(first.start(3), first.end(3))
                return rest.end()
        return position

    def _element(self, scan: Scan, start: int, position: int, close: int) -> int:
        """``<password>...</password>`` and ``<entry key="password">...</entry>``."""
        text = scan.text
        before = text[start - 1]
        if before in "\"'":
            if not re.compile(r"(?:key|name)=[\"']$").search(scan.low, max(0, start - 8), start):
                return position
            element = _ATTRIBUTE.match(scan.low, position)
        else:
            opening = start - 1 if before == "<" else text.rfind("<", max(0, start - 32), start)
            if opening < 0 or not all(c.isalnum() or c in "_.-" for c in text[opening + 1 : start - (before == ":")]):
                return position
            element = _ELEMENT.match(scan.low, position)
        if not element or not self._grade(scan, start, element.end(1)) or text.endswith("/>", 0, element.end()):
            return position
        if close >= len(text) and not scan.cut:
            return position
        value, end = element.end(), max(close, element.end())
        if text[value:end].strip() == "" or (before in "\"'" and "\n" in text[value:end]):
            return position
        scan.mask(value, end)
        return end


def _is_closed_pair(text: str, position: int) -> bool:
    """Whether a single string and a closing bracket follow."""
    return bool(re.compile(r"[bru]?\\*([\"'`])[^\"'`]{0,4096}\\*\1\s{0,4}[\])]").match(text, position))


def _is_directory(text: str, start: int, end: int, value: int) -> bool:
    """Whether this is the shell's variable for the working directory."""
    return text[start:end].strip("-.") in {"PWD", "OLDPWD"} and text[value : value + 3].strip("\"'").startswith(
        ("/", "~", "C:")
    )
