"""The program that runs tests inside a sandbox and says what happened: by pytest, unittest or as SymPy does. Standard
library and pytest only.

It is booted with its modules (``testing.py`` names them), so it needs no file there, and no module of verigym. It
takes one JSON object from stdin and writes two signed lines to the stdout it was given: "ready", when the runner is
loaded and nothing of the repository could have run, and "done". Everything printed later goes nowhere.

The code under test shares this process, so nothing here is a wall; it makes forging hard enough that the ways left
are few and written down (docs/design/002-honest-grading.md).
"""

import contextlib
import gc
import os
import sys
import tempfile
import warnings
from types import ModuleType

from .testing_integrity import snapshot
from .testing_options import base_addopts, keep, plugin_options
from .testing_pristine import Finder, Pristine
from .testing_recorder import Recorder, plugin_of
from .testing_rounds import Lead, Rounds
from .testing_signed import loads, sender, take, verifier, write_all


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


def split_id(test):
    """ "a/t.py::C::m[x::y]" -> "a/t.py"."""
    return test.partition("::")[0]


def main():
    order = loads(take(0, int.from_bytes(take(0, 4), "big")).decode())
    order["asks"] = os.dup(0) if order["waits"] else None
    order["workdir"] = os.getcwd()
    key = bytes.fromhex(order.pop("key"))
    results = os.dup(1)
    own_environment(order["python_env"])
    files = [path for path in dict.fromkeys(split_id(test) for test in order["tests"]) if os.path.exists(path)]
    begin = {"pytest": begin_pytest, "unittest": begin_unittest, "sympy": begin_sympy}[order["runner"]["kind"]]
    begin(order, files, Channel(results, key))


class Channel:
    """Where signed records go."""

    def __init__(self, results, key):
        self.results, self.key, self.send = results, key, sender(results, key)


def begin_pytest(order, files, channel):
    import pytest

    with_unittest = any(mentions_unittest(path) for path in files)
    if with_unittest:
        import unittest  # noqa: F401
    options, dropped = keep(
        base_addopts(order["workdir"], files) if files else [], lambda: plugin_options(order["plugins"])
    )
    pristine = Pristine(order["workdir"], files, plain="--assert=plain" in options, support=order["support"])
    channel.send({"kind": "ready", "runner": f"pytest {pytest.__version__}"})
    finder = close_off(order, files, pristine)
    recorder = Recorder(pytest, order["tests"], with_unittest, pristine)
    finder.loaded = recorder.arm_loaded
    finish = prepare(order, channel, pristine, recorder, dropped)
    finish(run(pytest, plugin_of(pytest, recorder, finder), recorder, files, order, options))


def begin_unittest(order, files, channel):
    from . import testing_unittest as runner

    pristine = Pristine(order["workdir"], files, plain=True, support=order["support"])
    recorder = runner.UnittestRecorder(pristine)
    channel.send({"kind": "ready", "runner": "unittest"})
    finder = close_off(order, files, pristine)
    finder.loaded = recorder.arm_loaded
    finish = prepare(order, channel, pristine, recorder, [])
    runner.take_over(recorder, lambda: finish({**recorder.result(1), "problem": ""}))
    arm(recorder)
    problem = "the runner ended before it ran tests"
    try:
        runner.run_script(order["runner"]["script"], order["runner"]["arguments"], pristine)
    except BaseException as error:  # the repository's code can raise anything here
        problem = left_by(error)
    finish({**recorder.result(None), "problem": problem})


def begin_sympy(order, files, channel):
    from . import testing_sympy as runner

    pristine = Pristine(order["workdir"], files, plain=True, support=order["support"])
    recorder = runner.SympyRecorder(pristine, files)
    channel.send({"kind": "ready", "runner": "sympy"})
    finder = close_off(order, files, pristine)
    finder.loaded = recorder.arm_loaded
    finish = prepare(order, channel, pristine, recorder, [])
    runner.prepare("no_cache" in order["runner"]["arguments"])
    arm(recorder)
    problem, code = "", 1
    try:
        recorder.choose()
        if not recorder.play(recorder):
            recorder.play_round(recorder.items, {})
    except BaseException as error:
        problem, code = left_by(error), None
    recorder.check()
    finish({**recorder.result(code), "problem": problem})


def left_by(error):
    """What a runner was left by, and where, in a line."""
    place, trace = "", error.__traceback__
    while trace is not None:
        place, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
    return f"the runner was left by {type(error).__name__} at {place}: {error}"[:300]


