"""Runs many variants of a source tree's tests from one warm process: pytest is imported once, each variant is a fork.

This file runs inside the sandbox as a script, with the standard library and pytest alone:

    python probe.py JOBS.json RESULTS.jsonl          (working directory: the tree)

It serves the making of tasks, where nobody forges outcomes. Rewards come from ``verigym.envs.swe.testing`` instead.
A job: {"key", "files": {path: text}, "collect": [test files], "keep": [test ids] or null for all, "named": names of
test functions, or [], "deadline_s", "budget_s": after so long no further test begins, or null; "test_s": after so many
processor seconds a test fails, or null; "max_failing", "mode": "test" | "trace" | "warm"; "order": "" | "reversed" | a
word that tests are shuffled by; "clock_s": how far the wall clock is moved; "watch": paths whose lines are noted in
mode "trace"}. A file whose text is null is not there during the run. A result: see ``_result``.
"""

import contextlib
import datetime
import io
import json
import os
import random
import resource
import select
import signal
import sys
import threading
import time

import pytest

# As the tests are run for a reward (envs/swe/testing_guest.py).
OPTIONS = ["-q", "--tb=short", "--no-header", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
OPTIONS += ["-o", "addopts="]
MEMORY_BYTES = 1536 << 20
MESSAGE_CHARACTERS = 4000
VALUE_CHARACTERS = 200
MOST_ITEMS = 50
WAITING_FACTOR = 6
"""Seconds of the wall clock for one of the processor's, before a test counts as one that hangs."""
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def plain_text(value, depth=3):
    """The text of plain data, as ``repr`` writes it; None for anything else, too much of it, or a NaN's like.

    Types are compared by identity: a subclass can show what it likes.
    """
    kind = type(value)
    if (kind is int and value.bit_length() > 600) or (kind in (str, bytes) and len(value) > VALUE_CHARACTERS):
        return None  # before it is written out
    if kind in PLAIN:
        text = repr(value)
    elif kind in (list, tuple, set, frozenset, dict) and depth and len(value) <= MOST_ITEMS:
        keys = list(value)
        texts = [plain_text(one, depth - 1) for one in keys]
        if kind is dict:
            others = [plain_text(one, depth - 1) for one in value.values()]
            if None in others or None in texts:
                return None
            return _short("{" + ", ".join(f"{key}: {one}" for key, one in zip(texts, others)) + "}")
        if None in texts:
            return None
        if kind in (set, frozenset):
            texts.sort()
            text = "{" + ", ".join(texts) + "}" if texts else "set()"
            text = f"frozenset({text if texts else ''})" if kind is frozenset else text
        elif kind is list:
            text = "[" + ", ".join(texts) + "]"
        else:
            text = "(" + ", ".join(texts) + ("," if len(texts) == 1 else "") + ")"
    else:
        return None
    return _short(text)


def _short(text):
    return text if len(text) <= VALUE_CHARACTERS else None


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
        self.covered = {}
        self.lines = {}
        self.watched = {os.path.join(root, path): path for path in job["watch"]}
        self.not_collected = []
        self.inputs = {}
        self.collected = 0
        self.stopped = False
        self.began = time.monotonic()

    def pytest_collectreport(self, report):
        if report.failed:
            self.not_collected.append(report.nodeid)
            words = [line for line in str(report.longrepr).splitlines() if line.strip()] or ["no reason given"]
            last = next((line[1:].strip() for line in reversed(words) if line.startswith("E ")), words[-1])
            self.failures[report.nodeid] = {"message": last[:MESSAGE_CHARACTERS], "frames": [], "inputs": {}}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        self.collected = len(items)
        if self.keep is not None:
            items[:] = [item for item in items if item.nodeid in self.keep]
        if self.job["named"]:
            items[:] = [item for item in items if getattr(item, "originalname", None) in self.job["named"]]
        if self.job["order"] == "reversed":
            items.reverse()
        elif self.job["order"]:
            random.Random(self.job["order"]).shuffle(items)
        if self.job["mode"] == "trace":
            for item in items:
                code = self._code(item)
                if code is not None:
                    self.locations[item.nodeid] = [self._relative(code.co_filename), code.co_firstlineno]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item, nextitem):
        with self._bounded(item.session):
            if self.job["mode"] == "trace":
                return (yield from self._traced(item))
            return (yield)

    @contextlib.contextmanager
    def _bounded(self, session):
        """Fail a test that takes too long, and begin none when time is up."""
        timers = ((signal.SIGPROF, signal.ITIMER_PROF, 1), (signal.SIGALRM, signal.ITIMER_REAL, WAITING_FACTOR))
        if self.job["test_s"]:
            for number, timer, factor in timers:
                signal.signal(number, _too_long)
                signal.setitimer(timer, factor * self.job["test_s"])
        try:
            yield
        finally:
            if self.job["test_s"]:
                for _, timer, _ in timers:
                    signal.setitimer(timer, 0)
            if self.job["budget_s"] and time.monotonic() - self.began > self.job["budget_s"]:
                self.stopped = True
                session.shouldstop = "the time for a run of the tests is over"

    def _traced(self, item):
        called = set()
        lines = set()

        def note_line(frame, event, argument):
            if event == "line":
                lines.add((self.watched[frame.f_code.co_filename], frame.f_lineno))
            return note_line

        def note_call(frame, event, argument):
            called.add(frame.f_code)
            return note_line if frame.f_code.co_filename in self.watched else None  # no line events of others

        threading.settrace(note_call)
        sys.settrace(note_call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.lines[item.nodeid] = sorted(lines)
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
            failure["inputs"] = {**_seen_in(seen), **self.inputs}

    def pytest_runtest_logreport(self, report):
        test = report.nodeid
        self.durations[test] = self.durations.get(test, 0.0) + report.duration
        if report.failed:
            self.outcomes[test] = "failed" if report.when == "call" else "error"
            self.failures.setdefault(test, self._failure(report))
        elif report.skipped:
            self.outcomes.setdefault(test, "xfailed" if hasattr(report, "wasxfail") else "skipped")
        elif report.when == "call":
            self.outcomes.setdefault(test, "xpassed" if hasattr(report, "wasxfail") else "passed")

    def _failure(self, report):
        """The exception's last words and the lines on its way, outermost first."""
        crash = getattr(report.longrepr, "reprcrash", None)
        traceback = getattr(report.longrepr, "reprtraceback", None)
        frames = []
        for entry in getattr(traceback, "reprentries", ()):
            place = getattr(entry, "reprfileloc", None)
            if place is not None:
                frames.append([self._relative(place.path), place.lineno])
        message = crash.message if crash is not None else str(report.longrepr)
        return {"message": message[:MESSAGE_CHARACTERS], "frames": frames[:1] + frames[1:][-20:], "inputs": {}}

    def _code(self, item):
        function = getattr(item, "function", None)
        while (wrapped := getattr(function, "__wrapped__", None)) is not None:
            function = wrapped
        function = getattr(function, "__func__", function)
        return getattr(function, "__code__", None)

    def _relative(self, path):
        absolute = os.path.abspath(path)
        return os.path.relpath(absolute, self.root) if absolute.startswith(self.root + os.sep) else absolute


def _move_clock(seconds):
    """Let time.time and datetime be ahead of what they are; classes of their own take part in ``isinstance``."""
    real_time, real, real_date = time.time, datetime.datetime, datetime.date
    utc = datetime.timezone(datetime.timedelta(0))

    class Kind(type):
        def __instancecheck__(cls, value):
            return isinstance(value, cls.__mro__[1])

        def __subclasscheck__(cls, kind):
            return issubclass(kind, cls.__mro__[1])

    class Moved(real, metaclass=Kind):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls):
            return real.fromtimestamp(real_time() + seconds, utc).replace(tzinfo=None)

        @classmethod
        def today(cls):
            return real.now() + datetime.timedelta(seconds=seconds)

    class MovedDate(real_date, metaclass=Kind):
        @classmethod
        def today(cls):
            return (real.now() + datetime.timedelta(seconds=seconds)).date()

    Moved.__name__ = Moved.__qualname__ = "datetime"
    MovedDate.__name__ = MovedDate.__qualname__ = "date"
    time.time = lambda: real_time() + seconds
    datetime.datetime, datetime.date = Moved, MovedDate


