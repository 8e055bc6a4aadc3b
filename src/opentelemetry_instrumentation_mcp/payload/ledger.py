"""What happened to a document."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Ledger:
    """What happened to a document.

    Attributes:
        masked: values that were replaced.
        cut: something was left out.
    """

    masked: int = 0
    cut: bool = False
