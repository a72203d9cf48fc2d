"""No forgery of the corpus is accepted: by verigym's runner, and by rows' scripts, whatever the rows are like."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from verigym.envs.datasets.eval_scripts import eval_script_of
from verigym.envs.datasets.swe import parse_row
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.checkout import environment_of, placed
from verigym.envs.swe.grading import grade_patch, patch_sources
from verigym.envs.swe.scripted import grade_by_script

from .conftest import FILES, GOLD, HIDDEN, patch_of
from .forgeries import BY_CHANCE, FORGERIES, STRIPPERS, on_import

INHERITED = {
    "tests/shared.py": "import unittest\n\nfrom pkg.calc import add\n\n\nclass Shared:\n"
    "    def test_shared(self):\n        self.assertEqual(add(3, 4), 7)\n",
    "tests/test_third.py": "import unittest\n\nfrom shared import Shared\n\n\n"
    "class TestHeir(Shared, unittest.TestCase):\n    pass\n",
}
DOCSTRINGS = {
    "tests/test_told.py": "import unittest\n\nfrom pkg.calc import add\n\n\nclass TestTold(unittest.TestCase):\n"
    '    def test_told(self):\n        """Adding (two numbers) adds them."""\n'
    "        self.assertEqual(add(3, 4), 7)\n\n    def test_plain(self):\n        self.assertEqual(add(5, 4), 9)\n",
}
CUT = {
    "tests/test_cut.py": "import pytest\n\nfrom pkg.calc import add\n\n\n"
    '@pytest.mark.parametrize("angle", ["deg (angle) one", "deg (angle) two"])\n'
    "def test_cut(angle):\n    assert add(len(angle), 1) == 16\n",
}
LIKE_DJANGO = """import sys
import unittest

sys.path.insert(0, ".")
suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
"""
LIKE_SYMPY = """import runpy
import sys
import traceback

sys.path.insert(0, ".")
found = [item for item in runpy.run_path(sys.argv[1]).items() if item[0].startswith("test_")]
failed = 0
for name, test in found:
    try:
        test()
        print(name, "ok")
    except AssertionError:
        failed += 1
        print(name, "F")
        traceback.print_exc()
    except Exception:
        failed += 1
        print(name, "E")
        traceback.print_exc()
print(f"=== tests finished: {len(found) - failed} passed, {failed} failed, in 0.10 seconds ===")
sys.exit(bool(failed))
"""
KINDS: Mapping[str, dict[str, Any]] = {
    "ids of pytest": {
        "files": {"tests/test_second.py": HIDDEN},
        "FAIL_TO_PASS": ["tests/test_second.py::test_add", "tests/test_second.py::TestAdd::test_method"],
        "PASS_TO_PASS": ["tests/test_first.py::test_twice", "tests/test_second.py::test_raises"],
        "command": "-m pytest -rA tests/test_first.py tests/test_second.py",
        "parser": "parse_log_pytest",
    },
    "ids without a path": {
        "files": {"tests/test_second.py": HIDDEN},
        "FAIL_TO_PASS": ["test_add", "TestAdd.test_method", "test_raises"],
        "command": "-m pytest -rA tests/test_second.py",
        "parser": "parse_log_r2e",
    },
    "ids of heirs": {
        "files": INHERITED,
        "FAIL_TO_PASS": ["tests/test_third.py::TestHeir::test_shared"],
        "command": "-m pytest -rA tests/test_third.py",
        "parser": "parse_log_pytest",
    },
    "docstrings": {
        "files": DOCSTRINGS,
        "FAIL_TO_PASS": ["Adding (two numbers) adds them.", "test_plain (tests.test_told.TestTold.test_plain)"],
        "command": "-m unittest -v tests.test_told",
        "parser": "parse_log_django",
    },
    "a runner like Django's": {
        "files": {"tests/runtests.py": LIKE_DJANGO, **DOCSTRINGS},
        "FAIL_TO_PASS": ["Adding (two numbers) adds them.", "test_plain (tests.test_told.TestTold.test_plain)"],
        "command": "tests/runtests.py tests.test_told",
        "parser": "parse_log_django",
    },
    "a runner like SymPy's": {
        "files": {
            "tests/runsym.py": LIKE_SYMPY,
            "pkg/tests/test_sym.py": "from pkg.calc import add\n\n\ndef test_sym():\n    assert add(3, 4) == 7\n",
        },
        "FAIL_TO_PASS": ["test_sym"],
        "command": "tests/runsym.py pkg/tests/test_sym.py",
        "parser": "parse_log_sympy",
    },
    "cut ids": {
        "files": CUT,
        "FAIL_TO_PASS": ["tests/test_cut.py::test_cut[deg"],
        "command": "-m pytest -rA tests/test_cut.py",
        "parser": "parse_log_pytest",
    },
}


def row_of_kind(vault, kind: str, *, own: bool = False) -> Any:
    """The vault's row with the tests of a kind, and, but for our own runner, a script that runs them."""
    row, about = dict(vault.task.hidden), KINDS[kind]
    brought = patch_of(about["files"])
    row = {**row, "FAIL_TO_PASS": about["FAIL_TO_PASS"], "PASS_TO_PASS": about.get("PASS_TO_PASS", [])}
    row = placed(parse_row({**row, "test_patch": brought}), vault.backend)
    if own:
        return row
    python = asyncio.run(environment_of(row)).python
    command = f"{python} {about['command']}"
    script = eval_script_of(root=row.root, test_cmd=command, before=":", test_patch=brought, conda=False)
    return row.model_copy(update={"eval_script": script, "log_parser": about["parser"]})


