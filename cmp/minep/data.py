"""The policy as data: ``policy.json``, read once, on first use."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pkgutil import get_data
from typing import Any


@lru_cache(maxsize=1)
def load() -> dict[str, Any]:
    """The parsed ``policy.json``; not to be changed by callers."""
    return json.loads(get_data(__package__ or "", "policy.json") or b"")


class_of: Callable[[Any], Any] = type
MASK = "***"
CUT = "..."
SURROGATES = re.compile("[\ud800-\udfff]")
# Characters that are not seen: combining marks, soft hyphen, zero-width and direction marks.
INVISIBLE = re.compile("[\u0300-\u036f\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")
_MAX_FOLDED = 8_192


class _Fold(dict[int, str]):
    """``str.translate`` table to plain lower-case letters, one character for one, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        folded = load()["confusables"].get(character) or self._plain(character)
        if len(self) < _MAX_FOLDED:
            self[code] = folded
        return folded

    @staticmethod
    def _plain(character: str) -> str:
        decomposed = unicodedata.normalize("NFKD", character)
        base = "".join(part for part in decomposed if not unicodedata.combining(part)).lower()
        return load()["confusables"].get(base, base) if len(base) == 1 else character


_fold = _Fold()


def fold(text: str) -> str:
    """``text`` in lower case and without accents, styles and look-alikes, of the same length."""
    return text.lower() if text.isascii() else text.translate(_fold)


def well_formed(text: str) -> str:
    """``text`` with lone surrogates replaced by U+FFFD, so that it can be encoded."""
    return text if text.isascii() else SURROGATES.sub("\ufffd", text)


def compact(name: str) -> str:
    """Letters and digits of ``name``, folded: what makes two spellings of a name the same."""
    return "".join(character for character in fold(INVISIBLE.sub("", name)) if character.isalnum())