def _too_long(number, frame):
    raise TimeoutError("the test takes too long")


def _seen_in(frame):
    """Name -> text of the plain values that a frame's code can name, attributes of ``self`` as "self.name"."""
    found = {}
    names = frame.f_code.co_names
    for name in names:
        if name in frame.f_globals:
            found[name] = frame.f_globals[name]
    found.update(frame.f_locals)
    me = found.get("self")
    if me is not None:
        own = getattr(me, "__dict__", {})
        for name in names:
            if name in own:
                found[f"self.{name}"] = own[name]
            else:
                held = [vars(kind)[name] for kind in type(me).__mro__ if name in vars(kind)]
                if held:
                    found[f"self.{name}"] = held[0]
    texts = {name: plain_text(value) for name, value in found.items()}
    return {name: text for name, text in texts.items() if text is not None}


def run_job(job):
    """Put the job's files in place, run it in a fork, put the old files back."""
    before = {}
    for path, text in job["files"].items():
        before[path] = None
        if os.path.exists(path):
            stat = os.stat(path)
            with open(path, "rb") as old:
                before[path] = (old.read(), stat.st_atime_ns, stat.st_mtime_ns)
        if text is None:
            if before[path] is not None:
                os.unlink(path)
            continue
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as new:
            new.write(text.encode())
        # A time that no original has: a file compiled from the original is never taken for this one's.
        os.utime(path, (1, 1))
    try:
        return _in_fork(job)
    finally:
        for path, was in before.items():
            if was is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                continue
            data, atime_ns, mtime_ns = was
            with open(path, "wb") as old:
                old.write(data)
            os.utime(path, ns=(atime_ns, mtime_ns))


