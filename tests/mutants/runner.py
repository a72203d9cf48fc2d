"""Runs tests of a copied tree again and again, without loading torch each time: ``runner.py MODULE...``.

A line on standard input, ``{"arguments": [...], "timeout_s": 60}``, is a run of pytest in a fork of this process, which
has loaded pytest, Hypothesis and the modules named, and nothing of ``verigym``. Properties draw the same examples each
time, and one that fails is not made smaller. A line on standard output answers it:
``{"code": 1, "told": "..."}``, where ``code`` is pytest's exit code, None after ``timeout_s``.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import time


def run(arguments, timeout_s):
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = 3
            try:
                import pytest

                code = int(pytest.main(arguments))
            finally:
                sys.stdout.flush()
                os._exit(code)
        code, ends = None, time.monotonic() + timeout_s
        while time.monotonic() < ends:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.02)
        try:
            os.killpg(child, signal.SIGKILL)  # and what its tests have started
        except ProcessLookupError:
            pass
        if code is None:
            os.waitpid(child, 0)
        output.seek(0)
        return {"code": code, "told": output.read().decode(errors="replace")[-4000:]}


def main():
    if not os.path.exists("/dev/nvidiactl"):
        os.environ.setdefault("TRITON_INTERPRET", "1")  # as tests/conftest.py, before triton is loaded
    import hypothesis
    import pytest  # noqa: F401  forks find it loaded

    for name in sys.argv[1:]:
        importlib.import_module(name)
    kept = [phase for phase in hypothesis.Phase if phase not in (hypothesis.Phase.shrink, hypothesis.Phase.explain)]
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, phases=kept, deadline=None)
    hypothesis.settings.load_profile("mutants")
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(run(asked["arguments"], asked["timeout_s"])), flush=True)


if __name__ == "__main__":
    main()
