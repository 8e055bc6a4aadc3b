"""What is told of a message besides the ordinary: content, identity, error texts, and what the user's hooks add.

One of the few rooms that touch OpenTelemetry. What may be told is up to ``disclosure.py``, which is loaded when there
is something.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from . import semconv
from .config import NO_CONTENT, McpConfig
from .connection import Attributes, HttpRequest
from .guard import contained, frames_of, report
from .message import Message, Outcome, is_cancellation, outcome_of_exception
from .operation import Operation

if TYPE_CHECKING:
    from .disclosure import Disclosure
    from .events import EventLog
    from .internal import Internal

RequestHook = Callable[[Span, Message], None]
ResponseHook = Callable[[Span, Message, Outcome], None]

_MAX_FRAMES = 50

OPERATION_DETAILS = "gen_ai.client.inference.operation.details"
"""The event of the GenAI conventions that holds content; for the execution of tools they have none of its own."""


class Telling:
    """What one ``instrument()`` tells by its options and hooks.

    Attributes:
        is_asked_for_more: whether any option asks for more than the ordinary.
        adds_to_spans: whether spans may get anything besides the ordinary.
    """

    def __init__(
        self,
        scope: str,
        config: McpConfig,
        request_hook: RequestHook | None = None,
        response_hook: ResponseHook | None = None,
        logger_provider: Any = None,
    ) -> None:
        self._scope = scope
        self._config = config
        self._request_hook = request_hook
        self._response_hook = response_hook
        self._logger_provider = logger_provider
        self.is_asked_for_more = config.tells_more() and bool(self._finds_more())
        self.adds_to_spans = self.is_asked_for_more or request_hook is not None or response_hook is not None

    @cached_property
    def disclosure(self) -> Disclosure:
        """What may be told."""
        from .disclosure import Disclosure

        return Disclosure(self._config)

    @cached_property
    def _events(self) -> EventLog:
        from .events import EventLog

        return EventLog(self._scope, self._logger_provider)

    @contained("read what is to be told")
    def _finds_more(self) -> bool:
        return self.disclosure.tells_more

    def shown_uri(self, uri: str) -> str:
        """``uri`` as it may be told: its secrets redacted, or without all that may be one."""
        if self._config.capture_content == NO_CONTENT:
            return semconv.bare_uri(uri)
        return self.disclosure.url(uri) or semconv.bare_uri(uri)

    def status_text(self, outcome: Outcome) -> str | None:
        """The description of an error status; None if there is nothing that may be told."""
        phrase = semconv.protocol_phrase(outcome.status_code, outcome.text)
        if not outcome.text or outcome.text == phrase or self._config.error_text == "off":
            return phrase
        return self.disclosure.error_text(outcome.text) or phrase

    @contained("promote baggage to attributes")
    def baggage_attributes(self, context: Context) -> Attributes:
        """The entries of the baggage in ``context`` that may become attributes."""
        return self.disclosure.baggage_attributes(context)

    def at_beginning(self, span: Span, message: Message, parent: Context, http: HttpRequest | None) -> None:
        """Add to the span of a message that begins."""
        if self.is_asked_for_more:
            self.tell_beginning(span, message, parent, http)
        if self._request_hook is not None:
            _call_hook("call request_hook", self._request_hook, span, message)

    def at_end(self, span: Span, operation: Operation, outcome: Outcome, error_type: str | None) -> None:
        """Add to the span of a message that ends."""
        if self.is_asked_for_more:
            self._tell_end(span, operation, error_type)
        if self._response_hook is not None:
            _call_hook("call response_hook", self._response_hook, span, operation.message, outcome)

    @contained("tell more of the beginning of a message")
    def tell_beginning(self, span: Span, message: Message, parent: Context, http: HttpRequest | None) -> None:
        """Add what the options ask for to a span, which the user's hooks know already."""
        disclosure = self.disclosure
        above = trace.get_current_span(parent).get_span_context()
        is_local_root = not above.is_valid or above.is_remote
        identity = disclosure.identity_attributes(http)
        attributes = disclosure.without_trace_level(identity, local_root=is_local_root)
        attributes.update(
            disclosure.langfuse_at_start(
                message, identity, local_root=is_local_root, remote_parent=above.is_valid and above.is_remote
            )
        )
        if disclosure.on_spans and disclosure.captures_input(message):
            attributes.update(disclosure.input_attributes(message))
        if attributes:
            span.set_attributes(attributes)

    @contained("tell more of the end of a message")
    def _tell_end(self, span: Span, operation: Operation, error_type: str | None) -> None:
        disclosure, message = self.disclosure, operation.message
        attributes = disclosure.langfuse_at_end(message, failed=error_type is not None)
        if operation.result is not None and disclosure.on_spans:
            attributes.update(disclosure.output_attributes(operation.result))
        if attributes:
            span.set_attributes(attributes)
        if disclosure.in_events and (operation.result is not None or disclosure.captures_input(message)):
            event = {**_event_attributes(message), **disclosure.event_attributes(message, operation.result)}
            if error_type is not None:
                event[semconv.ERROR_TYPE] = semconv.clean(error_type)
            self._events.emit(OPERATION_DETAILS, event, operation.context)

    @contained("record an exception")
    def note_exception(self, operation: Operation | Internal, error: BaseException) -> None:
        """Record what was raised as an event of the span, if stack traces are wanted."""
        span = operation.span
        if not self._config.stacktraces or operation.settled or span is None or is_cancellation(error):
            return
        attributes = {"exception.type": semconv.clean(outcome_of_exception(error).error_type or "")}
        if self._config.error_text == "off":
            attributes["exception.stacktrace"] = self.disclosure.stacktrace(frames_of(error))
        else:
            lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-_MAX_FRAMES)
            attributes["exception.stacktrace"] = self.disclosure.stacktrace("".join(lines))
            attributes["exception.message"] = self.disclosure.error_text(str(error)) or ""
        span.add_event("exception", attributes)


def _call_hook(place: str, hook: Callable[..., None], *args: Any) -> None:
    try:
        hook(*args)
    except Exception as error:
        report(place, error)


def _event_attributes(message: Message) -> dict[str, Any]:
    attributes: dict[str, Any] = {semconv.METHOD: semconv.clean(message.method)}
    if message.method == "tools/call":
        attributes[semconv.OPERATION_NAME] = semconv.EXECUTE_TOOL
    attribute = semconv.target_attribute(message.method)
    if message.target and attribute is not None:
        attributes[attribute] = semconv.clean(message.target)
    return attributes
