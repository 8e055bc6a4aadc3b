"""What happened to a document."""

from __future__ import annotations


class Ledger:
    """What happened to a document.

    Attributes:
        masked: values that were replaced.
        cut: something was left out.
        texts: the texts in it that are whole.
        has_cut_text: a text in it is the beginning of a longer one.
        around_cut: identities of the containers that such a text may be in.
    """

    __slots__ = ("around_cut", "cut", "has_cut_text", "masked", "texts")

    def __init__(self) -> None:
        self.masked = 0
        self.cut = False
        self.texts: list[str] = []
        self.has_cut_text = False
        self.around_cut: set[int] = set()
