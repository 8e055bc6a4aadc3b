"""Properties over random structures: secrets never survive, harmless values do, output is what is promised."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp.payload import Policy

stable = settings(
    derandomize=True, deadline=None, database=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow]
)
POLICY = Policy()
CANARY = "Zx7CanaryQ9"
HARMLESS = "plainmarker"

SENSITIVE = (
    "password", "db_password", "X-Api-Key", "apiKey", "idToken", "AWS_SECRET_ACCESS_KEY", "client.secret",
    "authorization", "Set-Cookie", "privateKey", "session_id", "refresh token", "CREDENTIALS", "userPasswd",
)  # fmt: skip
PLAIN = (
    "name",
    "city",
    "total_tokens",
    "author",
    "keyboard",
    "page",
    "status",
    "key",
    "items",
    "max_tokens",
    "url",
    "note",
)
scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=20)
words = st.text(string.ascii_lowercase + " ", min_size=1, max_size=30)
# Of these letters no sensitive word can be made; of all letters one would be, sooner or later.
names = st.sampled_from(PLAIN) | st.text("aeioul", min_size=1, max_size=6).map(lambda name: "f_" + name)


def structures(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4) | st.tuples(inner, inner),
        max_leaves=8,
    )


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Structures with one ``inner`` somewhere."""
    return st.recursive(
        inner,
        lambda core: (
            st.builds(lambda key, value, other: {"note": other, key: value}, names, core, words)
            | st.builds(lambda value, other: [other, value, 1], core, words)
            | st.builds(lambda value: {"content": [{"type": "text", "text": json.dumps(value)}]}, core)
        ),
        max_leaves=4,
    )


labelled = st.builds(
    lambda name, form: form.format(name=name.replace(" ", "_"), value=CANARY),
    st.sampled_from(SENSITIVE),
    st.sampled_from((
        "{name}={value}", "{name}: {value}", '"{name}": "{value}"', "'{name}': '{value}'", "--{name} {value}",
        "--{name}={value}", "{name} = '{value} and more'", "a {name}={value}&b=1", "<{name}>{value}</{name}>",
        "https://x/?{name}={value}&q=1", "postgres://u:{value}@h/db", "x: {name}:{value},", "`{name}` => `{value}`",
    )),
)  # fmt: skip
secrets = (
    st.builds(lambda name: {name: CANARY}, st.sampled_from(SENSITIVE))
    | st.builds(lambda name: {name: {"a": [CANARY]}}, st.sampled_from(SENSITIVE))
    | st.builds(lambda name: [name, CANARY], st.sampled_from(SENSITIVE))
    | st.builds(lambda name: {"name": name, "value": CANARY}, st.sampled_from(SENSITIVE))
    | st.builds(lambda name: {"value": CANARY, "key": name}, st.sampled_from(SENSITIVE))
    | labelled
    | st.builds(lambda before, text, after: f"{before}\n{text}\n{after}", words, labelled, words)
)


def check(text: str, limit: int) -> None:
    assert len(text) <= limit
    text.encode("utf-8")
    assert "not serializable" not in text
    assert POLICY.json(json.loads(text), limit) == text, "not idempotent"


@given(around(secrets), st.sampled_from((256, 300, 400, 32_768)))
@stable
def test_a_secret_never_survives(value: Any, limit: int) -> None:
    text = POLICY.json(value, limit)
    assert CANARY not in text
    check(text, limit)


@given(around(secrets), words, st.integers(0, 600))
@stable
def test_a_cut_never_uncovers_a_secret(value: Any, filler: str, count: int) -> None:
    text = POLICY.json([(filler + " ") * (count // len(filler) + 1), value], 300)
    assert CANARY[:6] not in text
    check(text, 300)


@given(around(st.just(HARMLESS) | st.builds(lambda name: {name: HARMLESS}, names)))
@stable
def test_a_harmless_value_survives(value: Any) -> None:
    text = POLICY.json(value)
    assume("_truncated" not in text)
    assert HARMLESS in text


@given(structures(scalars), st.sampled_from((256, 1000, 32_768)))
@stable
def test_any_structure_becomes_valid_bounded_stable_json(value: Any, limit: int) -> None:
    text = POLICY.json(value, limit)
    check(text, limit)
    assert POLICY.structured(value, limit) == json.loads(text)


pieces = st.lists(
    st.sampled_from((
        "password", "token", "=", ": ", "\"", "'", "\\", "{", "}", "[", "]", ",", " ", "\n", "a1b2c3", "***", "...",
        "--", "<", ">", "</", "https://", "@", "?", "&", "Bearer ", "Authorization", "Cookie", ";", "api key", "is ",
        "name", "value", "eyJhbGciOiJI.eyJzdWIi.c2ln", "ghp_0123456789abcdefghij0123456789abcdef",
        "-----BEGIN PRIVATE KEY-----", "%3D", "%22", "-----END PRIVATE KEY-----", "|\n  ", "\xe9", "\u200b", "\x00",
        "\ud800", "secret", "session_id", "auth", "\\n", "$", "(", ")",
    )),
    max_size=14,
).map("".join)  # fmt: skip


@given(pieces | st.text(max_size=60), st.sampled_from((16, 40, 1024)))
@settings(parent=stable, max_examples=1500)
def test_texts_are_bounded_and_stable(text: str, limit: int) -> None:
    cleaned = POLICY.text(text, limit)
    assert len(cleaned) <= limit
    cleaned.encode("utf-8")
    assert POLICY.text(cleaned, limit) == cleaned


@given(structures(pieces))
@settings(parent=stable, max_examples=600)
def test_structures_of_odd_texts_are_stable(value: Any) -> None:
    check(POLICY.json(value, 400), 400)


lines = st.lists(
    st.sampled_from((
        "token=a1b2", "password=***", "api_key: k1", "the", "password is hunter22x", "conn=a1", "Bearer",
        "connection_string: a1b2c3", "code=a1b2c3,", "pin=12a", "--token x1",
        "login", "machine", "key", "=", "session_id=a1b2",
    )),
    max_size=6,
).map(" ".join)  # fmt: skip


@given(st.lists(lines, min_size=2, max_size=8))
@settings(parent=stable, max_examples=600)
def test_texts_are_cleaned_as_if_each_stood_alone(texts: list[str]) -> None:
    together = POLICY.structured({f"f_{number}": text for number, text in enumerate(texts)})
    assert list(together.values()) == [POLICY.structured({"f": text})["f"] for text in texts]


@given(pieces)
@settings(parent=stable, max_examples=600)
def test_urls_are_stable(text: str) -> None:
    cleaned = POLICY.url(text)
    assert POLICY.url(cleaned) == cleaned


@pytest.mark.parametrize("limit", [0, -1, 3, 10])
def test_too_small_limits_are_survived(limit: int) -> None:
    assert len(POLICY.json("x" * 1000, limit)) <= 256
    assert len(POLICY.text("x" * 1000, limit)) <= max(3, limit)
