"""A process that judges logs: one request a line on stdin, one answer a line on stdout, both JSON.

Logs can be written to by the code under test, and swebench's parsers have patterns that some texts make slow; a
process can be killed, and several use several cores.
"""

import importlib.util
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from .judge import UngradableLog, judge_log


def without_inits(package: str, *inner: str) -> None:
    """Let modules of a package be imported without what its ``__init__``, and those of inner packages, import:
    swebench's bring clients of engines and clouds, 6 s of processor time that no parser needs."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"{package} is not installed")
    folder = Path(spec.origin).parent
    for name, path in ((package, folder), *((f"{package}.{one}", folder / one) for one in inner)):
        module = ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module


def main() -> None:
    """Answer until stdin ends. The process dies at the processor time that a request allows itself."""
    without_inits("swebench", "harness")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        cpu_seconds, arguments = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        try:
            answer = {"verdict": asdict(judge_log(**arguments))}
        except UngradableLog as error:
            answer = {"ungradable": str(error)}
        except ValueError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
