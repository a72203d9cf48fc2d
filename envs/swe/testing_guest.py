"""The program that runs pytest inside a sandbox and says what happened. Standard library and pytest only.

Its text is handed to the sandbox's Python with ``-c``, so it needs no file there, and no module of verigym. It takes
one JSON object from stdin (see ``testing.py``) and writes two signed lines to the stdout it was given: "ready", when
pytest is loaded and nothing of the repository could have run, and "done". Everything printed later goes nowhere.

The code under test shares this process, so nothing here is a wall; it makes forging hard enough that the ways left
are few and written down (docs/design/002-honest-grading.md).
"""

import sys

if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if entry]  # without the working directory, which ``-c`` puts first

import ast
import builtins
import contextlib
import functools
import gc
import hashlib
import hmac
import importlib.machinery
import inspect
import json
import math
import operator
import os
import random
import tempfile
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType

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


class EnvironmentFirst:
    """Finds the environment's modules before the repository's, so that no file of a patch can stand in for them.

    ``owned`` are the top-level names that the repository itself brings at its base commit: those it may define.
    """

    def __init__(self, path, owned):
        self._path, self._owned = list(path), frozenset(owned)

    def find_spec(self, name, path=None, target=None):
        if path is not None or name in self._owned:
            return None
        return importlib.machinery.PathFinder.find_spec(name, self._path)


def owned_names(workdir, roots, distrusted):
    """Names of modules that lie at a possible import root and were not added by the patch."""
    distrusted, names = set(distrusted), set()
    with contextlib.suppress(OSError):
        roots = [*roots, *(entry.path for entry in os.scandir(workdir) if entry.is_dir() and entry.name[0] != ".")]
    for root in {os.path.abspath(root) for root in roots}:
        with contextlib.suppress(OSError):
            for entry in os.scandir(root):
                relative = os.path.relpath(entry.path, workdir)
                if entry.is_dir():
                    inside = (f"{relative}/{child}" for child in os.listdir(entry.path))
                    mine = f"{relative}/__init__.py" not in distrusted and any(c not in distrusted for c in inside)
                else:
                    mine = relative not in distrusted
                if mine:
                    names.add(entry.name.split(".")[0])
    return names


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
    return [entry for entry in found if getattr(entry[2], "__module__", "") in modules]


def make_twin(source, names):
    """Source in which each named test function (["Class", "method"] paths) fails whatever it does; (text, found)."""
    tree, found = ast.parse(source), set()

    def visit(body, path):
        for node in body:
            here = (*path, getattr(node, "name", ""))
            if isinstance(node, ast.ClassDef):
                visit(node.body, here)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                if here in names:
                    found.add(here)
                    failing = ast.parse("raise AssertionError").body
                    node.body = [ast.Try(body=node.body, handlers=[], orelse=[], finalbody=failing)]
            else:
                for name in ("body", "orelse", "finalbody", "handlers"):
                    visit(getattr(node, name, []), path)

    visit(tree.body, ())
    return ast.unparse(ast.fix_missing_locations(tree)), found


def split_id(test):
    """ "a/t.py::C::m[x::y]" -> ("a/t.py", ("C", "m"))."""
    path, _, rest = test.partition("::")
    return path, tuple(rest.partition("[")[0].split("::")) if rest else ()


def plant_twins(tests):
    """Rewrite the files of ``tests`` so that they must fail; the tests that could be rewritten."""
    by_file = {}
    for test in tests:
        by_file.setdefault(split_id(test)[0], []).append(test)
    planted = []
    for path, wanted in by_file.items():
        try:
            with open(path, "rb") as file:
                text, found = make_twin(file.read(), {split_id(test)[1] for test in wanted})
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        planted += [test for test in wanted if split_id(test)[1] in found]
    return planted


