"""Detectors of personal data that fail, hang, exit or cannot be had: nothing is shown, and nobody is harmed."""

from __future__ import annotations

import gc
import importlib
import itertools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import TracerProvider

from opentelemetry_instrumentation_mcp import guard, pii
from opentelemetry_instrumentation_mcp.config import McpConfig
from opentelemetry_instrumentation_mcp.disclosure import Disclosure
from opentelemetry_instrumentation_mcp.payload import presidio
from opentelemetry_instrumentation_mcp.pii import WatchedDetector
from opentelemetry_instrumentation_mcp.span_cleaner import SpanCleaner

TEXT = "call Ada"
NAME = [(5, 8)]
ALL = [(0, len(TEXT))]
THREAD = "otel-mcp-pii"


@pytest.fixture(autouse=True)
def warnings(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings so far; and patience enough for the slowest machine."""
    guard.forget_reports()
    monkeypatch.setattr(pii, "PATIENCE", 60.0)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    guard.forget_reports()


def names(text: str) -> list[tuple[int, int]]:
    at = text.find("Ada")
    return [(at, at + 3)] if at >= 0 else []


def until(answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not answers():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_it_finds() -> None:
    watched = WatchedDetector(names)
    assert watched(TEXT) == NAME
    assert watched("nobody") == []


def test_it_is_not_traced() -> None:
    seen: list[bool] = []
    WatchedDetector(lambda text: seen.append(is_instrumentation_enabled()) or [])(TEXT)
    assert seen == [False]
    assert is_instrumentation_enabled()


@pytest.mark.parametrize(
    "found",
    [itertools.repeat((0, 0)), [(0,)], [("a", 1)], None, 7],
    ids=["endless", "no end", "no numbers", "nothing", "no list"],
)
def test_no_answer_masks_everything(found: Any) -> None:
    assert WatchedDetector(lambda text: found)(TEXT) == ALL


@pytest.mark.parametrize("kind", [ValueError, RecursionError, MemoryError, SystemExit, KeyboardInterrupt])
def test_one_that_raises(kind: type[BaseException], warnings: Callable[[], list[str]]) -> None:
    healthy = False

    def detect(text: str) -> Iterable[tuple[int, int]]:
        if not healthy:
            raise kind(text)
        return names(text)

    watched = WatchedDetector(detect)
    assert watched(TEXT) == watched(TEXT) == ALL
    [warning] = warnings()
    assert kind.__name__ in warning and "masked" in warning and TEXT not in warning
    healthy = True
    assert watched(TEXT) == NAME


def test_one_that_hangs(monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]) -> None:
    asked: list[str] = []
    released = threading.Event()

    def detect(text: str) -> Iterable[tuple[int, int]]:
        asked.append(text)
        assert released.wait(60)
        return names(text)

    watched = WatchedDetector(detect)
    monkeypatch.setattr(pii, "PATIENCE", 0.05)
    assert watched(TEXT) == ALL
    monkeypatch.setattr(pii, "PATIENCE", 60.0)
    for _ in range(3):  # none of these waits: the test would take minutes
        assert watched("and Ada") == [(0, 7)]
    assert asked == [TEXT]
    [warning] = warnings()
    assert "0.05 s" in warning and "masked" in warning and "Ada" not in warning
    released.set()
    until(lambda: watched(TEXT) == NAME)
    assert len(warnings()) == 1


def test_one_that_is_always_late_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    asked: list[str] = []
    gate = threading.Semaphore(0)

    def detect(text: str) -> Iterable[tuple[int, int]]:
        asked.append(text)
        assert gate.acquire(timeout=60)
        return names(text)

    monkeypatch.setattr(pii, "monotonic", lambda: now)
    watched = WatchedDetector(detect)
    for count in (1, 2):
        monkeypatch.setattr(pii, "PATIENCE", 0.05)
        until(lambda count=count: watched(TEXT) == ALL and len(asked) == count)
        gate.release()
    time.sleep(0.2)
    monkeypatch.setattr(pii, "PATIENCE", 60.0)
    assert watched(TEXT) == ALL
    assert len(asked) == 2, "it rests"
    now += pii.REST
    gate.release()
    assert watched(TEXT) == NAME
    gate.release()
    assert watched(TEXT) == NAME, "in time again"


def test_what_was_masked_meanwhile_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def detect(text: str) -> Iterable[tuple[int, int]]:
        assert released.wait(60)
        return names(text)

    disclosure = Disclosure(McpConfig(pii_detector=detect))
    cleaner = SpanCleaner(disclosure.policy, ["*"], remembers_names=disclosure.is_steady)
    provider = TracerProvider()

    def cleaned() -> dict[str, Any]:
        span: Any = provider.get_tracer("other").start_span("span", attributes={"plain.name": 7})
        span.end()
        found = cleaner.clean(span)
        return dict(found.attributes or {}) if found is not None else {}

    monkeypatch.setattr(pii, "PATIENCE", 0.05)
    assert disclosure.of_peer("url.path", "/mcp") == "***"
    assert cleaned() != {"plain.name": 7}
    monkeypatch.setattr(pii, "PATIENCE", 60.0)
    released.set()
    until(lambda: disclosure.of_peer("url.path", "/mcp") == "/mcp")
    assert cleaned() == {"plain.name": 7}


def test_it_is_loaded_once_whoever_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[threading.Thread] = []
    start = threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        if thread.name == THREAD:
            begun.append(thread)
            time.sleep(0.05)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    watched = WatchedDetector(names)
    found: list[Any] = []
    callers = [threading.Thread(target=lambda: found.append(watched(TEXT))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert found == [NAME] * 8
    assert len(begun) == 1


def test_it_does_not_wait_for_itself() -> None:
    inner: list[Any] = []

    def detect(text: str) -> Iterable[tuple[int, int]]:
        inner.append(watched("Ada"))
        return names(text)

    watched = WatchedDetector(detect)
    assert watched(TEXT) == NAME
    assert inner == [[(0, 3)]]


def test_one_that_loads_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "slow_detector.py").write_text("import gate_of_slow_detector as gate\ngate.wait()\nfind = gate.find\n")
    released = threading.Event()
    gate: Any = ModuleType("gate_of_slow_detector")
    gate.wait, gate.find = released.wait, names
    monkeypatch.setitem(sys.modules, "gate_of_slow_detector", gate)
    monkeypatch.syspath_prepend(tmp_path)
    watched = WatchedDetector("slow_detector:find")
    monkeypatch.setattr(pii, "PATIENCE", 0.05)
    assert watched(TEXT) == ALL
    released.set()
    monkeypatch.setattr(pii, "PATIENCE", 60.0)
    until(lambda: watched(TEXT) == NAME)
    assert len(warnings()) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [("raise SystemExit(3)", "SystemExit"), ("1/0", "ZeroDivisionError"), ("", "AttributeError")],
    ids=["exits", "raises", "has none"],
)
def test_one_that_cannot_be_loaded(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "bad_detector.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_detector", raising=False)
    watched = WatchedDetector("bad_detector:find")
    assert watched(TEXT) == watched(TEXT) == ALL
    [warning] = warnings()
    assert "bad_detector:find" in warning and said in warning


RUNNING = """
from opentelemetry_instrumentation_mcp.pii import WatchedDetector

def find(text):
    return [(5, 8)]

found = WatchedDetector("running_program:find")("call Ada")
"""


def test_a_module_that_is_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program whose module runs its server never finishes being imported."""
    (tmp_path / "running_program.py").write_text(RUNNING)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert importlib.import_module("running_program").found == NAME
    finally:
        sys.modules.pop("running_program", None)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watched = WatchedDetector(names)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert watched(TEXT) == ALL
    assert len(warnings()) == 1
    assert watched(TEXT) == NAME


def test_the_thread_ends_with_the_detector() -> None:
    before = set(threading.enumerate())
    watched = WatchedDetector(names)
    watched(TEXT)
    [thread] = [thread for thread in set(threading.enumerate()) - before if thread.name == THREAD]
    del watched
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


FORKED = """
import os, sys
from opentelemetry_instrumentation_mcp.pii import WatchedDetector

loaded = []

class Detectors:
    @property
    def find(self):
        loaded.append(os.getpid())
        return lambda text: [(5, 8)]

sys.modules["detectors"] = Detectors()
watched = WatchedDetector("detectors:find")
assert watched("call Ada") == [(5, 8)]
child = os.fork()
if not child:
    os._exit(0 if watched("call Ada") == [(5, 8)] and os.getpid() not in loaded else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_process_asks_in_a_thread_of_its_own() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0


class Mails:
    """A recognizer that, like Presidio's, looks up domains through a module that its own module has imported."""

    def validate_result(self, text: str) -> bool:
        raise AssertionError("asked the internet")


class Presidio:
    """What the adapter uses of ``presidio_analyzer``."""

    def __init__(self, model: str) -> None:
        self.engines: list[Any] = []
        configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
        provider = SimpleNamespace(nlp_configuration=configuration, create_engine=lambda: "nlp")
        self.nlp_engine = SimpleNamespace(NlpEngineProvider=lambda: provider)

    def AnalyzerEngine(self, nlp_engine: str) -> Any:  # noqa: N802
        assert nlp_engine == "nlp"
        mails = Mails()

        def analyze(text: str, language: str) -> list[Any]:
            assert language == "en"
            assert mails.validate_result("ada@example.com") and not mails.validate_result("ada@x")
            return [SimpleNamespace(start=start, end=end) for start, end in names(text)]

        self.engines.append(engine := SimpleNamespace(registry=SimpleNamespace(recognizers=[mails]), analyze=analyze))
        return engine


class Domains:
    """What the adapter uses of ``tldextract``."""

    def __init__(self, suffix_list_urls: tuple[str, ...], cache_dir: str | None) -> None:
        assert suffix_list_urls == () and cache_dir is None, "no internet, no files"

    def __call__(self, text: str) -> Any:
        return SimpleNamespace(fqdn="example.com" if text.endswith(".com") else "")


def test_presidio(monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]) -> None:
    monkeypatch.setitem(globals(), "tldextract", SimpleNamespace(TLDExtract=Domains))
    monkeypatch.setitem(sys.modules, "presidio_analyzer", Presidio("pytest"))  # a package that is there
    monkeypatch.setattr(logging.getLogger("presidio-analyzer"), "level", logging.NOTSET)
    assert WatchedDetector("Presidio")(TEXT) == NAME
    assert logging.getLogger("presidio-analyzer").getEffectiveLevel() == logging.WARNING
    assert warnings() == []


def test_presidio_without_its_model(monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]) -> None:
    """Presidio itself would install the model with pip, there and then."""
    module = Presidio("en_no_such_model")
    monkeypatch.setitem(sys.modules, "presidio_analyzer", module)
    watched = WatchedDetector("presidio")
    assert watched(TEXT) == watched(TEXT) == ALL
    assert not module.engines
    [warning] = warnings()
    assert "python -m spacy download en_no_such_model" in warning and "masked" in warning


def test_without_presidio(monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    assert WatchedDetector("presidio")(TEXT) == ALL
    [warning] = warnings()
    assert "`pii`" in warning


def test_an_engine_of_the_users_own() -> None:
    def analyze(text: str, language: str) -> list[Any]:
        assert language == "de"
        return [SimpleNamespace(start=start, end=end) for start, end in names(text)]

    assert WatchedDetector(presidio.detector(SimpleNamespace(analyze=analyze), "de"))(TEXT) == NAME
