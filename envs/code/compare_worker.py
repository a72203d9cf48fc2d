"""The process behind ``compare``: reads reports of programs with what they must equal, one JSON line each, and says
whether they do.

Run by path, so that it imports nothing of this package but three files. What is built from a report may take any time
and memory (sets of numbers with one hash, fractions of a million digits); the CPU timer and the memory limit then end
this process, and its parent starts another.
"""

import importlib.util
import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    cpu_s, memory_mib = float(sys.argv[1]), int(sys.argv[2])
    judge, plain = load(HERE / "judge.py"), load(HERE / "plain.py")
    values = load(HERE.parents[1] / "rewards" / "values.py")
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    replies, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        # The default action of SIGPROF ends the process, wherever it is.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        kind, report, expected, tolerance = json.loads(line)
        expected = plain.decode(expected) if kind in judge.RETURNED else expected
        same = judge.agree(plain, values, kind, report, expected, tolerance)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(same), file=replies, flush=True)


if __name__ == "__main__":
    main()
