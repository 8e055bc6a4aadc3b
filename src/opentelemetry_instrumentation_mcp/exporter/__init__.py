"""The span exporter `mcp_tree`: each finished trace as a tree on the terminal.

`OTEL_TRACES_EXPORTER=mcp_tree opentelemetry-instrument python app.py` prints to stderr, never to stdout:
there a stdio server speaks its protocol.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from .tree import ASCII, UNICODE, TreeSpan, layout, plain, render_tree

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence
    from typing import TextIO

    from opentelemetry.sdk.trace import ReadableSpan

    from .tree import Glyphs, Line

__all__ = ["McpTreeExporter", "TreeSpan", "render_tree"]

_logger = logging.getLogger(__name__)
_LOG_FILE_WIDTH = 100


class McpTreeExporter(SpanExporter):
    """Prints a trace once no span seen so far waits for a parent of this process to end.

    Args:
        out: Where to print; by default whatever `sys.stderr` is at that moment.
        color: Whether to use colour (needs `rich`); by default on a terminal without `NO_COLOR` and
            `TERM=dumb`, and with `FORCE_COLOR`.
        width: Columns; by default the terminal's, 100 elsewhere.
        max_traces: How many unfinished traces are kept; beyond it the one quiet longest is printed as it is.
        max_spans: The same for the spans of all unfinished traces together.
        max_idle: Seconds after which an unfinished trace without new spans is printed as it is, when others
            go on: its missing parent may be one that is never exported.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        *,
        color: bool | None = None,
        width: int | None = None,
        max_traces: int = 1_000,
        max_spans: int = 10_000,
        max_idle: float = 60.0,
    ) -> None:
        self._out, self._color, self._width = out, color, width
        self._max_traces, self._max_spans, self._max_idle = max_traces, max_spans, max_idle
        self._closed = self._failed = False
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)

            def reset_in_child() -> None:
                if method := reset():
                    method()

            os.register_at_fork(after_in_child=reset_in_child)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Buffer `spans` and print the traces they complete."""
        try:
            with self._lock:
                if self._closed:
                    return SpanExportResult.FAILURE
                # All of a batch first, so that its spans of one trace end up in one tree.
                touched = dict.fromkeys(self._add(TreeSpan.from_readable(span)) for span in spans)
                done = [self._print(trace_id) for trace_id in touched if self._is_complete(trace_id)]
                done += self._print_excess()
            return SpanExportResult.SUCCESS if all(done) else SpanExportResult.FAILURE
        except Exception as error:
            self._report(error)
            return SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Print everything buffered, traces still incomplete too."""
        try:
            # Where another thread is stuck writing, better lose the rest than hang the program.
            if not self._lock.acquire(timeout=timeout_millis / 1_000):
                return False
            try:
                done = [self._print(trace_id) for trace_id in list(self._traces)]
                return all(done)
            finally:
                self._lock.release()
        except Exception as error:
            self._report(error)
            return False

    def shutdown(self) -> None:
        """Print everything buffered; later spans are refused."""
        self._closed = True
        self.force_flush()

    def _reset(self) -> None:
        """Start empty. So does a forked child: the spans are its parent's, the lock may be held for ever."""
        self._lock = threading.RLock()  # re-entrant: a finaliser that runs in here may end a span
        self._traces: OrderedDict[int, _Trace] = OrderedDict()  # the one quiet longest comes first
        self._buffered = 0
        self._shown_traces, self._shown_spans = _Recent(self._max_traces), _Recent(self._max_spans)

    def _add(self, span: TreeSpan) -> int:
        trace = self._traces.setdefault(span.trace_id, _Trace())
        self._traces.move_to_end(span.trace_id)
        trace.add(span, waits=(span.trace_id, span.parent_id) not in self._shown_spans)
        self._buffered += 1
        return span.trace_id

    def _is_complete(self, trace_id: int) -> bool:
        trace = self._traces.get(trace_id)
        return trace is not None and not trace.awaited

    def _print_excess(self) -> Iterable[bool]:
        """Print the traces that are idle or too many."""
        while self._traces:
            trace_id, trace = next(iter(self._traces.items()))
            if len(self._traces) > self._max_traces or self._buffered > self._max_spans:
                yield self._print(trace_id, "buffer full")
            elif time.monotonic() - trace.touched > self._max_idle:
                yield self._print(trace_id, "idle")
            else:
                return

    def _print(self, trace_id: int, reason: str = "") -> bool:
        """Print one trace and forget its spans, whether printing succeeds or not."""
        trace = self._traces.pop(trace_id, None)
        if trace is None:
            return True
        self._buffered -= len(trace.spans)
        marks = ["continued"] if trace_id in self._shown_traces else []
        if trace.awaited:
            marks.append(f"incomplete ({reason})" if reason else "incomplete")
        parents = {span.parent_id for span in trace.spans if span.parent_id is not None}
        shown = {parent for parent in parents if (trace_id, parent) in self._shown_spans}
        self._shown_traces.add(trace_id)
        for span in trace.spans:
            self._shown_spans.add((trace_id, span.span_id))
        try:
            if out := self._out or sys.stderr:  # None in a program without a console
                width = self._width or _width_of(out)
                lines = layout(trace.spans, width=width, glyphs=_glyphs_for(out), marks=marks, shown=shown)
                _write(lines, out, _wants_color(out) if self._color is None else self._color)
        except Exception as error:
            self._report(error)
            return False
        return True

    def _report(self, error: Exception) -> None:
        """Log a failure, the first time only."""
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(Exception):  # logging may be as broken as the stream
            _logger.warning("mcp_tree could not print a trace; further failures are not logged", exc_info=error)


@dataclass
class _Trace:
    """The spans of one trace that are not printed yet."""

    spans: list[TreeSpan] = field(default_factory=list[TreeSpan])
    ids: set[int] = field(default_factory=set[int])
    awaited: set[int] = field(default_factory=set[int])  # parents of this process that have not ended
    touched: float = 0.0

    def add(self, span: TreeSpan, *, waits: bool) -> None:
        self.touched = time.monotonic()
        self.spans.append(span)
        self.ids.add(span.span_id)
        self.awaited.discard(span.span_id)
        parent = span.parent_id
        if waits and parent is not None and not span.parent_is_remote and parent not in self.ids:
            self.awaited.add(parent)


class _Recent:
    """A set that forgets its oldest members."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._members: OrderedDict[Hashable, None] = OrderedDict()

    def add(self, member: Hashable) -> None:
        self._members[member] = None
        self._members.move_to_end(member)
        if len(self._members) > self._limit:
            self._members.popitem(last=False)

    def __contains__(self, member: Hashable) -> bool:
        return member in self._members


def _write(lines: list[Line], out: TextIO, color: bool) -> None:
    encoding = getattr(out, "encoding", None) or "utf-8"
    lines = [[(_encodable(text, encoding), role) for text, role in line] for line in lines]
    if color:
        try:
            from .rich_rendering import draw
        except ImportError:
            color = False
        else:
            draw(lines, out)
    if not color:
        out.write(plain(lines) + "\n")  # one write: other threads and processes print here too
    out.flush()


def _encodable(text: str, encoding: str) -> str:
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def _glyphs_for(out: TextIO) -> Glyphs:
    try:
        "├─└│━…·✗".encode(getattr(out, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def _wants_color(out: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") not in ("dumb", "unknown") and out.isatty()


def _width_of(out: TextIO) -> int:
    try:
        columns = os.get_terminal_size(out.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 0
    return columns - 1 if columns else _LOG_FILE_WIDTH  # some terminals wrap when the last column is used