async def grade(vault, row, patch: str, *, own: bool = False):
    if own:
        task = vault.task.__class__(
            id="kind", family="swe", prompt="", image=row.image or None, hidden=row.model_dump(mode="json")
        )
        score, _ = await grade_patch(vault.backend, task, patch, timeout_s=60)
    else:
        score, _ = await grade_by_script(
            vault.backend, row, patch, prepare=patch_sources, timeout_s=60, limits=Limits()
        )
    return score


def graded(vault, kind: str, many: Mapping[str, Mapping[str, str]], *, own: bool = False) -> dict[str, Any]:
    room, row = asyncio.Semaphore(3), row_of_kind(vault, kind, own=own)

    async def one(changes):
        async with room:
            return await grade(vault, row, patch_of(changes), own=own)

    async def every():
        return await asyncio.gather(*map(one, many.values()))

    return dict(zip(many, asyncio.run(every()), strict=True))


def accepted(scores) -> list[str]:
    return [f"{name}: {score.detail}" for name, score in scores.items() if score.value or score.passed]


NO_RUN = on_import(
    "import _pytest.python, _pytest.unittest, unittest\n_pytest.python.Function.runtest = lambda self: None\n"
    "_pytest.unittest.TestCaseFunction.runtest = lambda self: None\n"
    "unittest.TestCase._callTestMethod = lambda self, method: None"
)
ANY_RUNNER = {
    **{name: STRIPPERS[name] for name in (
        "asserts taken out of the files", "ast.parse", "Path.read_bytes", "source_to_code", "builtins.compile",
        "_rewrite_test", "exec_module", "helpers of unittest", "helpers of unittest, asserts too", "pytest.raises",
        "__build_class__", "_callTestMethod", "path hooks", "meta path",
    )},
    "nothing is run": NO_RUN,
    "a coin at import": BY_CHANCE["a coin at import"],
    "leaves": on_import("import os\nos._exit(0)"),
}  # fmt: skip


def test_the_corpus_is_large():
    assert len(FORGERIES) + len(ANY_RUNNER) * len(KINDS) >= 100
    assert len(ANY_RUNNER) >= 12


@pytest.mark.parametrize("kind", KINDS)
def test_gold_resolves_by_script_and_nothing_and_a_forgery_do_not(vault, kind):
    patches = {"gold": {"pkg/calc.py": GOLD}, "nothing": {"pkg/calc.py": FILES["pkg/calc.py"] + "\n"}, "no run": NO_RUN}
    scores = graded(vault, kind, patches)
    assert {name: score.value for name, score in scores.items()} == {"gold": 1.0, "nothing": 0.0, "no run": 0.0}, scores


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_row_accepts_a_forgery_by_script(vault, kind):
    assert accepted(graded(vault, kind, ANY_RUNNER)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ids of pytest", "ids of heirs", "cut ids"])
def test_no_row_accepts_a_forgery_by_our_runner(vault, kind):
    scores = graded(vault, kind, {"gold": {"pkg/calc.py": GOLD}, **ANY_RUNNER}, own=True)
    assert scores.pop("gold").value == 1.0
    assert accepted(scores) == []


@pytest.mark.slow
def test_no_forgery_of_the_corpus_is_accepted(vault):
    scores = {name: score for name, (score, _) in vault.grade_all(FORGERIES).items()}
    assert accepted(scores) == []
