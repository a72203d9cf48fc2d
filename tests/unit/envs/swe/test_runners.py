"""Runners that are not pytest: what they say of tests, and that no forgery is accepted."""

import asyncio
from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from verigym.envs.datasets.eval_scripts import eval_script_of
from verigym.envs.datasets.swe import pack_repository, task_of
from verigym.envs.swe import grading
from verigym.envs.swe.checkout import DEFAULT_REQUIREMENTS, environment_of
from verigym.envs.swe.commands import command_of
from verigym.envs.swe.grading import grade_patch
from verigym.envs.swe.testing_integrity import changed, of_modules
from verigym.envs.swe.tracebacks import feedback_of
from verigym.rewards.score import Score
from verigym.rewards.swe import TestReport

from .forgeries_fresh import BY_RUNNER
from .runner_forgeries import BUG, GOOD, SYMPY, UNITTEST, on_import, patch_of, when_called

RUNTESTS = """import argparse
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
parser = argparse.ArgumentParser()
parser.add_argument("modules", nargs="*")
parser.add_argument("--verbosity", type=int)
options = parser.parse_args()
if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromNames(options.modules)
    sys.exit(not unittest.TextTestRunner(verbosity=options.verbosity).run(suite).wasSuccessful())
"""
TOLD = '''import unittest

from pkg.calc import add


class Base(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.seven = 7


class TestTold(Base):
    def test_told(self):
        """Adding (two numbers) adds them."""
        self.assertEqual(add(3, 4), self.seven)

    def test_plain(self):
        self.assertEqual(add(5, 4), 9)

    def test_in_parts(self):
        for n in (0, 1):
            with self.subTest(n=n):
                self.assertEqual(add(0, 0), 0)

    @unittest.skip("no")
    def test_left_out(self):
        pass

    @unittest.expectedFailure
    def test_expected(self):
        self.assertEqual(add(1, 1), 3)
'''
WORDS = """import contextlib


class Skipped(Exception):
    pass


class XFail(Exception):
    pass


class XPass(Exception):
    pass


class Failed(Exception):
    pass


@contextlib.contextmanager
def _raising(expected):
    try:
        yield
    except expected:
        return
    raise Failed("DID NOT RAISE")


def raises(expected, code=None):
    if code is None:
        return _raising(expected)
    with _raising(expected):
        code()


def XFAIL(func):
    def wrapper():
        try:
            func()
        except Exception:
            raise XFail(func.__name__)
        raise XPass(func.__name__)

    wrapper.__wrapped__ = func
    return wrapper


def skip(why):
    raise Skipped(why)
"""
SYM = """from sympy.core.calc import add
from sympy.testing.pytest import XFAIL, raises, skip


def test_sym():
    assert add(3, 4) == 7


def test_raises():
    raises(TypeError, lambda: add(1, None))


@XFAIL
def test_hard():
    assert add(1, 1) == 3


def test_left_out():
    skip("no")
"""
REPOSITORIES: Mapping[str, dict[str, Any]] = {
    "unittest": {
        "files": {"pkg/__init__.py": "", "pkg/calc.py": BUG, "tests/__init__.py": "", "tests/runtests.py": RUNTESTS},
        "hidden": ("tests/test_told.py", TOLD),
        "source": "pkg/calc.py",
        "command": "tests/runtests.py --verbosity 2 tests.test_told",
        "parser": "parse_log_django",
        "FAIL_TO_PASS": ["Adding (two numbers) adds them.", "test_plain (tests.test_told.TestTold.test_plain)"],
        "PASS_TO_PASS": ["test_in_parts (tests.test_told.TestTold.test_in_parts)"],
        "forgeries": UNITTEST,
    },
    "python -m unittest": {
        "files": {"pkg/__init__.py": "", "pkg/calc.py": BUG, "tests/__init__.py": ""},
        "hidden": ("tests/test_told.py", TOLD),
        "source": "pkg/calc.py",
        "command": "-m unittest -v tests.test_told",
        "parser": "parse_log_django",
        "FAIL_TO_PASS": ["Adding (two numbers) adds them.", "test_plain (tests.test_told.TestTold.test_plain)"],
        "PASS_TO_PASS": ["test_in_parts (tests.test_told.TestTold.test_in_parts)"],
        "forgeries": {},
    },
    "sympy": {
        "files": {
            "sympy/__init__.py": "from .core.calc import add\n",
            "sympy/core/__init__.py": "",
            "sympy/core/calc.py": BUG,
            "sympy/core/cache.py": "def clear_cache():\n    pass\n",
            "sympy/testing/__init__.py": "",
            "sympy/testing/pytest.py": WORDS,
            "sympy/testing/runtests.py": "import contextlib\n\nraise_on_deprecated = contextlib.nullcontext\n",
        },
        "hidden": ("sympy/core/tests/test_sym.py", SYM),
        "source": "sympy/core/calc.py",
        "command": "bin/test -C --verbose sympy/core/tests/test_sym.py",
        "parser": "parse_log_sympy",
        "FAIL_TO_PASS": ["test_sym"],
        "PASS_TO_PASS": ["test_raises"],
        "forgeries": SYMPY,
    },
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory, local_backend):
    """(name of a repository, patches) -> name of a patch -> (score, report), by our runner and never by the row's
    script."""
    tasks = {}

    def task_for(name: str):
        about = REPOSITORIES[name]
        folder = tmp_path_factory.mktemp("repository")
        for path, text in about["files"].items():
            (folder / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / path).write_text(text)
        base = pack_repository(folder / "tree", folder / "base.tar.gz")
        path, text = about["hidden"]
        body = "".join(f"+{line}\n" for line in text.splitlines())
        brought = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
        brought += f"@@ -0,0 +1,{len(text.splitlines())} @@\n{body}"
        row: dict[str, Any] = {
            "instance_id": "own__runner-1",
            "problem_statement": "add subtracts",
            "base_commit": base,
            "archive": "base.tar.gz",
            "test_patch": brought,
            "patch": patch_of(GOOD, about["source"]),
            "pip_requirements": DEFAULT_REQUIREMENTS,
            **{key: about[key] for key in ("FAIL_TO_PASS", "PASS_TO_PASS")},
        }
        python = asyncio.run(environment_of(grading.row_of(task_of(row, folder=folder)))).python
        command = about["command"] if about["command"].startswith("bin/") else f"{python} {about['command']}"
        path = f"export PATH={python.rpartition('/')[0]}:$PATH"
        row["eval_script"] = eval_script_of(
            root="/workspace", test_cmd=command, before=path, test_patch=brought, conda=False
        )
        row["log_parser"] = about["parser"]
        task = task_of(row, folder=folder)
        assert command_of(grading.row_of(task)) is not None
        return task

    def grade_all(name: str, patches: Mapping[str, str]) -> dict[str, tuple[Score, TestReport]]:
        if name not in tasks:
            tasks[name] = task_for(name)
        room = asyncio.Semaphore(3)

        async def one(patch: str) -> tuple[Score, TestReport]:
            async with room:
                return await grade_patch(local_backend, tasks[name], patch, timeout_s=60)

        async def every():
            return await asyncio.gather(*map(one, patches.values()))

        return dict(zip(patches, asyncio.run(every()), strict=True))

    return grade_all


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("the row's script was run")


