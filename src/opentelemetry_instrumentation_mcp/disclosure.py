"""What of a message leaves the process besides what the conventions always want: content, texts, identity, baggage.

Everything here is off by default but the redacted text of errors, and everything goes through the payload policy,
which is loaded when it is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.context import Context

from . import identity as who
from . import langfuse, semconv
from .baggage import BaggageRules, baggage_attributes
from .config import EVENT_ONLY, NO_CONTENT, OTLP_ENDPOINTS, SPAN_AND_EVENT, SPAN_ONLY, McpConfig
from .connection import HttpRequest
from .guard import contained
from .message import Message, as_mapping

if TYPE_CHECKING:
    from .payload import Policy

TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
PROMPT_VARIABLE = "gen_ai.prompt.variable."

_MAX_VARIABLES = 64
_KEPT_OF_PEERS = 256

Disclosed = dict[str, Any]


class Disclosure:
    """The rules of one configuration about what may be told; pure but for the baggage of a context."""

    def __init__(self, config: McpConfig, environ: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self.on_spans = config.capture_content in (SPAN_ONLY, SPAN_AND_EVENT)
        self.in_events = config.capture_content in (EVENT_ONLY, SPAN_AND_EVENT)
        self._inputs = _Selection(config.capture_inputs, config.exclude_inputs)
        self._outputs = _Selection(config.capture_outputs, config.exclude_outputs)
        self._identity = who.identity_policy(config.identity, config.identity_key)
        self._langfuse = langfuse.is_wanted(config.langfuse, (environ.get(name) for name in OTLP_ENDPOINTS))
        self._environment = environ.get("DEPLOYMENT_ENV") or environ.get("ENVIRONMENT")
        self.baggage = BaggageRules(config.baggage_attributes)
        self._of_peers: dict[tuple[str, str], Any] = {}
        self.is_steady = config.pii_detector is None
        """Whether the policy will always say what it said once; a detector may be late, and back later."""
        self.tells_more = (
            config.capture_content != NO_CONTENT
            or self._identity.mode != who.OFF
            or self._langfuse
            or bool(self.baggage)
        )
        """Whether there is anything to do for an ordinary message."""

    @cached_property
    def policy(self) -> Policy:
        """The payload policy; what it may cost to load it, is paid by the first text that needs it."""
        from .payload import Policy, PolicySettings
        from .pii import WatchedDetector

        config = self._config
        return Policy(
            PolicySettings(
                max_payload=config.max_payload,
                max_error=config.max_error_text,
                redact_keys=frozenset(config.redact_keys),
                keep_keys=frozenset(config.keep_keys),
                redact_patterns=tuple(config.redact_patterns),
                detector=WatchedDetector(config.pii_detector) if config.pii_detector else None,
            )
        )

    # ----- the beginning of a message

    def baggage_attributes(self, context: Context) -> Disclosed:
        """Allowed baggage entries as attributes; what a span has by itself must win over them."""
        return cast("Disclosed", baggage_attributes(self.baggage, self.policy, context))

    def captures_input(self, message: Message) -> bool:
        """Whether the arguments of this message are captured anywhere."""
        return message.arguments is not None and self._captures and self._inputs.includes(message.target)

    def captures_output(self, message: Message) -> bool:
        """Whether the result of this message is captured anywhere; the conventions have a name for a tool's only."""
        return self._captures and message.method == "tools/call" and self._outputs.includes(message.target)

    @property
    def _captures(self) -> bool:
        return self.on_spans or self.in_events

    def input_attributes(self, message: Message) -> Disclosed:
        """A tool's arguments as JSON text, or a prompt's variables."""
        if message.method == "tools/call":
            return {TOOL_ARGUMENTS: self.policy.json(message.arguments)}
        variables: Mapping[Any, Any] = as_mapping(message.arguments) or {}
        return {
            PROMPT_VARIABLE + semconv.clean(self.policy.text(name)): self.policy.attribute(name, value)
            for name, value in islice(variables.items(), _MAX_VARIABLES)
            if isinstance(name, str) and isinstance(value, str)
        }

    @contained("redact a URI")
    def url(self, uri: str) -> str:
        """A resource's URI with what is secret in it masked."""
        return self.policy.url(uri)

    def of_peer(self, key: str, text: str | None) -> Any:
        """The value of an attribute that a peer chose, redacted and then cut; what was seen before costs a look."""
        if not text:
            return text
        known = self._of_peers.get((key, text))
        if known is None:
            known = self.policy.attribute(key, text)
            known = semconv.clean(known) if isinstance(known, str) else known
            if self.is_steady and len(text) <= semconv.MAX_ATTRIBUTE:
                if len(self._of_peers) >= _KEPT_OF_PEERS:
                    self._of_peers.clear()
                self._of_peers[key, text] = known
        return known

    def output_attributes(self, result: object) -> Disclosed:
        """A tool's result as JSON text."""
        return {TOOL_RESULT: self.policy.json(result)}

    def event_attributes(self, message: Message, result: object) -> Disclosed:
        """The same for an event, whose attributes may be structured."""
        attributes: Disclosed = {}
        if self.captures_input(message):
            if message.method == "tools/call":
                attributes[TOOL_ARGUMENTS] = self.policy.structured(message.arguments)
            else:
                attributes.update(self.input_attributes(message))
        if result is not None:
            attributes[TOOL_RESULT] = self.policy.structured(result)
        return attributes

    def identity_attributes(self, http: HttpRequest | None) -> Disclosed:
        """Who sent a message, as far as the HTTP request that carried it tells."""
        if self._identity.mode == who.OFF or http is None:
            return {}
        return self._identity.attributes(who.identity_of(http.user, http.session_id))

    def identity_attribute(self, key: str, value: Any) -> Any:
        """The value of an attribute of somebody else's span; None if it must not be shown."""
        return self._identity.attribute(key, value)

    # ----- Langfuse

    def langfuse_at_start(
        self, message: Message, identity: Mapping[str, Any], *, local_root: bool, remote_parent: bool
    ) -> Disclosed:
        """What Langfuse's mapping wants on the span when it begins."""
        if not self._langfuse:
            return {}
        return langfuse.attributes_at_start(
            langfuse.Described(
                message.method,
                message.target,
                local_root=local_root,
                remote_parent=remote_parent,
                identity=identity,
                environment=self._environment,
                input=self._prompt_input(message),
            )
        )

    def langfuse_at_end(self, message: Message, *, failed: bool) -> Disclosed:
        """What Langfuse's mapping wants on the span when it ends."""
        if not self._langfuse:
            return {}
        return langfuse.attributes_at_end(langfuse.Described(message.method, failed=failed))

    def without_trace_level(self, attributes: Disclosed, *, local_root: bool) -> Disclosed:
        """Identity for a span: under Langfuse, only the local root may say what changes the trace."""
        return attributes if local_root or not self._langfuse else langfuse.without_trace_level(attributes)

    def _prompt_input(self, message: Message) -> str | None:
        # Langfuse maps a tool's arguments by itself; a prompt's variables it does not know.
        if message.method == "tools/call" or not self.on_spans or not self.captures_input(message):
            return None
        return self.policy.json(message.arguments)

    # ----- errors

    @contained("redact the text of an error")
    def error_text(self, text: str) -> str:
        """The text of an error, redacted and bounded, in one line."""
        return semconv.clean(" ".join(self.policy.text(text).split()), self._config.max_error_text)

    def stacktrace(self, text: str) -> str:
        """A formatted stack trace, redacted and bounded."""
        return self.policy.text(text, self._config.max_payload)


class _Selection:
    """Names by patterns: those that are allowed and not denied."""

    def __init__(self, allowed: Iterable[str], denied: Iterable[str]) -> None:
        self._allowed = tuple(allowed)
        self._denied = tuple(denied)

    def includes(self, name: str | None) -> bool:
        text = semconv.clean(name or "")
        return any(fnmatchcase(text, pattern) for pattern in self._allowed) and not any(
            fnmatchcase(text, pattern) for pattern in self._denied
        )
