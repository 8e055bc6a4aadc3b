"""Names, addresses, card numbers and the like, found by Presidio (extra ``pii``)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

Spans = list[tuple[int, int]]


def detector(language: str = "en") -> Callable[[str], Spans]:
    """A detector of personal data for :class:`~.policy.PolicySettings`.

    Presidio loads its language model here, which takes seconds.

    Raises:
        ImportError: ``presidio-analyzer`` is not installed.
    """
    presidio: Any = importlib.import_module("presidio_analyzer")
    engine = presidio.AnalyzerEngine()

    def find(text: str) -> Spans:
        return [(found.start, found.end) for found in engine.analyze(text=text, language=language)]

    return find
