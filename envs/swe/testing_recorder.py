"""The plugin of pytest: which tests run, where canaries stand, and what pytest says of each test.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library and pytest only.
"""

import os
import random
import sys
import tempfile
from pathlib import Path

from .testing_outcomes import Outcomes

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


class Recorder(Outcomes):
    """Picks the tests, plants canaries between the files, keeps each test's worst status."""

    def __init__(self, pytest, wanted, with_unittest, pristine):
        super().__init__(pristine)
        self._pytest, self._with_unittest = pytest, with_unittest
        self._files = {test for test in wanted if "::" not in test}
        self._ids = {test for test in wanted if "::" in test}

    def only(self, ids):
        """Of what was wanted these tests alone."""
        self._ids, self._files = set(ids), set()

    def play_round(self, items, swaps):
        for n, item in enumerate(items):
            following = items[n + 1] if n + 1 < len(items) else None
            with self.swapped(item, swaps):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

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
            self.know(item)
        borders = [
            n for n in range(len(items) + 1) if n in (0, len(items)) or place_of(items[n - 1]) != place_of(items[n])
        ]
        for place in self.places_of_canaries(borders):
            items[place:place] = self.make_canaries(session)

    def make_canaries(self, session):
        dice = random.SystemRandom()
        name, number = f"{dice.choice('abcdefgh')}{dice.getrandbits(40):x}", dice.randint(2, 10**5)
        text = CANARIES + (UNITTEST_CANARIES if self._with_unittest else "")
        folder = tempfile.mkdtemp()
        path = os.path.join(folder, f"test_{name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.format(name=name, number=number))
        module = self._pytest.Module.from_parent(session, **self._as_place(path))
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

    def _as_place(self, path):
        """How this pytest's nodes are told where they are: by ``path``, before pytest 7 by ``fspath``."""
        if int(self._pytest.__version__.split(".")[0]) >= 7:
            return {"path": Path(path)}
        import py

        return {"fspath": py.path.local(path)}

    def note_collection(self, report):
        if report.outcome != "passed":
            status = "error" if report.outcome == "failed" else "skipped"
            self.add(report.nodeid, status, crash_of(report), lambda: str(report.longrepr))

    def note(self, item, call, report):
        """One phase of one test; what pytest reports counts only where the exception itself agrees."""
        outcome, expected = report.outcome, hasattr(report, "wasxfail")
        if outcome == "passed" and call.excinfo is not None:
            outcome = "failed"
        if outcome == "failed":
            status = "failed" if call.when == "call" else "error"
            self.add(item.nodeid, status, crash_of(report), lambda: str(report.longrepr))
        elif outcome == "skipped":
            # An xfail that no mark announces was raised by whoever wished to be excused.
            excused = expected and is_marked_xfail(item)
            self.add(item.nodeid, "xfailed" if excused else "failed" if expected else "skipped")
        elif call.when == "call":
            self.add(item.nodeid, "xpassed" if expected else "passed")
        if call.when == "teardown":
            self.end(item.nodeid)


def place_of(item):
    return getattr(item, "path", None) or item.fspath


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
                recorder.add(report.nodeid, "failed", crash_of(report), lambda: str(report.longrepr))

    return Hooks()
