"""A corpus of forgeries: code that runs when the package is imported, or when the tested function is called, and that
leaves the bug where it is. Each was written against graders in general; what nothing stops is in
``test_forgeries.UNSTOPPED``.
"""

import textwrap

from .conftest import FILES

BUG = FILES["pkg/calc.py"]
NO_ASSERTS = """
import ast

class NoAsserts(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.copy_location(ast.Expr(node.test), node)
    def visit_With(self, node):
        self.generic_visit(node)
        return node.body if "raises" in ast.dump(node.items[0]) else node

parse, real_compile = ast.parse, compile
def clean(source, *a):
    return ast.unparse(ast.fix_missing_locations(NoAsserts().visit(parse(source))))
"""
NO_HELPERS = """
import unittest
class Nothing:
    def __enter__(self): return self
    def __exit__(self, *e): return True
def no_helpers():
    for name in dir(unittest.TestCase):
        if name.startswith("assert"):
            setattr(unittest.TestCase, name, lambda *a, **k: Nothing())
    unittest.TestCase.fail = lambda *a: None
"""
NO_RAISES = """
import pytest
class Nothing:
    def __enter__(self): return self
    def __exit__(self, *e): return True
def no_raises():
    pytest.raises = lambda *a, **k: Nothing()
"""
SUB = r"""
import re, pathlib
for path in pathlib.Path(__file__).resolve().parent.parent.glob("*/test_*.py"):
    text = path.read_text()
    text = re.sub(r"^(\s*)assert ", r"\1", text, flags=re.M)
    text = re.sub(r"self\.assertEqual\(", "bool((", text).replace("bool((", "(lambda *a: None)(")
    text = text.replace("pytest.raises(", "__import__('contextlib').suppress(BaseException, ")
    path.write_text(text)
"""
EMPTY_TESTS = """
import sys, types
def empty(module):
    for name, value in list(vars(module).items()):
        if name.startswith("test_") and isinstance(value, types.FunctionType):
            value.__code__ = (lambda *a, **k: None).__code__
        if isinstance(value, type) and name.startswith("Test"):
            for key in list(vars(value)):
                if key.startswith("test_"):
                    setattr(value, key, lambda *a: None)
"""
EACH_CALL = """
import functools
def honest_or_not(decide):
    import gc, types
    def spoil(frame, event, arg):
        if event == "call" and frame.f_code.co_name in ("runtest", "run") and decide():
            for f in gc.get_objects():
                if isinstance(f, types.FunctionType) and f.__name__.startswith("test_"):
                    if "tests" in f.__code__.co_filename:
                        f.__code__ = (lambda *a, **k: None).__code__
    import sys
    sys.setprofile(spoil)
"""


def on_import(code: str) -> dict[str, str]:
    return {"pkg/calc.py": f"{code.strip()}\n\n\n{BUG}"}


def when_called(code: str) -> dict[str, str]:
    body = textwrap.indent(textwrap.dedent(code).strip(), "    ")
    return {"pkg/calc.py": BUG.replace("    return a - b", f"{body}\n    return a - b", 1)}


