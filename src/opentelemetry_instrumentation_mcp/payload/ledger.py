"""What happened to a document."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """What happened to a document.

    Attributes:
        masked: values that were replaced.
        cut: something was left out.
        texts: the texts in it that are whole.
        has_cut_text: a text in it is the beginning of a longer one.
        around_cut: identities of the containers that such a text may be in.
    """

    masked: int = 0
    cut: bool = False
    texts: list[str] = field(default_factory=list[str])
    has_cut_text: bool = False
    around_cut: set[int] = field(default_factory=set[int])
