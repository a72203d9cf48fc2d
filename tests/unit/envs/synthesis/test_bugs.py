"""Which bugs are kept: the clean tree's tests, the bugs that they see, and their rows."""

import asyncio
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from verigym.envs.datasets.swe import task_of
from verigym.envs.synthesis.baseline import Baseline, measure_baseline
from verigym.envs.synthesis.diffs import git_diff
from verigym.envs.synthesis.examine import Bug
from verigym.envs.synthesis.mutate import Candidate, candidates
from verigym.envs.synthesis.probing import Job, Probe
from verigym.envs.synthesis.rows import archives_of, make_row
from verigym.envs.synthesis.sources import Source
from verigym.errors import TaskError

from .conftest import MATHS_TESTS, examine, probe_of

TOTAL = ("tests/test_maths.py::test_total[numbers0-3]", "tests/test_maths.py::test_total[numbers1-0]")
LARGEST = "tests/test_maths.py::LargestTests::test_largest"
NOTHING = "tests/test_maths.py::LargestTests::test_nothing"


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Of a tree like each test's own: it names no folder."""
    source, probe = probe_of(tmp_path_factory.mktemp("clean"), {"tests/test_maths.py": MATHS_TESTS})
    return asyncio.run(measure_baseline(probe, source))


def test_the_clean_tree(baseline: Baseline, source: Source):
    assert baseline.passing == (*TOTAL, LARGEST, NOTHING)
    assert baseline.covering == {
        ("src/sums/maths.py", 4): TOTAL,
        ("src/sums/maths.py", 12): (LARGEST, NOTHING),
    }
    assert baseline.locations[TOTAL[0]] == ("tests/test_maths.py", 8)
    order = candidates(source, baseline, seed=1)
    assert {candidate.mutation.qualname for candidate in order} == {"total", "largest"}
    assert {candidate.mutation.qualname for candidate in order[:2]} == {"total", "largest"}
    assert order == candidates(source, baseline, seed=1)
    assert order != candidates(source, baseline, seed=2)


def test_bugs_that_tests_see(probe: Probe, source: Source, baseline: Baseline, tmp_path: Path):
    order = candidates(source, baseline, seed=0)
    order = [candidate for candidate in order if candidate.mutation.operator in ("arithmetic_operator", "comparison")]
    found = {
        (bug.seen.candidate.mutation.operator, bug.seen.candidate.mutation.replacement): bug
        for bug in asyncio.run(examine(probe, source, baseline, order))
        if isinstance(bug, Bug)
    }
    bug = found["arithmetic_operator", "-"]
    assert bug.seen.fail_to_pass == (TOTAL[0],)
    # The function goes with all its parameters.
    assert bug.pass_to_pass == (LARGEST, NOTHING)
    assert "test_total" not in bug.seen.hidden["tests/test_maths.py"]
    # "best is None" turned round compares a number with None, for one test only.
    assert found["comparison", "is not"].seen.fail_to_pass == (LARGEST,)

    row = asyncio.run(make_row(source, baseline, bug, out=tmp_path / "rows.jsonl"))
    again = asyncio.run(make_row(source, baseline, bug, out=tmp_path / "again.jsonl"))
    assert again == {**row, "archive": row["archive"].replace("rows.", "again.")}
    one, other = (archives_of(tmp_path / name) / f"{row['instance_id']}.tar.gz" for name in ("rows.x", "again.x"))
    assert one.read_bytes() == other.read_bytes()
    assert json.loads(row["FAIL_TO_PASS"]) == list(bug.seen.fail_to_pass)
    assert row["instance_id"].startswith("sums-1.0__arithmetic_operator-")
    assert task_of(row, folder=tmp_path).id == row["instance_id"]
    assert row["problem_statement"].count("assert total(numbers) == expected") == 1
    assert "with `numbers = [1, 2]`, `expected = 3`, the result was `-3`" in row["problem_statement"]
    check_repository(row, tmp_path, source)


