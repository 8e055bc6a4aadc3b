"""Detectors of personal data: asked in a thread of their own, for which the host waits a bounded time.

A detector is somebody else's program. It may load a model for seconds, raise, end the program or never return. Texts
to which it has no answer in time are masked as a whole.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import weakref
from itertools import islice
from queue import SimpleQueue
from time import monotonic
from typing import cast

from opentelemetry.instrumentation.utils import suppress_instrumentation

from .config import Detector
from .guard import report, report_once
from .payload import presidio

PATIENCE = 2.0
"""How long a text waits for its answer, in seconds."""

REST = 30.0
"""How long nothing waits for a detector that was late twice in a row, in seconds."""

Spans = list[tuple[int, int]]


class WatchedDetector:
    """A detector that always answers within ``PATIENCE``, and never raises.

    Args:
        setting: a function, ``presidio``, or ``module:function``; it is loaded when the first text comes.
    """

    def __init__(self, setting: str | Detector) -> None:
        self._setting = setting
        self._starting = threading.Lock()
        self._process = os.getpid()
        self._worker: _Worker | None = None

    def __call__(self, text: str) -> Spans:
        """``(start, end)`` of what to mask in ``text``."""
        worker = self._worker
        if worker is None or not worker.is_alive():
            worker = self._start()
        found = worker.ask(text) if worker else None
        return [(0, len(text))] if found is None else found

    def _start(self) -> _Worker | None:
        if self._process != os.getpid():  # the lock may be held by a thread that did not come along when it forked
            self._process, self._starting = os.getpid(), threading.Lock()
        if not self._starting.acquire(timeout=PATIENCE):
            return None
        try:
            worker = self._worker
            if worker is None or not worker.is_alive():
                # A forked process has a worker without its thread, but what that one loaded.
                worker = _Worker(self._setting, worker.detector if worker else None)
                worker.start()
                weakref.finalize(self, worker.end)
                self._worker = worker
            return worker
        except Exception as error:
            report("start the thread of the detector of personal data; texts are masked as a whole", error)
            return None
        finally:
            self._starting.release()


class _Question:
    """A text, and what was found in it; None if nobody knows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.answered = threading.Event()
        self.is_given_up = False
        self.found: Spans | None = None


class _Worker:
    """The thread in which a detector is loaded and asked."""

    def __init__(self, setting: str | Detector, detector: Detector | None) -> None:
        self.detector = detector
        self._setting = setting
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._answering = threading.Lock()
        self._is_late = False
        self._times_late = 0
        self._rests_until = 0.0
        self._thread = threading.Thread(target=self._work, name="otel-mcp-pii", daemon=True)
        self.start = self._thread.start
        self.is_alive = self._thread.is_alive

    def end(self) -> None:
        """Let the thread end when it has nothing to do."""
        self._questions.put(None)

    def ask(self, text: str) -> Spans | None:
        """What the detector finds in ``text``; None if it fails, is late, or is still late with something else."""
        if self._is_late or monotonic() < self._rests_until or threading.current_thread() is self._thread:
            return None
        question = _Question(text)
        self._questions.put(question)
        if not question.answered.wait(PATIENCE):
            with self._answering:
                if not question.answered.is_set():
                    question.is_given_up = self._is_late = True
                    self._times_late += 1
                    if self._times_late > 1:  # once it may have had to load
                        self._rests_until = monotonic() + REST
            report_once(
                "the detector of personal data is late",
                "The detector of personal data %s had no answer within %g s; texts are masked as a whole until it has. "
                "This is logged once.",
                _name(self._setting),
                PATIENCE,
            )
        else:
            self._times_late = 0
        return question.found

    def _work(self) -> None:
        # What a detector does, be it over HTTP, is not the host's doing.
        with suppress_instrumentation():
            if self.detector is None:
                self.detector = _load(self._setting)
            while question := self._questions.get():
                found = None if question.is_given_up or not self.detector else _ask(self.detector, question.text)
                with self._answering:
                    question.found = found
                    question.answered.set()
                    self._is_late = False


def _ask(detector: Detector, text: str) -> Spans | None:
    try:
        # More than one for each character is no answer; it may be the beginning of an endless one.
        found = [(int(span[0]), int(span[1])) for span in islice(detector(text), len(text) + 1)]
        return found if len(found) <= len(text) else None
    except BaseException as error:  # an exit would end this thread only, and nobody would answer
        report("detect personal data; texts are masked as a whole", error)
        return None


def _load(setting: str | Detector) -> Detector | None:
    if not isinstance(setting, str):
        return setting
    try:
        if setting.strip().lower() == "presidio":
            return presidio.detector()
        module, _, name = setting.strip().partition(":")
        loaded = sys.modules.get(module)
        if not hasattr(loaded, name):  # one that runs its server while it is imported would never be imported
            loaded = importlib.import_module(module)
        return cast("Detector", getattr(loaded, name))
    except presidio.UnusableError as error:
        report_once(
            "the detector of personal data is unusable",
            "The detector of personal data %s cannot be used, texts are masked as a whole: %s",
            *(_name(setting), error),
        )
    except BaseException as error:
        report(f"load the detector of personal data {_name(setting)}; texts are masked as a whole", error)
    return None


def _name(setting: str | Detector) -> str:
    return repr(setting) if isinstance(setting, str) else getattr(setting, "__qualname__", type(setting).__qualname__)
