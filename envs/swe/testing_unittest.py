"""Tests that unittest runs: Django's ``runtests.py``, ``python -m unittest``, and scripts of a repository like them.

The repository's own script decides what is collected and prepares it (settings, databases); where it hands its suite to
``unittest.TextTestRunner``, this module takes over. Part of the program that runs in the sandbox
(``testing_guest.py``): standard library only.
"""

import os
import random
import sys
import unittest
import unittest.case
import unittest.loader
import unittest.mock  # what tests patch with is to be known before the repository
import unittest.suite
import warnings
from types import ModuleType
from typing import Any

from . import twin_means
from .testing_outcomes import Outcomes

COMPILE: Any = compile
TESTCASE = unittest.TestCase
TOP = "\n".join

BARE = """
def test_holds(self):
    assert [{number}] == [{number}]
    self.assertEqual({number}, {number})
def test_differs(self):
    assert [{number}] == [{number} + 1]
def test_raises(self):
    raise ValueError({number})
def test_is_raised(self):
    with self.assertRaises(ValueError):
        int("{number}")
def test_in_part(self):
    with self.subTest({number}):
        self.assertTrue({number} - {number})
"""


class Case:
    """A test that was collected, as ``testing_rounds.py`` wants it."""

    def __init__(self, test):
        self.test = test
        self.name = getattr(test, "_testMethodName", str(test))
        self.obj = getattr(test, self.name, None)
        told = test.shortDescription() if isinstance(test, TESTCASE) else None
        self.nodeid = f"{test}\n{told}" if told else str(test)
        self.repr_failure: Any = None