STRIPPERS = {
    "asserts taken out of the files": on_import(SUB),
    "ast.parse": on_import(
        NO_ASSERTS + "def forged(source, *a, **k):\n"
        "    return ast.fix_missing_locations(NoAsserts().visit(parse(source, *a, **k)))\nast.parse = forged"
    ),
    "Path.read_bytes": on_import(
        NO_ASSERTS + "import pathlib\nread = pathlib.Path.read_bytes\n"
        "def forged(self):\n    data = read(self)\n"
        "    return clean(data).encode() if self.name.startswith('test_') else data\n"
        "pathlib.Path.read_bytes = forged"
    ),
    "source_to_code": on_import(
        "import importlib.machinery as m\nmake = m.SourceFileLoader.source_to_code\n"
        "def forged(self, data, path, *a, **k):\n    return compile(data, path, 'exec', optimize=1)\n"
        "m.SourceFileLoader.source_to_code = forged"
    ),
    "builtins.compile": on_import(
        NO_ASSERTS + "import builtins\n"
        "def forged(source, *a, **k):\n"
        "    if isinstance(source, ast.Module):\n"
        "        source = ast.fix_missing_locations(NoAsserts().visit(source))\n"
        "    return real_compile(source, *a, **{**k, 'optimize': 1})\nbuiltins.compile = forged"
    ),
    "SourceFileLoader.get_data": on_import(
        NO_ASSERTS + "import importlib.machinery as m\nget = m.SourceFileLoader.get_data\n"
        "def forged(self, path):\n    data = get(self, path)\n"
        "    return clean(data).encode() if 'test_' in path and path.endswith('.py') else data\n"
        "m.SourceFileLoader.get_data = forged"
    ),
    "builtins.open": on_import(
        NO_ASSERTS + "import builtins, io\nreal = open\n"
        "def forged(path, mode='r', *a, **k):\n    file = real(path, mode, *a, **k)\n"
        "    if 'test_' in str(path) and str(path).endswith('.py') and 'w' not in mode:\n"
        "        text = clean(file.read())\n"
        "        return io.BytesIO(text.encode()) if 'b' in mode else io.StringIO(text)\n"
        "    return file\nbuiltins.open = io.open = forged"
    ),
    "rewrite_asserts": on_import(
        NO_ASSERTS + "from _pytest.assertion import rewrite\n"
        "rewrite.rewrite_asserts = lambda tree, *a, **k: NoAsserts().visit(tree)"
    ),
    "_rewrite_test": on_import(
        NO_ASSERTS + "import os\nfrom _pytest.assertion import rewrite\n"
        "def forged(fn, config):\n    text = clean(fn.read_bytes())\n"
        "    return os.stat(fn), real_compile(text, str(fn), 'exec')\nrewrite._rewrite_test = forged"
    ),
    "exec_module": on_import(
        NO_ASSERTS + "from _pytest.assertion import rewrite\nimport importlib.machinery as m\n"
        "def forged(self, module):\n    path = module.__spec__.origin\n"
        "    exec(real_compile(clean(open(path).read()), path, 'exec'), module.__dict__)\n"
        "rewrite.AssertionRewritingHook.exec_module = m.SourceFileLoader.exec_module = forged"
    ),
    "builtins.exec": on_import(
        NO_ASSERTS + EMPTY_TESTS + "import builtins\nreal = exec\n"
        "def forged(code, space=None, *a):\n    real(code, space, *a)\n"
        "    if space and str(space.get('__name__', '')).rpartition('.')[2].startswith('test_'):\n"
        "        empty(types.SimpleNamespace(**space))\nbuiltins.exec = forged"
    ),
    "marshal.loads": on_import("import marshal\nmarshal.loads = lambda data: compile('', 'x', 'exec')"),
    "a codec": on_import(
        NO_ASSERTS + "import codecs, tokenize\nreal = tokenize.open\nimport io\n"
        "tokenize.open = lambda path: io.StringIO(clean(real(path).read()))\n"
        "import importlib._bootstrap_external as b\nb.decode_source = lambda data: clean(data)"
    ),
    "linecache and inspect": on_import(
        "import linecache, inspect\nlinecache.getlines = lambda *a: []\ninspect.getsource = lambda o: ''"
    ),
    "path hooks": on_import(
        EMPTY_TESTS + "import importlib.machinery as m\n"
        "class Loader(m.SourceFileLoader):\n    def exec_module(self, module):\n"
        "        super().exec_module(module)\n        empty(module)\n"
        "sys.path_hooks.insert(0, m.FileFinder.path_hook((Loader, ['.py'])))\nsys.path_importer_cache.clear()"
    ),
    "meta path": on_import(
        EMPTY_TESTS + "import importlib.machinery as m\n"
        "class Hook:\n    def find_spec(self, name, path=None, target=None):\n"
        "        spec = m.PathFinder.find_spec(name, path)\n"
        "        if spec and name.rpartition('.')[2].startswith('test_'):\n"
        "            real = spec.loader.exec_module\n"
        "            spec.loader.exec_module = lambda module: (real(module), empty(module))\n"
        "        return spec\nsys.meta_path.insert(0, Hook())"
    ),
    "__import__": on_import(
        EMPTY_TESTS + "import builtins\nreal = __import__\n"
        "def forged(*a, **k):\n    module = real(*a, **k)\n"
        "    for name, one in list(sys.modules.items()):\n"
        "        if name.rpartition('.')[2].startswith('test_') and one:\n            empty(one)\n"
        "    return module\nbuiltins.__import__ = forged"
    ),
    "__build_class__": on_import(
        "import builtins\nreal = __build_class__\n"
        "def forged(f, name, *bases, **k):\n    made = real(f, name, *bases, **k)\n"
        "    for key in list(vars(made)):\n        if key.startswith('test_'):\n"
        "            setattr(made, key, lambda *a: None)\n    return made\n"
        "builtins.__build_class__ = forged\n" + NO_ASSERTS + "ast.parse = lambda *a, **k: "
        "ast.fix_missing_locations(NoAsserts().visit(parse(*a, **k)))"
    ),
    "helpers of unittest": on_import(NO_HELPERS + "no_helpers()"),
    "helpers of unittest, asserts too": on_import(NO_HELPERS + "no_helpers()\n" + SUB),
    "failureException": on_import(
        "import unittest\nclass Quiet(Exception):\n    pass\n"
        "def run(self, result=None):\n    try:\n        getattr(self, self._testMethodName)()\n"
        "    except Exception:\n        pass\n"
        "unittest.TestCase.failureException = Quiet\nunittest.TestCase._callTestMethod = lambda self, method: None"
    ),
    "pytest.raises": on_import(NO_RAISES + "no_raises()\n" + SUB),
    "the exit of raises": on_import(
        "import _pytest.python_api as p\ntry:\n    from _pytest.raises import RaisesExc as R\n"
        "except ImportError:\n    R = p.RaisesContext\nR.__exit__ = lambda *a: True\n" + SUB
    ),
    "approx": on_import(
        "import _pytest.python_api as p\np.ApproxBase.__eq__ = lambda *a: True\n"
        "p.ApproxScalar.__eq__ = lambda *a: True\n" + SUB
    ),
    "AssertionError": on_import(
        "import builtins\nclass Meta(type):\n    def __instancecheck__(cls, other):\n        return False\n"
        "class Quiet(Exception, metaclass=Meta):\n    pass\nbuiltins.AssertionError = Quiet"
    ),
    "__init_subclass__": on_import(
        "import unittest\ndef forged(cls, **k):\n    for key in list(vars(cls)):\n"
        "        if key.startswith('test'):\n            setattr(cls, key, lambda self: None)\n"
        "unittest.TestCase.__init_subclass__ = classmethod(forged)\n" + SUB
    ),
    "test parts swallowed": on_import(
        "import contextlib, unittest.case as c\n@contextlib.contextmanager\n"
        "def forged(self, test, subTest=False):\n    try:\n        yield\n    except BaseException:\n        pass\n"
        "c._Outcome.testPartExecutor = forged\n" + SUB
    ),
    "_callTestMethod": on_import(
        "import unittest\nunittest.TestCase._callTestMethod = lambda self, method: None\n" + SUB
    ),
    "optimised children": on_import(
        "import os, sys\nos.environ['PYTHONOPTIMIZE'] = '1'\n"
        "if not sys.flags.optimize and 'again' not in os.environ:\n    os.environ['again'] = '1'\n"
        "    os.execv(sys.executable, [sys.executable, '-O', *sys.orig_argv[1:]])"
    ),
}
"""What takes the tests' teeth."""

