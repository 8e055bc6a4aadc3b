"""Which names promise a secret: decided by the words of a name, not by its spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from .data import INVISIBLE, compact, fold, load

# Grades of a name. SOFT names are secret only where nothing but a value can follow: in documents, options, parameters.
PLAIN, SOFT, SENSITIVE = 0, 1, 2

_SEGMENT = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]")
_LEET = str.maketrans("013457@$", "oleastas")
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}|&[a-z]+;|&#\d+;")
_CACHED_NAMES = 4_096
_LONG_SENTENCE = 6
_END_OF_SENTENCE = 4


@lru_cache(maxsize=1)
def _vocabulary() -> Vocabulary:
    return Vocabulary()


class Vocabulary:
    """The lists of ``policy.json`` in the form the decision needs."""

    def __init__(self) -> None:
        names = load()["names"]
        self.words = frozenset(names["words"])
        self.phrases = frozenset(names["phrases"])
        self.longest = max(len(phrase.split()) for phrase in self.phrases)
        self.glued = re.compile("|".join(names["glued"]))
        self.glued_ends = tuple(names["glued_ends"])
        self.soft = frozenset(names["soft"])
        self.owners_of_pass = frozenset(names["owners_of_pass"])
        self.plain_heads = frozenset(names["plain_heads"])
        self.plain_endings = tuple(" " + ending for ending in names["plain_endings"])
        self.counting = frozenset(names["counting"])
        self.counting_plural = frozenset(names["counting_plural"]) | self.counting
        self.plain_words = frozenset(names["plain_words"])


def singular(word: str) -> str:
    """``word`` without a plural s: ``tokens`` and ``token`` are the same, ``pass`` and ``sas`` are left alone."""
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] not in "su" else word


@lru_cache(maxsize=_CACHED_NAMES)
def words_of(name: str) -> tuple[str, ...]:
    """The words of ``name`` in lower case: split at case changes, digits and everything that is not a letter."""
    limit = load()["limits"]["name"]
    if len(name) > limit:
        name = name[: limit // 2] + " " + name[-limit // 2 :]
    if not name.isascii():
        name = INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
        folded = fold(name)
        name = "".join(low.upper() if high.isupper() else low for low, high in zip(folded, name, strict=True))
    name = _ESCAPED.sub(" ", name)
    found: list[str] = []
    for segment in _SEGMENT.findall(name):
        pieces = _CAMEL.findall(segment)
        fragments = sum(len(piece) <= 2 and piece.isalpha() for piece in pieces)
        # Alternating case (sEcReT) is no camel case.
        found += [segment] if fragments > 1 and fragments * 2 >= len(pieces) else pieces
        if any(character.isdigit() for character in segment[1:-1]) and not segment.isdigit():
            found += _leet(segment)
    return tuple(word.lower() for word in found if not word.isdigit())


def _leet(segment: str) -> list[str]:
    read = segment.lower().translate(_LEET)
    return [read] if read != segment.lower() and _vocabulary().glued.search(read) else []


def _is_count(words: tuple[str, ...], index: int) -> bool:
    """Whether the ``token`` at ``index`` is a unit: ``max_tokens``, ``tokens_used``, ``input_tokens``."""
    vocabulary = _vocabulary()
    others = words[:index] + words[index + 1 :]
    units = vocabulary.counting_plural if words[index].endswith("s") else vocabulary.counting
    return any(other in units for other in others)


def _is_glued(word: str) -> bool:
    vocabulary = _vocabulary()
    if vocabulary.glued.search(word):
        return True
    if not word.endswith(vocabulary.glued_ends):
        return False
    owner = word.removesuffix("s").removesuffix("token")
    return not (owner in vocabulary.counting_plural and word != owner)


def grade_of(words: tuple[str, ...]) -> int:
    """The grade of a name of these words."""
    vocabulary = _vocabulary()
    if len(words) > _LONG_SENTENCE:
        words = words[-_END_OF_SENTENCE:]
    if not words or (words[-1] in vocabulary.plain_heads and len(words) > 1):
        return PLAIN
    singles = [singular(word) for word in words]
    if (" " + " ".join(singles)).endswith(vocabulary.plain_endings):
        return PLAIN
    if any(_is_secret_word(words, index, single) for index, single in enumerate(singles)) or _has_phrase(singles):
        return SENSITIVE
    return _soft_grade(words)


def _is_secret_word(words: tuple[str, ...], index: int, single: str) -> bool:
    vocabulary, word = _vocabulary(), words[index]
    if word in vocabulary.plain_words:
        return False
    if single == "token":
        return not _is_count(words, index)
    return single in vocabulary.words or word in vocabulary.words or _is_glued(word)


def _has_phrase(singles: list[str]) -> bool:
    vocabulary = _vocabulary()
    return any(
        " ".join(singles[start : start + length]) in vocabulary.phrases
        for length in range(1, vocabulary.longest + 1)
        for start in range(len(singles) - length + 1)
    )


def _soft_grade(words: Sequence[str]) -> int:
    vocabulary = _vocabulary()
    if words[-1] == "pass" and len(words) > 1:
        return SENSITIVE if words[-2] in vocabulary.owners_of_pass else PLAIN
    return SOFT if words[-1] in vocabulary.soft else PLAIN


class Names:
    """The decision about names with the user's own: ``redact`` are sensitive too, ``keep`` are not.

    Args:
        redact: names that are sensitive, alone or as words of a longer name; they win over ``keep``.
        keep: whole names that are not sensitive, in any spelling.
    """

    def __init__(self, redact: frozenset[str] = frozenset(), keep: frozenset[str] = frozenset()) -> None:
        self._redact = [tuple(words) for name in sorted(redact) if (words := [singular(w) for w in words_of(name)])]
        self._redact_compact = frozenset(compact(name) for name in redact)
        self._keep = frozenset(compact(name) for name in keep)
        self._grades: dict[str, int] = {}
        self.stems = frozenset(words[-1] for words in self._redact)

    def grade(self, name: str) -> int:
        """PLAIN, SOFT or SENSITIVE."""
        known = self._grades.get(name)
        if known is not None:
            return known
        grade = self._decide(name)
        if len(name) <= load()["limits"]["name"]:
            if len(self._grades) >= _CACHED_NAMES:
                self._grades.clear()
            self._grades[name] = grade
        return grade

    def _decide(self, name: str) -> int:
        words = words_of(name)
        if self._redact_compact or self._keep:
            key = compact(name[: load()["limits"]["name"]])
            if self._is_redacted(words, key):
                return SENSITIVE
            if key in self._keep:
                return PLAIN
        return grade_of(words)

    def _is_redacted(self, words: tuple[str, ...], key: str) -> bool:
        if key in self._redact_compact:
            return True
        singles = [singular(word) for word in words]
        return any(
            tuple(singles[start : start + len(phrase)]) == phrase
            for phrase in self._redact
            for start in range(len(singles) - len(phrase) + 1)
        )

    def is_redacted(self, name: str) -> bool:
        """Whether the user said that ``name`` is sensitive."""
        return self._is_redacted(words_of(name), compact(name))

    def keeps(self, name: str) -> bool:
        """Whether the user said that ``name`` is not sensitive."""
        return bool(self._keep) and compact(name) in self._keep

    def is_sensitive(self, name: str) -> bool:
        """Whether a value of this name is to be masked."""
        return self.grade(name) > PLAIN


def is_tally(name: str) -> bool:
    """Whether ``name`` is a plural, under which a number counts things: ``tokens: 12``, ``cookies: 3``."""
    words = words_of(name)
    return bool(words) and words[-1] in {"tokens", "cookies", "secrets", "credentials", "passwords", "keys"}


def is_code(name: str, number: int) -> bool:
    """Whether a number under a soft name is long enough for a code somebody types in: ``pin: 4829``."""
    codes = load()["names"]["soft_numbers"]
    return number >= codes["from"] and words_of(name)[-1] in codes["words"]
