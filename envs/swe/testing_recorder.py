"""What is noted of tests while they run: outcomes, planted tests, and whether pytest and unittest are still themselves.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library and pytest only.
"""

import builtins
import contextlib
import functools
import inspect
import math
import operator
import os
import random
import sys
import tempfile
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

RANK = ("passed", "xpassed", "xfailed", "skipped", "failed", "error")  # of two statuses of a test the later one counts

CANARIES = """
import pytest

def test_{name}_holds():
    assert [{number}] == [{number}]

def test_{name}_differs():
    assert [{number}] == [{number} + 1]

def test_{name}_is_raised():
    with pytest.raises(ValueError):
        int("{number}")

def test_{name}_is_near():
    assert {number}.0 == pytest.approx({number}.5)
"""

UNITTEST_CANARIES = """
import unittest

class {name}(unittest.TestCase):
    def test_{name}_holds(self):
        self.assertEqual({number}, {number})
        self.assertTrue({number})

    def test_{name}_differs(self):
        self.assertEqual({number}, {number} + 1)

    def test_{name}_is_false(self):
        self.assertTrue({number} - {number})

    def test_{name}_is_raised(self):
        with self.assertRaises(ValueError):
            int("{number}")
"""


def snapshot():
    """[(members, name, object, function, code)] of what decides an outcome: pytest, unittest, the builtins they use."""
    modules = [builtins, operator, math, inspect, functools, contextlib]
    prefixes = ("_pytest.", "pluggy.", "unittest.")
    modules += [m for name, m in list(sys.modules.items()) if f"{name}.".startswith(prefixes) or name == "pytest"]
    kinds = (FunctionType, BuiltinFunctionType, type, property, staticmethod, classmethod)
    seen, found = set(), []
    for module in modules:
        own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
        for owner in (module, *own):
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            for name, value in list(vars(owner).items()):
                # pytest's own legacypath plugin replaces _getini_unknown_type.
                if isinstance(value, kinds) and name != "_getini_unknown_type":
                    function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
                    code = getattr(function, "__code__", None)
                    found.append((vars(owner), name, value, function if code else None, code))
    return found


def changed(found):
    """The name of something in a snapshot that is no longer what it was, or None."""
    for members, name, value, function, code in found:
        if members.get(name) is not value or (function is not None and function.__code__ is not code):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', name)}"
    return None


def matters_most(found):
    """The part of a snapshot that is small enough to be looked at after every test."""
    modules = (
        "unittest.case",
        "_pytest.runner",
        "_pytest.python_api",
        "_pytest.raises",
        "_pytest.reports",
        "_pytest.python",
    )
    names = vars(builtins)
    return [entry for entry in found if entry[0] is names or getattr(entry[2], "__module__", "") in modules]


