"""The language-neutral vectors in ``vectors/``: their README describes the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from opentelemetry_instrumentation_mcp.payload import Policy, PolicySettings

FOLDER = Path(__file__).parents[3] / "vectors"
CASES: list[dict[str, Any]] = [
    case | {"file": path.stem} for path in sorted(FOLDER.glob("*.json")) for case in json.loads(path.read_text("utf-8"))
]
SETTINGS = {"redact_keys": frozenset, "keep_keys": frozenset, "redact_patterns": tuple}


def policy(settings: dict[str, Any]) -> Policy:
    return Policy(PolicySettings(**{name: SETTINGS.get(name, int)(value) for name, value in settings.items()}))


def given(value: Any) -> Any:
    """The input: itself, or a long text written as a part that is repeated."""
    if isinstance(value, dict) and "repeat" in value:
        unit, count = value["repeat"]
        return value.get("before", "") + unit * count + value.get("after", "")
    return value


def operate(case: dict[str, Any], value: Any) -> Any:
    with_settings = policy(case.get("settings", {}))
    operation = {
        "json": with_settings.json,
        "text": with_settings.text,
        "url": with_settings.url,
        "key": with_settings.is_sensitive,
    }[case["operation"]]
    return operation(value)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case['file']}: {case['name']}") for case in CASES])
def test_vector(case: dict[str, Any]) -> None:
    value = given(case["input"])
    result = operate(case, value)
    assert result == case["expected"]
    assert not [canary for canary in case["canaries"] if canary in str(result)]
    for canary in case["canaries"]:
        assert canary in json.dumps(value, ensure_ascii=False), "the canary is not in the input"
    if case["operation"] == "json":
        assert operate(case, json.loads(result)) == result
    elif case["operation"] != "key":
        assert operate(case, result) == result


def test_vectors_are_many_and_their_names_are_unique() -> None:
    assert len(CASES) > 700
    assert len({(case["file"], case["name"]) for case in CASES}) == len(CASES)
