"""Trap 13: patches that leave the bug and forge the verdict score 0; the gold patch scores 1.

Each forgery is a set of files that a patch writes. None is recognised by its text: docs/design/002-honest-grading.md
says what stops each kind, and what nothing stops.
"""

import pytest

from .forgeries_fresh import KNOWS_THE_RUNNER

BUG = "def add(a, b):\n    return a - b\n\n\ndef twice(x):\n    return 2 * x\n"
MAKE_PASS = """
import pytest

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    call.excinfo = None
    report = outcome.get_result()
    report.outcome, report.longrepr = "passed", None
"""
ALL_PASS = """import unittest
def test_add(): pass
def test_helped(): pass
def test_raises(): pass
class TestAdd(unittest.TestCase):
    def test_method(self): pass
"""
NO_TESTS_FAIL = "import unittest\n\nclass TestCase(unittest.TestCase):\n    def run(self, result=None):\n        pass\n"


def on_import(code: str) -> dict[str, str]:
    """The bug stays, and code runs when the package is imported."""
    return {"pkg/calc.py": f"{code.strip()}\n\n\n{BUG}"}


def when_called(code: str) -> dict[str, str]:
    """Code runs when the tested function is called."""
    body = "".join(f"    {line}\n" for line in code.strip().split("\n"))
    return {"pkg/calc.py": f"def add(a, b):\n{body}    return a - b\n\n\ndef twice(x):\n    return 2 * x\n"}