def _in_fork(job):
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(job, writer)
    os.close(writer)
    data, deadline = b"", started + job["deadline_s"]
    ended = "died"
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            ended = "deadline"
            break
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            break
        data += chunk
        if data.endswith(b"\n"):
            ended = "done"
            break
    os.close(reader)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it is gone, or had not yet made its group and is killed below
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)
    result = json.loads(data) if ended == "done" else {}
    return {"key": job["key"], "ended": ended, "wall_s": time.monotonic() - started, **result}


def _child(job, writer):
    status = 1
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        if job["mode"] != "warm":
            # A variant's compiled file could be taken for that of another variant of the same size.
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        _send(writer, _run_pytest(job))
        status = 0
    except BaseException as error:  # pytest itself, or a conftest, can raise anything
        _send(writer, {"ended": "died", "error": f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]})
    finally:
        os._exit(status)


def _run_pytest(job):
    if job["clock_s"]:
        _move_clock(job["clock_s"])
    recorder = Recorder(job, os.getcwd())
    arguments = [*OPTIONS, f"--rootdir={os.getcwd()}", f"--maxfail={job['max_failing']}", *job["collect"]]
    if job["mode"] == "warm":
        arguments.append("--collect-only")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        exit_code = int(pytest.main(arguments, plugins=[recorder]))
    result = _result(recorder, exit_code)
    if exit_code == pytest.ExitCode.USAGE_ERROR:  # a conftest that cannot be imported, for one: no report tells
        words = [line for line in said.getvalue().splitlines() if line.strip()] or ["pytest gave no reason"]
        last = next((line[1:].strip() for line in reversed(words) if line.startswith("E ")), words[-1])
        result["error"] = last[:MESSAGE_CHARACTERS]
    return result


def _send(writer, record):
    data = (json.dumps(record) + "\n").encode()
    while data:
        data = data[os.write(writer, data) :]


def _result(recorder, exit_code):
    return {
        "exit_code": exit_code,
        "outcomes": recorder.outcomes,
        "durations": recorder.durations,
        "failures": recorder.failures,
        "not_collected": recorder.not_collected,
        "locations": recorder.locations,
        "covered": recorder.covered,
        "lines": recorder.lines,
        "collected": recorder.collected,
        "stopped": recorder.stopped,
    }


def main(jobs_path, results_path):
    with open(jobs_path, encoding="utf-8") as file:
        jobs = json.load(file)
    with open(results_path, "w", encoding="utf-8") as results:
        for job in jobs:
            results.write(json.dumps(run_job(job)) + "\n")
            results.flush()


if __name__ == "__main__":
    del sys.path[0]  # this script's own folder
    main(*sys.argv[1:])
