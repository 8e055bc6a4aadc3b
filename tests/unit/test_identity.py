"""Who a message is from: nothing unless asked for, and pseudonyms that no reader can turn back."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp import guard
from opentelemetry_instrumentation_mcp.identity import (
    HASH_LENGTH,
    MAX_TEAMS,
    Identity,
    IdentityPolicy,
    identity_policy,
    is_identity,
    pseudonym,
)

stable = settings(derandomize=True, deadline=None, database=None, max_examples=60)

KEY = "0123456789abcdef"
ALICE = Identity(
    user_id="alice",
    user_email="Alice@Example.org",
    session_id="session-1",
    team_ids=("red", "blue"),
    team_name="Reds",
    auth_method="jwt",
    enduser_id="eu-1",
    enduser_scope="read write",
    enduser_role="admin",
    client_id="app",
)


@pytest.fixture(autouse=True)
def fresh_reports() -> Iterator[None]:
    guard.forget_reports()
    yield
    guard.forget_reports()


def test_off_is_the_default() -> None:
    assert IdentityPolicy().attributes(ALICE) == identity_policy("off").attributes(ALICE) == {}
    assert identity_policy("anything", KEY).attributes(ALICE) == {}


def test_on() -> None:
    assert identity_policy("on").attributes(ALICE) == {
        "user.id": "alice",
        "user.email": "Alice@Example.org",
        "session.id": "session-1",
        "team.ids": ("red", "blue"),
        "team.name": "Reds",
        "auth.method": "jwt",
        "enduser.id": "eu-1",
        "enduser.role": "admin",
        "enduser.scope": "read write",
    }


def test_what_a_host_does_not_know_is_absent() -> None:
    assert identity_policy("on").attributes(Identity()) == {}
    assert identity_policy("on").attributes(Identity(user_id="", client_id="app")) == {"enduser.id": "app"}


def test_hashed() -> None:
    plain, hashed = (identity_policy(mode, KEY).attributes(ALICE) for mode in ("on", "hashed"))
    assert plain.keys() == hashed.keys()
    told = {key: hashed[key] for key in ("auth.method", "enduser.role", "enduser.scope")}
    assert told == {"auth.method": "jwt", "enduser.role": "admin", "enduser.scope": "read write"}
    for key in plain.keys() - told.keys():
        texts = hashed[key] if isinstance(hashed[key], tuple) else (hashed[key],)
        assert all(len(text) == HASH_LENGTH and int(text, 16) >= 0 for text in texts), key
    assert len(hashed["team.ids"]) == 2
    for name in ("alice", "example", "session-1", "red", "blue", "Reds", "eu-1"):
        assert name not in str(hashed)


def test_the_hash_is_the_one_that_is_documented() -> None:
    expected = hmac.new(KEY.encode(), b"alice", hashlib.sha256).hexdigest()[:32]
    assert identity_policy("hashed", KEY).attributes(ALICE)["user.id"] == expected
    assert identity_policy("hashed", KEY.encode()).attributes(ALICE)["user.id"] == expected
    # Written down once with another implementation, so that other languages can be checked against it.
    assert expected == EXPECTED_ALICE


EXPECTED_ALICE = "fdbf8b1cacd3d578e062d0e41104357d"


def test_an_address_has_one_pseudonym() -> None:
    key = KEY.encode()
    assert pseudonym(" Alice@Example.ORG", key) == pseudonym("alice@example.org", key)
    assert pseudonym("Alice", key) != pseudonym("alice", key), "other identifiers may tell cases apart"


@pytest.mark.parametrize("key", [None, "", "   ", b"", "short", "x" * 15, " " * 40, "x" * 15 + "  "])
def test_without_a_usable_key_nobody_is_hashed(key: Any, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING, guard.logger.name):
        policies = [identity_policy("hashed", key) for _ in range(3)]
    assert all(policy.attributes(ALICE) == {} for policy in policies)
    assert all(policy.attribute("user.id", "alice") is None for policy in policies)
    assert len(caplog.records) == 1
    if key and str(key).strip():
        assert str(key) not in caplog.text


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(identity_policy("hashed", KEY))


@given(st.text(max_size=40), st.text(max_size=40))
@stable
def test_users_can_be_told_apart(one: str, other: str) -> None:
    key = KEY.encode()
    same = one.strip() == other.strip() or ("@" in one and one.strip().lower() == other.strip().lower())
    assert (pseudonym(one, key) == pseudonym(other, key)) is same
    assert pseudonym(one, key) != pseudonym(one, key + b"!"), "another key, other pseudonyms"


def test_any_text_can_be_hashed_or_shown() -> None:
    odd = Identity(user_id="\ud800", user_email="a\x00b" + "x" * 1_000, team_ids=tuple(map(str, range(1_000))))
    for key in (KEY, KEY + "\ud800"):
        assert len(identity_policy("hashed", key).attributes(odd)["user.id"]) == HASH_LENGTH
    shown = identity_policy("on").attributes(odd)
    assert str(shown).encode() and len(shown["user.email"]) == 256 and "\x00" not in shown["user.email"]
    assert len(shown["team.ids"]) == MAX_TEAMS


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("user.id", True),
        ("user.full_name", True),
        ("user", True),
        ("enduser.pseudo.id", True),
        ("team.scope", True),
        ("auth.method", True),
        ("session.id", True),
        ("langfuse.user.id", True),
        ("langfuse.session.id", True),
        ("user_agent.original", False),
        ("username_policy", False),
        ("mcp.session.id", False),
        ("teams", False),
        ("gen_ai.tool.name", False),
    ],
)
def test_which_attributes_name_somebody(key: str, expected: bool) -> None:
    assert is_identity(key) is expected
    assert identity_policy("off").attribute(key, "x") == (None if expected else "x")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("user.is_admin", True, True),
        ("user.roles", ("admin",), ("admin",)),
        ("user.id", 4711, pseudonym("4711", KEY.encode())),
        ("team.ids", ["a", 7], (pseudonym("a", KEY.encode()), pseudonym("7", KEY.encode()))),
        ("user.id", {"name": "alice"}, None),
        ("user.id", b"alice", None),
        ("other", {"name": "alice"}, {"name": "alice"}),
    ],
)
def test_values_of_foreign_attributes(key: str, value: Any, expected: Any) -> None:
    assert identity_policy("hashed", KEY).attribute(key, value) == expected
