"""Input-required round trips (SEP-2322): which request continues which.

A server may answer ``resultType: input_required``; the client then sends the request again with ``inputResponses``
and the ``requestState`` it was given. Each later round's CLIENT span links the round before.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import Any

from opentelemetry.trace import SpanContext

from ..message import Message, as_mapping
from ..operation import Operation

_MAX_OPEN = 1000

# A round without a state can only be continued by the task that had it; one with a state by any.
_open_in_task: ContextVar[tuple[str, str | None, SpanContext] | None] = ContextVar("otel_mcp_round", default=None)


class Rounds:
    """The rounds that await their continuation; bounded, the oldest are forgotten first."""

    def __init__(self) -> None:
        # By hash: how long a state is, is up to the peer.
        self._open: OrderedDict[int, SpanContext] = OrderedDict()

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
        last = _open_in_task.get()
        if last is None or last[:2] != (message.method, message.target or message.uri):
            return None
        return last[2]

    def remember(self, operation: Operation, result: Any) -> None:
        """Remember the operation if its ``result`` asks for another round."""
        answer = as_mapping(result)
        if operation.span is None or answer is None or answer.get("resultType") != "input_required":
            return
        message, span_context = operation.message, operation.span.get_span_context()
        state = answer.get("requestState")
        if isinstance(state, str):
            self._open[_key(message, state)] = span_context
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        else:
            _open_in_task.set((message.method, message.target or message.uri, span_context))


def _key(message: Message, state: str) -> int:
    return hash((message.method, message.target or message.uri, state))
