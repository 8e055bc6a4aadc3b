"""Documents: any object, or a JSON text, as a cleaned and bounded tree of plain values and as JSON."""

from __future__ import annotations

import json
from typing import Any, cast

from .data import MASK, class_of, load
from .keys import Names
from .ledger import Ledger
from .pairs import Pairs
from .repair import completions
from .scan import Scan
from .text import Text
from .tree import CutStr, Members, Tree

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_ESCAPED_CONTROLS = bytes(code for code in range(32) if code != 10)  # all but the line feed
_LAST = {"{": "}", "[": "]", '"': '"'}
_LONGEST_ESCAPE = 6
_ROUNDS = 4
_LONG = 2_048
_decode = json.JSONDecoder(object_pairs_hook=Members, strict=False).decode


class Documents:
    """Cleans documents with the rules of ``names`` and ``text``."""

    def __init__(self, names: Names, text: Text) -> None:
        limits = load()["limits"]
        self._names = names
        self._text = text
        self._keys: dict[str, tuple[str, int, bool]] = {}
        self._slack: int = limits["slack"]
        self._nested: int = limits["nested_documents"]
        self._name: int = limits["name"]

    def structured(self, value: object, limit: int) -> Any:
        """``value`` as plain values whose JSON is at most ``limit`` characters long.

        What is longer becomes ``{"_truncated": true, "_original_size": n, "_preview": "..."}``, where n is the length
        of the whole cleaned JSON, or null if it was too long to be looked at.
        """
        return self._bounded(value, limit)[0]

    def json(self, value: object, limit: int) -> str:
        """The JSON text of ``structured``."""
        return self._bounded(value, limit)[1]

    def _bounded(self, value: object, limit: int) -> tuple[Any, str]:
        tree, ledger = self._tree(value, limit + self._slack, 0)
        text = _encoded(tree)
        if not ledger.cut and len(text) <= limit:
            return tree, text
        return self._wrapped(text, None if ledger.cut else len(text), limit)

    def _wrapped(self, text: str, size: int | None, limit: int) -> tuple[Any, str]:
        wrapper: dict[str, Any] = {"_truncated": True, "_original_size": size, "_preview": ""}
        frame = _encode(wrapper)
        room = limit - len(frame)
        preview, escaped = _fitting(text, room)
        for _ in range(_ROUNDS):
            settled = preview if self._is_settled(preview) else self.string(preview)
            if settled == preview:
                break
            preview, escaped = _fitting(settled, room)
        else:
            preview = escaped = MASK
        wrapper["_preview"] = preview
        return wrapper, f'{frame[:-2]}{escaped}"}}'

    def _is_settled(self, preview: str) -> bool:
        """Whether the beginning of a cleaned document is clean: a cut changes only what it goes through."""
        if preview[:1] == '"':  # a text: the commonest completion first, for the others look at every character
            try:
                return self._is_clean_at_end(_decode(preview + '"'))
            except ValueError:
                pass
        for completed, missing in completions(preview):
            try:
                node = _decode(completed)
            except (ValueError, RecursionError):
                continue
            rest = preview[len(preview) - missing :]
            return self._text.clean(rest) == rest and self._is_clean_at_end(node)
        return False

    def _is_clean_at_end(self, node: Any) -> bool:
        ledger = Ledger()
        pairs = Pairs(self._names, ledger)
        while node and class_of(node) is not str:
            if class_of(node) is Members:
                pairs.in_object(dict(node))
                if self._is_half_masked(*node[-1]):
                    return False
                node = node[-1][1]
            elif class_of(node) is list:
                pairs.in_list(list(node))
                node = node[-1]
            else:
                break
        if ledger.masked:
            return False
        if class_of(node) is not str:
            return True
        tail = node[-2 * self._slack :]
        return self.string(node) == node if self._text.may_be_document(node) else self._text.clean(tail) == tail

    def _is_half_masked(self, name: str, value: Any) -> bool:
        return class_of(value) is str and bool(value) and value != MASK and self._names.is_sensitive(name)

    def _tree(self, value: object, room: int, nesting: int) -> tuple[Any, Ledger]:
        ledger = Ledger()
        tree = Tree(self._names, self._key, self._keys, room, ledger, every_key=self._text.has_own_rules).build(value)
        cleaned: dict[str, str] = {}
        for text, found in self._text.suspects(ledger.texts).items():
            stable = self._stable(text, nesting, found)
            if stable != text:
                cleaned[text] = stable
        if cleaned or ledger.has_cut_text:
            tree = self._cleaned(tree, cleaned, nesting, ledger, Pairs(self._names, ledger))
        return tree, ledger

    def _key(self, name: str) -> str:
        cleaned = self._text.clean(name)
        return cleaned if len(cleaned) <= self._name else self._text.settled(cleaned, self._name)

    def _cleaned(self, tree: Any, cleaned: dict[str, str], nesting: int, ledger: Ledger, pairs: Pairs) -> Any:
        """``tree``, changed in place: the texts in ``cleaned`` replaced, and those that are cut cleaned."""
        cls = class_of(tree)
        if cls is str:
            ledger.masked += tree in cleaned
            return cleaned.get(tree, tree)
        if cls is CutStr:
            return self.string(tree, nesting, cut=True)
        if cls is not dict and cls is not list:
            return tree
        masked = ledger.masked
        around_cut = id(tree) in ledger.around_cut
        for key, item in tree.items() if cls is dict else enumerate(tree):
            cls_of_item = class_of(item)
            if cls_of_item is str:
                if item in cleaned:
                    tree[key] = cleaned[item]
                    ledger.masked += 1
            elif cls_of_item is CutStr or (
                (cls_of_item is dict or cls_of_item is list) and (cleaned or id(item) in ledger.around_cut)
            ):
                tree[key] = self._cleaned(item, cleaned, nesting, ledger, pairs)
        if masked == ledger.masked and not around_cut:
            return tree
        # Names are looked at again: a cleaned one may be another name.
        return pairs.in_object(tree) if cls is dict else pairs.in_list(tree)

    def _stable(self, text: str, nesting: int, found: Scan | None) -> str:
        for _ in range(_ROUNDS):
            cleaned, is_json = self._string(text, nesting, found)
            if cleaned == text or len(text) > _LONG or not self._text.may_be_document(cleaned):
                return cleaned
            if _is_json(text) if is_json is None else is_json:
                return cleaned
            text, found = cleaned, None
        return MASK

    def string(self, text: str, nesting: int = 0, *, cut: bool = False) -> str:
        """A string of a document: a JSON text is cleaned as what it stands for, anything else as text."""
        if cut and self._text.may_be_document(text):
            text = text[: self._text.last_boundary(text)]
            cleaned, _ = self._parsed(text, nesting)
            return self._text.clean(text, cut=True) if cleaned is None else cleaned
        return self._text.clean(text, cut=True) if cut else self._string(text, nesting)[0]

    def _string(self, text: str, nesting: int, found: Scan | None = None) -> tuple[str, bool | None]:
        """``text`` cleaned, and whether it is JSON, if that is known."""
        is_json = None
        if found is None and self._text.may_be_document(text):
            cleaned, is_json = self._parsed(text, nesting)
            if cleaned is not None:
                return cleaned, is_json
        return self._text.clean(text, found=found), is_json

    def _parsed(self, text: str, nesting: int) -> tuple[str | None, bool]:
        """The JSON text ``text``, or the beginning of one, cleaned, or None; and whether it is all of it."""
        is_json = False
        if _may_be_whole(text):
            try:
                value = _decode(text)
                is_json = True
                return self._document(value, text, 0, nesting), True
            except (ValueError, RecursionError):
                pass
        for completed, missing in completions(text):
            try:
                value = _decode(completed)
            except (ValueError, RecursionError):
                continue
            return self._document(value, text, missing, nesting), is_json
        return None, is_json

    def _document(self, value: Any, text: str, missing: int, nesting: int) -> str | None:
        cls = class_of(value)
        if cls is not list and cls is not Members and cls is not str:
            return None
        if nesting >= self._nested:
            return MASK
        tree, ledger = self._tree(value, 2 * len(text) + self._slack, nesting + 1)
        if ledger.cut:
            return MASK
        rest = text[len(text) - missing :]
        return _encoded(tree) if ledger.masked or self._text.clean(rest) != rest else text


def _encoded(tree: Any) -> str:
    """The JSON of ``tree``; of a text in which only line feeds are escaped, without a look at every character."""
    if class_of(tree) is str and tree.isascii() and '"' not in tree and "\\" not in tree:
        data = tree.encode()
        if len(data) == len(data.translate(None, _ESCAPED_CONTROLS)):
            return '"' + tree.replace("\n", "\\n") + '"'
    return _encode(tree)


def _may_be_whole(text: str) -> bool:
    """Whether ``text`` ends like the JSON text it begins as: cheaper to see than to parse it up to its end."""
    return text.strip()[-1:] == _LAST.get(text.strip()[:1])


def _is_json(text: str) -> bool:
    try:
        _decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _fitting(text: str, room: int) -> tuple[str, str]:
    """The longest beginning of ``text`` that takes at most ``room`` characters inside of a JSON string, and that."""
    escaped = _encode(text[:room])[1:-1]
    if len(escaped) <= room:
        return text[:room], escaped
    for missing in range(_LONGEST_ESCAPE + 1):
        fitting = escaped[: room - missing]
        try:
            return cast("str", json.loads(f'"{fitting}"')), fitting
        except ValueError:  # cut inside of an escape sequence
            continue
    return "", ""
