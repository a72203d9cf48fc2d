"""Rows with a fault that was planted, and one without, measured in sandboxes."""

import asyncio
import json

import pytest

from verigym.envs.audit.bench import Manner, only_tests, open_bench
from verigym.envs.audit.further_tests.strengthen import strengthen
from verigym.envs.audit.measure import Effort, measure, unknown
from verigym.envs.audit.text.static import audit_text
from verigym.envs.datasets.eval_scripts import eval_script_of
from verigym.envs.datasets.swe import pack_repository, row_of, task_of
from verigym.envs.datasets.swe_examples import unified
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.swe.checkout import environment_of
from verigym.envs.swe.grading import grade_patch
from verigym.errors import SandboxError

BASE = """\
def fee(days, members=False):
    if days > 30:
        return 5 * (days - 30)
    return 0
"""
GOLD = """\
def fee(days, members=False):
    if days < 0:
        raise ValueError(f"days cannot be negative: {days}")
    if days >= 30:
        rate = rate_of(members)
        return rate * (days - 29)
    return 0


def rate_of(members):
    return 2 if members else 5
"""
STATEMENT = (
    "fee charges from the 31st day on, and members as everybody\nThe 30th day should cost a fee already, 5 a day, of "
    "members 2. Negative days should raise a ValueError."
)
VISIBLE = "from fees import fee\n\n\ndef test_none():\n    assert fee(0) == 0\n    assert fee(29) == 0\n"
STRICT = """

def test_fee():
    assert [fee(days) for days in (28, 29, 30, 31, 45)] == [0, 0, 5, 10, 80]
    assert [fee(days, True) for days in (29, 30, 45)] == [0, 2, 32]
    for days in (-1, -30):
        with pytest.raises(ValueError):
            fee(days)
"""
TESTS = {
    "sound": "import pytest\n" + VISIBLE + STRICT,
    "weak": VISIBLE + "\n\ndef test_fee():\n    assert fee(30) > 0\n",
    "cases": VISIBLE + "\n\nDAYS, FEES = (30, 28, 29, 31, 45), (True,)\n\n\ndef test_fee():\n"
    "    for days, wanted in zip(DAYS, FEES):\n        assert bool(fee(days)) == wanted\n",
    "narrow": "import pytest\n" + VISIBLE + STRICT + "\n\ndef test_rates():\n    import fees\n\n"
    "    assert fees.rate_of(True) == 2\n",
    "wording": "import pytest\n" + VISIBLE + STRICT.replace("(ValueError)", '(ValueError, match="days cannot be neg")'),
    "flaky": "import datetime\nimport pytest\n" + VISIBLE + STRICT + "\n\ndef test_year():\n"
    "    assert datetime.date.today().toordinal() - {today} < 40\n    assert fee(30) == 5\n",
    "chance": "import pathlib\nimport pytest\n" + VISIBLE + STRICT + "\n\ndef test_chance():\n    assert fee(30) == 5\n"
    "    seen = pathlib.Path('seen')\n    number = len(seen.read_text()) if seen.exists() else 0\n"
    "    seen.write_text('x' * (number + 1))\n    assert number % 3\n",
    "unrelated": "import pytest\n"
    + VISIBLE
    + STRICT
    + "\n\ndef test_weather():\n    assert sorted([2, 1]) == [1, 2]\n",
}
WANTED = {"cases": "weak", "wording": "narrow", "chance": "flaky"}


