"""Programs that attack their grader: each verdict right, each within its deadline, nothing left behind."""

import asyncio
import os
import time

import pytest

from verigym.envs.code.box import RunLimits
from verigym.envs.code.grade import ProgramGrader
from verigym.envs.sandbox import control_group
from verigym.envs.task import Task

FORGED = '{"status": "ok", "stdout": "31337", "stderr": ""}'
FORK = "import os\npid = os.fork()\n"

WRONG = {
    "infinite loop": "while True: pass",
    "infinite sleep": "import time\ntime.sleep(1000)",
    "loop that ignores the timer": "import signal\nsignal.signal(signal.SIGPROF, signal.SIG_IGN)\nwhile True: pass",
    "handlers for every signal": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, lambda *a: None)\n"
        "    except Exception: pass\n"
        "while True: pass"
    ),
    "timer put off": "import signal\nsignal.setitimer(signal.ITIMER_PROF, 0)\nwhile True: pass",
    "catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "memory bomb": "x = bytearray(10 ** 11)\nprint(31337)",
    "growing list": "x = []\nwhile True: x.append(' ' * 10 ** 6)",
    "big power": "x = 9 ** 9 ** 9",
    "compiles for ever": "x = " + "+".join(["1"] * 200_000) + "\nwhile True: pass",
    "nests too deep": "(" * 100_000,
    "recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "flood of output": "while True: print('31337' * 1000)",
    "flood of errors": "import sys\nwhile True: sys.stderr.write('x' * 10 ** 6)",
    "flood of files": "i = 0\nwhile True:\n    i += 1\n    open(f'/tmp/{i}', 'w').close()",
    "fills the disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * 10 ** 6)",
    "early exit": "import os\nos._exit(0)",
    "exit as success": "raise SystemExit(0)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "kills everything": "import os\nos.kill(-1, 9)",
    "stops its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nwhile True: pass",
    "kills itself": "import os\nos.kill(os.getpid(), 11)",
    "kills its group": "import os\nos.killpg(0, 9)",
    "writes to its parent's output": (
        f"import os\ntry:\n    with open(f'/proc/{{os.getppid()}}/fd/1', 'w') as f: f.write({FORGED!r} + chr(10))\n"
        "except OSError: pass"
    ),
    "writes to every descriptor": (
        f"import os\nfor n in range(3, 300):\n    try: os.write(n, {FORGED.encode()!r} + b'\\n')\n"
        "    except OSError: pass"
    ),
    "traces its parent": (
        "import ctypes, os\nlibc = ctypes.CDLL(None)\nprint(libc.ptrace(16, os.getppid(), 0, 0) == 0 and 31337)"
    ),
    "reads the grader's files": (
        "import glob\nfor p in glob.glob('/**/*.py', recursive=True)[:20000]:\n"
        "    if 'verigym' in p or 'grade' in p.rsplit('/', 1)[1]:\n        print(open(p).read()[:100])"
    ),
    "reads the memory of others": (
        "import os\nfor p in os.listdir('/proc'):\n    try: print(open(f'/proc/{p}/environ').read()[:9])\n"
        "    except OSError: pass"
    ),
    "always equal": "class E:\n    __eq__ = lambda a, b: True\n    __repr__ = lambda a: 'x'\nprint(E())",
    "replaces builtins": "import builtins\nbuiltins.print = lambda *a: None\nprint(31337)",
    "replaces json": "import json\njson.loads = json.dumps = lambda *a, **k: True\nprint(True)",
    "replaces stdout": "import sys, io\nsys.stdout = io.StringIO()\nprint(31337)",
    "closes its output": "import os\nos.close(1)\nprint(31337)",
    "closes every descriptor": "import os\nos.closerange(0, 1000)\nprint(31337)",
    "deletes modules": "import sys\nsys.modules.clear()\nraise ValueError",
    "leaves a daemon": FORK + "if pid == 0:\n    os.setsid()\n    import time\n    time.sleep(1000)\nprint(1)",
    "daemon that forks on": (
        FORK
        + "if pid == 0:\n    os.setsid()\n    import time\n    while True:\n        if os.fork() == 0: os.setsid()\n"
        "        else: os._exit(0)\n        time.sleep(0.01)\nprint(1)"
    ),
    "thread that never ends": "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
    "hangs at its end": "import atexit, time\natexit.register(time.sleep, 1000)\nprint(31338)",
    "reads for ever": "while True:\n    try: input()\n    except EOFError: pass",
    "input at its end": "input()\ninput()",
    "lone surrogates": "print('\\ud800' * 5)",
    "bytes that are no text": "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe31337')",
    "NUL bytes": "print('31337\\0')",
    "NUL in the source": "print(31337)\0",
    "prints a frame": f"print({FORGED!r})",
    "lowers its parent's limits": (
        "import os, resource\nfor n in range(16):\n    try: resource.prlimit(os.getppid(), n, (1, 1))\n"
        "    except Exception: pass"
    ),
    "slows its parent": "import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "shared memory": "import ctypes\nctypes.CDLL(None).shmget(7, 4096, 0o1666)",
    "imports a module it wrote": (
        "open('/tmp/json.py', 'w').write('x')\nimport sys\nsys.path.insert(0, '/tmp')\nimport json"
    ),
    "no program": "   \n",
    "prose": "I would read the number and print it.",
    "another language": '#include <cstdio>\nint main() { puts("31337"); }',
}

