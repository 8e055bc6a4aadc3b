"""Names, the span-name rule and the error rules: pure functions that see what any peer sends."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp import semconv
from support import conventions
from support.health import SLOW

stable = settings(derandomize=True, deadline=None, database=None, max_examples=60, suppress_health_check=SLOW)

# What `st.text()` leaves out: a peer can send lone surrogates too.
any_text = st.text(st.characters(codec=None, categories=None), max_size=400)
HOSTILE_TEXTS = (
    "",
    "\x00\x1b[31m\r\n\t\x7f\x9f",
    "\ud800 lone \udfff surrogates",
    "line\u2028and\u2029paragraph",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "zero\u200bwidth\u200dand\ufeffmarks",
    "soft\u00adhyphen and word\u2060joiner",
    "hidden \U000e0041\U000e0042 tags",
    "no-break\u00a0space",
    "unassigned \U0003fffe and private \ue000",
    "\U0001f600" * 200,
    "x" * 1_000_000,
)


def is_fit(text: str, limit: int) -> bool:
    return len(text) <= limit and text.isprintable() and text.encode() is not None


@given(any_text, st.integers(0, 300))
@example(HOSTILE_TEXTS[1], 256)
@example(HOSTILE_TEXTS[7], 256)
@stable
def test_clean_text_is_short_printable_and_encodable(text: str, limit: int) -> None:
    assert is_fit(semconv.clean(text, limit), limit)


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=range(len(HOSTILE_TEXTS)))
def test_hostile_text_is_cleaned(text: str) -> None:
    cleaned = semconv.clean(text)
    assert is_fit(cleaned, semconv.MAX_ATTRIBUTE)
    assert len(cleaned) == min(len(text), semconv.MAX_ATTRIBUTE), "a character is replaced, not removed"


@given(any_text)
@stable
def test_clean_is_idempotent(text: str) -> None:
    cleaned = semconv.clean(text)
    assert semconv.clean(cleaned) == cleaned


@given(any_text)
@stable
def test_clean_keeps_what_is_printable(text: str) -> None:
    cleaned = semconv.clean(text)
    for before, after in zip(text, cleaned, strict=False):
        assert after == (before if before.isprintable() else "\N{REPLACEMENT CHARACTER}")


def test_clean_does_not_copy_what_is_clean() -> None:
    name = "tools/call"
    assert semconv.clean(name) is name


@given(any_text, st.none() | any_text)
@example("tools/call", "x" * 1_000_000)
@example("m" * 1_000_000, "x" * 1_000_000)
@example("a\nb", "c\rd")
@stable
def test_span_name_is_short_printable_and_encodable(method: str, target: str | None) -> None:
    name = semconv.span_name(method, target)
    assert is_fit(name, semconv.MAX_NAME)
    assert name.startswith(semconv.clean(method, semconv.MAX_NAME))


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("tools/call", "add", "tools/call add"),
        ("tools/call", "", "tools/call"),
        ("tools/call", None, "tools/call"),
        ("tools/call", "a\nb", "tools/call a\N{REPLACEMENT CHARACTER}b"),
        ("tools/call", "x" * 200, "tools/call " + "x" * 117),
        ("", None, ""),
    ],
)
def test_span_name(method: str, target: str | None, name: str) -> None:
    assert semconv.span_name(method, target) == name


@pytest.mark.parametrize(
    ("code", "on_client", "on_server"),
    [
        ("-32700", True, False),
        ("-32600", True, False),
        ("-32601", True, False),
        ("-32602", True, False),
        ("-32002", True, False),
        ("-32603", True, True),
        ("-32000", True, True),
        ("-32050", True, True),
        ("0", True, True),
        ("1", True, True),
        (semconv.OTHER, True, True),
    ],
)
def test_a_callers_fault_is_no_error_of_the_server(code: str, on_client: bool, on_server: bool) -> None:
    assert semconv.is_error(code, server=False) is on_client
    assert semconv.is_error(code, server=True) is on_server


@given(st.none() | st.sampled_from(["-32601", "-32603", "-32002", "1", semconv.OTHER]) | any_text, any_text)
@stable
def test_a_protocol_phrase_never_quotes_a_message(code: str | None, message: str) -> None:
    own_words = {semconv.protocol_phrase(known, None) for known in ("-32700", "-32600", "-32601", "-32602", "-32603")}
    text = semconv.protocol_phrase(code, message)
    assert text is None or text in semconv.PROTOCOL_PHRASES or text in own_words or text != message
    if message not in semconv.PROTOCOL_PHRASES:
        assert text == semconv.protocol_phrase(code, None)


@pytest.mark.parametrize(
    ("code", "message", "text"),
    [
        ("-32603", "Internal server error", "Internal server error"),
        ("-32601", "Method not found: secret/method", "Method not found"),
        ("-32602", "password=hunter2", "Invalid params"),
        ("-32050", "password=hunter2", None),
        ("-32050", "Connection closed", "Connection closed"),
        (None, "password=hunter2", None),
        (None, None, None),
    ],
)
def test_protocol_phrase(code: str | None, message: str | None, text: str | None) -> None:
    assert semconv.protocol_phrase(code, message) == text


def test_what_a_span_is_about() -> None:
    assert semconv.target_attribute("tools/call") == "gen_ai.tool.name"
    assert semconv.target_attribute("prompts/get") == "gen_ai.prompt.name"
    for method in (semconv.WELL_KNOWN_METHODS | {"", "x"}) - {"tools/call", "prompts/get", "completion/complete"}:
        assert semconv.target_attribute(method) is None
    assert {method for method in semconv.WELL_KNOWN_METHODS if semconv.carries_uri(method)} == conventions.URI_METHODS
    assert not semconv.carries_uri("resources/list")


def test_names_are_those_of_the_conventions() -> None:
    assert semconv.WELL_KNOWN_METHODS <= conventions.KNOWN_METHODS
    assert semconv.CALLERS_FAULT == conventions.CALLERS_FAULT
    assert semconv.OPERATION_BUCKETS == conventions.OPERATION_BOUNDS
    assert semconv.STATUS_CODE == conventions.STATUS_CODE
    assert (semconv.OTHER, semconv.TOOL_ERROR) == (conventions.OTHER_METHOD, conventions.TOOL_ERROR)
    assert {semconv.SESSIONLESS_PROTOCOL_VERSIONS} == {frozenset({conventions.SESSIONLESS_PROTOCOL})}
    assert semconv.SCHEMA_URL.startswith(conventions.SCHEMA_URL_PREFIX)
    assert (semconv.MAX_NAME, semconv.MAX_ATTRIBUTE) == (conventions.MAX_SPAN_NAME, conventions.MAX_ATTRIBUTE)


@pytest.mark.parametrize(
    ("uri", "bare"),
    [
        ("res://greeting", "res://greeting"),
        ("https://user:pass@host/x?token=1#part", "https://***@host/x?***"),
        ("https://host/x#part?no=query", "https://host/x#***"),
        ("db://user:p@ss@host/table", "db://***@host/table"),
        ("x://user:pass@host", "x://***@host"),
        ("x://host/path@2", "x://host/path@2"),
        ("res://mounted/user:pass@host/x", "res://mounted/***@host/x"),
        ("file:///home/a", "file:///home/a"),
        ("no uri at all", "no uri at all"),
        ("?", "?***"),
        ("", ""),
    ],
)
def test_a_bare_uri_has_no_secrets_by_custom(uri: str, bare: str) -> None:
    assert semconv.bare_uri(uri) == bare
    assert semconv.bare_uri(bare) == bare
