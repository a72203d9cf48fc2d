"""The program that runs pytest inside a sandbox and says what happened. Standard library and pytest only.

It is booted with its modules (``testing.py`` names them), so it needs no file there, and no module of verigym. It
takes one JSON object from stdin and writes two signed lines to the stdout it was given: "ready", when pytest is loaded
and nothing of the repository could have run, and "done". Everything printed later goes nowhere.

The code under test shares this process, so nothing here is a wall; it makes forging hard enough that the ways left
are few and written down (docs/design/002-honest-grading.md).
"""

import contextlib
import gc
import hashlib
import hmac
import json
import os
import sys
import tempfile
from types import ModuleType

from .testing_options import base_addopts, keep, plugin_options
from .testing_pristine import Finder, Pristine
from .testing_recorder import Recorder, plugin_of, snapshot
from .testing_rounds import Lead, Rounds, take


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
    leave, process = os._exit, os.getpid()
    order = json.loads(take(0, int.from_bytes(take(0, 4), "big")))
    asks = os.dup(0) if order["waits"] else None
    order["workdir"] = os.getcwd()
    key = bytes.fromhex(order.pop("key"))
    results = os.dup(1)
    send = sender(results, key)
    code = order.pop("exit_code")
    own_environment(order["python_env"])
    import pytest

    files = [path for path in dict.fromkeys(split_id(test) for test in order["tests"]) if os.path.exists(path)]
    with_unittest = any(mentions_unittest(path) for path in files)
    if with_unittest:
        import unittest  # noqa: F401
    options, dropped = keep(
        base_addopts(order["workdir"], files) if files else [], lambda: plugin_options(order["plugins"])
    )
    pristine = Pristine(order["workdir"], files, plain="--assert=plain" in options)
    send({"kind": "ready", "pytest": pytest.__version__})
    finder = close_off(order, files, pristine)
    recorder = Recorder(pytest, order["tests"], with_unittest, pristine)
    rounds_of, tell = makes_rounds(key, pristine, recorder), tells(order["workdir"], pristine, recorder, dropped)
    lead = None
    if asks is not None:
        pass_on, confirm = (lambda data: write_all(results, data)), (lambda: send({"kind": "waits"}))
        lead = Lead(asks, pass_on, confirm, lambda pipe: sender(pipe, key), code)

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
                tell(send, {**recorder.result(None), "problem": ""}, "again")
            leave(code)
        if recorder.rounds is not None:
            recorder.rounds.run(session)
        return recorder.rounds is not None

    recorder.play = play
    if order["rounds"]:
        recorder.rounds = rounds_of(order)
        if not order["everything"]:
            recorder.only({test for plan in order["rounds"] for test in plan})
    found = run(pytest, plugin_of(pytest, recorder, finder), recorder, files, order, options)
    forked = None if lead is None else lead.send
    tell(forked or send, {**found, "waits": forked is not None})
    if os.getpid() == process:  # a fork that came back here has nothing to say
        leave(code)
    leave(99)


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
    sys.path[:0] = [os.path.join(order["workdir"], entry) for entry in order["pythonpath"]]
    sys.argv = ["pytest"]
    hide_ourselves()
    return finder


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
    recorder.arm(snapshot())
    options = ["-q", "--tb=short", "--no-header", "--continue-on-collection-errors", *options]
    options += ["-o", "addopts=", "-o", f"cache_dir={tempfile.mkdtemp()}", f"--rootdir={order['workdir']}"]
    for name in order["plugins"]:
        options += ["-p", name]
    gc.freeze()  # pytest's last collections then pass over what is loaded by now
    problem = ""
    try:
        code = int(pytest.main([*options, *files], plugins=[plugin]))
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
        write_all(descriptor, sign(key, body, digest).hexdigest().encode() + b" " + body + b"\n", write)

    return send


def write_all(descriptor, data, write=os.write):
    while data:
        data = data[write(descriptor, data) :]


def verifier(key):
    sign, same, digest = hmac.new, hmac.compare_digest, hashlib.sha256

    def verified(line):
        signature, _, body = line.partition(b" ")
        return json.loads(body) if same(signature, sign(key, body, digest).hexdigest().encode()) else None

    return verified