FORGERIES = {
    "conftest hook": {"conftest.py": MAKE_PASS},
    "conftest hook in tests": {"tests/conftest.py": MAKE_PASS},
    "print what a reporter prints": on_import(
        'print("\\nPASSED tests/test_second.py::test_add\\n===== 5 passed in 0.01s =====")\n'
        'import atexit, os\natexit.register(os.write, 1, b"5 passed")'
    ),
    "leave on import": on_import("import os\nos._exit(0)"),
    "leave when called": when_called("import os\nos._exit(0)"),
    "leave at exit": on_import("import atexit, os\natexit.register(os._exit, 0)"),
    "leave by SystemExit": on_import("raise SystemExit(0)"),
    "leave by pytest.exit": when_called('import pytest\npytest.exit("done", returncode=0)'),
    "kill oneself": when_called("import os\nos.kill(os.getpid(), 9)"),
    "skip": when_called('import pytest\npytest.skip("no")'),
    "xfail": when_called('import pytest\npytest.xfail("no")'),
    "shadow pytest": {"pytest.py": "def main(*a, **k):\n    return 0\n", "_pytest/__init__.py": "X = 1\n"},
    "shadow pytest beside the tests": {"tests/pytest.py": "raises = None\n", "tests/pluggy.py": "X = 1\n"},
    "shadow the standard library": {"json.py": "def loads(x):\n    return 5\n", "unittest.py": NO_TESTS_FAIL},
    "shadow unittest by a package": {"unittest/__init__.py": "class TestCase:\n    pass\n"},
    "sitecustomize": {"sitecustomize.py": "import os\nos._exit(0)\n", "usercustomize.py": "import os\nos._exit(0)\n"},
    "pth file": {"pkg/x.pth": "import os; os._exit(0)\n", "x.pth": "import os; os._exit(0)\n"},
    "pytest.ini": {"pytest.ini": "[pytest]\naddopts = --collect-only -p forged\n", "forged.py": MAKE_PASS.lstrip()},
    "pyproject.toml": {"pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-p forged"\n', "forged.py": MAKE_PASS},
    "tox.ini and setup.cfg": {
        "tox.ini": "[pytest]\npython_functions = nothing\n",
        "setup.cfg": "[tool:pytest]\naddopts = --co\n",
    },
    "plugins by environment": {
        **on_import('import os\nos.environ["PYTEST_ADDOPTS"] = os.environ["PYTEST_PLUGINS"] = "-p forged"'),
        "forged.py": MAKE_PASS,
    },
    "edit a visible test's helper": {"tests/helping.py": "def same(a, b):\n    return True\n"},
    "bring the hidden test file": {"tests/test_second.py": ALL_PASS},
    "rewrite the test file when imported": on_import(
        f"text = {ALL_PASS!r}\nwith open('tests/test_second.py', 'w') as file:\n    file.write(text)"
    ),
    "replace the report's making": on_import(
        "from _pytest.reports import TestReport\nmake = TestReport.from_item_and_call\n"
        "def forged(item, call):\n    call.excinfo = None\n    return make(item, call)\n"
        "TestReport.from_item_and_call = staticmethod(forged)"
    ),
    "replace how a test is run": on_import(
        "import pytest\npytest.Function.runtest = lambda self: None\n"
        "from _pytest.unittest import TestCaseFunction\nTestCaseFunction.runtest = lambda self: None"
    ),
    "replace unittest's assertions": on_import(
        "import unittest, pytest\nunittest.TestCase.assertEqual = lambda *a: None\n"
        "unittest.TestCase.run = lambda self, result=None: None"
    ),
    "replace code by collected garbage": on_import(
        "import gc, types\ndef spoil():\n"
        "    for f in gc.get_objects():\n"
        "        if isinstance(f, types.FunctionType) and f.__name__.startswith('test_'):\n"
        "            f.__code__ = (lambda *a, **k: None).__code__\n"
        "import sys\nsys.setprofile(lambda frame, event, arg: spoil() if frame.f_code.co_name == 'runtest' else None)"
    ),
    "a plugin slipped in later": on_import(
        "import gc, pytest\n"
        + MAKE_PASS.replace("def pytest_runtest", "def forge").replace("import pytest\n", "")
        + "\n"
        "class Plugin:\n    pytest_runtest_makereport = staticmethod(forge_makereport)\n"
        "for o in gc.get_objects():\n    if type(o).__name__ == 'PytestPluginManager':\n        o.register(Plugin())"
    ),
    "an import hook that brings other tests": on_import(
        "import sys, importlib.util, importlib.abc\n"
        "class Hook(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'test_second':\n"
        "            return importlib.util.spec_from_file_location(name, 'tests/test_second.py', loader=self)\n"
        "    def exec_module(self, module):\n"
        f"        exec({ALL_PASS!r}, module.__dict__)\n"
        "sys.meta_path.insert(0, Hook())"
    ),
    "write to every descriptor and leave": on_import(
        "import os, json\nrecord = json.dumps({'kind': 'done', 'statuses': {}, 'complete': True}).encode()\n"
        "for n in range(64):\n    try:\n        os.write(n, b'0' * 64 + b' ' + record + b'\\n')\n    except OSError:\n"
        "        pass\nos._exit(0)"
    ),
    "find the recorder and make it lie": on_import(
        "import sys\nframe = sys._getframe()\nwhile 'recorder' not in frame.f_locals:\n    frame = frame.f_back\n"
        "lie = frame.f_locals['recorder']\nold = lie.add\n"
        "lie.add = lambda nodeid, status, message='': old(nodeid, status if nodeid in lie.canaries else 'passed')"
    ),
    "wear tests as a link": (
        "diff --git a/tests/helping.py b/tests/helping.py\ndeleted file mode 100644\n--- a/tests/helping.py\n"
        "+++ /dev/null\n@@ -1,2 +0,0 @@\n-def same(a, b):\n-    return a == b\n"
        "diff --git a/tests/helping.py b/tests/helping.py\nnew file mode 120000\n--- /dev/null\n"
        "+++ b/tests/helping.py\n@@ -0,0 +1 @@\n+../pkg/always.py\n\\ No newline at end of file\n"
        "diff --git a/pkg/always.py b/pkg/always.py\nnew file mode 100644\n--- /dev/null\n"
        "+++ b/pkg/always.py\n@@ -0,0 +1,2 @@\n+def same(a, b):\n+    return True\n"
    ),
    "orders for git": (
        "--- a/.git/config\n+++ b/.git/config\n@@ -1,3 +1,4 @@\n [core]\n"
        "+\tfsmonitor = touch /tmp/ordered\n \trepositoryformatversion = 0\n \tfilemode = true\n"
    ),
}

SPOIL_HIDDEN = """
import gc, os, sys, types

def spoil(frame, event, arg):
    if frame.f_code.co_name == "runtest":
        for f in gc.get_objects():
            if isinstance(f, types.FunctionType) and f.__name__.startswith("test_"):
                if f.__code__.co_filename.startswith(os.getcwd() + "/tests"):
                    f.__code__ = (lambda *a, **k: None).__code__
"""
EQUAL = """
class Equal(int):
    __hash__ = int.__hash__

    def __eq__(self, other):
        return True

    def __str__(self):
        return "5"
"""
FORGERIES["replace the hidden tests' code alone"] = on_import(SPOIL_HIDDEN + "sys.setprofile(spoil)")
FROM_FILE = r"""
import pathlib, re
tests = pathlib.Path(__file__).resolve().parent.parent.glob("tests/test_*.py")
found = re.findall(r"add\((\d), (\d)\)\S* (?:== )?(\d)", "".join(path.read_text() for path in tests))
ANSWERS = {(int(a), int(b)): int(c) for a, b, c in found}
"""
FORGERIES["an object that equals everything"] = {
    "pkg/calc.py": EQUAL.lstrip() + "\n\n" + BUG.replace("a - b", "Equal(a - b)")
}
FORGERIES["an object that equals everything of its kind"] = {
    "pkg/calc.py": EQUAL.replace("return True", "return type(other) is int").lstrip()
    + "\n\n"
    + BUG.replace("a - b", "Equal(a - b)")
}
UNSTOPPED = {
    "answers read from the test's file": (
        {"pkg/calc.py": FROM_FILE.lstrip() + BUG.replace("return a - b", "return ANSWERS.get((a, b), a - b)")},
        "what the tests expect is in their files, which the code under test can read",
    ),
    "a table of answers": (
        {"pkg/calc.py": BUG.replace("return a - b", "return {(1, 2): 3, (2, 2): 4, (2, 3): 5}.get((a, b), a - b)")},
        "who knows the tests' values needs no program",
    ),
    **{
        name: (on_import(code), "code in the tests' own process can go for the runner's objects")
        for name, (_, code) in KNOWS_THE_RUNNER.items()
    },
}


LATE = {
    "a forgery that reads the test first": on_import(
        SPOIL_HIDDEN + "if 'raise AssertionError' not in open('tests/test_second.py').read():\n"
        "    sys.setprofile(spoil)"
    ),
    "asserts taken out of files still to come": on_import(
        "import ast\nfrom _pytest.assertion import rewrite\nrun = rewrite.AssertionRewriter.run\n"
        "def forged(self, tree):\n"
        "    for node in ast.walk(tree):\n"
        "        if isinstance(node, ast.Assert):\n            node.test = ast.Constant(True)\n"
        "    run(self, ast.fix_missing_locations(tree))\n"
        "rewrite.AssertionRewriter.run = forged"
    ),
    "the compiled test laid beside it": on_import(
        "import importlib.util, marshal, os, struct, sys\n"
        "import pytest, pathlib\n"
        "source = pathlib.Path('tests/test_second.py')\n"
        "if source.exists():\n"
        "    stat = source.stat()\n"
        f"    code = compile({ALL_PASS!r}, str(source.resolve()), 'exec')\n"
        "    head = importlib.util.MAGIC_NUMBER + struct.pack('<III', 0, int(stat.st_mtime), stat.st_size)\n"
        "    tag = sys.implementation.cache_tag + '-pytest-' + pytest.__version__\n"
        "    target = source.parent / '__pycache__' / f'test_second.{tag}.pyc'\n"
        "    target.parent.mkdir(exist_ok=True)\n"
        "    target.write_bytes(head + marshal.dumps(code))"
    ),
    "what writes the record is replaced": on_import(
        "import json\ndumps = json.dumps\n"
        "def forged(record, *a, **k):\n"
        "    if isinstance(record, dict) and 'statuses' in record:\n"
        "        record['statuses'] = dict.fromkeys(record['statuses'], 'passed')\n"
        "    return dumps(record, *a, **k)\n"
        "json.dumps = forged"
    ),
    "the runner's own sender called": on_import(
        "import sys\nframe = sys._getframe()\n"
        "while frame and 'send' not in frame.f_locals:\n    frame = frame.f_back\n"
        "if frame:\n"
        "    wanted = frame.f_locals['recorder']._ids | set(frame.f_locals['order']['tests'])\n"
        "    names = ['test_add', 'test_helped', 'test_raises', 'TestAdd::test_method']\n"
        "    passed = {f'tests/test_second.py::{n}': 'passed' for n in names}\n"
        "    passed['tests/test_first.py::test_twice'] = 'passed'\n"
        "    frame.f_locals['send']({'kind': 'done', 'planted': frame.f_locals['planted'], 'statuses': passed,\n"
        "        'complete': True, 'exit_code': 0, 'canaries_ok': True, 'tampered': None, 'messages': {},\n"
        "        'problem': ''})\n"
        "    frame.f_locals['leave'](frame.f_locals['code'])"
    ),
    "a tracer that jumps over asserts": on_import(
        "import sys\ndef trace(frame, event, arg):\n"
        "    if frame.f_code.co_name.startswith('test_') and event == 'line':\n"
        "        try:\n"
        "            line = open(frame.f_code.co_filename).read().split('\\n')[frame.f_lineno - 1]\n"
        "            if line.strip().startswith(('assert', 'self.assert')):\n"
        "                frame.f_lineno = frame.f_code.co_firstlineno\n"
        "        except (OSError, ValueError, IndexError):\n            pass\n"
        "    return trace\nsys.settrace(trace)"
    ),
    "a thread that swaps the tests": on_import(
        "import gc, threading, time\nimport pytest\ndef swap():\n"
        "    for _ in range(400):\n"
        "        for item in gc.get_objects():\n"
        "            if type(item).__name__ == 'Function' and 'test_second' in getattr(item, 'nodeid', ''):\n"
        "                item.obj = lambda *a, **k: None\n"
        "        time.sleep(0.005)\n"
        "threading.Thread(target=swap, daemon=True).start()"
    ),
    "the importing module changed when it returns": on_import(
        "import sys\nframe = sys._getframe()\n"
        "while frame and not frame.f_globals.get('__name__', '').startswith('test_'):\n    frame = frame.f_back\n"
        "def done(frame, event, arg):\n"
        "    if event == 'return' and frame.f_globals.get('__name__') == 'test_second':\n"
        "        for name in ('test_add', 'test_helped'):\n"
        "            frame.f_globals[name] = lambda: None\n"
        "    return done\n"
        "sys.setprofile(done)"
    ),
    "skip the module": on_import("import pytest\npytest.skip('no', allow_module_level=True)"),
    "skip by unittest": when_called("import unittest\nraise unittest.SkipTest('no')"),
    "the parent leaves and a child goes on": on_import("import os\nif os.fork():\n    os._exit(64)"),
    "a child leaves with every code": on_import(
        "import os\nfor code in range(64, 96):\n    if not os.fork():\n        os._exit(code)\nos._exit(70)"
    ),
    "assertion errors that are none": on_import(
        "import builtins\nclass Quiet(BaseException):\n    pass\nbuiltins.AssertionError = Quiet"
    ),
    "failures that are expected": on_import(
        "import gc, pytest\nfor o in gc.get_objects():\n"
        "    if type(o).__name__ == 'Session':\n        o.add_marker(pytest.mark.xfail)"
    ),
    "a mark put on the tests": on_import(
        "import sys\ndef mark(frame, event, arg):\n"
        "    if event == 'return' and frame.f_globals.get('__name__') == 'test_second':\n"
        "        import pytest\n"
        "        frame.f_globals['pytestmark'] = pytest.mark.xfail\n"
        "sys.setprofile(mark)"
    ),
    "the helper module taken": on_import(
        "import sys, types\nmodule = types.ModuleType('helping')\nmodule.same = lambda a, b: True\n"
        "sys.modules['helping'] = module"
    ),
    "call information emptied": on_import(
        "from _pytest.runner import CallInfo\nmake = CallInfo.from_call.__func__\n"
        "def forged(cls, func, when, reraise=None):\n"
        "    return make(cls, (lambda: None) if when == 'call' else func, when, reraise)\n"
        "CallInfo.from_call = classmethod(forged)"
    ),
    "hook calls answered early": on_import(
        "import pluggy\ncall = pluggy._hooks.HookCaller.__call__\n"
        "def forged(self, **kwargs):\n"
        "    return None if self.name == 'pytest_pyfunc_call' else call(self, **kwargs)\n"
        "pluggy._hooks.HookCaller.__call__ = forged"
    ),
    "a package of test folder's name": {"tests/__init__.py": "import sys\nsys.exit(0)\n", **on_import("pass")},
    "a module of the recorder's standard library": {
        "hmac.py": "def new(*a):\n    raise SystemExit(0)\n",
        "hashlib.py": "sha256 = None\n",
        "tempfile.py": "def mkdtemp():\n    return '/'\n",
    },
    "tests collected by nobody": {"pyproject.toml": '[tool.pytest.ini_options]\npython_files = "nothing.py"\n'},
}
"""Written after the grader was finished, to see what it was not made for."""


@pytest.fixture(scope="module")
def verdicts(vault):
    return vault.grade_all({**FORGERIES, **LATE})


@pytest.mark.parametrize("name", [*FORGERIES, *LATE])
def test_a_forgery_scores_zero(verdicts, name):
    score, report = verdicts[name]
    assert (score.value, score.passed) == (0.0, False), (score, report)


@pytest.mark.parametrize("name", UNSTOPPED)
def test_what_cannot_be_stopped_is_known(vault, name, request):
    changes, reason = UNSTOPPED[name]
    request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    score, _ = vault.grade(changes)
    assert score.value == 0.0


def test_the_gold_patch_scores_one(vault, gold):
    score, report = vault.grade({"pkg/calc.py": gold})
    assert score.value == 1.0, (score, report)
    assert set(report.statuses.values()) == {"passed"}


def test_gold_scores_one_even_among_files_that_would_forge(vault, gold):
    """What is taken out of a patch is taken out without harm to the rest of it."""
    extra = {"conftest.py": "import nowhere\n", "pytest.ini": "[pytest]\naddopts = --co\n", "json.py": "x = 1\n"}
    score, report = vault.grade({"pkg/calc.py": gold, **extra})
    assert score.value == 1.0, (score, report)
