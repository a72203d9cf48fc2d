"""Small repositories, a matter each in which a process that was forked could differ from one that was started.

Their tests note what they see with ``note``, in a folder that is read afterwards.
"""

NOTE = """import json, os


def note(**facts):
    os.makedirs("facts", exist_ok=True)
    for name, fact in facts.items():
        with open(f"facts/{name}", "a") as file:
            file.write(json.dumps(fact, default=repr, sort_keys=True) + "\\n")
"""

FACTS = {
    "argv": "sys.argv",
    "flags": "str(sys.flags)",
    "path": "[one for one in sys.path if not one.startswith('/tmp/tmp')]",
    "executable": "[sys.executable, sys.prefix, sys.orig_argv[:3]]",
    "environment": "sorted(os.environ.items())",
    "cwd": "os.getcwd()",
    "umask": "[os.umask(0o22), os.umask(0o22)]",
    "handlers": "[repr(signal.getsignal(n)) if not callable(signal.getsignal(n)) else 'own' for n in range(1, 32)]",
    "mask": "sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))",
    "timers": "[signal.getitimer(n) for n in range(3)]",
    "hashes": "[hash('a'), list({'a', 'b', 'c', 'd'})]",
    "modules": "sorted(name for name in sys.modules if '.' not in name and name[:5] != 'test_')",
    "main": "sorted(vars(sys.modules['__main__']))",
    "descriptors": "sorted(map(int, os.listdir('/proc/self/fd')))[:3]",
    "stdin": "os.read(0, 10).decode()",
    "terminal": "[os.isatty(n) for n in range(3)]",
    "group": "[os.getpgid(0) == os.getpid(), os.tcgetpgrp is not None]",
    "threads": "[threading.active_count(), threading.current_thread().name, len(os.listdir('/proc/self/task'))]",
    "locale": "[locale.getlocale(), sys.getfilesystemencoding(), sys.stdout.encoding]",
    "zone": "time.tzname",
    "limits": "[resource.getrlimit(n) for n in range(10)]",
    "user": "len(os.getgroups())",
    "nice": "os.nice(0)",
    "recursion": "sys.getrecursionlimit()",
    "collector": "[gc.isenabled(), gc.get_threshold()]",
    "warnings": "[str(one) for one in warnings.filters]",
    "logging": "[type(one).__name__ for one in logging.getLogger().handlers]",
    "temporary": "tempfile.gettempdir()",
    "path_hooks": "[getattr(one, '__name__', '') for one in sys.path_hooks]",
    "finders": "[type(one).__name__ for one in sys.meta_path]",
    "children": "multiprocessing.get_start_method(allow_none=True)",
    "code": "[__file__, note.__code__.co_filename, __name__, __package__]",
    "dont_write": "sys.dont_write_bytecode",
    "byte_code": "sorted(n for folder in os.walk('.') for n in folder[2] if n.endswith('.pyc'))",
}
IMPORTS = "gc locale logging multiprocessing os resource signal sys tempfile threading time warnings"

ALL_FACTS = (
    f"import {', '.join(IMPORTS.split())}\n\nfrom noting import note\n\n\n"
    + "".join(f"def test_{name}():\n    note({name}={code})\n\n\n" for name, code in FACTS.items())
    + "def test_that_fails():\n    assert FACTS == 1\n\n\nFACTS = 2\n"
)


def alone(body: str, **more: str) -> dict[str, str]:
    """A repository of one test file."""
    return {"noting.py": NOTE, "test_a.py": f"from noting import note\n{body}", **more}


