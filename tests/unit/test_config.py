"""One configuration from three sources, and one clear warning for each value that makes no sense."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentelemetry_instrumentation_mcp import McpConfig, environment_variables
from opentelemetry_instrumentation_mcp.config import variable_of
from opentelemetry_instrumentation_mcp.guard import logger
from support.health import SLOW

PREFIX = "OTEL_INSTRUMENTATION_MCP_"
NOTHING: dict[str, Any] = {}


def load(**environ: str) -> McpConfig:
    return McpConfig.load(NOTHING, {PREFIX + name: value for name, value in environ.items()})


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records if record.name == logger.name]


def test_defaults(caplog: pytest.LogCaptureFixture) -> None:
    assert load() == McpConfig()
    assert load(REMOTE_PARENT="link") != McpConfig()
    config = McpConfig()
    assert config.native_spans == "replace"
    assert config.remote_parent == "parent"
    assert config.execute_tool_span == "reuse"
    assert config.resource_uri_in_span_name is False
    assert config.excluded_methods == frozenset()
    assert config.disabled_targets == frozenset()
    assert warnings_of(caplog) == []


def test_every_option_has_its_variable() -> None:
    registered = {name for name in vars(environment_variables) if name.startswith("OTEL_")}
    assert {variable_of(field.name) for field in fields(McpConfig)} == registered
    for name in registered:
        assert getattr(environment_variables, name) == name


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("NATIVE_SPANS", "keep", "native_spans", "keep"),
        ("NATIVE_SPANS", "  KEEP ", "native_spans", "keep"),
        ("REMOTE_PARENT", "link", "remote_parent", "link"),
        ("REMOTE_PARENT", "Ignore", "remote_parent", "ignore"),
        ("EXECUTE_TOOL_SPAN", "separate", "execute_tool_span", "separate"),
        ("RESOURCE_URI_IN_SPAN_NAME", "true", "resource_uri_in_span_name", True),
        ("RESOURCE_URI_IN_SPAN_NAME", " ON ", "resource_uri_in_span_name", True),
        ("RESOURCE_URI_IN_SPAN_NAME", "1", "resource_uri_in_span_name", True),
        ("RESOURCE_URI_IN_SPAN_NAME", "no", "resource_uri_in_span_name", False),
        ("EXCLUDED_METHODS", "ping", "excluded_methods", frozenset({"ping"})),
        (
            "EXCLUDED_METHODS",
            " ping , ,notifications/progress,",
            "excluded_methods",
            frozenset({"ping", "notifications/progress"}),
        ),
        ("EXCLUDED_METHODS", "", "excluded_methods", frozenset()),
        ("DISABLED_TARGETS", "transports,sdk_v1", "disabled_targets", frozenset({"transports", "sdk_v1"})),
        ("NATIVE_SPANS", "", "native_spans", "replace"),
        ("IDENTITY", "hmac", "identity", "hashed"),
    ],
)
def test_environment(name: str, text: str, field: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert getattr(load(**{name: text}), field) == value
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("name", "text", "field", "used"),
    [
        ("NATIVE_SPANS", "replaced", "native_spans", "replace"),
        ("NATIVE_SPANS", " ", "native_spans", "replace"),
        ("REMOTE_PARENT", "parents", "remote_parent", "parent"),
        ("EXECUTE_TOOL_SPAN", "true", "execute_tool_span", "reuse"),
        ("RESOURCE_URI_IN_SPAN_NAME", "maybe", "resource_uri_in_span_name", False),
        ("ERROR_TEXT", "none", "error_text", "off"),
    ],
)
def test_a_bad_value_gets_one_warning(
    name: str, text: str, field: str, used: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert getattr(load(**{name: text}), field) == used
    [warning] = warnings_of(caplog)
    for part in (PREFIX + name, repr(text), repr(used)):
        assert part in warning


def test_an_unknown_target_is_named_and_the_others_count(caplog: pytest.LogCaptureFixture) -> None:
    config = load(DISABLED_TARGETS="transports,transprots")
    assert config.disabled_targets == frozenset({"transports"})
    [warning] = warnings_of(caplog)
    for part in (PREFIX + "DISABLED_TARGETS", "'transprots'", "'transports'"):
        assert part in warning


def test_keywords_win_over_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    environ = {PREFIX + "REMOTE_PARENT": "link", PREFIX + "NATIVE_SPANS": "keep"}
    config = McpConfig.load({"remote_parent": "ignore", "native_spans": None, "unknown": 1}, environ)
    assert config.remote_parent == "ignore"
    assert config.native_spans == "keep", "None says nothing"
    assert McpConfig.load({"resource_uri_in_span_name": False}, {}).resource_uri_in_span_name is False
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    "methods",
    [
        ["ping", "tools/list"],
        ("ping", "tools/list"),
        {"ping", "tools/list"},
        frozenset({"ping", "tools/list"}),
        "ping, tools/list",
        {"ping": 1, "tools/list": 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_names_come_in_any_collection(methods: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert McpConfig(excluded_methods=methods).excluded_methods == frozenset({"ping", "tools/list"})
    assert warnings_of(caplog) == []


def test_names_come_from_a_generator(caplog: pytest.LogCaptureFixture) -> None:
    """It can be read once only."""
    config = McpConfig(excluded_methods=(name for name in ("ping", "tools/list")))
    assert config.excluded_methods == frozenset({"ping", "tools/list"})
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("field", [field.name for field in fields(McpConfig)])
@pytest.mark.parametrize("value", [object(), 7, 1.5, [1], b"ping", {"a": 1, 2: 3}.keys()], ids=repr)
def test_a_value_of_the_wrong_type_gets_one_warning(field: str, value: Any, caplog: pytest.LogCaptureFixture) -> None:
    used = "off" if field == "error_text" else getattr(McpConfig(), field)  # what tells less
    assert getattr(McpConfig(**{field: value}), field) == used
    [warning] = warnings_of(caplog)
    assert variable_of(field) in warning


FREE_TEXT = {"identity_key", "pii_detector"}


def test_a_secret_is_not_shown() -> None:
    assert "s3cret-key-of-hashes" not in repr(McpConfig(identity="hashed", identity_key="s3cret-key-of-hashes"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_REDACT_FIELDS": "pin, iban"}, {"redact_keys": frozenset({"pin", "iban"})}),
        ({"OTEL_MAX_TRACE_PAYLOAD_SIZE": "4096"}, {"max_payload": 4096}),
        (
            {
                "OTEL_BAGGAGE_ENABLED": "true",
                "OTEL_BAGGAGE_PROPAGATE_TO_EXTERNAL": "true",
                "OTEL_BAGGAGE_HEADER_MAPPINGS": '[{"header_name": "X-Tenant-Id", "baggage_key": "tenant.id"}]',
            },
            {"baggage_outbound": frozenset({"tenant.id"})},
        ),
        (
            {
                "OTEL_BAGGAGE_ENABLED": "true",
                "OTEL_BAGGAGE_PROPAGATE_TO_EXTERNAL": "true",
                "OTEL_BAGGAGE_HEADER_MAPPINGS": '["tenant.id"',
            },
            {"baggage_outbound": frozenset()},
        ),
        ({"OTEL_BAGGAGE_ENABLED": "true"}, {"baggage_outbound": frozenset({"auto"})}),
        (
            {"OTEL_CAPTURE_INPUT_SPANS": "tool.invoke,llm.chat"},
            {"capture_content": "SPAN_ONLY", "capture_inputs": frozenset({"*"}), "capture_outputs": frozenset()},
        ),
        (
            {"OTEL_CAPTURE_OUTPUT_SPANS": "prompt.render"},
            {"capture_content": "SPAN_ONLY", "capture_inputs": frozenset(), "capture_outputs": frozenset({"*"})},
        ),
        ({"OTEL_CAPTURE_INPUT_SPANS": "llm.chat"}, {"capture_content": "NO_CONTENT"}),
        ({"OTEL_CAPTURE_IDENTITY_ATTRIBUTES": "true"}, {"identity": "on"}),
        ({"OTEL_CAPTURE_IDENTITY_ATTRIBUTES": "false"}, {"identity": "off"}),
        ({"OTEL_EMIT_LANGFUSE_ATTRIBUTES": "1"}, {"langfuse": "on"}),
        ({"OTEL_EMIT_LANGFUSE_ATTRIBUTES": "false"}, {"langfuse": "off"}),
        ({"OTEL_EMIT_LANGFUSE_ATTRIBUTES": "true", PREFIX + "LANGFUSE": "off"}, {"langfuse": "off"}),
        ({"OTEL_REDACT_FIELDS": "pin", PREFIX + "REDACT_KEYS": "iban"}, {"redact_keys": frozenset({"iban"})}),
        ({"OTEL_REDACT_FIELDS": " "}, {"redact_keys": frozenset()}),
    ],
)
def test_the_gateway_s_variables_count_where_ours_are_not_set(
    environ: dict[str, str], expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = McpConfig.load(NOTHING, environ)
    assert {name: getattr(config, name) for name in expected} == expected
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("variable", "text", "field", "used"),
    [
        ("OTEL_MAX_TRACE_PAYLOAD_SIZE", "abc", "max_payload", 32_768),
        ("OTEL_MAX_TRACE_PAYLOAD_SIZE", "7", "max_payload", 32_768),
        ("OTEL_MAX_TRACE_PAYLOAD_SIZE", "9" * 5000, "max_payload", 32_768),
        ("OTEL_EMIT_LANGFUSE_ATTRIBUTES", "maybe", "langfuse", "auto"),
    ],
)
def test_a_bad_value_of_the_gateway_s_variables_is_named(
    variable: str, text: str, field: str, used: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert getattr(McpConfig.load(NOTHING, {variable: text}), field) == used
    [warning] = warnings_of(caplog)
    for part in (variable, repr(text), repr(used)):
        assert part in warning


def test_the_gateway_s_variables_are_not_looked_at_where_ours_are_set(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"OTEL_MAX_TRACE_PAYLOAD_SIZE": "x", "OTEL_EMIT_LANGFUSE_ATTRIBUTES": "maybe"}
    config = McpConfig.load({"max_payload": 500, "langfuse": "off"}, environ)
    assert (config.max_payload, config.langfuse) == (500, "off")
    assert warnings_of(caplog) == []


@given(st.sampled_from([field.name for field in fields(McpConfig)]), st.text(min_size=1))
@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=SLOW,
)
def test_any_text_is_a_value_or_one_warning(caplog: pytest.LogCaptureFixture, field: str, text: str) -> None:
    caplog.clear()
    value = getattr(McpConfig.load(NOTHING, {variable_of(field): text}), field)
    assert type(value) is type(getattr(McpConfig(), field)) or field in FREE_TEXT
    assert len(warnings_of(caplog)) <= 1
    if field != "excluded_methods" and not warnings_of(caplog):
        assert text.strip().lower() in {"1", "true", "yes", "on", "0", "false", "no", "off"} or text.strip(" ,").lower()
