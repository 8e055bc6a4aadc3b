"""Names on metrics: bounded whatever is asked for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp.cardinality import Admission
from support.health import SLOW

stable = settings(derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=SLOW)


def test_names_need_a_proof_and_room() -> None:
    names = Admission(2, frozenset({"ping"}))
    assert names.accepts("ping", proven=False), "known from the start"
    assert not names.accepts("one", proven=False), "merely asked for"
    assert names.accepts("one", proven=True)
    assert names.accepts("one", proven=False), "who is in stays in"
    assert names.accepts("two", proven=True)
    assert not names.accepts("three", proven=True), "no room"
    assert not names.accepts("three", proven=False)
    assert names.accepts("ping", proven=True)


@given(st.lists(st.tuples(st.text(), st.booleans())), st.integers(0, 20), st.frozensets(st.text(), max_size=5))
@stable
def test_the_number_of_names_is_bounded(asked: list[tuple[str, bool]], limit: int, known: frozenset[str]) -> None:
    names = Admission(limit, known)
    accepted = {name for name, proven in asked if names.accepts(name, proven=proven)}
    assert len(accepted - known) <= limit
    assert accepted <= known | {name for name, proven in asked if proven}
    assert all(names.accepts(name, proven=False) for name in accepted | known)