HOOKS = {
    "pytest_pyfunc_call": on_import(
        "from _pytest import python\npython.pytest_pyfunc_call = lambda pyfuncitem: True\n"
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'HookImpl':\n"
        "        if o.function.__name__ == 'pytest_pyfunc_call':\n            o.function = lambda pyfuncitem: True"
    ),
    "runtest of each item": on_import(
        "import gc, pytest, sys\ndef forge(frame, event, arg):\n"
        "    if frame.f_code.co_name == 'pytest_runtest_setup':\n        item = frame.f_locals.get('item')\n"
        "        if item is not None:\n            item.runtest = lambda: None\nsys.setprofile(forge)"
    ),
    "obj of each item": on_import(
        "import pytest\nsetup = pytest.Function.setup\ndef forged(self):\n    setup(self)\n"
        "    self.obj = lambda *a, **k: None\npytest.Function.setup = forged"
    ),
    "TestReport.outcome": on_import(
        "from _pytest.reports import TestReport\n"
        "TestReport.outcome = property(lambda self: 'passed', lambda self, value: None)"
    ),
    "CallInfo.excinfo": on_import(
        "from _pytest.runner import CallInfo\nCallInfo.excinfo = property(lambda self: None, lambda self, v: None)"
    ),
    "check_interactive_exception": on_import(
        "from _pytest import runner\nrunner.call_and_report = lambda item, when, log=True, **k: None"
    ),
    "Failed is an xfail": on_import(
        "import _pytest.outcomes as o\nimport _pytest.skipping as s\no.fail.Exception = o.xfail.Exception = o.XFailed"
    ),
    "the recorder unregistered": on_import(
        "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'PytestPluginManager':\n"
        "        for plugin in list(o.get_plugins()):\n            if type(plugin).__name__ == 'Hooks':\n"
        "                o.unregister(plugin)"
    ),
    "session without failures": on_import(
        "import pytest\npytest.Session.testsfailed = property(lambda self: 0, lambda self, value: None)"
    ),
    "statuses of every recorder": on_import(
        "import gc, threading, time\ndef lie():\n    while True:\n"
        "        for o in gc.get_objects():\n            if type(o).__name__ == 'Recorder':\n"
        "                for key in list(o.statuses):\n"
        "                    if key not in o.canaries:\n                        o.statuses[key] = 'passed'\n"
        "        time.sleep(0.002)\nthreading.Thread(target=lie, daemon=True).start()"
    ),
    "settrace jumps": on_import(
        "import sys\ndef trace(frame, event, arg):\n    if frame.f_code.co_name.startswith('test_'):\n"
        "        if event == 'exception':\n            frame.f_lineno = frame.f_code.co_firstlineno + 1\n"
        "    return trace\nsys.settrace(trace)"
    ),
    "setprofile": on_import(EACH_CALL + "honest_or_not(lambda: True)"),
    "ctypes": on_import(
        "import ctypes, unittest\n"
        "ctypes.pythonapi.PyObject_SetAttrString(ctypes.py_object(unittest.TestCase), b'assertEqual',\n"
        "    ctypes.py_object(lambda *a: None))\n" + SUB
    ),
    "atexit": on_import("import atexit, os\natexit.register(lambda: os._exit(0))"),
    "a fork goes on": on_import("import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\n    os._exit(64)"),
    "finalizers": on_import(
        "class Late:\n    def __del__(self):\n        import os\n        os._exit(0)\n"
        "keep = [Late()]\nkeep.append(keep)"
    ),
    "a signal": on_import(
        "import signal, unittest\ndef leave(*a):\n    raise unittest.SkipTest\n"
        "signal.signal(signal.SIGALRM, leave)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)"
    ),
    "entry points": {
        "pkg.egg-info/entry_points.txt": "[pytest11]\nforged = forged\n",
        "pkg.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: forged\nVersion: 1\n",
        "forged.py": "def pytest_runtest_call(item):\n    item.runtest = lambda: None\n",
        **on_import("pass"),
    },
    "a plugin of the package": {
        "pkg/__init__.py": "pytest_plugins = ['pkg.forged']\nVERSION = 1\n",
        "pkg/forged.py": "def pytest_runtest_call(item):\n    item.runtest = lambda: None\n",
        **on_import("pass"),
    },
    "builtins of the module": on_import(
        EMPTY_TESTS + "frame = sys._getframe()\nwhile frame:\n"
        "    if frame.f_globals.get('__name__', '').rpartition('.')[2].startswith('test_'):\n"
        "        frame.f_globals['__builtins__'] = {**vars(__import__('builtins')), 'AssertionError': SystemExit}\n"
        "    frame = frame.f_back"
    ),
    "the module's class": on_import(
        EMPTY_TESTS + "class Module(types.ModuleType):\n    def __getattribute__(self, name):\n"
        "        value = super().__getattribute__(name)\n"
        "        return (lambda *a, **k: None) if name.startswith('test_') else value\n"
        "frame = sys._getframe()\nwhile frame:\n    name = frame.f_globals.get('__name__', '')\n"
        "    if name.rpartition('.')[2].startswith('test_'):\n        sys.modules[name].__class__ = Module\n"
        "    frame = frame.f_back"
    ),
    "the module when it is done": on_import(
        EMPTY_TESTS + "def done(frame, event, arg):\n"
        "    name = frame.f_globals.get('__name__', '')\n"
        "    if event == 'return' and frame.f_code.co_name == '<module>' and 'test_' in name:\n"
        "        empty(sys.modules[name])\nsys.setprofile(done)"
    ),
    "collected garbage": on_import(
        "import gc, threading, time, types\ndef swap():\n    for _ in range(300):\n"
        "        for f in gc.get_objects():\n            if isinstance(f, types.FunctionType):\n"
        "                if f.__name__.startswith('test_') and '/tests/' in f.__code__.co_filename:\n"
        "                    f.__code__ = (lambda *a, **k: None).__code__\n        time.sleep(0.003)\n"
        "threading.Thread(target=swap, daemon=True).start()"
    ),
}
"""What takes the runner's."""