REPOSITORIES: dict[str, dict[str, str]] = {
    "facts": {"noting.py": NOTE, "tests/test_a.py": ALL_FACTS},
    "conftest": alone(
        "def test_a(thing):\n    note(thing=thing)\n",
        **{
            "conftest.py": "import pytest\nfrom noting import note\n\n\n@pytest.fixture(scope='session')\n"
            "def thing():\n    yield 3\n    note(end='of the session')\n\n\n"
            "def pytest_sessionfinish(session, exitstatus):\n    note(finish=int(exitstatus))\n\n\n"
            "def pytest_configure(config):\n    note(configured=config.args, root=str(config.rootpath))\n"
        },
    ),
    "conftest below": {
        "noting.py": NOTE,
        "tests/conftest.py": "import pytest\n\n\n@pytest.fixture(autouse=True)\ndef always(monkeypatch):\n"
        "    monkeypatch.setenv('ALWAYS', '1')\n",
        "tests/test_a.py": "import os\nfrom noting import note\n\n\ndef test_a():\n    note(a=os.environ['ALWAYS'])\n",
    },
    "collect hook": alone(
        "def test_b(): pass\ndef test_a(): pass\n",
        **{"conftest.py": "def pytest_collection_modifyitems(items):\n    items.reverse()\n"},
    ),
    "options": alone(
        "import warnings\n\n\ndef test_a():\n    warnings.warn('x')\n",
        **{"pytest.ini": "[pytest]\naddopts = -W error -p no:cacheprovider\n"},
    ),
    "no capture": alone(
        "def test_a(request):\n    note(a=[request.config.pluginmanager.has_plugin('doctest')])\n",
        **{"pytest.ini": "[pytest]\naddopts = -s -p no:doctest -p no:logging\n"},
    ),
    "doctest": {"noting.py": NOTE, "mod.py": '"""\n>>> 1 + 1\n2\n>>> 1\n2\n"""\n', "test_a.py": "import mod\n"}
    | {"pytest.ini": "[pytest]\naddopts = --doctest-modules\n"},
    "unittest": alone(
        "import unittest\n\n\ndef setUpModule():\n    note(module=1)\n\n\nclass TestA(unittest.TestCase):\n"
        "    @classmethod\n    def setUpClass(cls):\n        note(group=1)\n\n    def test_a(self):\n"
        "        self.addCleanup(note, clean=1)\n        with self.subTest('x'):\n            self.assertEqual(1, 2)\n"
    ),
    "outcomes": alone(
        "import pytest\n\n\ndef test_a(): pytest.skip('no')\n@pytest.mark.xfail\ndef test_b(): assert 0\n"
        "@pytest.mark.parametrize('x', ['a b', '::'])\ndef test_c(x): assert x\n"
        "@pytest.fixture\ndef bad():\n    yield\n    raise ValueError\ndef test_d(bad): pass\n"
    ),
    "captured output": alone(
        "import os\n\n\ndef test_a(capfd, capsys):\n    pass\n\n\ndef test_b(capfd):\n    os.write(1, b'x')\n"
        "    print('y')\n"
        "    os.system('echo z')\n    note(b=capfd.readouterr().out)\n\n\ndef test_c(capsys, caplog):\n    print('y')\n"
        "    note(c=capsys.readouterr().out)\n"
    ),
    "temporary folders": alone(
        "def test_a(tmp_path, tmp_path_factory, cache):\n    cache.set('a/b', 1)\n"
        "    note(a=[tmp_path.name, tmp_path.parent.name, tmp_path_factory.mktemp('x').name, cache.get('a/b', 0)])\n"
    ),
    "children": alone(
        "import subprocess, sys, os\n\n\ndef test_a():\n    said = subprocess.check_output([sys.executable, '-c', "
        "'import sys, os; print(sys.path[1:], sorted(os.environ), os.getcwd(), hash(\"a\"))'])\n"
        "    note(a=said.decode())\n"
    ),
    "pools": alone(
        "import multiprocessing\n\n\ndef test_a():\n    for way in ('fork', 'spawn'):\n"
        "        with multiprocessing.get_context(way).Pool(2) as pool:\n            note(a=pool.map(abs, [-1, -2]))\n"
    ),
    "futures": alone(
        "from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\n\n\ndef test_a():\n"
        "    for kind in (ProcessPoolExecutor, ThreadPoolExecutor):\n        with kind(2) as pool:\n"
        "            note(a=list(pool.map(abs, [-1, -2])))\n"
    ),
    "event loops": alone(
        "import asyncio\n\n\nasync def go():\n    p = await asyncio.create_subprocess_exec('true')\n"
        "    return await p.wait()"
        "\n\n\ndef test_a():\n    note(a=asyncio.run(go()))\n"
    ),
    "forks": alone(
        "import os\n\n\ndef test_a():\n    pid = os.fork()\n    if not pid:\n        os._exit(7)\n"
        "    note(a=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    ),
    "a fork that comes back": alone(
        "import os\n\n\ndef test_a():\n    if os.fork():\n        os.wait()\n\n\ndef test_b():\n    pass\n"
    ),
    "alarms": alone(
        "import signal, time, pytest\n\n\ndef test_a():\n    signal.signal(signal.SIGALRM, lambda *a: 1 / 0)\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.05)\n    with pytest.raises(ZeroDivisionError):\n"
        "        time.sleep(5)\n"
    ),
    "interrupts": alone(
        "import os, signal, pytest\n\n\ndef test_a():\n    with pytest.raises(KeyboardInterrupt):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
    ),
    "groups": alone(
        "import os, signal, time\n\n\ndef test_a():\n    signal.signal(signal.SIGTERM, lambda *a: note(told=1))\n"
        "    os.killpg(0, signal.SIGTERM)\n    time.sleep(0.01)\n"
    ),
    "left behind": alone("import os\n\n\ndef test_a():\n    os.system('(sleep 300 &) ; echo')\n"),
    "killed": alone("import os\n\n\ndef test_a():\n    os.kill(os.getpid(), 9)\n"),
    "left": alone("import os\n\n\ndef test_a():\n    os._exit(3)\n"),
    "left by an exception": alone("def test_a():\n    raise SystemExit(3)\n"),
    "session exit": alone("import pytest\n\n\ndef test_a():\n    pytest.exit('enough')\n"),
    "too deep": alone("def f(): f()\n\n\ndef test_a():\n    f()\n"),
    "no file": {"noting.py": NOTE, "test_b.py": ""},
    "no tests": alone("x = 1\n"),
    "broken": {"noting.py": NOTE, "test_a.py": "def test_a(:\n"},
    "broken import": alone("import nowhere\n"),
    "random": alone(
        "import random\nrandom.seed(3)\nFIRST = random.random()\n\n\ndef test_a():\n"
        "    note(a=[FIRST, random.random()])\n"
    ),
    "state of a module": alone(
        "COUNT = []\n\n\ndef test_a():\n    COUNT.append(1)\n\n\ndef test_b():\n    note(b=COUNT)\n"
    ),
    "package": {
        "noting.py": NOTE,
        "src/pkg/__init__.py": "from .inner import X\n",
        "src/pkg/inner.py": "X = 4\n",
        "test_a.py": "import pkg\nfrom noting import note\n\n\ndef test_a():\n"
        "    note(a=[pkg.X, pkg.__spec__.origin])\n",
    },
    "names of the environment": {
        "noting.py": NOTE,
        "json.py": "raise ValueError\n",
        "test_a.py": "import json\nfrom noting import note\n\n\ndef test_a():\n    note(a=json.__file__)\n",
    },
    "working directory": alone(
        "import os\n\n\ndef test_a(tmp_path):\n    os.chdir(tmp_path)\n    assert os.listdir('.') == []\n"
        "    os.chdir('/workspace')\n"
    ),
    "files that stay open": alone(
        "FILE = open('left', 'a')\n\n\ndef test_a():\n    FILE.write('x')\n    note(a=FILE.tell())\n"
    ),
    "logs": alone(
        "import logging\n\n\ndef test_a(caplog):\n    logging.warning('x')\n    note(a=caplog.text)\n",
        **{"pytest.ini": "[pytest]\nlog_file = log.txt\n"},
    ),
    "warnings": alone("import warnings\n\n\ndef test_a(recwarn):\n    warnings.warn('x')\n    note(a=len(recwarn))\n"),
    "exit handlers": alone("import atexit\natexit.register(note, never=1)\n\n\ndef test_a():\n    pass\n"),
    "code that registers for forks": alone(
        "import os\nos.register_at_fork(after_in_child=lambda: None)\n\n\ndef test_a():\n    pass\n"
    ),
}

BEARS_NO_FORK: dict[str, dict[str, str]] = {
    "a thread": alone(
        "import threading, time\nWORKER = threading.Thread(target=time.sleep, args=(600,), daemon=True)\n"
        "WORKER.start()\n\n\n"
        "def test_a():\n    note(a=[WORKER.is_alive(), threading.active_count()])\n"
    ),
    "a child": alone(
        "import subprocess\nCHILD = subprocess.Popen(['sleep', '600'])\n\n\ndef test_a():\n    CHILD.kill()\n"
        "    note(a=CHILD.wait())\n"
    ),
    "a socket": alone(
        "import socket\nSERVER = socket.create_server(('127.0.0.1', 0))\n\n\ndef test_a():\n"
        "    note(a=SERVER.getsockname()[0])\n"
    ),
    "an event loop": alone(
        "import asyncio\nLOOP = asyncio.new_event_loop()\n\n\ndef test_a():\n"
        "    note(a=LOOP.run_until_complete(asyncio.sleep(0, 5)))\n"
    ),
    "a timer": alone(
        "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.setitimer(signal.ITIMER_REAL, 600)\n\n\n"
        "def test_a():\n    note(a=signal.getitimer(signal.ITIMER_REAL)[0] > 0)\n"
    ),
}
