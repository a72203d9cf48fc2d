"""Runs many variants of a source tree's tests from one warm process: pytest is imported once, each variant is a fork.

It runs inside the sandbox with its modules (``probing.py`` names them), with the standard library and pytest alone:

    python main.py JOBS.json RESULTS.jsonl [MODULES.json]          (working directory: the tree)

MODULES are names of modules, none of the tree's, which are imported once and not by every run.

It serves the making of tasks, where nobody forges outcomes. Rewards come from ``verigym.envs.swe.testing`` instead.
A job: {"key", "files": {path: text}, "collect": [test files], "keep": [test ids] or null for all, "named": names of
test functions, or [], "deadline_s", "budget_s": after so long no further test begins, or null; "test_s": after so many
processor seconds a test fails, or null; "collect_s": how long files may take to be imported, or null; "sample": "" | a
word by which tests run in rounds; "max_failing", "mode": "test" | "trace" | "warm"; "order": "" | "reversed" | a
word that tests are shuffled by; "clock_s": how far the wall clock is moved; "held_up": "" | a word by which the run is
stopped again and again; "watch": paths whose lines are noted in mode "trace"; "calls": (path, first line) of functions
whose arguments are noted in it; "plain": whether assertions are left without words, which is quicker; "script": [] or
the words of a script that hands tests to unittest, in whose place they are run; "collect" may be [] then for all of its
files}. A file whose text is null is not there during the run. A result: see ``_result``.
"""

import contextlib
import importlib
import io
import json
import os
import random
import resource
import select
import signal
import sys
import time

import pytest

from .probe_clock import move_clock
from .probe_recorder import MESSAGE_CHARACTERS, Recorder
from .probe_stopwatch import Stopwatch, bounded
from .probe_unittest import take_over

# As the tests are run for a reward (envs/swe/testing_guest.py), but for the words of failures: the other styles parse
# the test's whole file, and each of its frames', for every failure.
OPTIONS = ["-q", "--tb=native", "--no-header", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
OPTIONS += ["-o", "addopts="]
MEMORY_BYTES = 1536 << 20


def run_job(job):
    """Put the job's files in place, run it in a fork, put the old files back."""
    before = {}
    for path, text in job["files"].items():
        before[path] = None
        if os.path.exists(path):
            stat = os.stat(path)
            with open(path, "rb") as old:
                before[path] = (old.read(), stat.st_atime_ns, stat.st_mtime_ns)
        if text is None:
            if before[path] is not None:
                os.unlink(path)
            continue
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as new:
            new.write(text.encode())
        # A time that no original has: a file compiled from the original is never taken for this one's.
        os.utime(path, (1, 1))
    try:
        return _in_fork(job)
    finally:
        for path, was in before.items():
            if was is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                continue
            data, atime_ns, mtime_ns = was
            with open(path, "wb") as old:
                old.write(data)
            os.utime(path, ns=(atime_ns, mtime_ns))


def _in_fork(job):
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(job, writer)
    os.close(writer)
    holder = _holder(pid, job["held_up"]) if job["held_up"] else None
    data, deadline = b"", started + job["deadline_s"]
    ended = "died"
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            ended = "deadline"
            break
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            break
        data += chunk
        if data.endswith(b"\n"):
            ended = "done"
            break
    os.close(reader)
    if holder is not None:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it is gone, or had not yet made its group and is killed below
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _, _, used = os.wait4(pid, 0)
    result = json.loads(data) if ended == "done" else {}
    spent = {"wall_s": time.monotonic() - started, "cpu_s": used.ru_utime + used.ru_stime}
    return {"key": job["key"], "ended": ended, **spent, **result}


def _holder(pid, word):
    """A process that stops another and lets it go on, in a pattern: what others do to it on a busy machine."""
    holder = os.fork()
    if holder:
        return holder
    rng = random.Random(word)
    try:
        while True:
            time.sleep(0.5 * rng.random())
            busy_until = time.monotonic() + 0.2 + 0.8 * rng.random()
            while time.monotonic() < busy_until:
                time.sleep(0.002 * 20 ** rng.random())
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.005 * 60 ** rng.random())
                os.kill(pid, signal.SIGCONT)
    finally:
        os._exit(0)


def _child(job, writer):
    status = 1
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        if job["mode"] != "warm":
            # A variant's compiled file could be taken for that of another variant of the same size.
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        _send(writer, _run_pytest(job))
        status = 0
    except BaseException as error:  # pytest itself, or a conftest, can raise anything
        _send(writer, {"ended": "died", "error": f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]})
    finally:
        os._exit(status)


def _run_pytest(job):
    if job["clock_s"]:
        move_clock(job["clock_s"])
    watch, recorder = Stopwatch(), Recorder(job, os.getcwd())
    arguments = [*OPTIONS, f"--rootdir={os.getcwd()}"]
    if job["plain"]:
        arguments.append("--assert=plain")
    if job["mode"] == "warm":
        arguments.append("--collect-only")
    if job["script"]:  # which has set how warnings are met; and what is called "setup" prepares nothing for unittest
        arguments += ["-p", "no:warnings", "-p", "no:nose"]

    def run(files):
        return int(pytest.main([*arguments, *(job["collect"] or files)], plugins=[recorder]))

    # Of conftest files; each file of tests has a bound of its own.
    first = bounded(job["collect_s"], "importing it takes too long") if job["collect_s"] else contextlib.nullcontext()
    with first, contextlib.redirect_stderr(io.StringIO()) as said:
        exit_code = take_over(job["script"], run) if job["script"] else run(())
    result = {**_result(recorder, exit_code), "own_s": watch.seconds()}
    if job["mode"] == "warm":
        result["modules"] = _modules_of_others()
    if exit_code == pytest.ExitCode.USAGE_ERROR:  # a conftest that cannot be imported, for one: no report tells
        words = [line for line in said.getvalue().splitlines() if line.strip()] or ["pytest gave no reason"]
        last = next((line[1:].strip() for line in reversed(words) if line.startswith("E ")), words[-1])
        result["error"] = last[:MESSAGE_CHARACTERS]
    return result


def _import_once(names):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name in names:
            try:
                importlib.import_module(name)
            except Exception:
                continue  # what a run needs it imports by itself


def _modules_of_others():
    """Imported modules with a file that is not in the tree, in the order of their import."""
    inside, found = os.getcwd() + os.sep, []
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        is_own = name == "__main__" or name.partition(".")[0] == __name__.partition(".")[0]
        if isinstance(path, str) and not is_own and not os.path.abspath(path).startswith(inside):
            found.append(name)
    return found


def _send(writer, record):
    data = (json.dumps(record) + "\n").encode()
    while data:
        data = data[os.write(writer, data) :]


def _result(recorder, exit_code):
    return {
        "exit_code": exit_code,
        "outcomes": recorder.outcomes,
        "durations": recorder.durations,
        "failures": recorder.failures,
        "not_collected": recorder.not_collected,
        "locations": recorder.locations,
        "names": recorder.names,
        "covered": recorder.covered,
        "lines": recorder.lines,
        "calls": recorder.calls,
        "collected": recorder.collected,
        "sampled": recorder.sampled,
        "stopped": recorder.stopped,
        "hung": recorder.hung,
    }


def main(jobs_path, results_path, modules_path=None):
    with open(jobs_path, encoding="utf-8") as file:
        jobs = json.load(file)
    if modules_path:
        with open(modules_path, encoding="utf-8") as file:
            _import_once(json.load(file))
    with open(results_path, "w", encoding="utf-8") as results:
        for job in jobs:
            results.write(json.dumps(run_job(job)) + "\n")
            results.flush()
