"""Tests that SymPy's ``bin/test`` runs: functions of files, with SymPy's own words for what was left out.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import contextlib
import importlib
import inspect
import os
import random
import sys
import traceback
from types import FunctionType
from typing import Any

from .testing_outcomes import Outcomes

COMPILE: Any = compile
SEED = 7
BY_NAME = {"Skipped": "skipped", "XFail": "skipped", "XPass": "xpassed"}
"""Any code can raise what is called so: it is no way to pass, and swebench's parser reads none in it either."""

BARE = """
def test_holds():
    assert [{number}] == [{number}]
def test_differs():
    assert [{number}] == [{number} + 1]
def test_raises():
    raise ValueError({number})
def test_is_false():
    assert {number} - {number}
def test_is_raised():
    raises(ValueError, lambda: {number})
def test_is_raised_inside():
    with raises(ValueError):
        int("{number}")
def test_does_not_fail():
    XFAIL(lambda: None)()
def test_warns():
    with warns(UserWarning):
        pass
"""


class Function:
    """A test function, as ``testing_rounds.py`` wants it."""

    def __init__(self, path, name, function):
        self.path, self.name, self.obj = path, name, function
        self.nodeid = f"{path}:{name}"
        self.repr_failure: Any = None


class SympyRecorder(Outcomes):
    """Collects the functions of files from code that was read first, and runs them as SymPy's runner does."""

    def __init__(self, pristine, files):
        super().__init__(pristine)
        self._files, self._only = files, None
        self.items: Any = []
        self._clear: Any = None
        self._strict: Any = None

    def only(self, ids):
        self._only = set(ids)

    def choose(self):
        """Import SymPy and the files; what cannot be imported is a test of its own that failed."""
        words, runtests = in_sympy("pytest"), in_sympy("runtests")
        self._clear = importlib.import_module("sympy.core.cache").clear_cache
        self._strict = getattr(runtests, "raise_on_deprecated", contextlib.nullcontext)
        items = []
        for path in self._files:
            try:
                items += self._of_file(path)
            except Exception as error:
                self.add(f"{path}:", "error", *told(error))
        self.check()
        if self._only is not None:
            items = [item for item in items if item.nodeid in self._only]
        self.collected = {item.nodeid for item in items}
        for item in items:
            self.know(item)
        borders = [n for n in range(len(items) + 1) if n in (0, len(items)) or items[n - 1].path != items[n].path]
        for place in self.places_of_canaries(borders):
            items[place:place] = self._canaries(words)
        self.items = items

    def _of_file(self, path):
        full = os.path.abspath(path)
        found: Any = {"__file__": full, "__name__": "test"}
        exec(self._pristine.code_of(full), found)
        if found.get("disabled", False):
            return []
        tests = [(name, one) for name, one in found.items() if name.startswith("test_") and inspect.isfunction(one)]
        own = [(name, one) for name, one in tests if innermost(one).__code__.co_filename == full]
        own.sort(key=lambda pair: innermost(pair[1]).__code__.co_firstlineno)
        return [Function(path, name, one) for name, one in own]

    def _canaries(self, words):
        dice = random.SystemRandom()
        path, number = f"{dice.getrandbits(40):x}.py", dice.randint(2, 10**5)
        members: Any = {name: getattr(words, name, None) for name in ("raises", "XFAIL", "warns")}
        exec(COMPILE(BARE.format(number=number), path, "exec", dont_inherit=True), members)
        found = [Function(path, name, one) for name, one in members.items() if name.startswith("test_")]
        found = [item for item in found if item.name != "test_warns" or members["warns"] is not None]
        for item in found:
            self.planted[item.nodeid] = WANTED.get(item.name, "failed")
        dice.shuffle(found)
        return found

    def play_round(self, items, swaps):
        before = None
        for item in items:
            if item.path != before:
                self._clear()
            before = item.path
            with self.swapped(item, swaps):
                self._run(item)
            self.end(item.nodeid)

    def _run(self, item):
        try:
            if getattr(item.obj, "_slow", False):
                self.add(item.nodeid, "skipped")
                return
            with self._strict():
                random.seed(SEED)
                if inspect.isgeneratorfunction(item.obj):
                    for function, *arguments in item.obj():
                        function(*arguments)
                else:
                    item.obj()
        except KeyboardInterrupt:
            raise
        except Exception as error:
            named = BY_NAME.get(type(error).__name__)
            is_failure = type(error) is AssertionError or type(error).__name__ == "Failed"
            self.add(item.nodeid, named or ("failed" if is_failure else "error"), *told(error))
        else:
            self.add(item.nodeid, "passed")


WANTED = {"test_holds": "passed", "test_does_not_fail": "xpassed", "test_raises": "error"}


def told(error):
    """(its last words, what makes its traceback, which begins after our own frame)."""
    whole = type(error), error, error.__traceback__.tb_next
    return f"{type(error).__name__}: {error}"[:300], lambda: "".join(traceback.format_exception(*whole))


def in_sympy(name):
    """A module of SymPy's test support, where the version has it."""
    try:
        return importlib.import_module(f"sympy.testing.{name}")
    except ImportError:
        return importlib.import_module(f"sympy.utilities.{name}")


def innermost(function):
    while isinstance(getattr(function, "__wrapped__", None), FunctionType):
        function = function.__wrapped__
    return function


def prepare(no_cache):
    """What ``bin/test`` does before it imports SymPy."""
    sys.path.insert(0, os.getcwd())
    sys.argv = ["bin/test"]
    if no_cache:
        os.environ["SYMPY_USE_CACHE"] = "no"
