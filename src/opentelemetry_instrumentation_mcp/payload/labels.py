"""Secrets that follow a label: assignments, headers, options, quoted names, elements, statements."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .data import MASK, load
from .keys import SENSITIVE, SOFT, Names, is_tally, singular, words_of
from .neighbours import Neighbours
from .scan import Scan
from .stems import places_of
from .values import Values

_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_MAX_NAME = 64
# The rest of a name, what closes it, and what separates it from its value.
_AFTER = re.compile(
    r"([\w.\[-]{0,64})((?:\\{0,9}[\"'`\]?!*]|&quot;|&#34;|&#39;|&#x27;|&apos;|%22|%27|__){0,6})"
    r"[ \t]{0,32}(?:(?:%20|&nbsp;|\\t)[ \t]{0,8})?"
    r"(=>|:=|<-|->|[=!]?={1,3}|:|%3d|%3a|&#61;|&#58;|&equals;|&colon;|\uff1d|\uff1a)"
    r"[ \t]{0,32}(?:(?:%20|&nbsp;|\\t)[ \t]{0,8})?(?:(?:\*\*|__)[ \t]{1,8})?"
)
_MORE_WORDS = re.compile(r"([\w.-]{0,64} ([\w.-]{1,32}))(?=[\"'`\]?!*]{0,4}[ \t]{0,8}[=:\uff1d\uff1a])")
_IS = re.compile(r"([\w.-]{0,64})[\"'`]?[ \t]{1,4}(?:is|was|are|to)[ \t:]{1,4}(?=[^\s])")
_SPACED = re.compile(r"([\w.-]{0,64})[ \t]{1,8}(?=[^\s=:])")
_OPTION = re.compile(r"([\w.-]{0,64})([ \t]*\\\r?\n[ \t]*|[ \t]+)(?=[^\s=:-]|-[^-a-z\s])")
_SETTLED = re.compile(r"\*{3}(?:\n|$|\\{0,9}[\"'](?:[,}\]]|$))")
# The common case: name=word, name: word, "name": "word", followed by something that ends the word.
_SIMPLE = re.compile(
    r"([\w-]{0,32})(\\?[\"']?) ?[=:] ?(\\?[\"']?)([\w+~!%@#-][\w+/~!%@#.=-]{2,255})(\\?[\"']|[\s,;&)\]}<]|$)"
)
_NOT_AFTER_WORD = frozenset(('"', "'", '\\"', "\\'", ",", ";", ")", "]", "}", "<"))
# The same, cleaned before: at the end of a line, and in front of a blank or of the next parameter.
_SETTLED_LABEL = re.compile(r"[\w-]{0,32}(?:=|: ?)(?=\*{3}(?:\n|\Z))")
_MASKED = re.compile(r"([\w-]{0,32})=(\*{3})(?=[^\S\n]|&[A-Za-z_][\w.-]{0,64}=)")
_DIGIT = re.compile(r"\d")
_ASSIGNS = re.compile(r"(?:^|[\s;&])(?:env|setenv|setx|arg|set -g?x|configure set) $")
_DEFINES = re.compile(r"#[ \t]{0,4}define $")
# The type between the colon of a declaration and its value.
_TYPE = re.compile(r"(?:&'static )?[\w.&<>\[\]|?, ]{1,64}=[ \t]{0,8}(?=[rbfu@$]{0,2}[\"'`])")
_LONGEST_TYPE = 80
_REST = re.compile(r"[\w.-]{0,64}")
_SAID = re.compile(r"[^\s\"'`<>]{1,128}")
_DESCRIPTION = re.compile(r"[\w.,;:()-]+")
_TIGHT = frozenset(("=", ":=", "%3d", "=>"))
_ESCAPED_AND = "u0026"
# The value is no word and no number of an error.
_PARAMETER = re.compile(r"=(?=[^\s&\"']{0,64}\d)[^\s&\"']{8}")
_BEFORE_PARAMETER = ("?", "&", "\\" + _ESCAPED_AND)
_WHOLE_STEMS = frozenset(("signature=", "sig="))
_CACHED_LABELS = 1_024
_LETTER_ESCAPES = frozenset("nrt")
_DIRECTORIES = frozenset(("pwd", "oldpwd"))


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
        self._neighbours = Neighbours(names, self._values)
        self._kinds: dict[str, _Kind] = {}
        self._statements: list[str] = policy["text"]["statements"]
        self._multiword = frozenset(policy["names"]["multiword"])
        self._whole_line = frozenset(policy["names"]["whole_line"])
        self._second_words = frozenset(policy["text"]["second_words"])
        self._quotable = frozenset(policy["text"]["quotable_after"])
        self._parameters = frozenset(policy["url"]["parameters"])

    def find(self, scan: Scan) -> None:
        """Note every labelled secret in ``scan``, where its stems are."""
        low, done = scan.low, 0
        self._neighbours.begin()
        was_masked = MASK in low
        for position, stem in places_of(scan.stems or (), low):
            if position < done:
                continue
            scan.steps += _MAX_NAME
            before = low[position - 1 : position]
            start = self._start_of_name(scan, position) if before in _NAME or before.isalnum() else position
            end = 0 if stem in self._statements else self._at_a_glance(scan, start, position, was_masked)
            if not end:
                end = max(done, self._closely(scan, start, position, stem))
                scan.unsure.append((position, end))
            done = end

    def _at_a_glance(self, scan: Scan, start: int, position: int, was_masked: bool) -> int:
        """The end of an assignment that means the same wherever it stands; 0 if this is none."""
        settled = _SETTLED_LABEL.match(scan.low, position) if was_masked else None
        if settled:
            return settled.end()
        simple = _SIMPLE.match(scan.low, position)
        if simple and self._is_simple(scan, start, simple):
            return scan.mask_for_certain(simple.span(4))
        masked = _MASKED.match(scan.low, position) if was_masked else None
        if masked and self._is_plain_word(scan.text[start : masked.end(1)]):
            return scan.mask_for_certain(masked.span(2))
        return 0

    def _closely(self, scan: Scan, start: int, position: int, stem: str) -> int:
        """The end of what the stem at ``position`` belongs to, its value masked if it is secret."""
        if stem in self._statements:
            after = _SPACED.match(scan.low, position + len(stem))
            return self._values.mask(scan, after.end()) if after else position
        end = self._labelled(scan, start, position, stem)
        if end <= position:
            end = self._unseparated(scan, start, position)
        if end <= position and start and scan.text[start - 1] in "<:\"'":
            end = self._neighbours.element(scan, start, position)
        if end <= position:
            rest = _REST.match(scan.low, position)
            end = rest.end() if rest else end
        return end

    def _is_simple(self, scan: Scan, start: int, simple: re.Match[str]) -> bool:
        """Whether this is the common case, one plain word as the value, which needs no closer look."""
        quote, value, after = simple.group(3, 4, 5)
        if quote != after if quote else after in _NOT_AFTER_WORD:
            return False
        kind = self._kind(scan.text[start : simple.end(1)])
        if kind.grade < SENSITIVE or kind.line or value.isdigit() or not _DIGIT.search(value):
            return False
        return not kind.several or bool(quote) or after in ("", "\n", "&")

    def _is_plain_word(self, name: str) -> bool:
        """Whether a value of this name is one word."""
        kind = self._kind(name)
        return kind.grade == SENSITIVE and not kind.line and not kind.several

    @staticmethod
    def _start_of_name(scan: Scan, position: int) -> int:
        low, start = scan.low, position
        earliest = max(0, position - _MAX_NAME)
        while start > earliest and (low[start - 1] in _NAME or low[start - 1].isalnum()):
            start -= 1
        if start and scan.text[start - 1] == "\\" and low[start] in _LETTER_ESCAPES and start < position:
            start += 1
        if start and scan.text[start - 1] == "\\" and low.startswith(_ESCAPED_AND, start):
            start += len(_ESCAPED_AND)
        return start

    def _grade(self, scan: Scan, start: int, end: int) -> int:
        return self._names.grade(scan.text[start:end].strip("-."))

    def _labelled(self, scan: Scan, start: int, position: int, stem: str) -> int:
        """``name=value`` in all its forms; the end of the value, or ``position``."""
        after = _AFTER.match(scan.low, position)
        name_end = after.end(1) if after else position
        if not after:
            more = _MORE_WORDS.match(scan.low, position)
            if more and more.group(2) in self._second_words and self._grade(scan, start, more.end(1)) == SENSITIVE:
                after, name_end = _AFTER.match(scan.low, more.end(1)), more.end(1)
        if not after:
            return position
        if scan.text.startswith(MASK, after.end()) and _SETTLED.match(scan.text, after.end()):
            return after.end()
        if after.group(3) == ":" and _is_no_separator(scan.low, start, after):
            return position
        kind = self._kind(scan.text[start:name_end])
        if kind.grade < SENSITIVE and not self._names_secret(scan, start, name_end, after, stem, kind.grade):
            return position
        return self._mask(scan, start, name_end, after, kind)

    def _names_secret(self, scan: Scan, start: int, end: int, after: re.Match[str], stem: str, grade: int) -> bool:
        """Whether a name that is not sensitive alone promises a secret here."""
        grade = max(grade, self._grade_of_several(scan, start, end))
        if grade == SENSITIVE:
            return True
        closing = after.group(2)
        if after.group(3) == "=" and self._is_parameter(scan, start, end):
            return True
        tight = after.group(3) in _TIGHT or any(mark in closing for mark in ('"', "'", "quot", "%22"))
        return tight and (grade == SOFT or (stem in _WHOLE_STEMS and scan.low.startswith(stem, start)))

    def _mask(self, scan: Scan, start: int, name_end: int, after: re.Match[str], kind: _Kind) -> int:
        label = scan.low[start:name_end].strip("-._")
        closing = after.group(2)
        value = after.end()
        if label in _DIRECTORIES and _is_directory(scan.text, start, name_end, value):
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
        may_be_typed = after.group(3) == ":" and not closing and scan.low.find("=", value, value + _LONGEST_TYPE) >= 0
        typed = _TYPE.match(scan.low, value) if may_be_typed else None
        if typed:
            end = max(end, self._values.mask(scan, typed.end(), label=label))
        return max(end, name_end)

    def _is_parameter(self, scan: Scan, start: int, end: int) -> bool:
        """Whether this is a parameter of a URL without a scheme that would be masked in one with it."""
        if scan.low[start:end] not in self._parameters or self._names.keeps(scan.text[start:end]):
            return False
        return scan.low.endswith(_BEFORE_PARAMETER, 0, start) and bool(_PARAMETER.match(scan.low, end))

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

    def _unseparated(self, scan: Scan, start: int, position: int) -> int:
        """Values that follow without a separator: of options, of statements, in lists, after ``is``."""
        end = self._after_blank(scan, start, position)
        if end <= position:
            end = self._neighbours.member(scan, start, position)
        if end > position:
            return end
        before = scan.text[start - 1] if start else ""
        if before in ('"', "'", "`", ";") or scan.low.startswith("%22", max(0, start - 3)):
            return self._neighbours.quoted(scan, start, position)
        said = _IS.match(scan.low, position)
        if said and self._is_label(scan, start, said.end(1)):
            return self._said(scan, said)
        spaced = _SPACED.match(scan.low, position)
        label = scan.low[start : spaced.end(1)].strip("-._") if spaced else ""
        if spaced and label in self._quotable and (scan.text[spaced.end()] in "'\"" or scan.is_netrc()):
            return self._values.mask(scan, spaced.end(), label=label)
        return position

    def _after_blank(self, scan: Scan, start: int, position: int) -> int:
        """``--token x`` and ``setenv TOKEN x``."""
        low = scan.low
        if low[start] == "-":
            option = _OPTION.match(low, position)
            if option and self._grade(scan, start, option.end(1)):
                return self._option(scan, start, option)
        if start > 3 and low[start - 1] == " ":
            window = max(0, start - 16)
            assigns = _ASSIGNS.search(low, window, start)
            spaced = _SPACED.match(low, position) if assigns or _DEFINES.search(low, window, start) else None
            if spaced and (assigns or scan.text[spaced.end()] == '"') and self._grade(scan, start, spaced.end(1)):
                return self._values.mask(scan, spaced.end())
        return position

    def _is_label(self, scan: Scan, start: int, end: int) -> bool:
        return self._grade(scan, start, end) == SENSITIVE or self._grade_of_several(scan, start, end) == SENSITIVE

    def _option(self, scan: Scan, start: int, option: re.Match[str]) -> int:
        text = scan.text
        if len(option.group(2)) > 1 and "\n" not in option.group(2):
            # Two blanks and a word: the column of descriptions of a help text.
            word = _DESCRIPTION.match(text, option.end())
            if word and word.group().rstrip(".,;:()").replace("-", "").isalpha():
                return option.end(1)
        label = scan.low[start : option.end(1)].strip("-")
        return max(option.end(1), self._values.mask(scan, option.end(), label=label))

    def _said(self, scan: Scan, said: re.Match[str]) -> int:
        text, value = scan.text, said.end()
        if text[value] in "\"'`":
            return self._values.mask(scan, value)
        word = _SAID.match(text, value)
        found = word.group().rstrip(".,;:!?)") if word else ""
        if len(found) < 6 or not any(c.isdigit() for c in found) or not any(c.isalpha() for c in found):
            return said.end(1)
        return self._values.mask(scan, value)


def _is_no_separator(low: str, start: int, after: re.Match[str]) -> bool:
    """Whether the colon belongs to a path of a program, to a URL, or to what a parser complains about."""
    behind = low[after.start(3) + 1 : after.start(3) + 3]
    return behind[:1] == ":" or behind == "//" or (after.end(1) - start == 5 and low.endswith("unexpected ", 0, start))


def _is_directory(text: str, start: int, end: int, value: int) -> bool:
    """Whether this is the shell's variable for the working directory."""
    return text[start:end].strip("-.") in {"PWD", "OLDPWD"} and text[value : value + 3].strip("\"'").startswith(
        ("/", "~", "C:")
    )
