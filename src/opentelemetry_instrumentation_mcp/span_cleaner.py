"""Cleaned copies of ended spans: the payload policy at every place of a span where text can be.

Touches OpenTelemetry, as it reads and makes the SDK's read-only spans; how they get here is the matter of
:mod:`.clean_spans`. What the SDK records by itself when an exception leaves ``start_as_current_span`` (event, stack
trace, status text) is part of an ended span and cleaned like the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.trace import Link, Status, StatusCode

from .guard import report

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan

DEFAULT_SCOPES: Final = (
    "amazon.opentelemetry.distro.instrumentation.mcp",
    "contextforge",
    "cpex",
    "fastmcp",
    "logfire.mcp",
    "mcp",
    "openinference.instrumentation.mcp",
    "opentelemetry.instrumentation.mcp",
)
"""Prefixes of instrumentation scope names that are cleaned by default. ``mcp`` stands for the official SDK
(``mcp-python-sdk``) and the ContextForge gateway (``mcp-gateway``, ``mcpgateway``) too."""

ALL_SCOPES: Final = "*"
_OWN_SCOPE: Final = __name__.partition(".")[0]

MASK: Final = "***"
# Identities must not be hashed twice when a span meets the same cleaner twice.
_CLEANED_BY: Final = "_mcp_cleaned_by"
_WITHHELD: Final = "(withheld)"
_MAX_NAME: Final = 256
_MAX_STACKTRACE: Final = 16_384
_MAX_REMEMBERED: Final = 1_000

# Named by the conventions, no secrets by definition, but of a kind that a policy masks by its words.
_CONVENTIONAL_KEYS: Final = frozenset(
    {
        "auth.method",
        "gen_ai.conversation.id",
        "gen_ai.token.type",
        "langfuse.session.id",
        "mcp.session.id",
        "session.id",
    }
)
_ERROR_TEXT_KEYS: Final = frozenset(
    {"error.message", "exception.message", "langfuse.observation.status_message", "otel.status_description"}
)
_STACKTRACE_KEY: Final = re.compile(
    r"(?:.*[._])?(?:stack_?trace|trace_?back|(?:error|exception)\.stack)", re.IGNORECASE
)
_PLAIN: Final = (str, bool, int, float, type(None))

Shown = Callable[[str, Any], Any]


class SpanPolicy(Protocol):
    """What is needed of the payload policy."""

    def text(self, text: str, limit: int | None = None) -> str:
        """Free text, redacted, at most ``limit`` characters."""
        ...

    def attribute(self, key: str, value: object) -> object:
        """The value of a span attribute (a scalar or a sequence of scalars), redacted by its key and content."""
        ...

    def structured(self, value: object, limit: int | None = None) -> object:
        """Any value, redacted, as what JSON knows."""
        ...


class SpanCleaner:
    """Makes cleaned copies of ended spans; never raises.

    Args:
        policy: the payload policy; has to be idempotent.
        scopes: prefixes of the names of instrumentation scopes whose spans are cleaned, in any case; ``*`` is every
            span.
        keep_stacktraces: stack traces are redacted and cut at 16,384 characters; by default they are removed.
        error_text: messages of exceptions and status descriptions are redacted; False removes them, and stack traces,
            which end with a message.
        identity: what becomes of an attribute that says who a user is, None to remove it; called with every key and
            value and returns other attributes as they are. Not called for this package's own spans, which say only
            what they may.
        remembers_names: whether what became of an attribute's name is kept; not if the policy has a detector that may
            be late, and back later.
    """

    def __init__(
        self,
        policy: SpanPolicy,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        *,
        keep_stacktraces: bool = False,
        error_text: bool = True,
        identity: Shown | None = None,
        remembers_names: bool = True,
    ) -> None:
        self._policy = policy
        self._remembers_names = remembers_names
        prefixes = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        self._prefixes = tuple(prefix.lower() for prefix in prefixes if prefix and prefix != ALL_SCOPES)
        self._all_scopes = ALL_SCOPES in prefixes
        self._keep_stacktraces = keep_stacktraces and error_text
        self._error_text = error_text
        self._identity = identity
        self._concerned: dict[str, bool] = {}
        self._keys: dict[str, str] = {}

    def concerns(self, span: ReadableSpan) -> bool:
        """Whether ``span`` belongs to one of the scopes to clean."""
        if self._all_scopes:
            return True
        scope = span.instrumentation_scope
        if scope is None:
            return False
        concerned = self._concerned.get(scope.name)
        if concerned is None:
            concerned = scope.name.lower().startswith(self._prefixes)
            if len(self._concerned) < _MAX_REMEMBERED:
                self._concerned[scope.name] = concerned
        return concerned

    def clean(self, span: ReadableSpan) -> ReadableSpan | None:
        """``span`` itself if it is of no concern, else a cleaned copy; None if not even one without text can be made.

        Should the policy fail, what goes out are identifiers, times, kind and status code, never text.
        """
        try:
            if not self.concerns(span) or getattr(span, _CLEANED_BY, None) is self:
                return span
            cleaned = self._cleaned(span)
            vars(cleaned)[_CLEANED_BY] = self
            return cleaned
        except Exception as error:
            report("clean a span", error)
        try:
            return _without_text(span)
        except Exception as error:
            report("withhold the text of a span", error)
            return None

    def _cleaned(self, span: ReadableSpan) -> ReadableSpan:
        status = span.status
        description = self._error(status.description) if status.description else None
        scope = span.instrumentation_scope
        identity = None if scope is not None and scope.name == _OWN_SCOPE else self._identity
        return _copy(
            span,
            self._policy.text(span.name, _MAX_NAME),
            self._attributes(span, identity),
            [self._event(event, identity) for event in span.events],
            [Link(link.context, self._attributes(link, identity)) for link in span.links],
            Status(status.status_code, description),
        )

    def _event(self, event: Event, identity: Shown | None) -> Event:
        from opentelemetry.sdk.trace import Event

        return Event(self._policy.text(event.name, _MAX_NAME), self._attributes(event, identity), event.timestamp)

    def _attributes(self, owner: ReadableSpan | Event | Link, identity: Shown | None) -> BoundedAttributes:
        cleaned: dict[str, Any] = {}
        attributes: Mapping[str, Any] = owner.attributes or {}
        for key, raw in attributes.items():
            value = raw if identity is None else identity(key, raw)
            if value is not None:
                value = self._value(key, value)
            if value is not None:
                cleaned[self._key(key)] = value
        return _bounded(cleaned, owner.dropped_attributes)

    def _key(self, key: str) -> str:
        known = self._keys.get(key)
        if known is None:
            known = self._policy.text(key, _MAX_NAME) or MASK
            if self._remembers_names and len(self._keys) < _MAX_REMEMBERED:
                self._keys[key] = known
        return known

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            if key in _ERROR_TEXT_KEYS:
                return self._error(value)
            if _STACKTRACE_KEY.fullmatch(key):
                return self._policy.text(value, _MAX_STACKTRACE) if self._keep_stacktraces else None
            if key in _CONVENTIONAL_KEYS:
                return self._policy.text(value)
        elif not isinstance(value, _PLAIN) and not _is_plain_sequence(value):
            # Newer SDKs take bytes, mappings and nested sequences.
            cleaned = cast("dict[str, Any]", self._policy.structured({key: value}))
            return next(iter(cleaned.values())) if len(cleaned) == 1 else cleaned
        elif _STACKTRACE_KEY.fullmatch(key) and not self._keep_stacktraces:
            return None
        return self._policy.attribute(key, value)

    def _error(self, text: str) -> str | None:
        return self._policy.text(text) if self._error_text else None


def _copy(
    span: ReadableSpan, name: str, attributes: BoundedAttributes, events: list[Event], links: list[Link], status: Status
) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan

    copy = ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=_listed(events, span.dropped_events),
        links=_listed(links, span.dropped_links),
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
    # Deprecated, so not asked for by name; exporters of an older generation read it.
    vars(copy)["_instrumentation_info"] = getattr(span, "_instrumentation_info", None)
    return copy


def _without_text(span: ReadableSpan) -> ReadableSpan:
    failed = span.status.status_code is StatusCode.ERROR
    links = [Link(link.context, _bounded({}, len(link.attributes or ()))) for link in span.links]
    status = Status(span.status.status_code, _WITHHELD if failed else None)
    return _copy(span, _WITHHELD, _bounded({}, len(span.attributes or ())), [], links, status)


def _bounded(attributes: dict[str, Any], dropped: int) -> BoundedAttributes:
    bounded = BoundedAttributes(attributes=attributes)
    bounded.dropped += dropped
    return bounded


def _listed(items: list[Any], dropped: int) -> Any:
    if not dropped:
        return items
    from opentelemetry.sdk.util import BoundedList

    bounded = cast("Any", BoundedList)(None)
    bounded.extend(items)
    bounded.dropped = dropped
    return bounded


def _is_plain_sequence(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(item, _PLAIN) for item in cast("list[Any]", value))
