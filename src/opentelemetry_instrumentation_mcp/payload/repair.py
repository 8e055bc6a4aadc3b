"""The beginning of a JSON document, closed so that it can be parsed: what a cut left of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .data import CUT

_TOKEN = re.compile(r"\"(?:[^\"\\]+|\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}))*(\"?)|[{}\[\],]")
# Unrolled: a repeated group of repeated characters would try every division of a string without an end.
# It always matches where it starts, so that no start is tried twice.
_STRING = re.compile(r"\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"|\\?\Z)", re.DOTALL)
_NO_BRACKET = re.compile(r"[^][{}]+")
# What may follow the last whole member: one of which a part is missing.
_CUT_MEMBER = re.compile(r"\s*,?\s*(?:\"(?:[^\"\\]|\\.)*(?:\"\s*(?::\s*[\w.+-]*)?|\\?)|[\w.+-]*)\.{0,3}", re.DOTALL)
_CLOSER = {"{": "}", "[": "]"}
# At the end of a cut text: three dots, an escape sequence of which a part is missing.
_LONGEST_REST = 6 + len(CUT)


def completions(text: str) -> Iterator[tuple[str, int]]:
    """Documents that ``text`` may be the beginning of, each with how many characters at its end are left out.

    The first keeps an unfinished string, the second ends with the last whole member or item.
    """
    quick = _string_closed(text)
    if quick:
        yield quick
    stack: list[str] = []
    last_whole = 0
    closers = ""
    for token in _TOKEN.finditer(text):
        first = token.group()[0]
        if first == '"':
            if not token.group(1):
                if len(text) - token.end() <= _LONGEST_REST:
                    yield text[: token.end()] + '"' + _closing(stack), len(text) - token.end()
                break
        elif first in _CLOSER:
            stack.append(_CLOSER[first])
            last_whole, closers = token.end(), _closing(stack)
        elif first == ",":
            last_whole, closers = token.start(), _closing(stack)
        elif not stack or stack.pop() != first:
            return
    else:
        end = len(text) - len(CUT) if text.endswith(CUT) else len(text)
        yield text[:end] + _closing(stack), len(text) - end
    if closers and _CUT_MEMBER.fullmatch(text, last_whole):
        yield text[:last_whole] + closers, len(text) - last_whole


def _string_closed(text: str) -> tuple[str, int] | None:
    """The same for a text that ends inside of a string, found without looking at every token."""
    strings = _STRING.findall(text)
    if not strings or not text.endswith(strings[-1]):
        return None
    start = len(text) - len(strings[-1])
    token = _TOKEN.match(text, start)
    if not token or token.group(1) or len(text) - token.end() > _LONGEST_REST:
        return None
    brackets, before = _NO_BRACKET.sub("", _STRING.sub("", text)), ""
    while brackets != before:
        before, brackets = brackets, brackets.replace("{}", "").replace("[]", "")
    closing = "".join(_CLOSER.get(bracket, "") for bracket in reversed(brackets))
    return text[: token.end()] + '"' + closing, len(text) - token.end()


def _closing(stack: list[str]) -> str:
    return "".join(reversed(stack))
