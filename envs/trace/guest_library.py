"""Inside the sandbox: a library's own tests run by pytest, and the calls of its functions recorded.

    main(JOB.json, OUT.jsonl)          (working directory: the tree)

The job: "files" (whose calls are recorded, relative paths), "collect" (test files), "max_events" (of one call),
"max_chars", "max_items", "max_depth", "per_function" (calls kept of one function), "test_s" (seconds of one test),
"total_s", "backend", "untraced". A recorded call is a line {"test", "number", "rows"}, a row [event, file, line,
locals or null, value or null, function or null], function [name, first line, whether it is entered again]; the last
line is {"end", ...}. Standard library and pytest, Python 3.8 and newer.
"""

import hashlib
import json
import os
import signal
import sys
import time

from . import guest_tracer, guest_values

OPTIONS = ["-q", "--tb=no", "--no-header", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
OPTIONS += ["-o", "addopts=", "-p", "no:randomly", "-p", "no:xdist"]
ATTEMPTS = 4
"""How many calls of a function may be dropped, for each that may be kept, before it is left alone."""
LONG = 4
"""One in so many of a function's quota may turn out too long before it is left alone: a call that is dropped for its
length has cost as much as the longest that is kept. What it calls is recorded by itself from then on."""


class CallRecorder(guest_tracer.Tracer):
    """Records one call at a time: the first of a function that is wanted, and whatever the library does in it."""

    def __init__(self, files, values, job, keep):
        super().__init__(files, values, self._note, sys.maxsize)
        self._job, self._keep = job, keep
        self._active = False
        self._rows = []
        self._tries = {}
        self._kept = {}
        self._long = {}
        self._known = set()
        self._place = ("", 0)
        self.num_events_of_calls = 0

    def record(self, event, frame, line, value=None, unwound=False):
        if not self._active:
            if event != "call" or not self._wants(frame.f_code):
                self.following = False
                return
            self._active, self._rows, self.depth = True, [], 0
            self._place = (frame.f_code.co_filename, frame.f_code.co_firstlineno)
        super().record(event, frame, line, value, unwound)
        self.following = self._active

    def drop(self):
        """Forget the call in progress: its test has ended, or it is too long."""
        self._active, self.depth = False, 0
        self._seen.clear()

    def _wants(self, code):
        """Quotas are by the place of a function: generators and coroutines, which are entered again, begin no call."""
        if code.co_flags & guest_tracer.GENERATOR or code.co_name[:1] == "<":
            return False
        place = (code.co_filename, code.co_firstlineno)
        quota = self._job["per_function"]
        if self._kept.get(place, 0) >= quota or self._tries.get(place, 0) >= ATTEMPTS * quota:
            return False
        if self._long.get(place, 0) * LONG >= quota:
            return False
        self._tries[place] = self._tries.get(place, 0) + 1
        return True

    def _note(self, event, frame, line, depth, shown, value):
        code = frame.f_code
        function = None
        if event == "call":
            again = bool(code.co_flags & guest_tracer.GENERATOR)
            function = [getattr(code, "co_qualname", code.co_name), code.co_firstlineno, again]
        self._rows.append([event, self.files[code.co_filename], line, shown, value, function])
        self.num_events_of_calls += 1
        if len(self._rows) == 1 and not self._is_new(shown):
            self.drop()
        elif len(self._rows) >= self._job["max_events"]:
            self._long[self._place] = self._long.get(self._place, 0) + 1
            self.drop()
        elif event == "return" and depth == 1:
            self._kept[self._place] = self._kept.get(self._place, 0) + 1
            self.drop()
            self._keep(self._rows)

    def _is_new(self, shown):
        """Whether the function has not been recorded with such arguments."""
        told = json.dumps([self._place, shown], sort_keys=True)
        digest = hashlib.md5(told.encode()).digest()
        if digest in self._known:
            return False
        self._known.add(digest)
        return True


class Plugin:
    """Traces the call phase of each test."""

    def __init__(self, job, out):
        self._job, self._out = job, out
        self._started = time.monotonic()
        self.test, self.number = "", 0
        self.num_calls = self.num_tests = self.num_failed = 0
        self.values = guest_values.Values(job["max_chars"], job["max_items"], job["max_depth"])
        files = {os.path.abspath(path): path for path in job["files"]}
        self.recorder = CallRecorder(files, self.values, job, self._keep)

    def _keep(self, rows):
        row = {"test": self.test, "number": self.number, "rows": rows}
        self.number += 1
        self.num_calls += 1
        self._out.write(json.dumps(row) + "\n")

    def run_test(self, item):
        """What ``pytest_runtest_call`` is wrapped in."""
        if time.monotonic() - self._started > self._job["total_s"]:
            item.session.shouldstop = "time is up"
        self.test, self.number = item.nodeid, 0
        self.num_tests += 1
        signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, self._job["test_s"])
        if not self._job["untraced"]:
            self.recorder.start(self._job["backend"])
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.recorder.stop()
            self.recorder.drop()
            self._out.flush()


def _too_long(number, frame):
    raise TimeoutError("the test takes too long to trace")


def main(job_path, out_path):
    import pytest

    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    with open(out_path, "w", encoding="utf-8") as out:
        plugin = Plugin(job, out)

        class Hooks:
            @pytest.hookimpl(hookwrapper=True)
            def pytest_runtest_call(self, item):
                yield from plugin.run_test(item)

            def pytest_runtest_logreport(self, report):
                plugin.num_failed += bool(report.failed)

        started, began = time.monotonic(), time.process_time()
        code = int(pytest.main([*OPTIONS, "--rootdir=" + os.getcwd(), *job["collect"]], plugins=[Hooks()]))
        end = {
            "exit_code": code,
            "seconds": time.monotonic() - started,
            "processor_seconds": time.process_time() - began,
            "num_tests": plugin.num_tests,
            "num_failed": plugin.num_failed,
            "num_calls": plugin.num_calls,
            "num_events": plugin.recorder.num_events_of_calls,
            "flags": sorted(plugin.recorder.flags),
            "errors": plugin.recorder.errors,
        }
        out.write(json.dumps({"end": end}) + "\n")
