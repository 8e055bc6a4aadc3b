"""What a server that begins to work on something is, seen from where its caller is."""

from __future__ import annotations

import pytest

from opentelemetry_instrumentation_mcp.places import ADDRESSED, CALL, MOUNTED, UNSEEN, Place, role

SPAN = object()


def at(method: str | None, server: str | None = None, *, taken: bool = False) -> Place:
    return Place(SPAN, method, server, taken=taken)


@pytest.mark.parametrize(
    ("place", "server", "method", "expected"),
    [
        (None, "main", "tools/call", CALL),
        (None, "main", "tools/list", CALL),
        (at("tools/call"), "main", "tools/call", ADDRESSED),
        (at("tools/call", "main"), "main", "tools/call", ADDRESSED),
        (at(None), "child", "tools/call", ADDRESSED),
        (at("tools/call", "main", taken=True), "main", "tools/call", CALL),
        (at("tools/call", "main", taken=True), "child", "tools/call", CALL),
        (at("tools/call", "main", taken=True), "child", "resources/read", CALL),
        (at("tools/list", "main", taken=True), "child", "tools/list", MOUNTED),
        (at("tools/list", "main", taken=True), "main", "tools/list", UNSEEN),
        (at("tools/call"), "main", "tools/list", UNSEEN),
        (at("tools/call", "main", taken=True), "child", "tools/list", UNSEEN),
        (at("initialize", "main"), "main", "tools/call", CALL),
        (Place(None, "tools/call"), "main", "tools/call", UNSEEN),
    ],
)
def test_role(place: Place | None, server: str, method: str, expected: str) -> None:
    assert role(place, server, method) == expected


def test_what_2_x_does_not_say() -> None:
    place = at("tools/call", "main", taken=True)
    assert role(place, "child", "tools/call", "add", passes_calls_on=True) == MOUNTED
    assert role(place, "main", "tools/call", "add", passes_calls_on=True) == CALL


@pytest.mark.parametrize(("target", "expected"), [("pay", ADDRESSED), (None, ADDRESSED), ("check", CALL)])
def test_another_tool_than_the_message_is_about(target: str | None, expected: str) -> None:
    place = Place(SPAN, "tools/call", target="pay")
    assert role(place, "main", "tools/call", target) == expected