def prepare(order, channel, pristine, recorder, dropped):
    """Give the recorder its ``play``, by which rounds are run, and return what says the end."""
    leave, process, code = os._exit, os.getpid(), order.pop("exit_code")
    rounds_of = makes_rounds(channel.key, pristine, recorder)
    tell = tells(order["workdir"], pristine, recorder, dropped)
    lead = None
    if order["asks"] is not None:
        pass_on, confirm = (lambda data: write_all(channel.results, data)), (lambda: channel.send({"kind": "waits"}))
        lead = Lead(order["asks"], pass_on, confirm, lambda pipe: sender(pipe, channel.key), code)

    def play(session):
        nonlocal process
        if lead is not None:
            asked = lead.ask()
            if asked is None:
                process = os.getpid()
                return False
            if asked:
                recorder.rounds = rounds_of(asked)
                recorder.rounds.run(session)
                recorder.check()
                tell(channel.send, {**recorder.result(None), "problem": ""}, "again")
            leave(code)
        if recorder.rounds is not None:
            recorder.rounds.run(session)
        return recorder.rounds is not None

    def finish(found):
        forked = None if lead is None else lead.send
        tell(forked or channel.send, {**found, "waits": forked is not None})
        if os.getpid() == process:  # a fork that came back here has nothing to say
            leave(code)
        leave(99)

    recorder.play = play
    if order["rounds"]:
        recorder.rounds = rounds_of(order)
        if not order["everything"]:
            recorder.only({test for plan in order["rounds"] for test in plan})
    return finish


def own_environment(python_env):
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        del os.environ[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.update(python_env)  # for children; this process was started without


def close_off(order, files, pristine):
    """From here on nothing printed is heard, and modules come through the finder that is returned."""
    for descriptor in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
    roots = [order["workdir"], *order["pythonpath"]]
    for path in files:
        while path := os.path.dirname(path):
            roots.append(path)
    finder = Finder(sys.path, owned_names(order["workdir"], roots, order["distrusted"]), pristine)
    sys.meta_path.insert(0, finder)
    if order["sources_first"]:
        finder.sources = [order["workdir"], os.path.join(order["workdir"], "src")]
    sys.path[:0] = [os.path.join(order["workdir"], entry) for entry in order["pythonpath"]]
    sys.argv = ["pytest"]
    own_warnings(order["python_env"].get("PYTHONWARNINGS", ""))
    hide_ourselves()
    return finder


def own_warnings(said):
    """Take over what PYTHONWARNINGS says, which this process was started without."""
    for one in filter(None, said.split(",")):
        with contextlib.suppress(Exception):
            getattr(warnings, "_setoption")(one)  # noqa: B009


def arm(recorder):
    """Watch what decides outcomes. What is there by now, the recorder too, is out of the collector's sight: pytest's
    last collections pass over it, and ``gc.get_objects`` does not lead to it."""
    recorder.arm(snapshot())
    gc.freeze()


def makes_rounds(key, pristine, recorder):
    def rounds_of(asked):
        settings = {name: asked[name] for name in ("fork", "everything", "limit_s")}
        return Rounds(asked["rounds"], pristine, recorder, lambda pipe: sender(pipe, key), verifier(key), **settings)

    return rounds_of


def tells(workdir, pristine, recorder, dropped):
    def tell(send, found, kind="done"):
        """Say at the end what was found, with what only the end shows."""
        rounds = recorder.rounds
        if rounds is not None:
            found.update(rounds=rounds.outcomes, untwinned=sorted(set(rounds.untwinned)))
        altered = pristine.altered()
        if altered and not found["tampered"]:
            found.update(tampered=os.path.relpath(altered, workdir), canaries_ok=False)
        send({"kind": kind, "dropped": dropped, **found})

    return tell


def hide_ourselves():
    """Our modules are not to be had by importing them."""
    for name in [name for name in sys.modules if name == __package__ or name.startswith(f"{__package__}.")]:
        del sys.modules[name]
    sys.modules["__main__"] = ModuleType("__main__")


def run(pytest, plugin, recorder, files, order, options):
    if not files:
        return {**recorder.result(None), "problem": "none of the test files exists"}
    arm(recorder)
    options = ["-q", "--tb=short", "--no-header", "--continue-on-collection-errors", *options]
    options += ["-o", "addopts=", "-o", f"cache_dir={tempfile.mkdtemp()}", f"--rootdir={order['workdir']}"]
    for name in order["plugins"]:
        options += ["-p", name]
    if order["plugins"]:  # their options were asked for, so they are loaded: no mistake of the repository
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    problem = ""
    try:
        code = int(pytest.main([*options, *files], plugins=[plugin]))
    except BaseException as error:  # the repository's code can raise anything here
        code, problem = None, left_by(error).replace("the runner was", "the session was", 1)
    recorder.check()
    return {**recorder.result(code), "problem": problem}


def mentions_unittest(path):
    if not os.path.isfile(path):
        return True
    with open(path, "rb") as file:
        return b"unittest" in file.read()