def check_repository(row: dict, folder: Path, source: Source) -> None:
    """One commit with the bug and without its tests; the two patches give the clean tree."""
    tree = folder / "checkout"
    with tarfile.open(folder / row["archive"]) as archive:
        archive.extractall(tree, filter="data")
    git = ["git", "-C", str(tree)]
    log = subprocess.run([*git, "log", "--all", "--format=%H"], check=True, capture_output=True, text=True).stdout
    assert log.split() == [row["base_commit"]]
    assert "result -= number" in (tree / "src/sums/maths.py").read_text()
    everything = subprocess.run(["grep", "-r", "test_total", str(tree)], capture_output=True, check=False)
    assert everything.stdout == b""
    for patch in (row["patch"], row["test_patch"]):
        subprocess.run([*git, "apply", "-"], input=patch.encode(), check=True)
    for path in (*source.package_files, *source.test_files):
        assert (tree / path).read_bytes() == (source.root / path).read_bytes()


def test_a_hanging_run_a_dying_one_and_the_next(probe: Probe, source: Source):
    """Neither ends the others, and the files are as before."""
    maths = (source.root / "src/sums/maths.py").read_text()
    bugs = {
        "hangs": maths.replace("    result = start", "    while True: pass"),
        "dies": maths.replace("    result = start", "    __import__('os')._exit(0)"),
        "does not import": "import no_such_module",
        "eats": maths.replace("    result = start", "    result = bytearray(1 << 40)"),
        "clean": maths,
    }
    tests = tuple(source.test_files)
    jobs = [
        Job(key=key, collect=tests, files={"src/sums/maths.py": text}, deadline_s=4.0 if key == "hangs" else 120.0)
        for key, text in bugs.items()
    ]
    hangs, dies, missing, eats, clean = asyncio.run(probe.run(jobs))
    assert (hangs.ended, dies.ended) == ("deadline", "died")
    assert (missing.is_whole, missing.not_collected) == (False, tests)
    assert "MemoryError" in eats.failures[TOTAL[0]].message
    assert clean.is_whole
    assert clean.with_outcome("passed") == [*TOTAL, LARGEST, NOTHING]


def test_a_variant_of_the_same_size_and_second_is_not_taken_for_the_original(probe: Probe, source: Source):
    """Trap: a compiled file is found by time and size; a stale one would hide the bug."""
    asyncio.run(probe.warm(source.test_files))
    maths = (source.root / "src/sums/maths.py").read_text()
    variants = [maths.replace("result += number", f"result {sign}= number") for sign in "-*+"]
    jobs = [Job(key=text, collect=source.test_files, files={"src/sums/maths.py": text}) for text in variants]
    results = asyncio.run(probe.run([*jobs, Job(key="clean", collect=source.test_files)]))
    assert [result.outcomes[TOTAL[0]] for result in results] == ["failed", "failed", "passed", "passed"]


CASES = """\
import unittest
from sums.maths import total
BOUNDS = (1, 2)
class T(unittest.TestCase):
    sizes = [1, 2]
    def setUp(self):
        self.given = [4]
    def test_loop(self):
        for size in self.sizes:
            with self.subTest(size=size):
                self.assertEqual(total([size] * BOUNDS[1]), 3)
    def test_attribute(self):
        self.given.append(5)
        self.assertEqual(total(self.given), 0)
    def test_hangs(self):
        while True: pass
"""


def test_what_a_failing_test_saw_is_told_and_one_that_hangs_fails(probe: Probe, source: Source):
    job = Job(key="", collect=source.test_files, files={"tests/test_maths.py": CASES}, test_s=2.0)
    (result,) = asyncio.run(probe.run([job]))
    seen = {test.rpartition("::")[2]: failure.inputs for test, failure in result.failures.items()}
    assert seen["test_loop"].items() >= {"size": "1", "self.sizes": "[1, 2]", "BOUNDS": "(1, 2)"}.items()
    assert seen["test_attribute"] == {"self.given": "[4, 5]"}
    assert "takes too long" in result.failures["tests/test_maths.py::T::test_hangs"].message


