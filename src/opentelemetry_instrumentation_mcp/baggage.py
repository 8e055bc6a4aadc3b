"""Baggage by allow-list: which entries become span attributes, and which leave a gateway.

One of the few rooms that touch OpenTelemetry: baggage is part of its context. Entries were written by whoever called:
their names and values are untrusted, and nothing of them is used unless it is allowed by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from opentelemetry import baggage
from opentelemetry.context import Context

from . import semconv
from .guard import report_once

MAX_ITEMS: Final = 32
"""Entries that become attributes of one span, at most."""
MAX_KEY: Final = 128
"""Characters; entries with longer names are passed over."""


class AttributePolicy(Protocol):
    """What is needed of the payload policy."""

    def attribute(self, key: str, value: object) -> object:
        """The value of a span attribute, redacted by its key and content."""
        ...


class BaggageRules:
    """An allow-list of baggage entries.

    Args:
        allowed: names (``tenant.id``) and prefixes (``app.*``, every name that begins with ``app.``). Any other use of
            ``*`` is ignored with a warning: an allow-list that allows everything is none.
    """

    __slots__ = ("_names", "_prefixes")

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        names: set[str] = set()
        prefixes: set[str] = set()
        for entry in (allowed,) if isinstance(allowed, str) else allowed:
            rule = entry.strip()
            if rule.endswith(".*") and "*" not in rule[:-2] and len(rule) > 2:
                prefixes.add(rule[:-1])
            elif "*" in rule:
                report_once(
                    f"baggage rule {rule}",
                    "%r is no rule for baggage and is ignored: only `prefix.*` may have a *",
                    rule,
                )
            elif rule:
                names.add(rule)
        self._names = frozenset(names)
        self._prefixes = tuple(sorted(prefixes))

    def __bool__(self) -> bool:
        return bool(self._names or self._prefixes)

    def allows(self, name: str) -> bool:
        """Whether an entry of this name (case matters, as in W3C Baggage) is on the list."""
        return name in self._names or (len(name) <= MAX_KEY and name.startswith(self._prefixes))


def baggage_attributes(rules: BaggageRules, policy: AttributePolicy, context: Context | None = None) -> dict[str, str]:
    """The allowed baggage entries of ``context`` (default: the current one) as span attributes of the same names.

    Values are redacted and at most 256 characters long; the first 32 entries count. Attributes that the span has by
    itself must win over these: a caller chooses the names below an allowed prefix.
    """
    attributes: dict[str, str] = {}
    if not rules:
        return attributes
    for name, value in baggage.get_all(context).items():
        # The API says text; what a program put there itself may be anything.
        if isinstance(value, str) and name.isprintable() and rules.allows(name):
            attributes[name] = semconv.clean(str(policy.attribute(name, value)))
            if len(attributes) == MAX_ITEMS:
                break
    return attributes


def outbound_context(rules: BaggageRules, context: Context) -> Context:
    """``context`` with the allowed baggage entries only; itself if all of them are allowed."""
    entries = baggage.get_all(context)
    allowed = {name: value for name, value in entries.items() if rules.allows(name)}
    if len(allowed) == len(entries):
        return context
    context = baggage.clear(context)
    for name, value in allowed.items():
        context = baggage.set_baggage(name, value, context)
    return context