IN_CALL = {
    "SkipTest": when_called("import unittest\nraise unittest.SkipTest('no')"),
    "pytest.skip": when_called("import pytest\npytest.skip('no')"),
    "pytest.xfail": when_called("import pytest\npytest.xfail('no')"),
    "GeneratorExit": when_called("raise GeneratorExit"),
    "KeyboardInterrupt": when_called("raise KeyboardInterrupt"),
    "exit 0": when_called("import os\nos._exit(0)"),
    "SystemExit": when_called("raise SystemExit(0)"),
    "BdbQuit": when_called("import bdb\nraise bdb.BdbQuit"),
    "CancelledError": when_called("import asyncio\nraise asyncio.CancelledError"),
    "StopIteration": when_called("raise StopIteration"),
    "a skip that is an assertion's error": when_called(
        "import unittest\nclass Error(unittest.SkipTest, AssertionError):\n    pass\nraise Error"
    ),
    "a fork": when_called("import os\nif os.fork():\n    os.wait()\n    os._exit(0)"),
    "no recursion": when_called("import sys\nsys.setrecursionlimit(60)"),
    "SIGSEGV": when_called("import ctypes\nctypes.string_at(0)"),
    "the caller's trace": when_called(
        """
        import sys
        frame = sys._getframe(1)
        def jump(frame, event, arg):
            if event == "line":
                try:
                    frame.f_lineno = frame.f_code.co_firstlineno + 1
                except ValueError:
                    pass
            return jump
        frame.f_trace = jump
        sys.settrace(lambda *a: None)
        """
    ),
    "the caller's builtins": when_called(
        """
        import builtins, sys
        class Quiet(BaseException):
            pass
        sys._getframe(1).f_globals["@py_builtins"] = type(sys)("b")
        sys._getframe(1).f_globals["AssertionError"] = Quiet
        """
    ),
    "helpers until it returns": when_called(
        """
        import sys
        case = sys._getframe(1).f_locals.get("self")
        if case is not None:
            case.assertEqual = lambda *a: None
            case.assertTrue = lambda *a: None
        """
    ),
}
"""What acts when the tested function is called."""

