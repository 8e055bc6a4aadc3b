"""The terminal exporter: what the tree shows, when a trace is printed, and what must never happen."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from opentelemetry_instrumentation_mcp.exporter import McpTreeExporter, TreeSpan, render_tree
from opentelemetry_instrumentation_mcp.exporter import tree as tree_module

MS = 1_000_000
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Recorder:
    """Makes finished SDK spans with chosen times, and hands them out in the order they ended."""

    def __init__(self, service: str = "host", scope: str = "opentelemetry_instrumentation_mcp") -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = self.provider.get_tracer(scope)

    def start(self, name: str, parent: trace.SpanContext | trace.Span | None = None, **kwargs: Any) -> trace.Span:
        context = context_api.Context()
        if parent is not None:
            span = parent if isinstance(parent, trace.Span) else trace.NonRecordingSpan(parent)
            context = trace.set_span_in_context(span, context)
        return self.tracer.start_span(name, context, start_time=kwargs.pop("start", 0) * MS, **kwargs)

    def end(self, span: trace.Span, at: int = 10) -> ReadableSpan:
        span.end(at * MS)
        finished = self._memory.get_finished_spans()[-1]
        assert finished.context == span.get_span_context()
        return finished

    def span(self, name: str, parent: trace.SpanContext | trace.Span | None = None, **kwargs: Any) -> ReadableSpan:
        return self.end(self.start(name, parent, **kwargs))


def remote(trace_id: int = 0xABC, span_id: int = 0xDEF) -> trace.SpanContext:
    return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(1))


def plain_span(span_id: int, parent_id: int | None = None, **kwargs: Any) -> TreeSpan:
    defaults: dict[str, Any] = {"trace_id": 1, "parent_is_remote": False, "name": f"span-{span_id}"}
    defaults |= {"kind": "INTERNAL", "start_ns": 0, "end_ns": MS, "service": "host"}
    return TreeSpan(span_id=span_id, parent_id=parent_id, **{**defaults, **kwargs})


def rendered(*spans: TreeSpan, width: int = 100) -> list[str]:
    return render_tree(spans, color=False, width=width).split("\n")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.provider.shutdown()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


class TestTree:
    def test_shows_name_kind_service_duration_and_nesting(self, recorder: Recorder) -> None:
        root = recorder.start("agent run")
        call = recorder.start("tools/call add", root, kind=trace.SpanKind.CLIENT, start=2)
        spans = [recorder.end(call, 8), recorder.end(root, 12)]

        heading, first, second = rendered(*map(TreeSpan.from_readable, spans))

        trace_id = trace.format_trace_id(root.get_span_context().trace_id)
        assert heading == f"trace {trace_id} · 2 spans · 12.0 ms · 1970-01-01 00:00:00.000Z"
        assert re.fullmatch(r"└─ agent run  INTERNAL  host +━{20} 12\.0 ms", first)
        assert re.fullmatch(r"   └─ tools/call add  CLIENT +━{10} {8}6\.00 ms", second)
        assert len(first) == len(second) == 100

    def test_bar_has_position_and_length(self) -> None:
        spans = [plain_span(1, end_ns=100 * MS)]
        spans += [plain_span(2, 1, start_ns=50 * MS, end_ns=75 * MS)]
        spans += [plain_span(3, 1, start_ns=100 * MS, end_ns=100 * MS)]
        bars = [line[-28:-8] for line in rendered(*spans)[1:]]
        assert bars == ["━" * 20, " " * 10 + "━" * 5 + " " * 5, " " * 19 + "━"]

    def test_error_type_and_description_have_a_line_of_their_own(self, recorder: Recorder) -> None:
        root = recorder.start("root")
        failed = recorder.start("tools/call x", root, attributes={"error.type": "tool_error"})
        failed.set_status(trace.StatusCode.ERROR, "division by zero")
        child = recorder.start("child", failed)
        no_type = recorder.start("other", root, start=1)
        no_type.set_status(trace.StatusCode.ERROR)
        spans = [recorder.end(span) for span in (child, failed, no_type, root)]

        text = render_tree(map(TreeSpan.from_readable, spans))

        assert "2 errors" in text
        assert "\n   │  │  ✗ tool_error: division by zero\n" in text
        assert text.endswith("\n         ✗ error")

    def test_service_is_shown_on_roots_and_where_it_changes(self) -> None:
        spans = [
            plain_span(1),
            plain_span(2, 1),
            plain_span(3, 2, parent_is_remote=True, service="server"),
            plain_span(4, 3, service="server"),
            plain_span(5, service="server"),
        ]
        assert [re.findall("host|server", line) for line in rendered(*spans)[1:]] == [
            ["host"],
            [],
            ["server"],
            [],
            ["server"],
        ]

    def test_remote_parent_is_marked_only_when_absent(self) -> None:
        child = plain_span(2, 1, parent_is_remote=True)
        assert "(parent in another process)" in rendered(child)[1]
        assert "parent" not in "".join(rendered(plain_span(1), child))

    def test_span_with_missing_local_parent_is_shown(self) -> None:
        assert "span-2  INTERNAL  host  (parent missing)" in rendered(plain_span(2, 1))[1]

    def test_cycles_are_cut_and_nothing_is_lost(self) -> None:
        spans = [plain_span(1, 1), plain_span(2, 3), plain_span(3, 2), plain_span(0, 3), plain_span(4, 2)]
        lines = rendered(*spans)
        for span in spans:
            assert sum(f" {span.name} " in line for line in lines) == 1
        assert sum("(parent ids form a cycle)" in line for line in lines) == 2
        assert "cycle" not in next(line for line in lines if "span-0" in line)

    def test_duplicate_ids_are_all_shown(self) -> None:
        lines = rendered(plain_span(1), plain_span(1, name="twin"), plain_span(2, 1))
        assert len(lines) == 4

    def test_traces_deeper_than_the_recursion_limit(self) -> None:
        depth = sys.getrecursionlimit() * 3
        lines = rendered(*(plain_span(i, i - 1 or None) for i in range(1, depth + 1)))
        assert len(lines) == depth + 1
        assert {len(line) for line in lines[1:]} == {100}
        assert f"span-{depth}" in lines[-1]

    def test_links_and_foreign_scopes(self, recorder: Recorder) -> None:
        linked = recorder.span("a", links=[trace.Link(remote())])
        foreign = Recorder(scope="opentelemetry.instrumentation.httpx").span("POST")
        assert "links: 1" in rendered(TreeSpan.from_readable(linked))[1]
        assert "[" not in rendered(TreeSpan.from_readable(linked))[1]
        assert "[httpx]" in rendered(TreeSpan.from_readable(foreign))[1]

    @pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 200])
    def test_no_line_exceeds_the_width(self, width: int) -> None:
        spans = [
            plain_span(1, name="n" * 1000, service="s" * 1000, error="e" * 1000, scope="scope" * 100),
            plain_span(2, 1, name="搜索" * 100, kind="CLIENT", links=(1,)),
            plain_span(3, 9, parent_is_remote=True, name="tools/call add"),
        ]
        lines = rendered(*spans, width=width)
        assert all(tree_module.cells(line) <= width for line in lines)
        assert all(tree_module.cells(line) == width for line in lines if line.endswith("ms"))
        assert "CLIENT" in lines[3]
        assert "tools/call" in lines[4]

    def test_several_traces_in_order_of_time(self) -> None:
        lines = rendered(plain_span(1, trace_id=2, start_ns=5, end_ns=6), plain_span(1, trace_id=1))
        assert [line[:38] for line in lines if line.startswith("trace")] == [
            f"trace {1:032x}",
            f"trace {2:032x}",
        ]

    def test_nothing_in_nothing_out(self) -> None:
        assert render_tree([], color=False, width=100) == ""

    @pytest.mark.parametrize(
        ("ns", "text"),
        [
            (-5, "0 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (12_345_678, "12.3 ms"),
            (999_499_999, "999 ms"),
            (1_500_000_000, "1.50 s"),
            (59_900_000_000, "59.9 s"),
            (59_999_000_000, "1m 00s"),
            (3_600_000_000_000, "60m 00s"),
            (36_000_000_000_000, "10h 00m"),
        ],
    )
    def test_durations(self, ns: int, text: str) -> None:
        assert tree_module.format_duration(ns) == text


HOSTILE = "a\x1b[2J\x1b]0;owned\x07b\nfake line\r\x9b31m\u202egnp\u2066\u200b\u2028\x00\udc80\U000e0041z"


class TestHostileText:
    @pytest.mark.parametrize("color", [False, True])
    def test_nothing_a_peer_controls_reaches_the_terminal(self, recorder: Recorder, color: bool) -> None:
        span = recorder.start(HOSTILE, attributes={"error.type": HOSTILE})
        span.set_status(trace.StatusCode.ERROR, HOSTILE)
        from_sdk = TreeSpan.from_readable(recorder.end(span))
        by_hand = plain_span(1, name=HOSTILE, kind=HOSTILE, service=HOSTILE, error=HOSTILE, scope=HOSTILE)

        text = ESCAPE.sub("", render_tree([from_sdk, by_hand], color=color, width=200))

        assert len(text.split("\n")) == 6
        assert all(char.isprintable() for char in text.replace("\n", ""))
        text.encode("utf-8")

    def test_text_is_bounded_before_it_is_buffered(self, recorder: Recorder) -> None:
        span = TreeSpan.from_readable(recorder.span("x" * 100_000))
        assert len(span.name) == tree_module.MAX_TEXT

    def test_markup_is_not_interpreted(self) -> None:
        pytest.importorskip("rich")
        text = render_tree([plain_span(1, name="[red]x[/red] :smile: [link=http://a]b[/link]")], color=True)
        assert "[red]x[/red] :smile: [link=http://a]b[/link]" in text


class TestWhenATraceIsPrinted:
    def test_children_wait_for_their_root(self, recorder: Recorder, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out)
        root = recorder.start("root")
        assert exporter.export([recorder.span("child", root)]) is SpanExportResult.SUCCESS
        assert out.getvalue() == ""
        exporter.export([recorder.end(root)])
        assert out.getvalue().count("\n") == 3
        assert "missing" not in out.getvalue()
        assert "incomplete" not in out.getvalue()

    def test_root_waits_for_a_child_known_to_be_pending(self, recorder: Recorder, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out)
        root = recorder.start("root")
        child = recorder.start("child", root)
        exporter.export([recorder.span("grandchild", child), recorder.end(root)])
        assert out.getvalue() == ""
        exporter.export([recorder.end(child)])
        assert out.getvalue().count("trace ") == 1
        assert "3 spans" in out.getvalue()

    def test_messages_of_one_batch_share_a_block(self, recorder: Recorder, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out)
        batch = [recorder.span(f"message-{i}", remote()) for i in range(3)]
        exporter.export([*batch, recorder.span("elsewhere", remote(trace_id=2))])
        assert out.getvalue().count("trace ") == 2
        assert out.getvalue().count("(parent in another process)") == 4
        assert "3 spans" in out.getvalue()

    def test_late_spans_are_a_continuation(self, recorder: Recorder, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out)
        root = recorder.start("root")
        late = recorder.start("late", root)
        exporter.export([recorder.end(root)])
        exporter.export([recorder.end(late)])
        first, second = out.getvalue().split("trace ")[1:]
        assert "continued" not in first
        assert " · continued · " in second
        assert "late  INTERNAL  host  (parent shown above)" in second

    @pytest.mark.parametrize("end", [McpTreeExporter.force_flush, McpTreeExporter.shutdown])
    def test_flush_and_shutdown_print_what_is_there(
        self, recorder: Recorder, out: io.StringIO, end: Callable[[McpTreeExporter], object]
    ) -> None:
        exporter = McpTreeExporter(out)
        exporter.export([recorder.span("orphan", recorder.start("never ends"))])
        end(exporter)
        end(exporter)
        assert out.getvalue().count("trace ") == 1
        assert " · incomplete · " in out.getvalue()
        assert "orphan  INTERNAL  host  (parent missing)" in out.getvalue()

    def test_export_after_shutdown_is_refused(self, recorder: Recorder, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out)
        exporter.shutdown()
        assert exporter.export([recorder.span("late")]) is SpanExportResult.FAILURE
        assert out.getvalue() == ""

    @pytest.mark.parametrize("limit", [{"max_traces": 3}, {"max_spans": 3}])
    def test_memory_is_bounded_and_overflow_is_said(
        self, recorder: Recorder, out: io.StringIO, limit: dict[str, Any]
    ) -> None:
        exporter = McpTreeExporter(out, **limit)
        for i in range(5):
            exporter.export([recorder.span(f"child-{i}", recorder.start("never ends"))])
        assert re.findall(r"child-\d", out.getvalue()) == ["child-0", "child-1"]
        assert out.getvalue().count("incomplete (buffer full)") == 2
        exporter.shutdown()
        assert re.findall(r"child-\d", out.getvalue()) == [f"child-{i}" for i in range(5)]

    def test_idle_traces_are_printed_when_others_go_on(
        self, recorder: Recorder, out: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 1_000.0
        monkeypatch.setattr("time.monotonic", lambda: now)
        exporter = McpTreeExporter(out, max_idle=60)
        exporter.export([recorder.span("orphan", recorder.start("never exported"))])
        now += 60
        exporter.export([recorder.span("first")])
        assert "orphan" not in out.getvalue()
        now += 1
        exporter.export([recorder.span("second")])
        assert "incomplete (idle)" in out.getvalue()
        assert "orphan" in out.getvalue()

    def test_what_is_remembered_of_printed_traces_is_bounded(self, recorder: Recorder, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out, max_traces=2, max_spans=2)
        for _ in range(3):
            exporter.export([recorder.span("message", remote())])
        exporter.export([recorder.span("other", remote(trace_id=2))])
        exporter.export([recorder.span("third", remote(trace_id=3))])
        exporter.export([recorder.span("forgotten", remote())])
        assert out.getvalue().count("continued") == 2

    @pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
    def test_with_a_real_pipeline(self, out: io.StringIO, processor: Any) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor(McpTreeExporter(out)))
        tracer = provider.get_tracer("app")
        with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
            pass
        provider.shutdown()
        assert [re.findall("root|child", line) for line in out.getvalue().splitlines()] == [
            [],
            ["root"],
            ["child"],
        ]


class Broken(io.StringIO):
    """A stream that fails."""

    def write(self, s: str, /) -> int:
        raise OSError("no space left on device")


class TestMannersOfAGuest:
    def test_failure_is_a_result_and_is_logged_once(self, recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
        exporter = McpTreeExporter(Broken())
        results = [exporter.export([recorder.span("a"), recorder.span("b")]) for _ in range(3)]
        assert results == [SpanExportResult.FAILURE] * 3
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        exporter.shutdown()

    def test_spans_that_are_none_do_not_raise(self, out: io.StringIO) -> None:
        broken: Any = [None]
        exporter = McpTreeExporter(out)
        assert exporter.export(broken) is SpanExportResult.FAILURE

    def test_closed_stream_and_no_stream(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        exporter = McpTreeExporter()
        assert exporter.export([recorder.span("a")]) is SpanExportResult.SUCCESS
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stderr", closed)
        assert exporter.export([recorder.span("a")]) is SpanExportResult.FAILURE
        assert exporter.force_flush() is True

    def test_prints_to_stderr_as_it_is_at_that_moment(
        self, recorder: Recorder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        McpTreeExporter().export([recorder.span("hello")])
        captured = capsys.readouterr()
        assert "hello" in captured.err
        assert captured.out == ""

    def test_a_span_ended_while_printing_does_not_deadlock(self, recorder: Recorder) -> None:
        class Reentrant(io.StringIO):
            def write(self, s: str, /) -> int:
                if "outer" in s:
                    exporter.export([recorder.span("inner")])
                return super().write(s)

        out = Reentrant()
        exporter = McpTreeExporter(out)
        exporter.export([recorder.span("outer")])
        assert "inner" in out.getvalue()
        assert "outer" in out.getvalue()

    def test_flush_does_not_wait_for_ever(self, recorder: Recorder) -> None:
        started, go_on = threading.Event(), threading.Event()

        class Stuck(io.StringIO):
            def write(self, s: str, /) -> int:
                started.set()
                go_on.wait(30)
                return super().write(s)

        exporter = McpTreeExporter(Stuck())
        thread = threading.Thread(target=exporter.export, args=([recorder.span("a")],))
        thread.start()
        started.wait(30)
        assert exporter.force_flush(timeout_millis=1) is False
        go_on.set()
        thread.join()
        assert exporter.force_flush() is True

    def test_threads(self, out: io.StringIO) -> None:
        exporter = McpTreeExporter(out)
        batches: list[Sequence[ReadableSpan]] = []
        for _ in range(8):
            recorder = Recorder()
            for i in range(25):
                root = recorder.start(f"root-{i}")
                batches.append([recorder.span("child", root), recorder.end(root)])

        def export(share: int) -> None:
            for batch in batches[share::8]:
                exporter.export(batch)

        threads = [threading.Thread(target=export, args=(share,)) for share in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert out.getvalue().count("trace ") == 200
        assert out.getvalue().count("2 spans") == 200

    @pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no fork here")
    def test_forked_child_starts_empty(self) -> None:
        program = """if True:
            import os
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from opentelemetry_instrumentation_mcp.exporter import McpTreeExporter
            exporter = McpTreeExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracer = provider.get_tracer("app")
            with tracer.start_as_current_span("root"):
                tracer.start_span("child").end()
                with exporter._lock:
                    pid = os.fork()
            os.waitpid(pid, 0) if pid else os._exit(0)
        """
        command = [sys.executable, "-W", "ignore", "-c", program]  # Python warns of forks, and of children
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert result.stderr.count("child") == 1
        assert result.stderr.count("root") == 2
        assert result.stdout == ""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class TestColour:
    @pytest.fixture(autouse=True)
    def clean_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")

    @pytest.mark.parametrize(
        ("color", "terminal", "environment", "expected"),
        [
            (None, False, {}, False),
            (None, True, {}, True),
            (None, True, {"NO_COLOR": "1"}, False),
            (None, True, {"NO_COLOR": ""}, True),
            (None, True, {"TERM": "dumb"}, False),
            (None, False, {"FORCE_COLOR": "1"}, True),
            (None, True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
            (False, True, {}, False),
            (True, False, {"NO_COLOR": "1"}, True),
        ],
    )
    def test_when(
        self,
        monkeypatch: pytest.MonkeyPatch,
        color: bool | None,
        *,
        terminal: bool,
        environment: dict[str, str],
        expected: bool,
    ) -> None:
        pytest.importorskip("rich")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        out = Terminal() if terminal else io.StringIO()
        McpTreeExporter(out, color=color).export([Recorder().span("a")])
        assert ("\x1b" in out.getvalue()) is expected

    def test_is_the_only_difference(self) -> None:
        pytest.importorskip("rich")
        spans = [
            plain_span(1, name="搜索", kind="SERVER", error="bad", service="s"),
            plain_span(2, 1, name="e\u0301"),
        ]
        coloured = render_tree(spans, color=True, width=100)
        assert "\x1b" in coloured
        assert ESCAPE.sub("", coloured) == render_tree(spans, color=False, width=100)

    def test_without_rich_the_text_is_plain(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "opentelemetry_instrumentation_mcp.exporter.rich_rendering", raising=False)
        monkeypatch.setitem(sys.modules, "rich.console", None)
        out = io.StringIO()
        McpTreeExporter(out, color=True).export([recorder.span("a")])
        assert "└─ a  INTERNAL" in out.getvalue()
        assert "\x1b" not in out.getvalue() + render_tree([plain_span(1)], color=True, width=100)

    @pytest.mark.parametrize("color", [False, True])
    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
    def test_streams_that_cannot_encode_box_characters(self, recorder: Recorder, encoding: str, color: bool) -> None:
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding=encoding)
        assert McpTreeExporter(out, color=color).export([recorder.span("搜索")]) is SpanExportResult.SUCCESS
        text = ESCAPE.sub("", raw.getvalue().decode(encoding))
        assert ("└─ 搜索" if encoding == "utf-8" else "`- \\u641c\\u7d22") in text