class Recorder:
    """The pytest plugin: picks the tests, plants canaries between the files, keeps each test's worst status."""

    def __init__(self, pytest, wanted, with_unittest, quiet):
        self._pytest = pytest
        self._files = {test for test in wanted if "::" not in test}
        self._ids = {test for test in wanted if "::" in test}
        self._with_unittest, self._quiet = with_unittest, quiet
        self._intact = self._close_watch = ()
        self.statuses, self.messages, self.canaries = {}, {}, {}
        self.collected, self.finished, self.tampered = set(), set(), None

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
        for item in items if self._quiet else ():
            item.repr_failure = str  # nobody reads it, and pytest's takes milliseconds
        borders = [n for n in range(len(items) + 1) if n in (0, len(items)) or items[n - 1].path != items[n].path]
        # At the first border for what is broken on import, at the last for what is broken later.
        places = [borders[0], random.SystemRandom().choice(borders[1:] or borders), borders[-1]]
        places = places if len(borders) > 2 else [borders[0], borders[-1]]
        for place in sorted(places, reverse=True):
            items[place:place] = self.make_canaries(session)

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
            self.canaries[item.nodeid] = "passed" if item.name.endswith("_holds") else "failed"
        return items

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

    def result(self, code):
        """What the "done" line says."""
        canaries_ok = bool(self.canaries) and all(self.statuses.get(n) == want for n, want in self.canaries.items())
        everything = self.finished == self.collected | set(self.canaries)
        statuses = {n: status for n, status in self.statuses.items() if n not in self.canaries}
        failed = any(status in ("failed", "error") for status in statuses.values())
        messages = {n: text for n, text in self.messages.items() if n not in self.canaries}
        return {
            "statuses": statuses,
            "complete": everything and code == 1,  # 1: some failed, as canaries must
            "exit_code": int(failed) if code == 1 else code,
            "canaries_ok": canaries_ok and self.tampered is None,
            "tampered": self.tampered,
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


def plugin_of(pytest, recorder):
    """The hooks, kept apart from the recorder so that they alone are registered."""

    class Hooks:
        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_collection_modifyitems(self, session, config, items):
            yield
            recorder.choose(session, items)

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


def main():
    leave, process = os._exit, os.getpid()
    order = json.loads(sys.stdin.buffer.read())
    order["workdir"] = os.getcwd()
    send = sender(os.dup(1), bytes.fromhex(order.pop("key")))
    code = order.pop("exit_code")
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        del os.environ[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.update(order["python_env"])  # for children; this process was started without
    import pytest

    files = list(dict.fromkeys(split_id(test)[0] for test in order["tests"]))
    files = [path for path in files if os.path.exists(path)]
    with_unittest = any(mentions_unittest(path) for path in files)
    if with_unittest:
        import unittest  # noqa: F401
    send({"kind": "ready", "pytest": pytest.__version__})
    for descriptor in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    planted = plant_twins(order["twins"])
    roots = [order["workdir"], *order["pythonpath"]]
    for path in files:
        while path := os.path.dirname(path):
            roots.append(path)
    sys.meta_path.insert(0, EnvironmentFirst(sys.path, owned_names(order["workdir"], roots, order["distrusted"])))
    sys.path[:0] = [os.path.join(order["workdir"], entry) for entry in order["pythonpath"]]
    sys.argv = ["pytest"]
    sys.modules["__main__"] = ModuleType("__main__")  # ours is not to be had by importing it
    recorder = Recorder(pytest, planted or order["tests"], with_unittest, quiet=bool(planted))
    send({"kind": "done", "planted": planted, **run(pytest, recorder, files, order)})
    if os.getpid() == process:  # a fork that came back here has nothing to say
        leave(code)
    leave(99)


def run(pytest, recorder, files, order):
    if not files:
        return {**recorder.result(None), "problem": "none of the test files exists"}
    recorder.arm(snapshot())
    options = ["-q", "--tb=short", "--no-header", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += ["-o", "addopts=", f"--rootdir={order['workdir']}"]
    for name in order["plugins"]:
        options += ["-p", name]
    gc.freeze()  # pytest's last collections then pass over what is loaded by now
    problem = ""
    try:
        code = int(pytest.main([*options, *files], plugins=[plugin_of(pytest, recorder)]))
    except BaseException as error:  # the repository's code can raise anything here
        code, problem = None, f"the session was left by {type(error).__name__}"
    recorder.check()
    return {**recorder.result(code), "problem": problem}


def mentions_unittest(path):
    if not os.path.isfile(path):
        return True
    with open(path, "rb") as file:
        return b"unittest" in file.read()


def sender(descriptor, key):
    sign, write, digest = hmac.new, os.write, hashlib.sha256

    def send(record):
        body = json.dumps(record).encode()
        line = sign(key, body, digest).hexdigest().encode() + b" " + body + b"\n"
        while line:
            line = line[write(descriptor, line) :]

    return send


if __name__ == "__main__":
    main()
