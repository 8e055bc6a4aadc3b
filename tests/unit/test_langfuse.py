"""What Langfuse makes of our spans, told by a reference of its mapping; and when our spans carry anything for it."""

from __future__ import annotations

from typing import Any

import pytest

from opentelemetry_instrumentation_mcp import langfuse
from opentelemetry_instrumentation_mcp.identity import Identity, identity_policy
from opentelemetry_instrumentation_mcp.langfuse import (
    Described,
    attributes_at_end,
    attributes_at_start,
    is_wanted,
    trace_name,
    without_trace_level,
)
from support.langfuse_mapping import Observation, SpanIn, Trace, observe, trace_of

ALICE = identity_policy("on").attributes(
    Identity(user_id="alice", session_id="s-1", team_ids=("red", "blue"), auth_method="jwt")
)
TOOL = Described("tools/call", "add")
CONVENTIONS = {"mcp.method.name": "tools/call", "gen_ai.tool.name": "add", "gen_ai.operation.name": "execute_tool"}


def both(operation: Described) -> dict[str, Any]:
    return {**attributes_at_start(operation), **attributes_at_end(operation)}


def span(operation: Described, parent: str | None = None, **attributes: Any) -> SpanIn:
    name = f"{operation.method} {operation.target}" if operation.target else operation.method
    return SpanIn(name, {**attributes, **both(operation)}, parent, operation.failed)


# Each row: an operation, other attributes of its span, and fields of the observation.
OBSERVATIONS: list[tuple[Described, dict[str, Any], dict[str, Any]]] = [
    (TOOL, CONVENTIONS, {"type": "TOOL", "name": "add", "level": "DEFAULT", "input": None, "output": None}),
    (TOOL, {}, {"type": "TOOL", "name": "tools/call add"}),
    (TOOL._replace(failed=True), CONVENTIONS, {"level": "ERROR"}),
    (TOOL._replace(input='{"a":1}', output='{"b":2}'), CONVENTIONS, {"input": '{"a":1}', "output": '{"b":2}'}),
    (TOOL._replace(input='{"a":1}'), CONVENTIONS, {"input": '{"a":1}', "output": None}),
    (TOOL._replace(input="", output=""), CONVENTIONS, {"input": "", "output": ""}),
    (
        TOOL._replace(input='{"a":1}', output='{"b":2}', content_on_span=True),
        {**CONVENTIONS, "gen_ai.tool.call.arguments": '{"a":1}', "gen_ai.tool.call.result": '{"b":2}'},
        {"input": '{"a":1}', "output": '{"b":2}'},
    ),
    (Described("prompts/get", "ask"), {"gen_ai.prompt.name": "ask"}, {"type": "SPAN", "name": "prompts/get ask"}),
    (Described("resources/read", output='"text"'), {}, {"type": "SPAN", "output": '"text"'}),
    (Described("tools/list"), {}, {"type": "SPAN", "level": "DEFAULT"}),
    (Described("tools/list", failed=True), {}, {"level": "ERROR"}),
]


@pytest.mark.parametrize(("operation", "others", "expected"), OBSERVATIONS)
def test_observations(operation: Described, others: dict[str, Any], expected: dict[str, Any]) -> None:
    observation = observe(span(operation, "parent", **others))
    assert {field: getattr(observation, field) for field in expected} == expected


def test_the_reference_knows_a_wrong_mapping() -> None:
    """The rules that our attributes avoid breaking are in the reference."""
    failed = SpanIn("work", {"langfuse.observation.level": "DEFAULT"}, failed=True)
    assert observe(failed).level == "DEFAULT", "a preset level hides the error"
    hidden = SpanIn("work", {"langfuse.observation.output": "o", "gen_ai.tool.call.arguments": "a"})
    assert observe(hidden)[4:6] == (None, "o"), "half a payload hides the other half"
    child = SpanIn("child", {"langfuse.trace.name": "child"}, "root")
    assert trace_of([SpanIn("root", {}), child])[0] == "child", "a child renames the trace"
    assert trace_of([SpanIn("root", {"session.id": "s" * 201})]).session_id is None
    assert trace_of([SpanIn("root", {"langfuse.trace.tags": "a, b"})]).tags == ("a", "b")
    assert Observation._fields and Trace._fields


def test_the_local_root_tells_the_trace() -> None:
    operation = TOOL._replace(local_root=True, identity=ALICE, environment="prod")
    trace = trace_of([span(operation, None, **CONVENTIONS, **ALICE)])
    assert trace == Trace("Tool: add", "alice", "s-1", ("team:red", "auth:jwt", "env:prod"), None, None, 0)