class Recorder:
    """The pytest plugin: picks the tests, plants canaries between the files, keeps each test's worst status."""

    def __init__(self, pytest, wanted, with_unittest, pristine, rounds=None):
        """
        Args:
            rounds: what runs the tests in the session's place (``testing_rounds.py``), or None.
        """
        self._pytest, self._pristine, self.rounds = pytest, pristine, rounds
        self.play: Any = None
        """Called with the session before its tests; says whether it has played rounds in their place."""
        self._files = {test for test in wanted if "::" not in test}
        self._ids = {test for test in wanted if "::" in test}
        self._with_unittest = with_unittest
        self._intact = self._close_watch = ()
        self._codes, self._functions = {}, {}
        self.strange, self.tampered, self.planted = [], None, {}
        self.canaries = self.planted
        """Those of the planted tests that are to run."""
        self.restart(set())

    def restart(self, items):
        """Forget what was noted; these tests are to run."""
        self.statuses, self.messages = {}, {}
        self.collected, self.finished = set(items), set()

    def only(self, ids):
        """Of what was wanted these tests alone."""
        self._ids, self._files = set(ids), set()

    def arm(self, found):
        self._intact, self._close_watch = found, matters_most(found)

    def check(self, found=None):
        if self.tampered is None:
            self.tampered = changed(self._intact if found is None else found)

    def is_wanted(self, nodeid):
        if nodeid in self._ids or nodeid.partition("::")[0] in self._files:
            return True
        parts = nodeid.partition("[")[0].split("::")
        return any("::".join(parts[:n]) in self._ids for n in range(2, len(parts) + 1))

    def choose(self, session, items):
        self.check()
        items[:] = [item for item in items if self.is_wanted(item.nodeid)]
        self.collected = {item.nodeid for item in items}
        for item in items:
            self._know(item)
        borders = [n for n in range(len(items) + 1) if n in (0, len(items)) or items[n - 1].path != items[n].path]
        # At the first border for what is broken on import, at the last for what is broken later.
        places = [borders[0], random.SystemRandom().choice(borders[1:] or borders), borders[-1]]
        places = places if len(borders) > 2 else [borders[0], borders[-1]]
        places = places if self.rounds is None else [random.SystemRandom().choice(borders)]
        for place in sorted(places, reverse=True):
            items[place:place] = self.make_canaries(session)

    def _know(self, item):
        """Note the code that a test must run: that of its file as it was read first."""
        obj = getattr(item, "obj", None)
        if obj is None:
            return
        key = id(getattr(obj, "__func__", obj))
        if key not in self._functions:
            name = getattr(item, "originalname", None) or item.name
            self._functions[key] = (self._pristine.function_of(obj, name), obj)
        function = self._functions[key][0]
        if function is None:
            self.strange.append(item.nodeid)
        else:
            self._codes[item.nodeid] = (function, function.__code__)

    def make_canaries(self, session):
        dice = random.SystemRandom()
        name, number = f"{dice.choice('abcdefgh')}{dice.getrandbits(40):x}", dice.randint(2, 10**5)
        text = CANARIES + (UNITTEST_CANARIES if self._with_unittest else "")
        folder = tempfile.mkdtemp()
        path = os.path.join(folder, f"test_{name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.format(name=name, number=number))
        module = self._pytest.Module.from_parent(session, path=Path(path))
        # Built by hand: the repository's own naming rules (python_functions) need not match a canary's name.
        names = [key for key in vars(module.obj) if key.startswith("test_")]
        items = [self._pytest.Function.from_parent(module, name=key) for key in names]
        if self._with_unittest:
            from _pytest.unittest import UnitTestCase

            items += UnitTestCase.from_parent(module, name=name, obj=getattr(module.obj, name)).collect()
        dice.shuffle(items)
        for item in items:
            item.repr_failure = str
            self.planted[item.nodeid] = "passed" if item.name.endswith("_holds") else "failed"
        return items

    def few_canaries(self):
        """Of the planted tests one that must pass and one that must fail, for a round."""
        dice = random.SystemRandom()
        kinds = ([n for n, want in self.planted.items() if want == kind] for kind in ("passed", "failed"))
        self.canaries = {name: self.planted[name] for name in map(dice.choice, kinds)}
        return self.canaries

    def add(self, nodeid, status, message=""):
        if RANK.index(status) >= RANK.index(self.statuses.get(nodeid, "passed")):
            self.statuses[nodeid] = status
        if message:
            self.messages.setdefault(nodeid, message)

    def note_collection(self, report):
        if report.outcome != "passed":
            self.add(report.nodeid, "error" if report.outcome == "failed" else "skipped", crash_of(report))

    def note(self, item, call, report):
        """One phase of one test; what pytest reports counts only where the exception itself agrees."""
        outcome, expected = report.outcome, hasattr(report, "wasxfail")
        if outcome == "passed" and call.excinfo is not None:
            outcome = "failed"
        if outcome == "failed":
            self.add(item.nodeid, "failed" if call.when == "call" else "error", crash_of(report))
        elif outcome == "skipped":
            # An xfail that no mark announces was raised by whoever wished to be excused.
            excused = expected and is_marked_xfail(item)
            self.add(item.nodeid, "xfailed" if excused else "failed" if expected else "skipped")
        elif call.when == "call":
            self.add(item.nodeid, "xpassed" if expected else "passed")
        if call.when == "teardown":
            self.finished.add(item.nodeid)
            self.check(self._close_watch)
            function, code = self._codes.get(item.nodeid, (None, None))
            if self.rounds is None and function is not None and function.__code__ is not code:
                self.tampered = self.tampered or f"the code of {item.nodeid}"

    def summary(self):
        """Outcomes so far, without the planted tests'."""
        canaries_ok = bool(self.canaries) and all(self.statuses.get(n) == want for n, want in self.canaries.items())
        return {
            "statuses": {n: status for n, status in self.statuses.items() if n not in self.canaries},
            "finished": self.finished == self.collected | set(self.canaries),
            "canaries_ok": canaries_ok and self.tampered is None,
            "tampered": self.tampered,
        }

    def result(self, code):
        """What the "done" line says."""
        found = self.summary()
        failed = any(status in ("failed", "error") for status in found["statuses"].values())
        messages = {n: text for n, text in self.messages.items() if n not in self.canaries}
        return {
            **found,
            "complete": found["finished"] and code == 1,  # 1: some failed, as canaries must
            "exit_code": int(failed) if code == 1 else code,
            "strange": self.strange,
            "messages": dict(list(messages.items())[:20]),
        }


def is_marked_xfail(item):
    owners = (getattr(item, "obj", None), getattr(item, "cls", None))
    unittests = any(getattr(owner, "__unittest_expecting_failure__", False) for owner in owners)
    return unittests or next(item.iter_markers("xfail"), None) is not None


def crash_of(report):
    """The last words of a failure, in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return (lines[0] if crash is not None else lines[-1])[:300]


def plugin_of(pytest, recorder, finder):
    """The hooks, kept apart from the recorder so that they alone are registered."""

    class Hooks:
        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_load_initial_conftests(self, early_config, parser, args):
            # pytest's own finder, which rewrites assertions, has been put first meanwhile.
            sys.meta_path[:] = [finder, *(other for other in sys.meta_path if other is not finder)]
            yield

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_collection_modifyitems(self, session, config, items):
            yield
            recorder.choose(session, items)

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session):
            return recorder.play(session) or None

        @pytest.hookimpl(tryfirst=True)
        def pytest_collectreport(self, report):
            recorder.note_collection(report)

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_makereport(self, item, call):
            outcome = yield
            recorder.note(item, call, outcome.get_result())

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(self, report):
            if report.outcome == "failed" and type(report).__name__ == "SubtestReport":
                recorder.add(report.nodeid, "failed", crash_of(report))

    return Hooks()
