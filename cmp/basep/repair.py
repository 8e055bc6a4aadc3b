"""The beginning of a JSON document, closed so that it can be parsed: what a cut left of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .data import CUT

# Every step works on the whole text at once, and each pattern matches wherever it starts, so that no start is tried
# twice: a string that does not end reaches to the end of the text.
_STRING = re.compile(r"\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"|\\?\Z)", re.DOTALL)
_VALID_STRING = re.compile(r"\"[^\"\\]*(?:\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4})[^\"\\]*)*(\"?)")
_NO_BRACKET = re.compile(r"[^][{}]+")
# What may follow the last whole member: one of which a part is missing.
_CUT_MEMBER = re.compile(
    r"\s*,?\s*(?:\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"\s*(?::\s*[\w.+-]*)?|\\?)|[\w.+-]*)\.{0,3}", re.DOTALL
)
_CLOSER = {"{": "}", "[": "]"}
# At the end of a cut text: three dots, an escape sequence of which a part is missing.
_DEEPEST = 64
_LONGEST_REST = 6 + len(CUT)


def completions(text: str) -> Iterator[tuple[str, int]]:
    """Documents that ``text`` may be the beginning of, each with how many characters at its end are left out.

    The first keeps an unfinished string, the second ends with the last whole member or item.
    """
    strings: list[str] = [text] if text[:1] == '"' else _STRING.findall(text)
    start = len(text) - len(strings[-1]) if strings and text.endswith(strings[-1]) else len(text)
    last = _VALID_STRING.match(text, start)
    if last and not last.group(1):
        if len(text) - last.end() <= _LONGEST_REST:
            yield text[: last.end()] + '"' + _closing(text[:start]), len(text) - last.end()
    else:
        end = len(text) - len(CUT) if text.endswith(CUT) else len(text)
        yield text[:end] + _closing(text), len(text) - end
    end = _end_of_members(text, strings)
    closing = _closing(text[:end])
    if closing and _CUT_MEMBER.fullmatch(text, end):
        yield text[:end] + closing, len(text) - end


def _closing(text: str) -> str:
    """The brackets that are open at the end of ``text``, closed."""
    brackets = _NO_BRACKET.sub("", _STRING.sub("", text))
    for _ in range(_DEEPEST):
        before, brackets = brackets, brackets.replace("{}", "").replace("[]", "")
        if before == brackets:
            break
    return "".join(_CLOSER.get(bracket, "") for bracket in reversed(brackets))


def _end_of_members(text: str, strings: list[str]) -> int:
    """Where the last comma is that is in no string, or behind the last opening bracket."""
    end = len(text)
    for string in reversed(strings):
        start = text.rfind(string, 0, end)
        gap = text[start + len(string) : end]
        found = max(gap.rfind(","), gap.rfind("{") + 1, gap.rfind("[") + 1)
        if found > 0 or gap[:1] == ",":
            return start + len(string) + found
        end = max(start, 0)
    return max(text.rfind(",", 0, end), text.rfind("{", 0, end) + 1, text.rfind("[", 0, end) + 1, 0)