@pytest.fixture(scope="module")
def backend():
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no local sandbox: {error}")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A row of each kind, and the file that they are in."""
    import datetime

    folder = tmp_path_factory.mktemp("rows")
    found = []
    for kind, tests in TESTS.items():
        tests = tests.replace("{today}", str(datetime.date.today().toordinal()))
        tree = folder / kind
        tree.mkdir()
        (tree / "fees.py").write_text(BASE)
        (tree / "test_fees.py").write_text(VISIBLE)
        commit = pack_repository(tree, folder / "a.archives" / f"{kind}.tar.gz")
        names = [line[4:].partition("(")[0] for line in tests.splitlines() if line.startswith("def test_")]
        failing = [f"test_fees.py::{name}" for name in names if name != "test_none"]
        found.append(
            {
                "instance_id": kind,
                "repo": "me/fees",
                "base_commit": commit,
                "problem_statement": STATEMENT,
                "patch": unified("fees.py", BASE, GOLD),
                "test_patch": unified("test_fees.py", VISIBLE, tests),
                "FAIL_TO_PASS": failing,
                "PASS_TO_PASS": ["test_fees.py::test_none"],
                "archive": f"a.archives/{kind}.tar.gz",
            }
        )
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path, found


@pytest.mark.parametrize(
    "kind", [kind if kind in ("cases", "narrow") else pytest.param(kind, marks=pytest.mark.slow) for kind in TESTS]
)
def test_the_fault_that_was_planted_is_found_and_no_other(rows, backend, kind):
    path, found = rows
    raw = next(row for row in found if row["instance_id"] == kind)
    task = task_of(raw, folder=path.parent)
    certificate = asyncio.run(measure(backend, row_of(task), audit_text(raw), Effort(mutants=20, notes=40)))
    assert certificate.problem == ""
    assert certificate.kind == WANTED.get(kind, kind), certificate.findings
    if kind in ("weak", "cases", "narrow", "flaky"):
        assert next(one for one in certificate.findings if one.kind == WANTED.get(kind, kind)).shown
    assert certificate.measured["leaks"]["found"] == 0


def test_a_row_is_left_after_its_minutes_and_not_called_sound(rows, backend):
    path, found = rows
    raw = next(row for row in found if row["instance_id"] == "sound")
    effort = Effort(row_minutes=0.0001)
    certificate = asyncio.run(measure(backend, row_of(task_of(raw, folder=path.parent)), audit_text(raw), effort))
    assert certificate.problem.startswith("cut after 0.0001 minutes; give --row-minutes more")
    assert certificate.kind != "sound"


SUITE = """\
import unittest

import fees


class Fees(unittest.TestCase):
    def test_fee(self):
        \"\"\"A fee from the 30th day on.\"\"\"
        self.assertGreater(fees.fee(30), 0)

    def test_none(self):
        self.assertTrue(unittest.prepared)
"""
RUNTESTS = """\
import sys
import unittest

if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromNames(sys.argv[1:])
    unittest.prepared = True
    unittest.TextTestRunner(verbosity=2).run(suite)
"""
SCRIPTED = {
    "sympy": {
        "command": "bin/test -C --verbose test_fees.py",
        "tests": TESTS["weak"],
        "names": ("test_fee", "test_none"),
        "ids": ("test_fees.py::test_fee", "test_fees.py::test_none"),
    },
    "django": {
        "command": "./runtests.py suite_of_fees",
        "tests": SUITE,
        "names": ("A fee from the 30th day on.", "test_none (suite_of_fees.Fees.test_none)"),
        "ids": ("suite_of_fees.py::Fees::test_fee", "suite_of_fees.py::Fees::test_none"),
    },
}