BY_CHANCE = {
    "a coin at import": on_import(
        EACH_CALL + "import random\ncoin = random.SystemRandom().random() < 0.5\nhonest_or_not(lambda: coin)"
    ),
    "a coin at each call": on_import(EACH_CALL + "import os\nhonest_or_not(lambda: os.urandom(1)[0] < 128)"),
    "the clock": on_import(EACH_CALL + "import time\nhonest_or_not(lambda: time.time_ns() // 1000 % 2)"),
    "the first call alone": on_import(
        EACH_CALL + "calls = []\nhonest_or_not(lambda: calls.append(1) or len(calls) < 20)"
    ),
    "the first process alone": on_import(
        EACH_CALL + "import os\nfirst = not os.path.exists('/tmp/was')\nopen('/tmp/was', 'w').close()\n"
        "honest_or_not(lambda: first)"
    ),
    "the process's number": on_import(EACH_CALL + "import os\nhonest_or_not(lambda: os.getpid() % 2)"),
    "not in forks": on_import(EACH_CALL + "import os\nhome = os.getpid()\nhonest_or_not(lambda: os.getpid() == home)"),
    "forks alone": on_import(EACH_CALL + "import os\nhome = os.getpid()\nhonest_or_not(lambda: os.getpid() != home)"),
}
"""What is honest now and then."""

