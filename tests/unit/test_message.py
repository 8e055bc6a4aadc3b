"""Describing messages and outcomes: whatever comes in, a small frozen description comes out."""

from __future__ import annotations

import asyncio
import math
import re
from collections import UserDict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp import semconv
from opentelemetry_instrumentation_mcp.message import (
    CANCELLED,
    SUCCESS,
    TOOL_ERROR,
    Message,
    Outcome,
    describe,
    describe_model,
    is_cancellation,
    outcome_of_error,
    outcome_of_exception,
    outcome_of_result,
)
from support.health import SLOW

stable = settings(derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=SLOW)

METHODS = [*sorted(semconv.WELL_KNOWN_METHODS), "", "no/such/method"]
INTERESTING_KEYS = ["name", "uri", "_meta", "isError", "protocolVersion", semconv.PROTOCOL_VERSION_META_KEY]

any_text = st.text(st.characters(codec=None, categories=None), max_size=30)
keys = st.sampled_from(INTERESTING_KEYS) | any_text
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.sampled_from(["2025-06-18", "2026-07-28"])
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6), max_leaves=20
)
odd_values = st.sampled_from(
    [
        object(),
        object,
        b"bytes",
        (),
        {1: 2, None: 3, ("a",): 4},
        {"_meta": object()},
        {"name": b"add", "uri": 7},
        UserDict({"name": "add", "_meta": UserDict(traceparent=1)}),
        math.nan,
        10**5000,
        range(3),
        iter("ab"),
        NotImplemented,
    ]
)
methods = st.sampled_from(METHODS) | any_text


@given(methods, json_values | odd_values, st.none() | st.integers() | any_text)
@example("tools/call", {"name": "\ud800"}, "\x00")
@example("tools/call", {"name": {"name": "x"}, "_meta": [1]}, 0)
@stable
def test_describe_takes_anything(method: str, params: object, request_id: str | int | None) -> None:
    message = describe(method, params, request_id)
    assert message.method == method
    assert message.request_id == request_id
    assert message.is_request is (request_id is not None)
    for text in (message.target, message.uri):
        assert text is None or (isinstance(text, str) and text)
    assert message.protocol_version is None or message.protocol_version in semconv.KNOWN_PROTOCOL_VERSIONS


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("tools/call", {"name": "add", "uri": "res://x"}, ("add", None, None)),
        ("prompts/get", {"name": "greet"}, ("greet", None, None)),
        ("resources/read", {"uri": "res://x", "name": "add"}, (None, "res://x", None)),
        ("notifications/resources/updated", {"uri": "res://x"}, (None, "res://x", None)),
        ("tools/list", {"name": "add", "uri": "res://x"}, (None, None, None)),
        ("tools/call", {"name": 1}, (None, None, None)),
        ("tools/call", {"name": ""}, (None, None, None)),
        ("tools/call", None, (None, None, None)),
        ("tools/call", ["add"], (None, None, None)),
        ("ping", {"_meta": {semconv.PROTOCOL_VERSION_META_KEY: "2026-07-28"}}, (None, None, "2026-07-28")),
        ("ping", {"_meta": {semconv.PROTOCOL_VERSION_META_KEY: "1999-01-01"}}, (None, None, None)),
        ("ping", {"_meta": {semconv.PROTOCOL_VERSION_META_KEY: ["2026-07-28"]}}, (None, None, None)),
    ],
)
def test_describe(method: str, params: object, expected: tuple[str | None, str | None, str | None]) -> None:
    assert describe(method, params, 7) == Message(method, 7, *expected)


@pytest.mark.parametrize("request_id", [0, "", -1, 10**30, "0"])
def test_falsy_and_odd_ids_are_ids(request_id: str | int) -> None:
    assert describe("ping", None, request_id).is_request
    assert not describe("ping", None).is_request


def test_a_typed_model_is_described_like_its_raw_form() -> None:
    tool = SimpleNamespace(method="tools/call", params=SimpleNamespace(name="add", uri="res://x"))
    assert describe_model(SimpleNamespace(root=tool), 1) == Message("tools/call", 1, "add")
    assert describe_model(tool) == Message("tools/call", None, "add")

    class Uri:
        def __str__(self) -> str:
            return "res://x"

    read = SimpleNamespace(method="resources/read", params=SimpleNamespace(uri=Uri()))
    assert describe_model(read, 2) == Message("resources/read", 2, None, "res://x")
    assert describe_model(SimpleNamespace(method="ping"), 3) == Message("ping", 3)
    assert describe_model(SimpleNamespace(method="ping", params=None), 3) == Message("ping", 3)
    assert describe_model(SimpleNamespace(method="tools/call", params={"name": "add"}), 4) == Message(
        "tools/call", 4, "add"
    )


# --- outcomes -----------------------------------------------------------------------------------------------


@given(st.integers() | scalars | odd_values, json_values | odd_values)
@example(True, None)
@example(10**30, "")
@example(-(10**5000), "")
@stable
def test_the_outcome_of_an_error_is_a_short_code(code: object, text: object) -> None:
    outcome = outcome_of_error(code, text)
    assert outcome.status_code == outcome.error_type
    assert outcome.status_code is not None
    assert re.fullmatch(r"-?\d{1,9}|_OTHER", outcome.status_code)
    assert outcome.text is None or outcome.text == text
    assert outcome.protocol_version is None


@given(methods, json_values | odd_values)
@stable
def test_the_outcome_of_a_result_takes_anything(method: str, result: object) -> None:
    outcome = outcome_of_result(method, result)
    assert outcome in (SUCCESS, TOOL_ERROR) or outcome.protocol_version is not None
    if outcome is TOOL_ERROR:
        assert method == "tools/call"
        assert isinstance(result, Mapping)
        assert result["isError"] is True


@pytest.mark.parametrize(
    ("method", "result", "expected"),
    [
        ("tools/call", {"isError": True}, TOOL_ERROR),
        ("tools/call", {"isError": False}, SUCCESS),
        ("tools/call", {"isError": "true"}, SUCCESS),
        ("tools/call", {"isError": 1}, SUCCESS),
        ("tools/call", SimpleNamespace(is_error=True), TOOL_ERROR),
        ("tools/call", None, SUCCESS),
        ("tools/list", {"isError": True}, SUCCESS),
        ("initialize", {"protocolVersion": "2025-06-18"}, Outcome(protocol_version="2025-06-18")),
        ("initialize", {"protocolVersion": 3}, SUCCESS),
        ("ping", {"protocolVersion": "2025-06-18"}, SUCCESS),
    ],
)
def test_outcome_of_result(method: str, result: Any, expected: Outcome) -> None:
    assert outcome_of_result(method, result) == expected


class _RefusedError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (ValueError("hunter2"), "ValueError"),
        (_RefusedError("hunter2"), f"{__name__}._RefusedError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(1), "SystemExit"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_an_exception_is_named_and_not_quoted(error: BaseException, error_type: str) -> None:
    assert outcome_of_exception(error) == Outcome(error_type)


def test_cancellation_is_told_from_failure() -> None:
    async def cancelled_by_trio() -> BaseException | None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except BaseException as error:
                caught.append(error)
                raise
        return None

    caught: list[BaseException] = []
    trio.run(cancelled_by_trio)
    for error in (asyncio.CancelledError(), GeneratorExit(), *caught):
        assert is_cancellation(error)
        assert outcome_of_exception(error) is CANCELLED
    assert len(caught) == 1
    for error in (ValueError(), KeyboardInterrupt(), SystemExit(), BaseException()):
        assert not is_cancellation(error)