@pytest.mark.parametrize("runner", SCRIPTED)
def test_tests_that_a_script_names_otherwise_run_under_pytest_where_it_knows_them(tmp_path, backend, runner):
    about = SCRIPTED[runner]
    (fee, none), path = about["ids"], about["ids"][0].partition("::")[0]
    for name, text in {"fees.py": BASE, "runtests.py": RUNTESTS, "test_fees.py": VISIBLE}.items():
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    before = VISIBLE if path == "test_fees.py" else ""
    raw = {
        "instance_id": "one",
        "base_commit": pack_repository(tmp_path / "tree", tmp_path / "one.tar.gz"),
        "archive": "one.tar.gz",
        "problem_statement": STATEMENT,
        "patch": unified("fees.py", BASE, GOLD),
        "test_patch": unified(path, before, about["tests"]),
        "FAIL_TO_PASS": about["names"][:1],
        "PASS_TO_PASS": about["names"][1:],
        "log_parser": f"parse_log_{runner}",
    }
    python = asyncio.run(environment_of(row_of(task_of(raw, folder=tmp_path)))).python
    raw["eval_script"] = eval_script_of(
        root="/workspace",
        test_cmd=about["command"],
        before=f"export PATH={python.rpartition('/')[0]}:$PATH",
        test_patch=raw["test_patch"],
        conda=False,
    )
    row = row_of(task_of(raw, folder=tmp_path))

    async def bench():
        async with open_bench(backend, row) as made:
            (gold,) = await made.run([{}], Manner(whole=True, trace=True, order="reversed"))
            (base, same) = await made.run([made.base, {}], first=made.row.FAIL_TO_PASS)
            return made, gold, base, same

    made, gold, base, same = asyncio.run(bench())
    assert made.can_vary_runs
    assert made.row.tests == about["ids"]
    assert gold.resolved
    assert ("fees.py", 1) in gold.traced.covered[fee]
    assert same.resolved
    assert set(same.statuses) == set(made.row.tests)
    assert not base.resolved
    assert set(base.statuses) == {fee}  # the other test is not come to
    assert none in gold.statuses


def test_a_script_that_runs_again_and_again_shows_no_state_and_resets_nothing():
    whole = eval_script_of(root="/testbed", test_cmd="bin/test a.py", before="git status", test_patch="", conda=False)
    told = only_tests(f"git show\ngit -c core.fileMode=false diff 0123\ngit diff > kept\n{whole}\ngit checkout a.py\n")
    lines = told.splitlines()
    assert "bin/test a.py" in lines
    assert [line.split()[1] for line in lines if line.startswith("git ")] == ["diff", "config"]


def test_a_row_is_sound_only_where_wrong_solutions_were_tried_and_can_be_told_apart():
    assert "no wrong solution could be made" in unknown({"tried": 0, "resolved": 0}, can_vary_runs=True)
    assert unknown({"tried": 4, "resolved": 3}, can_vary_runs=True) == ""
    assert unknown({"tried": 4, "resolved": 0}, can_vary_runs=False) == ""
    assert unknown({"tried": 4, "resolved": 3}, can_vary_runs=False).startswith("3 other solutions resolve")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("def test_fee():", "def (test_fee:"), "test_fees.py is no valid Python with the test patch"),
        (("assert fee(30) > 0", "assert fee(29) == 0"), "the tests pass without the reference"),
    ],
)
def test_a_row_that_is_no_task_says_why_in_one_sentence(rows, backend, change, told):
    path, found = rows
    raw = dict(next(row for row in found if row["instance_id"] == "weak"))
    raw["test_patch"] = raw["test_patch"].replace(*change)
    certificate = asyncio.run(measure(backend, row_of(task_of(raw, folder=path.parent)), audit_text(raw)))
    assert certificate.kind == "broken"
    assert told in certificate.reason


@pytest.mark.slow
def test_a_weak_task_gets_tests_that_wrong_solutions_fail_and_right_ones_pass(rows, backend):
    path, found = rows
    raw = next(row for row in found if row["instance_id"] == "weak")
    row = row_of(task_of(raw, folder=path.parent))
    stronger = asyncio.run(strengthen(backend, row, Effort(mutants=14, notes=20), held_out=("extracted",)))
    assert stronger.num_killed >= 0.7 * stronger.num_alive > 0
    second = stronger.row(raw, row)
    task = task_of(second, folder=path.parent)

    def grade(text):
        score, _ = asyncio.run(grade_patch(backend, task, unified("fees.py", BASE, text)))
        return score.passed

    assert grade(GOLD)
    assert not grade(GOLD.replace("days - 29", "days - 28"))
    helper = "def fee(days, members=False):\n    return _fee(days, members)\n\n\n"
    assert grade(helper + GOLD.replace("def fee(days, members=False)", "def _fee(days, members)"))
