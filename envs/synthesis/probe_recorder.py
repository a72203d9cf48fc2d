"""Inside the sandbox: what pytest's hooks tell of a run, noted. Standard library and pytest only."""

import contextlib
import os
import random
import signal
import sys
import threading

import pytest

from .probe_sample import rounds
from .probe_stopwatch import Stopwatch, bounded
from .probe_unittest import in_suites_order, name_in_suite
from .probe_values import given_in, plain_text, seen_in

MESSAGE_CHARACTERS = 4000
MOST_CALLS = 60
"""Of one test, whose arguments are noted."""
WAITING_FACTOR = 2
"""Seconds for one of the processor's, before a test counts as one that hangs; those that others had do not count."""
ROUND_FACTOR = 1.25
TOO_LONG = "the test takes too long"


class Recorder:
    """A pytest plugin that notes outcomes, where tests stand, how they failed and, on request, what they called."""

    def __init__(self, job, root):
        self.job = job
        self.root = root
        self.keep = None if job["keep"] is None else set(job["keep"])
        self.outcomes = {}
        self.durations = {}
        self.failures = {}
        self.locations = {}
        self.names = {}
        self.covered = {}
        self.lines = {}
        self.calls = {}
        self.asked = {(os.path.join(root, path), line) for path, line in job["calls"]}
        self.watched = {os.path.join(root, path): path for path in job["watch"]}
        self.not_collected = []
        self.inputs = {}
        self.collected = {}
        self.sampled = []
        self.num_run = 0
        self.failing = set()
        self.hung = False
        self.stopped = False
        self.watch = Stopwatch()

    # ``hookwrapper``, as the pytest of a published image may be older than ``wrapper``.
    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector):
        """Fail a file whose import takes too long, or that is not reached in time."""
        if not (self.job["collect_s"] and isinstance(collector, pytest.File)):
            yield
            return
        left_s = self.job["collect_s"] - self.watch.seconds()
        with bounded(min(left_s, self.job["collect_s"] / 2), "importing it takes too long"):
            yield

    def pytest_collectreport(self, report):
        if report.failed:
            self.not_collected.append(report.nodeid)
            words = [line for line in str(report.longrepr).splitlines() if line.strip()] or ["no reason given"]
            last = next((line[1:].strip() for line in reversed(words) if line.startswith("E ")), words[-1])
            self.failures[report.nodeid] = {"message": last[:MESSAGE_CHARACTERS], "frames": [], "inputs": {}}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        for item in items:
            file = item.nodeid.partition("::")[0]
            self.collected[file] = self.collected.get(file, 0) + 1
        if self.keep is not None:
            items[:] = [item for item in items if item.nodeid in self.keep]
        if self.job["named"]:
            items[:] = [item for item in items if getattr(item, "originalname", None) in self.job["named"]]
        if self.job["order"] == "reversed":
            items.reverse()
        elif self.job["order"]:
            random.Random(self.job["order"]).shuffle(items)
        if self.job["script"]:
            items[:] = in_suites_order(items)
        if self.job["sample"]:
            found = {item.nodeid: item for item in items}
            cut = rounds(list(found), self.job["sample"])
            self.sampled = [len(one) for one in cut]
            items[:] = [found[test] for one in cut for test in one]
        if self.job["mode"] in ("trace", "warm"):
            for item in items:
                code = self._code(item)
                if code is not None:
                    self.locations[item.nodeid] = [self._relative(code.co_filename), code.co_firstlineno]
                if self.job["script"]:
                    self.names[item.nodeid] = name_in_suite(item)

    def pytest_collection_finish(self):
        self.watch = Stopwatch()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        with self._bounded(item):
            if self.job["mode"] == "trace":
                yield from self._traced(item)
            else:
                yield

    @contextlib.contextmanager
    def _bounded(self, item):
        """Fail a test that takes too long, also where it caught the exception, and begin none when time is up."""
        test_s, waiting, watch = self.job["test_s"], contextlib.nullcontext(), Stopwatch()
        if test_s:
            signal.signal(signal.SIGPROF, _too_long)
            signal.setitimer(signal.ITIMER_PROF, test_s)
            waiting = bounded(WAITING_FACTOR * test_s, TOO_LONG)
        try:
            with waiting:
                yield
        finally:
            if test_s:
                left_s, _ = signal.setitimer(signal.ITIMER_PROF, 0)
                if left_s == 0 or watch.seconds() >= WAITING_FACTOR * test_s:
                    self._note_hung(item.nodeid)
            self.num_run += 1
            if self._is_enough():
                item.session.shouldfail = "enough has failed"
            if self.job["budget_s"] and self._is_over(self.watch.seconds()):
                self.stopped = True
                item.session.shouldstop = "the time for a run of the tests is over"

    def _note_hung(self, test):
        self.hung = True
        if self.outcomes.get(test) == "passed":
            self.outcomes[test] = "failed"
            self.failures[test] = {"message": TOO_LONG, "frames": [], "inputs": {}}

    def _is_enough(self):
        """pytest's own ``maxfail`` counts subtests, so that a run would end before it has that many failing tests."""
        most = self.job["max_failing"]
        return bool(most) and (self.hung or len(self.failing) + len(self.not_collected) >= most)

    def _is_over(self, spent_s):
        """Whether the budget is spent; at the end of a round, whether it will be before that of the next, which may
        then take somewhat longer than was foreseen."""
        budget_s, until = self.job["budget_s"], 0
        for size in self.sampled:
            if until == self.num_run > 0:
                return spent_s * (until + size) / until > budget_s
            until += size
        return self.num_run < until and spent_s > ROUND_FACTOR * budget_s if self.sampled else spent_s > budget_s

    def _traced(self, item):
        called = set()
        lines = set()
        calls = []

        def note_line(frame, event, argument):
            if event == "line":
                lines.add((self.watched[frame.f_code.co_filename], frame.f_lineno))
            return note_line

        def note_call(frame, event, argument):
            called.add(frame.f_code)
            if self.asked and len(calls) < MOST_CALLS:
                place = (frame.f_code.co_filename, frame.f_code.co_firstlineno)
                if place in self.asked:
                    calls.append([self._relative(place[0]), place[1], given_in(frame)])
            return note_line if frame.f_code.co_filename in self.watched else None  # no line events of others

        threading.settrace(note_call)
        sys.settrace(note_call)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.lines[item.nodeid] = sorted(lines)
            if calls:
                self.calls[item.nodeid] = calls
            inside = self.root + os.sep
            self.covered[item.nodeid] = sorted(
                {
                    (self._relative(code.co_filename), code.co_firstlineno)
                    for code in called
                    if os.path.abspath(code.co_filename).startswith(inside)
                }
            )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item):
        # Before the test: it may change what it was given.
        given = getattr(getattr(item, "callspec", None), "params", {})
        self.inputs = {name: text for name, value in given.items() if (text := plain_text(value)) is not None}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        made = yield
        if call.excinfo is not None:
            made.get_result().frames = self._frames(call.excinfo.tb)

    def _frames(self, traceback):
        """The tree's lines on an exception's way, outermost first."""
        frames = []
        while traceback is not None:
            path = self._relative(traceback.tb_frame.f_code.co_filename)
            if not os.path.isabs(path):
                frames.append([path, traceback.tb_lineno])
            traceback = traceback.tb_next
        return frames[:1] + frames[1:][-20:]

    def pytest_exception_interact(self, node, call, report):
        """Note the plain values that a failing test sees: its own names, what hangs at ``self``, its module's. pytest
        calls this when the report has been made."""
        code = self._code(node)
        traceback, seen = call.excinfo.tb, None
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code is code or (seen is None and frame.f_code.co_filename == getattr(code, "co_filename", "")):
                seen = frame
            if frame.f_code is code:
                break
            traceback = traceback.tb_next
        failure = self.failures.get(report.nodeid)
        if seen is not None and failure is not None and not failure["inputs"]:
            failure["inputs"] = {**seen_in(seen), **self.inputs}

    def pytest_runtest_logreport(self, report):
        test = report.nodeid
        self.durations[test] = self.durations.get(test, 0.0) + report.duration
        if report.failed:
            self.outcomes[test] = "failed" if report.when == "call" else "error"
            self.failures.setdefault(test, self._failure(report))
            self.failing.add(test)
        elif report.skipped:
            self.outcomes.setdefault(test, "xfailed" if hasattr(report, "wasxfail") else "skipped")
        elif report.when == "call":
            self.outcomes.setdefault(test, "xpassed" if hasattr(report, "wasxfail") else "passed")

    def _failure(self, report):
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash is not None else str(report.longrepr)
        return {"message": message[:MESSAGE_CHARACTERS], "frames": getattr(report, "frames", []), "inputs": {}}

    def _code(self, item):
        function = getattr(item, "function", None)
        while (wrapped := getattr(function, "__wrapped__", None)) is not None:
            function = wrapped
        function = getattr(function, "__func__", function)
        return getattr(function, "__code__", None)

    def _relative(self, path):
        absolute = os.path.abspath(path)
        return os.path.relpath(absolute, self.root) if absolute.startswith(self.root + os.sep) else absolute


def _too_long(number, frame):
    raise TimeoutError(TOO_LONG)
