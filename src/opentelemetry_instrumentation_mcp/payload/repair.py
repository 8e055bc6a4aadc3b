"""The beginning of a JSON document, closed so that it can be parsed: what a cut left of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .data import CUT

# Every step works on the whole text at once, and each pattern matches wherever it starts, so that no start is tried
# twice: a string that does not end reaches to the end of the text.
_STRING = re.compile(r"(\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"|\\?\Z))", re.DOTALL)
_VALID_STRING = re.compile(r"\"[^\"\\]*(?:\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4})[^\"\\]*)*(\"?)")
# What may follow the last whole member: one of which a part is missing.
_CUT_MEMBER = re.compile(
    r"\s*,?\s*(?:\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"\s*(?::\s*[\w.+-]*)?|\\?)|[\w.+-]*)\.{0,3}", re.DOTALL
)
_NO_BRACKETS = bytes(code for code in range(128) if chr(code) not in "[]{}")
_CLOSER = {"{": "}", "[": "]"}
# At the end of a cut text: three dots, an escape sequence of which a part is missing.
_DEEPEST = 64
_LONGEST_REST = 6 + len(CUT)


def completions(text: str) -> Iterator[tuple[str, int]]:
    """Documents that ``text`` may be the beginning of, each with how many characters at its end are left out.

    The first keeps an unfinished string, the second ends with the last whole member or item.
    """
    # What is between the strings, and the strings, in turn.
    parts: list[str] = _STRING.split(text)
    whole = ["", text, ""] if text[:1] == '"' else parts
    start = len(text) - len(whole[-2]) if len(whole) > 1 and not whole[-1] else len(text)
    last = _VALID_STRING.match(text, start)
    if last and not last.group(1):
        if len(text) - last.end() <= _LONGEST_REST:
            yield text[: last.end()] + '"' + _closing(whole[::2]), len(text) - last.end()
    else:
        end = len(text) - len(CUT) if text.endswith(CUT) else len(text)
        yield text[:end] + _closing(parts[::2]), len(text) - end
    outside = whole[::2]
    end = _end_of_members(whole, outside, len(text))
    closing = _closing(outside)
    if closing and _CUT_MEMBER.fullmatch(text, end):
        yield text[:end] + closing, len(text) - end


def _closing(outside: list[str]) -> str:
    """The brackets that are open at the end of a text, closed; ``outside`` is what of it is in no string."""
    brackets = "".join(outside).encode("ascii", "ignore").translate(None, _NO_BRACKETS).decode()
    for _ in range(_DEEPEST):
        before, brackets = brackets, brackets.replace("{}", "").replace("[]", "")
        if before == brackets:
            break
    return "".join(_CLOSER.get(bracket, "") for bracket in reversed(brackets))


def _end_of_members(parts: list[str], outside: list[str], end: int) -> int:
    """Where the last comma is that is in no string, or behind the last opening bracket; cuts ``outside`` there."""
    while outside:
        gap = outside.pop()
        end -= len(gap)
        found = max(gap.rfind(","), gap.rfind("{") + 1, gap.rfind("[") + 1)
        if found > 0 or gap[:1] == ",":
            outside.append(gap[:found])
            return end + found
        if outside:
            end -= len(parts[2 * len(outside) - 1])
    return 0
