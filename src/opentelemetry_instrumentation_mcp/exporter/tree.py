"""From finished spans to the lines of a tree. Pure: no clock, no stream, no OpenTelemetry at run time."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

Line: TypeAlias = list[tuple[str, str]]
"""One line of output: pieces of text with the role they play, for a renderer that has colours."""

MAX_TEXT = 300  # code points of one name or message: peers choose them, so they may be megabytes long
_GUIDE = 3  # columns of one level of the tree
_DURATION = 7
_GAP = "  "
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_INSTRUMENTATION = "opentelemetry.instrumentation."


@dataclass(frozen=True)
class TreeSpan:
    """What the tree shows of one finished span, wherever the span came from."""

    trace_id: int
    span_id: int
    parent_id: int | None
    parent_is_remote: bool
    name: str
    kind: str
    start_ns: int
    end_ns: int
    service: str = ""
    error: str | None = None
    links: tuple[int, ...] = ()
    scope: str = ""

    @classmethod
    def from_readable(cls, span: ReadableSpan) -> TreeSpan:
        """Return the part of an SDK span that is shown; nothing of `span` itself is kept."""
        context, parent, scope = span.context, span.parent, span.instrumentation_scope
        start = span.start_time or 0
        return cls(
            trace_id=context.trace_id if context else 0,
            span_id=context.span_id if context else 0,
            parent_id=parent.span_id if parent else None,
            parent_is_remote=parent.is_remote if parent else False,
            name=clean(str(span.name)),
            kind=span.kind.name,
            start_ns=start,
            end_ns=span.end_time or start,
            service=clean(str(span.resource.attributes.get("service.name", ""))),
            error=_error_of(span),
            links=tuple(link.context.span_id for link in span.links),
            scope=clean(scope.name) if scope else "",
        )


@dataclass(frozen=True)
class Glyphs:
    """The characters a tree is drawn with."""

    branch: str
    last: str
    pipe: str
    bar: str
    ellipsis: str
    dot: str
    error: str


UNICODE = Glyphs("├─ ", "└─ ", "│  ", "━", "…", " · ", "✗ ")
ASCII = Glyphs("|- ", "`- ", "|  ", "=", "...", " - ", "! ")


@dataclass(eq=False)
class Node:
    """A span at its place in the tree; `note` says why a span with a parent stands at the top."""

    span: TreeSpan
    parent: Node | None = None
    note: str = ""
    children: list[Node] = field(default_factory=list["Node"])


def render_tree(spans: Iterable[TreeSpan], *, color: bool = False, width: int = 100) -> str:
    """Return the spans, of any number of traces and processes, as one tree per trace.

    `color` needs `rich` (extra `cli`), without which the same text comes uncoloured. No newline at the end.
    """
    traces: defaultdict[int, list[TreeSpan]] = defaultdict(list)
    for span in sorted(spans, key=_order):
        traces[span.trace_id].append(span)
    lines = [line for trace in traces.values() for line in layout(trace, width=width)]
    if color:
        try:
            from .rich_rendering import to_ansi
        except ImportError:
            pass
        else:
            return to_ansi(lines)
    return plain(lines)


def layout(
    spans: Sequence[TreeSpan],
    *,
    width: int,
    glyphs: Glyphs = UNICODE,
    marks: Sequence[str] = (),
    shown: Collection[int] = (),
) -> list[Line]:
    """Lay out the spans of one trace: a heading, then a line per span and one more per error.

    `marks` go into the heading; `shown` are the ids of spans of this trace that were printed before.
    """
    if not spans:
        return []
    width = max(width, 40)  # narrower is unreadable, and truncation needs some room to work in
    start = min(span.start_ns for span in spans)
    total = max(1, max(span.end_ns for span in spans) - start)
    bar_width = 20 if width >= 80 else 10 if width >= 60 else 0
    label_width = width - bar_width - _DURATION - (3 if bar_width else 1)
    lines = [_fit(_heading(spans, marks, total, glyphs), width, glyphs.ellipsis)]
    # Deep trees lose the guides on the left, never the names.
    for node, lead, rest in _walk(build(spans, shown), label_width // 2 // _GUIDE * _GUIDE, glyphs):
        span = node.span
        line: Line = [(lead, "guide"), *_label(node, label_width - len(lead), glyphs)]
        if bar_width:
            role = "error" if span.error else f"bar.{span.kind}"
            line += [(_GAP, ""), (_bar(span, start, total, bar_width, glyphs.bar), role)]
        line.append((" " + format_duration(span.end_ns - span.start_ns).rjust(_DURATION), "duration"))
        lines.append(line)
        if span.error:
            guide = rest + (glyphs.pipe if node.children else " " * _GUIDE)
            text = cut(glyphs.error + clean(span.error), width - len(guide), glyphs.ellipsis)
            lines.append([(guide, "guide"), (text, "error")])
    return lines


def plain(lines: Iterable[Line]) -> str:
    """Return the lines as text without colours."""
    return "\n".join("".join(text for text, _ in line) for line in lines)


def build(spans: Iterable[TreeSpan], shown: Collection[int] = ()) -> list[Node]:
    """Return the roots of the forest the spans of one trace form. Every span is in it exactly once."""
    nodes = [Node(span) for span in sorted(spans, key=_order)]
    by_id = {node.span.span_id: node for node in nodes}
    roots: list[Node] = []
    for node in nodes:
        parent_id = node.span.parent_id
        node.parent = by_id.get(parent_id) if parent_id is not None else None
        if node.parent is not None:
            node.parent.children.append(node)
            continue
        roots.append(node)
        if parent_id in shown:
            node.note = "parent shown above"
        elif parent_id is not None:
            node.note = "parent in another process" if node.span.parent_is_remote else "parent missing"
    reached = set(_reachable(roots))
    for node in nodes:
        # Cycles of parent ids, and what hangs on them, are out of reach of every root: cut each open once.
        if node not in reached and (first := _on_cycle(node)).parent is not None:
            first.parent.children.remove(first)
            first.parent, first.note = None, "parent ids form a cycle"
            roots.append(first)
            reached.update(_reachable([first]))
    return roots


def _on_cycle(node: Node) -> Node:
    """Go up from a node that no root reaches until the cycle closes."""
    passed: set[Node] = set()
    while node not in passed and node.parent is not None:
        passed.add(node)
        node = node.parent
    return node


def _reachable(roots: Iterable[Node]) -> Iterator[Node]:
    stack = list(roots)
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children)


def _walk(roots: Sequence[Node], limit: int, glyphs: Glyphs) -> Iterator[tuple[Node, str, str]]:
    """Yield each node in printing order with the guides of its first line and of the lines below it."""

    def siblings(nodes: Sequence[Node], guides: str) -> Iterator[tuple[Node, str, str]]:
        guides = guides[-(limit - _GUIDE) :]
        for node in reversed(nodes):
            last = node is nodes[-1]
            yield (
                node,
                guides + (glyphs.last if last else glyphs.branch),
                guides + (" " * _GUIDE if last else glyphs.pipe),
            )

    stack = list(siblings(roots, ""))  # a stack, not recursion: a trace can be deeper than Python's limit
    while stack:
        node, lead, rest = stack.pop()
        yield node, lead, rest
        stack.extend(siblings(node.children, rest))


def _order(span: TreeSpan) -> tuple[int, int, int]:
    return span.start_ns, -span.end_ns, span.span_id


def _heading(spans: Sequence[TreeSpan], marks: Sequence[str], total: int, glyphs: Glyphs) -> Line:
    start = min(span.start_ns for span in spans)
    errors = sum(1 for span in spans if span.error)
    begun = (_EPOCH + timedelta(microseconds=start // 1000)).isoformat(" ", "milliseconds")
    pieces = [(f"trace {spans[0].trace_id:032x}", "trace")]
    pieces += [(mark, "note") for mark in marks]
    pieces += [(_count(len(spans), "span"), ""), (format_duration(total), "")]
    pieces += [(_count(errors, "error"), "error")] if errors else []
    pieces += [(begun.replace("+00:00", "Z"), "dim")]
    line = [pieces[0]]
    for piece in pieces[1:]:
        line += [(glyphs.dot, "dim"), piece]
    return line


def _label(node: Node, width: int, glyphs: Glyphs) -> Line:
    """Return name, kind and remarks in exactly `width` columns; a long name gives way to the rest."""
    span = node.span
    tail = [(clean(span.kind), f"kind.{span.kind}")]
    if span.service and (node.parent is None or node.parent.span.service != span.service):
        tail.append((clean(span.service), "service"))
    if node.note:
        tail.append((f"({node.note})", "note"))
    if span.links:
        tail.append((f"links: {len(span.links)}", "dim"))
    if hint := _scope_hint(span.scope):
        tail.append((f"[{hint}]", "dim"))
    room = width - sum(len(_GAP) + cells(text) for text, _ in tail)
    line: Line = [(cut(clean(span.name), max(room, width // 2), glyphs.ellipsis), "name")]
    for piece in tail:
        line += [(_GAP, ""), piece]
    line = _fit(line, width, glyphs.ellipsis)
    return [*line, (" " * (width - sum(cells(text) for text, _ in line)), "")]


def _fit(line: Line, width: int, ellipsis: str) -> Line:
    """Return `line` without what is beyond `width` columns."""
    fitted: Line = []
    for text, role in line:
        part = cut(text, width, ellipsis)
        fitted.append((part, role))
        width -= cells(part)
        if part != text or width <= 0:
            break
    return fitted


def _bar(span: TreeSpan, start: int, total: int, width: int, glyph: str) -> str:
    begin = min((span.start_ns - start) * width // total, width - 1)
    length = max(1, round((span.end_ns - span.start_ns) * width / total))
    return (" " * begin + glyph * min(length, width - begin)).ljust(width)


def _scope_hint(scope: str) -> str:
    """Name the instrumentation of a span that is not one of this package's."""
    if scope.replace("_", "-").endswith("instrumentation-mcp"):
        return ""
    return clean(scope.removeprefix(_INSTRUMENTATION))