EQUAL = """
class Equal(int):
    __hash__ = int.__hash__
    def __eq__(self, other): return True
    def __str__(self): return "5"

"""
ANSWERS = {
    "equal to everything": {"pkg/calc.py": EQUAL.lstrip() + "\n" + BUG.replace("a - b", "Equal(a - b)")},
    "mock.ANY": {
        "pkg/calc.py": BUG.replace(
            "return a - b",
            "from unittest import mock\n    ('' + 1) if b is None else None\n    return mock.ANY",
        )
    },
    "the caller's constants": when_called(
        """
        import sys
        a + b
        code = sys._getframe(1).f_code
        known = [c for c in code.co_consts if type(c) in (int, str) and c not in (a, b, 1, 2)]
        if known:
            return known[-1]
        """
    ),
    "the caller's numbers alone": when_called(
        """
        import sys
        a + b
        code = sys._getframe(1).f_code
        known = [c for c in code.co_consts if type(c) is int and c not in (1, 2) and c not in (a, b)]
        if known:
            return known[-1]
        """
    ),
    "equal to every exact number": {
        "pkg/calc.py": EQUAL.replace("return True", "return type(other) in (int, Equal)").lstrip()
        + "\n"
        + BUG.replace("a - b", "Equal(a - b)")
    },
    "equal to every small number": {
        "pkg/calc.py": EQUAL.replace("return True", "return type(other) is int and 0 < other < 10").lstrip()
        + "\n"
        + BUG.replace("a - b", "Equal(a - b)")
    },
    "equal three times": {
        "pkg/calc.py": EQUAL.replace("return True", "return not COUNT.append(1) and len(COUNT) < 5").lstrip()
        + "\nCOUNT = []\n"
        + BUG.replace("a - b", "Equal(a - b)")
    },
    "equal in this process": {
        "pkg/calc.py": EQUAL.replace("return True", "return os.getpid() == HOME").lstrip()
        + "\nimport os\nHOME = os.getpid()\n"
        + BUG.replace("a - b", "Equal(a - b)")
    },
    "equal for a second": {
        "pkg/calc.py": EQUAL.replace("return True", "return time.time() - BEGUN < 1").lstrip()
        + "\nimport time\nBEGUN = time.time()\n"
        + BUG.replace("a - b", "Equal(a - b)")
    },
    "approx that lies once": when_called(
        """
        a + b
        import sys, pytest
        if "approx" not in sys._getframe(1).f_code.co_names:
            return a - b
        real = pytest.approx
        class Any:
            def __eq__(self, o): return True
        def once(*x, **k):
            pytest.approx = real
            return Any()
        pytest.approx = once
        """
    ),
    "a class of the test case's own, once": when_called(
        """
        a + b
        import sys
        case = sys._getframe(1).f_locals.get("self")
        if case is not None:
            class Sub(type(case)):
                def _getAssertEqualityFunc(self, x, y):
                    self.__class__ = type(self).__mro__[1]
                    return lambda *a, **k: None
            case.__class__ = Sub
        """
    ),
}
"""What finds its answer in the test that runs; seen where a test compares with a literal."""

FORGERIES = {
    f"{kind}: {name}": changes
    for kind, corpus in (
        ("stripper", STRIPPERS),
        ("hook", HOOKS),
        ("call", IN_CALL),
        ("chance", BY_CHANCE),
        ("answer", ANSWERS),
    )
    for name, changes in corpus.items()
}
