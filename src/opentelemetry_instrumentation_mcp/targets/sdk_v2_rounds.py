"""Input-required round trips (SEP-2322): which request continues which.

A server may answer ``resultType: input_required``; the client then sends the request again with ``inputResponses``
and the ``requestState`` it was given. Each later round's CLIENT span links the round before.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from ..message import Message, as_mapping
from ..operation import Operation

_MAX_OPEN = 1000
_MAX_ALIKE = 8

# A round without a state is continued by the task that had it, or by another task for the same caller.
_open_in_task: ContextVar[tuple[str, str | None, SpanContext] | None] = ContextVar("otel_mcp_round", default=None)


class Rounds:
    """The rounds that await their continuation; bounded, the oldest are forgotten first."""

    def __init__(self) -> None:
        # By hash: how long a state is, is up to the peer.
        self._open: OrderedDict[int, SpanContext] = OrderedDict()
        self._stateless: OrderedDict[int, list[SpanContext]] = OrderedDict()

    def previous(self, message: Message, params: Any) -> SpanContext | None:
        """The span of the round that a request with these ``params`` continues, None if it continues none."""
        sent = as_mapping(params)
        if sent is None:
            return None
        state = sent.get("requestState")
        if isinstance(state, str):
            return self._open.pop(_key(message, state), None)
        if sent.get("inputResponses") is None:
            return None
        key = _stateless_key(message, sent["inputResponses"])
        last = _open_in_task.get()
        if last is not None and last[:2] == (message.method, message.target or message.uri):
            return self._closed(key, last[2])
        candidates = self._stateless.get(key, ())
        # Of several alike, who can tell which one it was?
        return self._closed(key, candidates[0]) if len(candidates) == 1 else None

    def _closed(self, key: int, span_context: SpanContext) -> SpanContext:
        remaining = [one for one in self._stateless.pop(key, ()) if one is not span_context]
        if remaining:
            self._stateless[key] = remaining
        return span_context

    def remember(self, operation: Operation, result: Any) -> None:
        """Remember the operation if its ``result`` (raw, of any shape) asks for another round."""
        answer = as_mapping(result)
        if answer is None or answer.get("resultType") != "input_required" or operation.span is None:
            return
        message, span_context = operation.message, operation.span.get_span_context()
        state = answer.get("requestState")
        if isinstance(state, str):
            self._open[_key(message, state)] = span_context
        else:
            _open_in_task.set((message.method, message.target or message.uri, span_context))
            alike = self._stateless.setdefault(_stateless_key(message, answer.get("inputRequests")), [])
            alike.append(span_context)
            del alike[:-_MAX_ALIKE]
        for rounds in (self._open, self._stateless):
            if len(rounds) > _MAX_OPEN:
                rounds.popitem(last=False)


def _key(message: Message, state: str) -> int:
    return hash((message.method, message.target or message.uri, state))


def _stateless_key(message: Message, questions: Any) -> int:
    """What a round and its continuation have in common: the questions' names, and the caller's span."""
    caller = trace.get_current_span().get_span_context()
    names = frozenset(str(name) for name in as_mapping(questions) or ())
    return hash((message.method, message.target or message.uri, names, caller.trace_id, caller.span_id))