def _error_of(span: ReadableSpan) -> str | None:
    error_type = (span.attributes or {}).get("error.type")
    if error_type is None and span.status.status_code.name != "ERROR":
        return None
    parts = [str(part) for part in (error_type, span.status.description) if part]
    return clean(": ".join(parts)) or "error"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_duration(ns: int) -> str:
    """Return a duration in three digits and its unit."""
    ns = max(ns, 0)  # clocks of several hosts, or a clock set back
    if ns < 999_500:
        return f"{round(ns / 1e3)} us"
    if ns < 999_500_000:
        return f"{ns / 1e6:#.3g} ms".replace(". ", " ")
    if ns < 59_950_000_000:
        return f"{ns / 1e9:#.3g} s"
    minutes, seconds = divmod(round(ns / 1e9), 60)
    return f"{minutes}m {seconds:02}s" if minutes < 100 else f"{minutes // 60}h {minutes % 60:02}m"


def clean(text: str) -> str:
    """Return `text` bounded and without anything that could steer a terminal or reorder the line."""
    text = text[:MAX_TEXT]
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_clean_char, text))


def _clean_char(char: str) -> str:
    if char.isspace():
        return " "  # line and paragraph separators are spaces too
    # Controls, format characters (bidi overrides, zero width), surrogates, private use, unassigned.
    return "?" if unicodedata.category(char).startswith("C") else char


def cells(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return len(text) if text.isascii() else sum(map(_char_cells, text))


def _char_cells(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cut(text: str, width: int, ellipsis: str) -> str:
    """Return `text`, shortened to `width` columns if it is longer."""
    if cells(text) <= width:
        return text
    room, kept = width - len(ellipsis), ""
    for char in text:
        room -= _char_cells(char)
        if room < 0:
            break
        kept += char
    return (kept + ellipsis)[: max(width, 0)]
