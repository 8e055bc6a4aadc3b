"""Baggage: nothing is promoted or let out that is not on a list."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from opentelemetry_instrumentation_mcp import guard
from opentelemetry_instrumentation_mcp.baggage import MAX_ITEMS, BaggageRules, baggage_attributes, outbound_context

stable = settings(derandomize=True, deadline=None, database=None, max_examples=60)


class FakePolicy:
    def attribute(self, key: str, value: object) -> object:
        return "***" if "password" in key else str(value).replace("canary", "***")


POLICY = FakePolicy()


def context(**entries: Any) -> Context:
    made = Context({"other": "kept"})
    for name, value in entries.items():
        made = otel_baggage.set_baggage(name.replace("__", "."), value, made)
    return made


@pytest.fixture(autouse=True)
def fresh_reports() -> Iterator[None]:
    guard.forget_reports()
    yield
    guard.forget_reports()


def test_nothing_by_default() -> None:
    rules = BaggageRules()
    assert not rules
    assert baggage_attributes(rules, POLICY, context(user="alice")) == {}
    assert otel_baggage.get_all(outbound_context(rules, context(user="alice"))) == {}


def test_names_and_prefixes() -> None:
    rules = BaggageRules(["tenant", " app.* ", ""])
    given = context(tenant="t", tenant__id="x", Tenant="x", app__region="eu", app="x", apple="x", application__x="x")
    assert baggage_attributes(rules, POLICY, given) == {"tenant": "t", "app.region": "eu"}


def test_a_single_rule_may_be_a_text() -> None:
    assert baggage_attributes(BaggageRules("app.*"), POLICY, context(app__a="1", p="2")) == {"app.a": "1"}


@pytest.mark.parametrize("rule", ["*", "**", ".*", "app*", "*.id", "a.*.b", "a*.*", "app.**"])
def test_an_allow_list_that_allows_everything_is_none(rule: str, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, guard.logger.name):
        rules = [BaggageRules([rule, "ok"]) for _ in range(2)]
    given = context(app="x", app__id="x", ok="y")
    assert [baggage_attributes(each, POLICY, given) for each in rules] == [{"ok": "y"}] * 2
    assert len(caplog.records) == 1 and repr(rule) in caplog.text


def test_values_are_redacted_and_bounded() -> None:
    rules = BaggageRules(["app.*"])
    given = context(app__password="x", app__note="a canary", app__long="x" * 5_000, app__raw="a\nb", app__n=7)
    shown = baggage_attributes(rules, POLICY, given)
    assert shown == {
        "app.password": "***",
        "app.note": "a ***",
        "app.long": "x" * 256,
        "app.raw": "a\N{REPLACEMENT CHARACTER}b",
    }


def test_numbers_of_entries_and_lengths_of_names_are_bounded() -> None:
    rules = BaggageRules(["app.*"])
    many = context(**{f"app.{number}": "x" for number in range(100)})
    assert len(baggage_attributes(rules, POLICY, many)) == MAX_ITEMS
    odd = context(**{"app." + "x" * 124: "fits", "app." + "x" * 125: "too long", "app.\n": "unprintable"})
    assert list(baggage_attributes(rules, POLICY, odd).values()) == ["fits"]


def test_the_current_context_is_the_default() -> None:
    token = otel_context.attach(context(tenant="t"))
    try:
        assert baggage_attributes(BaggageRules(["tenant"]), POLICY) == {"tenant": "t"}
    finally:
        otel_context.detach(token)


def test_outbound_baggage_is_what_is_allowed() -> None:
    given = context(tenant="t", user="alice", app__region="eu")
    sent: dict[str, str] = {}
    W3CBaggagePropagator().inject(sent, outbound_context(BaggageRules(["tenant", "app.*"]), given))
    assert sent == {"baggage": "tenant=t,app.region=eu"}
    nothing: dict[str, str] = {}
    W3CBaggagePropagator().inject(nothing, outbound_context(BaggageRules(["other"]), given))
    assert nothing == {}


def test_the_rest_of_an_outbound_context_stays() -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False))
    given = trace.set_span_in_context(span, context(user="alice"))
    filtered = outbound_context(BaggageRules(), given)
    assert trace.get_current_span(filtered) is span
    assert filtered["other"] == "kept"
    assert otel_baggage.get_all(given) == {"user": "alice"}, "the program goes on with what it has"


def test_a_context_that_is_clean_is_not_copied() -> None:
    given = context(tenant="t")
    assert outbound_context(BaggageRules(["tenant"]), given) is given
    empty = Context()
    assert outbound_context(BaggageRules(), empty) is empty


NAMES = st.text(alphabet="ab.*", max_size=6)


@given(st.lists(NAMES, max_size=5), st.dictionaries(NAMES, st.text(max_size=5), max_size=8))
@stable
def test_what_leaves_is_allowed(allowed: list[str], entries: dict[str, str]) -> None:
    rules = BaggageRules(allowed)
    made = Context()
    for name, value in entries.items():
        made = otel_baggage.set_baggage(name, value, made)
    prefixes = tuple(rule[:-1] for rule in allowed if rule.endswith(".*") and "*" not in rule[:-2] and len(rule) > 2)
    exact = {rule for rule in allowed if "*" not in rule and rule}
    expected = {name for name in entries if name in exact or (prefixes and name.startswith(prefixes))}
    assert otel_baggage.get_all(outbound_context(rules, made)).keys() == expected
    assert baggage_attributes(rules, POLICY, made).keys() == expected