def test_no_other_span_changes_the_trace() -> None:
    root = TOOL._replace(local_root=True, identity=ALICE)
    child = Described("sampling/createMessage", identity=ALICE, environment="prod", failed=True, output="{}")
    spans = [span(root, None), span(child, "root", **without_trace_level(ALICE))]
    assert trace_of(spans) == trace_of(spans[:1])
    assert trace_of([span(root), span(child, "root", **ALICE)]).updates == 1, "which is why they are left out"


def test_a_trace_of_a_caller_keeps_its_name() -> None:
    agent = SpanIn("agent", {"langfuse.trace.name": "My agent", "user.id": "bob"})
    served = TOOL._replace(local_root=True, remote_parent=True, identity=ALICE)
    trace = trace_of([agent, span(served, "agent")])
    assert trace.name == "My agent"
    assert (trace.session_id, trace.tags) == ("s-1", ("team:red", "auth:jwt"))


def test_the_payload_of_the_root_is_the_payload_of_the_trace() -> None:
    trace = trace_of([span(TOOL._replace(local_root=True, input="i", output="o"))])
    assert (trace.input, trace.output) == ("i", "o")


@pytest.mark.parametrize("length", [200, 201])
def test_ids_that_langfuse_drops_are_not_sent(length: int) -> None:
    identity = {"user.id": "u" * length, "session.id": "s" * length}
    attributes = attributes_at_start(TOOL._replace(local_root=True, identity=identity))
    assert ("langfuse.session.id" in attributes) is ("langfuse.user.id" in attributes) is (length == 200)


@pytest.mark.parametrize(
    ("identity", "user"),
    [
        ({"user.email": "a@b.c", "enduser.id": "app"}, "a@b.c"),
        ({"enduser.id": "app"}, "app"),
        ({"user.id": "alice", "user.email": "a@b.c"}, "alice"),
        ({"auth.method": "jwt"}, None),
        ({"user.id": 7}, None),
    ],
)
def test_the_user_of_a_trace(identity: dict[str, Any], user: str | None) -> None:
    attributes = attributes_at_start(TOOL._replace(local_root=True, identity=identity))
    assert attributes.get("langfuse.user.id") == user


def test_without_an_identity_nothing_is_told_of_one() -> None:
    attributes = attributes_at_start(TOOL._replace(local_root=True))
    assert attributes == {"langfuse.observation.type": "tool", "langfuse.trace.name": "Tool: add"}
    hashed = identity_policy("hashed", "k" * 32).attributes(Identity(user_id="alice", team_ids=("red",)))
    assert "alice" not in str(both(TOOL._replace(local_root=True, identity=hashed)))


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("tools/call", "add", "Tool: add"),
        ("tools/call", None, "Tool"),
        ("tools/list", None, "Tools"),
        ("tools/list", "odd", "Tools"),
        ("prompts/get", "ask", "Prompt: ask"),
        ("prompts/list", None, "Prompts"),
        ("resources/read", None, "Resource"),
        ("resources/read", "file:///a", "Resource: file:///a"),
        ("resources/list", None, "Resources"),
        ("resources/templates/list", None, "Resource Templates"),
        ("roots/list", None, "Roots"),
        ("ping", None, "ping"),
        ("tools/call", "x" * 500, "Tool: " + "x" * 194),
        ("tools/call", "a\nb", "Tool: a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_trace_names(method: str, target: str | None, name: str) -> None:
    assert trace_name(method, target) == name


LANGFUSE = "https://cloud.langfuse.com/api/public/otel"


@pytest.mark.parametrize(
    ("setting", "endpoints", "gateway", "wanted"),
    [
        ("auto", [], None, False),
        ("auto", [None, ""], "", False),
        ("auto", [LANGFUSE], None, True),
        ("auto", [None, f"{LANGFUSE}/v1/traces"], None, True),
        ("auto", [f" {LANGFUSE} "], None, True),
        ("auto", ["http://localhost:4318"], None, False),
        ("auto", ["http://localhost:4318?next=/api/public/otel"], None, False),
        ("auto", ["http://api.public.otel/v1"], None, False),
        ("auto", ["http://[::1"], None, False),
        ("auto", [LANGFUSE], "false", False),
        ("auto", [], " TRUE ", True),
        ("auto", [LANGFUSE], "nonsense", True),
        ("on", [], "false", True),
        ("off", [LANGFUSE], "true", False),
    ],
)
def test_when_langfuse_is_served(setting: str, endpoints: list[str | None], gateway: str | None, wanted: bool) -> None:
    assert is_wanted(setting, endpoints, gateway) is wanted


def test_every_value_is_an_attribute_value() -> None:
    operation = TOOL._replace(
        local_root=True, failed=True, identity=ALICE, environment="e" * 999, input="i", output="o"
    )
    for key, value in both(operation).items():
        assert key.startswith("langfuse.")
        assert isinstance(value, str) or (
            isinstance(value, tuple) and all(len(tag) <= langfuse.MAX_ID for tag in value)
        )