class Result(unittest.TestResult):
    """What each test has come to."""

    def __init__(self, recorder):
        super().__init__()
        self.recorder, self.ids, self.owners = recorder, {}, {}

    def know(self, items):
        for item in items:
            self.ids[id(item.test)] = item.nodeid

    def id_of(self, test):
        return self.ids.get(id(test), str(test))

    def addSuccess(self, test):
        super().addSuccess(test)
        self.recorder.add(self.id_of(test), "passed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.recorder.add(self.id_of(test), "failed", told(err), lambda: self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.recorder.add(self.id_of(test), "error", told(err), lambda: self.errors[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.recorder.add(self.id_of(test), "skipped")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        # Any code can mark a test so, and swebench's parsers read "expected failure" as no pass.
        self.recorder.add(self.id_of(test), "skipped")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.recorder.add(self.id_of(test), "xpassed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            is_failure = issubclass(err[0] or Exception, getattr(test, "failureException", AssertionError))
            kept = self.failures if is_failure else self.errors
            self.recorder.add(self.id_of(test), "failed" if is_failure else "error", told(err), lambda: kept[-1][1])

    def stopTest(self, test):
        super().stopTest(test)
        self.recorder.end(self.id_of(test))


class Row(unittest.suite.TestSuite):
    """Tests in their order, each while its swap holds; fixtures of classes and modules as a suite has them."""

    _cleanup = False

    def __init__(self, recorder, items, swaps):
        super().__init__()
        self._recorder, self._items, self._swaps = recorder, items, swaps

    def __iter__(self):
        for item in self._items:
            with self._recorder.swapped(item, self._swaps):
                yield item.test


class UnittestRecorder(Outcomes):
    """Takes the suite that a script has made, plants canaries between its classes, and runs it."""

    def __init__(self, pristine):
        super().__init__(pristine)
        self._only: Any = None
        self.items: Any = []

    def only(self, ids):
        self._only = set(ids)

    def choose(self, suite):
        self.check()
        items = [Case(test) for test in flat(suite)]
        if self._only is not None:
            items = [item for item in items if item.nodeid in self._only]
        self.collected = {item.nodeid for item in items}
        for item in items:
            self.know(item)
        borders = [n for n in range(len(items) + 1) if n in (0, len(items)) or kind(items[n - 1]) != kind(items[n])]
        for place in self.places_of_canaries(borders):
            items[place:place] = self._canaries()
        self.items = items

    def _canaries(self):
        dice = random.SystemRandom()
        owners = [TESTCASE]
        django = getattr(sys.modules.get("django.test"), "SimpleTestCase", None)
        if isinstance(django, type) and issubclass(django, TESTCASE):
            owners.append(django)
        found = [Case(owner(name)) for base in owners for owner, name in planted(base, dice)]
        dice.shuffle(found)
        found.sort(key=lambda item: kind(item).__name__)  # a class's tests together: its fixtures run once
        for item in found:
            self.planted[item.nodeid] = WANTED.get(item.name, "failed")
        return found

    def play_round(self, items, swaps):
        result = Result(self)
        result.know(items)
        Row(self, items, swaps).run(result)
        for item in items:  # fixtures of its class or module have failed, or say that it is to be left out
            if item.nodeid not in self.finished:
                broken = any(kind(item).__qualname__ in str(holder) for holder, _ in (*result.errors, *result.failures))
                self.add(item.nodeid, "error" if broken or not result.skipped else "skipped")
                self.end(item.nodeid)


WANTED = {"test_holds": "passed", "test_raises": "error"}


def kind(item):
    return type(item.test)


def told(err):
    lines = [line for line in f"{err[0].__name__}: {err[1]}".splitlines() if line.strip()]
    return lines[0][:300]


def flat(suite):
    if not isinstance(suite, unittest.suite.BaseTestSuite):
        return [suite]
    return [test for part in suite for test in flat(part)]


def planted(base, dice):
    """Tests of a class of our own: one that holds, one for each of the base's assertions that must not."""
    number = dice.randint(2, 10**5)
    lines = [BARE.format(number=number)]
    for helper, arguments in twin_means.CALLS.items():
        if callable(getattr(base, helper, None)) and not helper.endswith("equals"):
            lines.append(f"def test_of_{helper}(self):\n    self.{helper}{arguments}\n")
    for helper, arguments in twin_means.CONTEXTS.items():
        if callable(getattr(base, helper, None)):
            lines.append(f"def test_of_{helper}(self):\n    with self.{helper}{arguments.format('')}:\n        pass\n")
    members: Any = {}
    exec(COMPILE(TOP(lines), "<planted>", "exec", dont_inherit=True), members)
    tests = {name: value for name, value in members.items() if name.startswith("test_")}
    owner = type(f"C{dice.getrandbits(40):x}", (base,), dict(tests, __module__=f"m{dice.getrandbits(40):x}"))
    return [(owner, name) for name in tests]


class Taken(BaseException):
    """The tests have been run; nothing of what follows is wanted."""


def take_over(recorder, finish):
    """Have every runner of unittest hand its suite to the recorder. To be called before the repository is there.

    Args:
        finish: called at the end; it does not come back.
    """
    runner_class: Any = unittest.TextTestRunner

    def run(self, test):
        recorder.choose(test)
        with warnings.catch_warnings():
            if getattr(self, "warnings", None):
                warnings.simplefilter(self.warnings)
            if not recorder.play(recorder):
                recorder.play_round(recorder.items, {})
        recorder.check()
        finish()
        raise Taken

    runner_class.run = run


def run_script(path, arguments, pristine):
    """Run a script of the repository as Python would, its text as it was read first; or unittest's own main.

    Args:
        path: of the script, relative to the working folder; "" is ``python -m unittest``.
    """
    main: Any = ModuleType("__main__")
    sys.modules["__main__"] = main
    if not path:
        sys.path.insert(0, os.getcwd())
        sys.argv = ["python -m unittest", *arguments]
        unittest.main(module=None, argv=sys.argv)
        return
    full = os.path.abspath(path)
    sys.path.insert(0, os.path.dirname(full))
    sys.argv = [path, *arguments]
    main.__file__ = full
    if pristine.holds(full):
        code = pristine.code_of(full)
    else:
        with open(full, "rb") as file:
            code = COMPILE(file.read(), full, "exec", dont_inherit=True)
    exec(code, vars(main))
