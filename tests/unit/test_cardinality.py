"""Names on metrics: bounded whatever is asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp.cardinality import Admission


def test_names_are_admitted_until_there_is_no_room() -> None:
    names = Admission(2, frozenset({"ping"}))
    assert "ping" in names
    assert "one" not in names
    assert names.admit("one")
    assert names.admit("two")
    assert not names.admit("three")
    assert "three" not in names
    assert names.admit("one"), "who is in stays in"
    assert names.admit("ping")


@given(st.lists(st.text()), st.integers(0, 20), st.frozensets(st.text(), max_size=5))
def test_the_number_of_names_is_bounded(asked: list[str], limit: int, known: frozenset[str]) -> None:
    names = Admission(limit, known)
    admitted = {name for name in asked if names.admit(name)}
    assert len(admitted - known) <= limit
    for name in asked:
        assert (name in names) is (name in admitted)
    assert all(name in names for name in known)


def test_what_is_not_hashable_by_value_is_simply_not_in() -> None:
    assert None not in Admission(1)
    assert 7 not in Admission(1)
