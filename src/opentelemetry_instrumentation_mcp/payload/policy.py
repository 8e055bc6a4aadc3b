"""The front door of the payload policy: settings, and the operations that clean what leaves the process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from .data import CUT, MASK, load, well_formed
from .document import Documents
from .keys import Names, words_of
from .text import Text

_CONTROLS = re.compile(r"\x1b\[[0-9;]{0,32}m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_URL_WORDS = frozenset(
    {
        "url",
        "urls",
        "uri",
        "uris",
        "href",
        "endpoint",
        "link",
        "redirect",
        "callback",
        "webhook",
        "target",
        "dsn",
        "query",
    }
)
_REFUSED, _REFUSED_END = "input_value=", ", input_type="
_FAILED = '{"_error":"not serializable"}'
_SMALLEST = 16
_ROUNDS = 4


@dataclass(frozen=True)
class PolicySettings:
    """What a user may change of the policy.

    Attributes:
        max_payload: longest JSON text, in characters (code points); at least 256.
        max_error: longest text, in characters.
        redact_keys: names that are sensitive too, alone or as words of a longer name.
        keep_keys: whole names that are not sensitive although the policy says so; ``redact_keys`` win.
        redact_patterns: regular expressions whose matches are masked; a bad one is reported once and ignored.
        detector: finds spans ``(start, end)`` to mask in a text, for personal data; if it raises, all of it is masked.
    """

    max_payload: int = 32_768
    max_error: int = 1_024
    redact_keys: frozenset[str] = frozenset()
    keep_keys: frozenset[str] = frozenset()
    redact_patterns: tuple[str, ...] = ()
    detector: Callable[[str], Iterable[tuple[int, int]]] | None = None


class Policy:
    """Cleans documents, texts, URLs and attributes. Every operation is total: it never raises.

    What an operation returns, it leaves as it is when it is applied again.
    """

    def __init__(self, settings: PolicySettings = PolicySettings()) -> None:
        limits = load()["limits"]
        self._names = Names(settings.redact_keys, settings.keep_keys)
        self._text = Text(self._names, settings.redact_patterns, settings.detector)
        self._documents = Documents(self._names, self._text)
        self._max_payload = max(settings.max_payload, limits["payload_minimum"])
        self._max_error = max(settings.max_error, _SMALLEST)
        self._slack: int = limits["slack"]
        self._kept_attributes = frozenset(load()["names"]["attribute_keep"])

    def json(self, value: object, limit: int | None = None) -> str:
        """Any object as JSON: redacted, at most ``limit`` characters (default ``max_payload``), encodable.

        What is longer becomes ``{"_truncated":true,"_original_size":n,"_preview":"..."}``.
        """
        try:
            return self._documents.json(value, self._limit(limit))
        except Exception:
            return _FAILED

    def structured(self, value: object, limit: int | None = None) -> Any:
        """The tree that ``json`` writes, as Python values."""
        try:
            return self._documents.structured(value, self._limit(limit))
        except Exception:
            return {"_error": "not serializable"}

    def _limit(self, limit: int | None) -> int:
        return self._max_payload if limit is None else max(limit, load()["limits"]["payload_minimum"])

    def text(self, text: str, limit: int | None = None) -> str:
        """``text`` redacted, in at most ``limit`` characters (default ``max_error``), the end replaced by ``...``.

        Control characters but line feed and tab become spaces.
        """
        try:
            return self._bounded(text, self._max_error if limit is None else max(limit, len(CUT)))
        except Exception:
            return MASK

    def _bounded(self, text: str, limit: int, *, controls: bool = False) -> str:
        window = limit + self._slack
        cut = str.__len__(text) > window
        piece = well_formed(str.__getitem__(text, slice(0, window)))
        piece = piece if controls else _without_refused_values(_CONTROLS.sub(" ", piece))
        cleaned = self._documents.string(piece, cut=cut)
        if cut:
            cleaned = cleaned[: limit - len(CUT)] + CUT
        return self._settled(cleaned, limit)

    def _settled(self, cleaned: str, limit: int) -> str:
        """``cleaned``, cut if it is too long, in a form that is stable."""
        for _ in range(6):
            if len(cleaned) > limit:
                cleaned = cleaned[: limit - len(CUT)] + CUT
            again = self._documents.string(cleaned)
            if again == cleaned:
                return cleaned
            cleaned = again
        return MASK[:limit]

    def url(self, url: str) -> str:
        """``url`` with user info and secret parameters masked; masked as a whole if it cannot be parsed."""
        try:
            if str.__len__(url) > self._max_payload:
                return MASK
            text = well_formed(str.__getitem__(url, slice(0, self._max_payload)))
            for _ in range(_ROUNDS):
                if not self._text.urls.is_parseable(text):
                    return MASK
                cleaned = self._url(text)
                if cleaned == text:
                    return text
                text = cleaned
            return MASK
        except Exception:
            return MASK

    def _url(self, url: str) -> str:
        cleaned = self._text.clean(url)
        pieces: list[str] = []
        position = 0
        for start, end in self._text.urls.spans(cleaned):
            pieces += (cleaned[position:start], MASK)
            position = end
        return "".join([*pieces, cleaned[position:]])

    def is_sensitive(self, name: str) -> bool:
        """Whether a value called ``name`` is masked."""
        try:
            return self._names.is_sensitive(str.__getitem__(name, slice(0, 2 * load()["limits"]["name"])))
        except Exception:
            return True

    def attribute(self, key: str, value: object) -> object:
        """The value of a span attribute: masked by its key, else cleaned as URL or text; sequences item by item.

        Names of the conventions that only sound sensitive (``session.id``) are kept, unless the user says otherwise.
        """
        try:
            return self._attribute(key, value)
        except Exception:
            return MASK

    def _attribute(self, key: str, value: object) -> object:
        cls = type(value)
        if value is None or cls is bool:
            return value
        sensitive = self._is_sensitive_attribute(key, value)
        if cls is tuple or cls is list:
            items = cast("list[object]", value)[: self._max_payload]
            return cls([MASK if sensitive else self._attribute_item(key, item) for item in items])  # type: ignore[call-arg]
        if sensitive:
            return MASK
        return self._attribute_item(key, value)

    def _is_sensitive_attribute(self, key: str, value: object) -> bool:
        if key in self._kept_attributes and not self._names.is_redacted(key):
            return False
        if not self.is_sensitive(key):
            return False
        return not (issubclass(type(value), (int, float)) and words_of(key)[-1:] == ("tokens",))

    def _attribute_item(self, key: str, value: object) -> object:
        cls = type(value)
        if issubclass(cls, str):
            text = cast("str", value)
            if (
                not _URL_WORDS.isdisjoint(words_of(key))
                and len(text) <= self._max_payload
                and not re.search(r"\s", text)
            ):
                text = self._url(well_formed(text))
            return self._bounded(text, self._max_payload, controls=True)
        if issubclass(cls, (bool, int, float)) or value is None:
            return value
        return self.json(value)


def _without_refused_values(text: str) -> str:
    """``text`` of an error without the values that pydantic quotes when it refuses them: those are payload."""
    if _REFUSED not in text:
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        start = line.find(_REFUSED)
        if start >= 0:
            end = line.rfind(_REFUSED_END, start)
            lines[number] = f"{line[:start]}{_REFUSED}{MASK}{line[end:] if end >= 0 else ''}"
    return "\n".join(lines)
