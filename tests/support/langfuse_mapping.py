"""A reference of how Langfuse's OpenTelemetry ingestion reads spans: the rules as far as they touch MCP operations.

Not Langfuse's code: a second statement of its documented mapping, against which our attributes are checked. First hit
wins in every list of sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

USER = ("langfuse.user.id", "user.id")
SESSION = ("langfuse.session.id", "session.id", "gen_ai.conversation.id")
MAX_SESSION = 200


class SpanIn(NamedTuple):
    """A span as it arrives: ``parent`` is None for the root of the trace."""

    name: str
    attributes: Mapping[str, Any]
    parent: str | None = None
    failed: bool = False
    status_text: str | None = None


class Observation(NamedTuple):
    name: str
    type: str
    level: str
    status_message: str | None
    input: str | None
    output: str | None
    metadata: Mapping[str, Any]


class Trace(NamedTuple):
    name: str | None
    user_id: str | None
    session_id: str | None
    tags: tuple[str, ...]
    input: str | None
    output: str | None
    updates: int
    """How many spans that are not the root changed the trace."""


def observe(span: SpanIn) -> Observation:
    """The observation that becomes of a span."""
    attributes = span.attributes
    # A level, once given, beats the status; a payload of Langfuse's own keys hides every other.
    level = attributes.get("langfuse.observation.level") or ("ERROR" if span.failed else "DEFAULT")
    text = attributes.get("langfuse.observation.status_message") or span.status_text
    own = [attributes.get(f"langfuse.observation.{side}") for side in ("input", "output")]
    if own == [None, None]:
        own = [attributes.get(f"gen_ai.tool.call.{side}") for side in ("arguments", "result")]
    metadata = {key: value for key, value in attributes.items() if not key.startswith("langfuse.")}
    name = attributes.get("gen_ai.tool.name") or span.name
    return Observation(name, _type(attributes), str(level), text, own[0], own[1], metadata)


def _type(attributes: Mapping[str, Any]) -> str:
    given = attributes.get("langfuse.observation.type") or attributes.get("openinference.span.kind")
    if given:
        return str(given).upper()
    is_tool = attributes.get("gen_ai.operation.name") == "execute_tool" or "gen_ai.tool.name" in attributes
    return "TOOL" if is_tool else "SPAN"


def trace_of(spans: Iterable[SpanIn]) -> Trace:
    """The trace that becomes of its spans, in the order in which they arrive."""
    name = user = session = first_input = first_output = None
    tags: tuple[str, ...] = ()
    updates = 0
    for span in spans:
        attributes = span.attributes
        given_user, given_session = _first(attributes, USER), _first(attributes, SESSION)
        if given_session is not None and len(given_session) > MAX_SESSION:
            given_session = None
        given_name, given_tags = attributes.get("langfuse.trace.name"), _tags(attributes.get("langfuse.trace.tags"))
        if span.parent is None:
            name = given_name or name or observe(span).name
            first_input, first_output = observe(span)[4:6]
        elif given_name or given_user or given_session or given_tags:
            updates += 1
        name = given_name or name
        user, session = given_user or user, given_session or session
        tags += tuple(tag for tag in given_tags if tag not in tags)
    return Trace(name, user, session, tags, first_input, first_output, updates)


def _first(attributes: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    return next((str(attributes[key]) for key in keys if attributes.get(key)), None)


def _tags(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = value.split(",")
    return tuple(str(tag).strip() for tag in value or ())