RIGHT = {
    "reads bytes": "import sys\nprint(int(sys.stdin.buffer.read()) + 31330)",
    "reads the descriptor": "import os\nprint(int(os.read(0, 100)) + 31330)",
    "opens stdin by name": "print(int(open('/dev/stdin').read()) + 31330)",
    "main": "def main():\n    print(int(input()) + 31330)\nif __name__ == '__main__':\n    main()",
    "global": "n = 31330\ndef f():\n    global n\n    n += int(input())\nf()\nprint(n)",
    "exits": "print(int(input()) + 31330)\nexit()",
    "quits from a function": "def f():\n    print(int(input()) + 31330)\n    quit()\nf()\nprint('never')",
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(10 ** 6)\ndef f(n): return n and 1 + f(n - 1)\n"
        "print(f(31330) + int(input()))"
    ),
    "recursion in a thread": (
        "import sys, threading\nsys.setrecursionlimit(10 ** 6)\nthreading.stack_size(1 << 27)\n"
        "def f(n): return n and 1 + f(n - 1)\nthreading.Thread(target=lambda: print(f(31330) + int(input()))).start()"
    ),
    "thread that is not waited for": (
        "import threading\nthreading.Thread(target=lambda: print(31330 + int(input()))).start()"
    ),
    "a hundred thousand digits": "x = 10 ** 10 ** 5\nprint(len(str(x)) - 68664 + int(input()) - 7)",
    "end of the input": (
        "total = 31330\nwhile True:\n    try: total += int(input())\n    except EOFError: break\nprint(total)"
    ),
    "a process of its own": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(31337)'])",
    "opens descriptor 0": "print(int(open(0).read()) + 31330)",
    "readline by another name": "import sys\ninput = sys.stdin.readline\nprint(int(input()) + 31330)",
    "lines of stdin": "import sys\nfor line in sys.stdin: print(int(line) + 31330)",
    "all lines": "import sys\nprint(sum(map(int, sys.stdin.readlines())) + 31330)",
    "stdin twice": (
        "import sys\nn = sys.stdin.read()\nsys.stdin.seek(0)\nassert n == sys.stdin.read()\nprint(int(n) + 31330)"
    ),
    "fileinput": "import fileinput\nfor line in fileinput.input(): print(int(line) + 31330)",
    "a buffer of all input": (
        "import io, os\ninput = io.BytesIO(os.read(0, os.fstat(0).st_size)).readline\nprint(int(input()) + 31330)"
    ),
    "its own stdout": (
        "import io, os, sys, atexit\nsys.stdout = io.StringIO()\n"
        "atexit.register(lambda: os.write(1, sys.stdout.getvalue().encode()))\nprint(int(input()) + 31330)"
    ),
    "writes bytes": "import sys\nsys.stdout.buffer.write(b'%d' % (int(input()) + 31330))",
    "prints bit by bit": "for c in str(int(input()) + 31330): print(c, end='', flush=True)",
    "ends at once": "import os\nprint(int(input()) + 31330, flush=True)\nos._exit(0)",
    "asyncio": (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    print(int(input()) + 31330)\nasyncio.run(f())"
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(2) as pool:\n"
        "    print(sum(pool.map(int, ['31330', input()])))"
    ),
    "dataclasses": (
        "from dataclasses import dataclass\n@dataclass(order=True)\nclass P:\n    n: int\n"
        "print(max(P(int(input())), P(3)).n + 31330)"
    ),
    "cache": (
        "from functools import lru_cache\n@lru_cache(None)\ndef f(n): return n and 1 + f(n - 1)\n"
        "print(f(300) + int(input()) + 31030)"
    ),
    "hashes": "import hashlib\nprint(len(hashlib.sha256(b'').hexdigest()) + 31266 + int(input()))",
    "a module that reads itself": (
        "import sys, types\nassert sys.modules['__main__'].__dict__ is globals()\nx = int(input())\n"
        "import __main__\nprint(__main__.x + 31330)"
    ),
    "pickles its class": (
        "import pickle\nclass C:\n    n = 31330\nprint(pickle.loads(pickle.dumps(C())).n + int(input()))"
    ),
    "spaces at the ends": "print('  ')if 0 else print(int(input()) + 31330, '  ')\nprint()",
    "random is seeded": "import random\nrandom.seed(1)\nrandom.random()\nprint(int(input()) + 31330)",
    "writes a file": "open('/tmp/mine', 'w').write('31337')\nprint(open('/tmp/mine').read())",
}