@pytest.mark.parametrize("name", REPOSITORIES)
def test_gold_resolves_and_nothing_and_half_of_it_do_not(graded, name, monkeypatch):
    monkeypatch.setattr(grading, "grade_by_script", refuse)
    source = REPOSITORIES[name]["source"]
    half = GOOD.replace("return a + b", "return a + b if a == 5 else 0")
    found = graded(name, {"gold": patch_of(GOOD, source), "nothing": "", "half": patch_of(half, source)})
    scores = {key: score for key, (score, _) in found.items()}
    assert {key: score.value for key, score in scores.items()} == {"gold": 1.0, "nothing": 0.0, "half": 0.0}, scores
    assert "test_told" not in scores["gold"].detail
    told = feedback_of(found["half"][1], REPOSITORIES[name]["FAIL_TO_PASS"])
    assert REPOSITORIES[name]["hidden"][0] in told
    assert ("assert add(3, 4) == 7" if name == "sympy" else "AssertionError: 0 != 7") in told
    assert "_verigym" not in told
    assert feedback_of(found["gold"][1], REPOSITORIES[name]["FAIL_TO_PASS"]) == ""


@pytest.mark.parametrize("name", ["unittest", "sympy"])
def test_the_corpus_is_large(name):
    assert len(REPOSITORIES[name]["forgeries"]) >= 24


FRESH = ("json: its classes, both ways", "hmac tells the key, os.read the plan")


def fresh(name, kinds=None):
    placed = {"import": on_import, "call": when_called}
    return {
        key: placed[where](code) for key, (where, code) in BY_RUNNER[name].items() if key in (kinds or BY_RUNNER[name])
    }


@pytest.mark.parametrize("name", ["unittest", "sympy"])
def test_what_the_repository_replaces_of_json_and_hmac_is_not_the_runners(graded, name):
    source = REPOSITORIES[name]["source"]
    scores = graded(name, {key: patch_of(text, source) for key, text in fresh(name, FRESH).items()})
    assert [f"{key}: {score.detail}" for key, (score, _) in scores.items() if score.value or score.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unittest", "sympy"])
def test_no_forgery_is_accepted(graded, name):
    about = REPOSITORIES[name]
    forgeries = {**about["forgeries"], **fresh(name)}
    patches = {key: patch_of(text, about["source"]) for key, text in forgeries.items()}
    scores = graded(name, patches)
    accepted = [f"{key}: {score.detail}" for key, (score, _) in scores.items() if score.value or score.passed]
    assert accepted == []


def test_what_djangos_script_gives_its_processes_is_not_tampering():
    module = ModuleType("runner")
    exec("class Suite:\n    def init_worker(self): ...\n    def run(self): ...\n", vars(module))
    module.Suite.__module__ = "runner"
    found = of_modules([module])
    module.Suite.init_worker = partial(module.Suite.init_worker, 1)
    assert changed(found) is None
    module.Suite.run = partial(module.Suite.run, 1)
    assert changed(found) == "runner.Suite.run"