def test_one_that_takes_too_long_fails_whatever_it_catches(probe: Probe, source: Source):
    text = "import time\ndef test_a():\n    try: time.sleep(5)\n    except TimeoutError: pass\ndef test_b(): pass\n"
    job = Job(key="", collect=source.test_files, files={"tests/test_maths.py": text}, test_s=0.2)
    (result,) = asyncio.run(probe.run([job]))
    assert result.outcomes == {"tests/test_maths.py::test_a": "failed", "tests/test_maths.py::test_b": "passed"}
    assert result.hung


def test_a_tree_whose_tests_do_not_pass(probe: Probe, source: Source):
    empty = {"tests/test_maths.py": "import no_such_module\n"}
    (result,) = asyncio.run(probe.run([Job(key="", collect=source.test_files, files=empty)]))
    assert not result.is_whole
    asyncio.run(probe._sandbox.write_file("/workspace/tests/test_maths.py", b"def test_a(): assert 0\n"))
    with pytest.raises(TaskError, match=r"0 of its 1 tests pass without any bug .*assert 0"):
        asyncio.run(measure_baseline(probe, source))
    asyncio.run(probe._sandbox.write_file("/workspace/tests/conftest.py", b"import no_such_module"))
    with pytest.raises(TaskError, match=r"No module named 'no_such_module'.* --with REQUIREMENT"):
        asyncio.run(measure_baseline(probe, source))
    asyncio.run(probe._sandbox.write_file("/workspace/tests/conftest.py", b"def pytest_ignore_collect(no): ..."))
    with pytest.raises(TaskError, match=r"PluginValidationError: .*'no'.* --with REQUIREMENT"):
        asyncio.run(measure_baseline(probe, source))


def test_git_diff_keeps_bytes():
    before, after = {"a b/ü.py": "one\r\ntwo\n"}, {"a b/ü.py": "one\r\n2\nthree"}
    patch = git_diff(before, after)
    assert "+++ b/a b/ü.py" in patch
    assert "-two\n+2\n+three\n\\ No newline" in patch
    assert git_diff(before, before) == ""


def test_a_run_ends_at_so_many_failing_tests_not_parts_of_them_and_at_the_first_that_hangs(
    probe: Probe, source: Source
):
    """Trap: pytest's maxfail counts subtests; a bug that breaks many tests was taken for one that breaks two."""
    loop = "        for k in range(9):\n            with self.subTest(k=k): self.assertEqual(k, 9)\n"
    loops = "".join(f"    def test_{n}(self):\n{loop}" for n in range(5))
    text = f"import unittest\nclass T(unittest.TestCase):\n{loops}    def test_hangs(self):\n        while True: pass\n"
    tests = (text, text.replace("test_hangs", "test_0_hangs"))
    jobs = [
        Job(key="", collect=source.test_files, files={"tests/test_maths.py": one}, max_failing=3, test_s=0.5)
        for one in tests
    ]
    many, hanging = asyncio.run(probe.run(jobs))
    assert [test.rpartition("_")[2] for test in many.with_outcome("failed")] == ["0", "1", "2"]
    assert not many.hung
    assert many.failures["tests/test_maths.py::T::test_0"].frames == (("tests/test_maths.py", 5),)
    assert [test.rpartition("test_")[2] for test in hanging.outcomes] == ["0", "0_hangs"]
    assert hanging.hung


def test_why_a_bug_is_not_used_is_said(probe: Probe, source: Source, baseline: Baseline):
    (first, *_) = [one for one in candidates(source, baseline, seed=0) if one.mutation.qualname == "total"]
    text = (source.root / first.path).read_text()

    def with_total(old: str, new: str) -> Candidate:
        start = len(text[: text.index(old)].encode())
        edit = {"start": start, "end": start + len(old.encode()), "replacement": new}
        return replace(first, mutation=replace(first.mutation, **edit))

    edits = ("result  +=  number", "result += 0 + number", "while True: pass", "result = bytearray(1 << 40)")
    chunk = [with_total("result += number", new) for new in edits]
    assert asyncio.run(examine(probe, source, baseline, chunk)) == [
        "it changes nothing",
        "no test fails",
        "a test hangs",
        "memory is exhausted",
    ]