@pytest.fixture
def grader(backend):
    return ProgramGrader(backend, limits=RunLimits(cpu_s=1.0, memory_mib=512, output_bytes=1 << 20))


TASK = Task(id="t", family="code", prompt="?", hidden={"tests": [{"input": "7\n", "output": "31337\n"}]})
PLAIN = "print(int(input()) + 31330)"


def processes():
    """Everything that descends from this process."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z":
            parents[int(name)] = int(fields[1])
    found, before = {os.getpid()}, 0
    while len(found) != before:
        before = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found - {os.getpid()}


@pytest.mark.slow
def test_hostile_programs_fail_in_time_and_leave_nothing(grader):
    before, files = processes(), set(os.listdir("/tmp"))

    async def all_of_them():
        wrong = {}
        for name, program in WRONG.items():
            began = time.monotonic()
            score = await grader.score(TASK, program)
            # The next program is not disturbed by what this one left.
            after = await grader.score(TASK, PLAIN)
            if score.passed or not after.passed or time.monotonic() - began > 120:
                wrong[name] = (score.detail, after.detail, time.monotonic() - began)
        return wrong

    assert asyncio.run(all_of_them()) == {}
    assert processes() <= before
    assert {name for name in os.listdir("/tmp") if name.startswith("verigym")} <= files


@pytest.mark.slow
def test_unusual_but_right_programs_pass(grader):
    async def all_of_them():
        return {name: (await grader.score(TASK, program)).detail for name, program in RIGHT.items()}

    assert {
        name: detail for name, detail in asyncio.run(all_of_them()).items() if not detail.startswith("1 of 1")
    } == {}


def test_there_are_enough_of_them():
    assert len(WRONG) >= 40


SERVER = "server = int(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])\n"


@pytest.mark.parametrize(
    "program",
    [
        "open('/tmp/left', 'w').close()",
        "import os\nos.mkdir(os.path.expanduser('~/left'))",
        "open('/dev/shm/left', 'w').close()",
        pytest.param(
            "import ctypes\nctypes.CDLL(None).shmget(7, 4096, 0o1666)",
            marks=pytest.mark.skipif(control_group.place() is None, reason="refused where no control group bounds it"),
        ),
        "import os\n" + SERVER + "os.setpriority(os.PRIO_PROCESS, server, 19)",
        "import os, resource\n" + SERVER + "resource.prlimit(server, resource.RLIMIT_NOFILE, (64, 64))",
    ],
)
def test_a_sandbox_that_a_program_changed_is_thrown_away(box, run, program, monkeypatch):
    from verigym.envs.code import pool

    given_back = []
    real = pool._Pool.give_back
    monkeypatch.setattr(pool._Pool, "give_back", lambda *given: given_back.append(1) or real(*given))

    async def runs():
        await box.run_stdin(program, [""])
        thrown_away = not given_back
        await box.run_stdin("print(1)", [""])
        return thrown_away, len(given_back)

    assert run(runs()) == (True, 1)
