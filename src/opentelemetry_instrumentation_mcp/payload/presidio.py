"""Names, addresses, card numbers and the like, found by Presidio (extra ``pii``)."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

Spans = list[tuple[int, int]]

_level: int | None = None


class UnusableError(Exception):
    """The detector cannot be used, for a reason that the user can remove. Its text is ours and may be logged."""


def detector(engine: Any = None, language: str = "en") -> Callable[[str], Spans]:
    """A detector of personal data for :class:`~.policy.PolicySettings`.

    Args:
        engine: a ``presidio_analyzer.AnalyzerEngine``; without one, Presidio's default, whose language model is loaded
            here. That takes seconds.
        language: that of the texts, one of those the engine knows.

    Raises:
        UnusableError: Presidio or its language model is not installed.
    """
    engine = engine or _default_engine()
    _quieten(logging.WARNING)  # it logs a line for every text

    def find(text: str) -> Spans:
        return [(found.start, found.end) for found in engine.analyze(text=text, language=language)]

    return find


def _default_engine() -> Any:
    _quieten(logging.ERROR)  # it warns of each recognizer for other languages
    try:
        presidio: Any = importlib.import_module("presidio_analyzer")
    except ModuleNotFoundError as error:
        raise UnusableError("install the extra `pii`") from error
    provider = presidio.nlp_engine.NlpEngineProvider()
    for model in provider.nlp_configuration["models"]:
        _require(model["model_name"])
    engine = presidio.AnalyzerEngine(nlp_engine=provider.create_engine())
    for recognizer in engine.registry.recognizers:
        _keep_at_home(recognizer)
    engine.analyze(text="mail@example.com", language="en")  # the first text takes longest
    return engine


def _require(model: str) -> None:
    # Presidio installs a missing model by itself: it runs pip in the host's environment, prints, and may exit.
    try:
        distribution(model)
    except PackageNotFoundError:
        if not Path(model).exists():
            raise UnusableError(f"its language model is missing: python -m spacy download {model}") from None


def _quieten(level: int) -> None:
    global _level
    logger = logging.getLogger("presidio-analyzer")
    if logger.level in (logging.NOTSET, _level):  # unless the host has chosen
        _level = level
        logger.setLevel(level)


def _keep_at_home(recognizer: Any) -> None:
    # To decide whether an address has a real domain, it would fetch a list from the internet.
    domains: Any = getattr(sys.modules.get(type(recognizer).__module__), "tldextract", None)
    if domains is not None:
        extract = domains.TLDExtract(suffix_list_urls=(), cache_dir=None)

        def has_domain(text: str) -> bool:
            return extract(text).fqdn != ""

        recognizer.validate_result = has_domain
