"""Settings, attributes, bounds and the amount of work."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from opentelemetry_instrumentation_mcp.payload import Policy, PolicySettings
from opentelemetry_instrumentation_mcp.payload.data import load
from opentelemetry_instrumentation_mcp.payload.keys import Names
from opentelemetry_instrumentation_mcp.payload.text import Text

POLICY = Policy()
CANARY = "CANARY-7f3a9c1e5b"
SLACK: int = load()["limits"]["slack"]


def test_nothing_is_loaded_before_it_is_needed() -> None:
    program = (
        "import sys, opentelemetry_instrumentation_mcp.payload as p;"
        "assert not [m for m in sys.modules if m.startswith(p.__name__ + '.')];"
        "p.Policy; assert 'opentelemetry' not in sys.modules and 'mcp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_wrapper() -> None:
    value = {"text": "word " * 200, "n": 1}
    text = POLICY.json(value, 300)
    wrapper = json.loads(text)
    whole = json.dumps(value, separators=(",", ":"))
    assert list(wrapper) == ["_truncated", "_original_size", "_preview"]
    assert wrapper["_truncated"] is True
    assert wrapper["_original_size"] == len(whole)
    assert whole.startswith(wrapper["_preview"])
    assert 290 <= len(text) <= 300
    assert POLICY.json(wrapper, 300) == text
    assert json.loads(POLICY.json({"text": "word " * 100_000}, 300))["_original_size"] is None


def test_a_wrapper_made_by_somebody_else_is_cleaned() -> None:
    forged = {"_truncated": True, "_original_size": 9, "_preview": '{"password": "' + CANARY}
    assert CANARY not in POLICY.json(forged)
    assert CANARY not in POLICY.json({**forged, "_preview": f'{{"headers":[["cookie","{CANARY}"]'})


@pytest.mark.parametrize(
    "secret", [f"password={CANARY}", f"ghp_{CANARY.replace('-', '')}0123456789abcdefghij", f"https://u:{CANARY}@h/"]
)
def test_no_cut_uncovers_a_secret(secret: str) -> None:
    for length in range(170, 330):
        for policy_text in (
            POLICY.text("x " * (length // 2) + secret + " tail" * 2000, 256),
            POLICY.json(["x" * length, secret, "y" * 9000], 256),
        ):
            assert "CANARY" not in policy_text.replace("_", "")
    far = "x" * (250 + SLACK) + " " + secret  # the window ends inside of it
    for shift in range(len(secret)):
        assert "CANARY" not in POLICY.text(far[shift:] + " " + "y" * 99_999, 256)
        assert "CANARY" not in POLICY.json(
            [("password=" + "z" * 30 + "\n") * 110 + far[shift : shift + 9999] * 50], 256
        )


def test_masks_that_shrink_a_text_do_not_uncover_its_end() -> None:
    # The window ends inside of the token, and what is before it shrinks to nothing.
    for pad in range(60):
        text = (
            "password="
            + "z" * (SLACK + 100)
            + "\n"
            + "y" * pad
            + " ghp_0123456789abcdefghij0123456789abcdef"
            + " end" * 9000
        )
        assert "ghp_" not in POLICY.text(text, 80)
        assert "ghp_" not in POLICY.json(text, 256)


def test_added_and_kept_names() -> None:
    policy = Policy(PolicySettings(redact_keys=frozenset({"employee number"}), keep_keys=frozenset({"token"})))
    assert policy.json({"employeeNumber": 5, "token": "a", "access_token": "b"}) == (
        '{"employeeNumber":"***","token":"a","access_token":"***"}'
    )
    assert policy.text("employee_number=12345 token=abc123 x") == "employee_number=*** token=abc123 x"
    assert policy.url("https://h/?token=a&employee-number=5") == "https://h/?token=a&employee-number=***"
    assert policy.is_sensitive("the_employee_number")
    assert not policy.is_sensitive("Token")


def test_added_patterns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "opentelemetry_instrumentation_mcp"):
        policy = Policy(PolicySettings(redact_patterns=("(hunter2", r"ORD-\d+", "jane")))
    [warning] = [record.getMessage() for record in caplog.records]
    assert "pattern 1 of 3" in warning
    assert "hunter2" not in warning, "it may be the very secret"
    assert policy.json({"jane": "jane"}) == '{"***":"***"}'
    assert policy.text("see ORD-123, ORD-456.") == "see ***, ***."
    assert policy.json({"ORD-1": ["x ORD-2"]}) == '{"***":["x ***"]}'


def test_patterns_that_match_the_mask_or_nothing() -> None:
    policy = Policy(PolicySettings(redact_patterns=(r"\*", "x*", ".")))
    assert policy.text(policy.text("ab ***")) == policy.text("ab ***")


def test_the_detector() -> None:
    def names(text: str) -> list[tuple[int, int]]:
        at = text.find("Ada")
        return [(at, at + 3)] if at >= 0 else []

    policy = Policy(PolicySettings(detector=names))
    assert policy.text("hello Ada!") == "hello ***!"
    assert policy.json({"a": ["hello Ada!"]}) == '{"a":["hello ***!"]}'

    def broken(text: str) -> list[tuple[int, int]]:
        raise ValueError(text)

    assert Policy(PolicySettings(detector=broken)).text("hello Ada!") == "***"
    wild = Policy(PolicySettings(detector=lambda text: [(-5, 10**9), (3, 1)]))
    assert wild.text("hello Ada!") == "***"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("http.request.header.authorization", ["Bearer x"], ["***"]),
        ("http.request.header.authorization", ("a", "b"), ("***", "***")),
        ("db.password", "x", "***"),
        ("session.id", "abc", "abc"),
        ("mcp.session.id", "abc", "abc"),
        ("gen_ai.usage.input_tokens", 5, 5),
        ("gen_ai.request.max_tokens", 5, 5),
        ("url.full", "https://u:p@h/?token=x", "https://***@h/?token=***"),
        ("url.query", "a=1&token=x", "a=1&token=***"),
        ("http.target", "/p?api_key=x&b=1", "/p?api_key=***&b=1"),
        ("mcp.resource.uri", "db://u:p@h/t", "db://***@h/t"),
        ("note", "password=x y", "password=***"),
        ("note", '{"password": "x"}', '{"password":"***"}'),
        ("n", 5, 5),
        ("b", True, True),
        ("f", [1.5, 2.5], [1.5, 2.5]),
        ("password", None, None),
        ("author", "Ada", "Ada"),
        ("text", "a\r\nb", "a\r\nb"),
    ],
)
def test_attributes(key: str, value: Any, expected: Any) -> None:
    result = POLICY.attribute(key, value)
    assert result == expected
    assert type(result) is type(expected)
    assert POLICY.attribute(key, result) == result


def test_attributes_are_bounded_and_the_users_names_win() -> None:
    assert POLICY.attribute("note", "x " * 40_000) == ("x " * 40_000)[: 32_768 - 3] + "..."
    assert Policy(PolicySettings(redact_keys=frozenset({"session.id"}))).attribute("mcp.session.id", "x") == "***"


class Counting:
    """Characters examined, counted by the scanner itself."""

    def __init__(self) -> None:
        self.text = Text(Names())

    def steps(self, text: str) -> int:
        self.text.clean(text)
        return self.text.last_steps


@pytest.mark.parametrize(
    "unit",
    [
        "pass", "password", "password ", "password=", "token=token&", "token=a&",
        "token=a1,", "password:[ ", "password: a;b=", "password=\"", "password: <", "token:token:", "secret is ",
        "--token ", "<token>", "<token ", "\"token\",", "Bearer ", "bearerbearer", "eyJ", "eyJa.", "eyJaaaaaaaa-",
        "://", "a://", "https://a:", "https://a:b@", "?a=b&", "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----", "{", "[", "{\"a\":", "\"", "\\", "\\\"", "'", "ghp_", "sk-", "sk-a-", "$2b$",
        "password:\n  ", "\n", " ", "a" * 30 + " ", "key key ", "api key ", "api_key[", "token%20", "token\\t",
        "@tcp(", "a:@tcp(", "identified by ", "&quot;token&quot;", "%22", "AKIAIOSFODNN7EXAMPLQ ", "password=***",
        "*** ", "token***", "password=a ", "password=a b=", "name\":\"token\",",
        "\"value\":\"a\",\"name\":\"token\"", "token\u200b", "é=", "<", "</", "cookie: a=",
        "?code=", "&key=a1234567", "token: str = \"", "{\"pin\":\"x\",", "kind: Secret\ndata:\n a: b\n", "\x1b[31m",
        "\\u0026", "https://a?x\\u0026", "token=('", "#define token ", "curl -u 'a:", "<Cookie a=", "jdbc:oracle:a:b/",
        "\tTRUE\t/",
    ],
)  # fmt: skip
def test_work_grows_no_faster_than_the_text(unit: str) -> None:
    counting = Counting()
    small, large = (counting.steps(unit * (size // len(unit))) for size in (4_000, 32_000))
    assert large <= 8 * small * 1.25 + 2_000
    assert large <= 40 * 32_000


def test_work_depends_on_the_limit_not_on_the_payload() -> None:
    def work(value: Any) -> int:
        calls = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            POLICY.json(value, 1_000)
        finally:
            sys.setprofile(None)
        return calls

    work({"a": {str(n): n for n in range(10_000)}})  # names are decided once
    for part in ("some text", 1, {"a": 1}, [], None):
        assert work([part] * 1_000_000) <= work([part] * 10_000) * 1.1
    assert work("password=x " * 20_000_000) <= work("password=x " * 10_000) * 1.1
    assert work({"a": {str(n): n for n in range(300_000)}}) <= work({"a": {str(n): n for n in range(10_000)}}) * 1.1
    assert POLICY.url("https://h/" * 10_000_000) == "***"


def test_texts_of_a_document_are_cleaned_as_if_each_stood_alone() -> None:
    """They are looked at together first; what that says must not depend on the lines of other texts."""
    texts = [
        "token=a1b2 of the build",
        "token=a1b2 and the password is hunter22x",
        "connection_string: a1b2c3 api_key=k1k2",
        "Authorization: Bearer",
        "c2VjcmV0LXRva2VuLTEyMzQ1Ng token=a1b2",
        "machine example.com login bob",
        "pin=1a2b password hunter22x",
        "password:",
        "  token=a1b2 looks like a part of the above",
        "-----BEGIN PRIVATE KEY-----",
        "token=*** and password=a1b2",
        "token=***",
        "two\nlines of code=a1b2\nkey=a1b2",
    ]
    alone = {text: POLICY.structured({"f": text})["f"] for text in texts}
    assert alone[texts[1]] == "token=*** and the password is ***"
    for order in (texts, texts[::-1], sorted(texts)):
        together = POLICY.structured({f"f_{number}": text for number, text in enumerate(order)})
        assert list(together.values()) == [alone[text] for text in order]


def test_values_that_pydantic_refused() -> None:
    """In the text of an error they are payload."""
    policy = Policy()
    text = "count\n  Input should be an integer [type=int, input_value='of, input_type=x jane', input_type=str]\n  see"
    cleaned = "count\n  Input should be an integer [type=int, input_value=***, input_type=str]\n  see"
    assert policy.text(text) == cleaned == policy.text(cleaned)
    assert policy.text("cut: input_value=b'jane") == "cut: input_value=***"


@pytest.mark.parametrize("padding", range(60))
def test_a_cut_inside_of_a_mask_is_stable(padding: int) -> None:
    value = {"x": "y" * (150 + padding), "a": [{"password": "hunter22", "b": ["c" * 60]}]}
    once = Policy().json(value, 256)
    assert len(once) <= 256
    assert Policy().json(json.loads(once), 256) == once


class _Number(int):
    def __ge__(self, other: object) -> bool:
        raise AssertionError("foreign code was called")


def test_objects_under_names_that_want_a_text() -> None:
    value = {"pin": _Number(4829), "otp": object(), "auth": {"type": "none"}, "totp": _Number(5)}
    once = Policy().json(value)
    assert once == '{"pin":"***","otp":"***","auth":{"type":"none"},"totp":5}'
    assert Policy().json(json.loads(once)) == once
