"""Long suites: a share that stands for them is drawn, measured, and said."""

import asyncio
import json
from pathlib import Path

import pytest

from verigym.envs.synthesis.baseline import Baseline, measure_baseline
from verigym.envs.synthesis.examine import Bug
from verigym.envs.synthesis.mutate import candidates
from verigym.envs.synthesis.probe_sample import FIRST_ROUND, rounds, spread
from verigym.envs.synthesis.probing import Job
from verigym.envs.synthesis.rows import make_row
from verigym.envs.synthesis.share import MOST_FILES, Share, beside, drawn_files, near_files
from verigym.errors import TaskError

from .conftest import examine, probe_of

LONG_TESTS = """\
import time
import pytest
from sums.maths import largest, total


@pytest.mark.parametrize("n", range(240))
def test_times(n):
    assert 2 * n == n + n


@pytest.mark.parametrize("n", range(5))
def test_total(n):
    assert total([n, 1]) == n + 1


@pytest.mark.parametrize("n", range(5))
def test_largest(n):
    assert largest([n, -1]) == n


def test_both():
    assert largest([total([1, 2]), 1]) == 3


def test_slow():
    time.sleep(30)
"""


def test_a_beginning_is_spread_over_functions():
    tests = [f"a.py::test_{k}[{n}]" for k in range(5) for n in range(40)] + ["b.py::test_lone"]
    order = spread(tests, "word")
    assert sorted(order) == sorted(tests)
    assert {test.partition("[")[0] for test in order[:6]} == {test.partition("[")[0] for test in tests}
    assert order == spread(tests, "word") != spread(tests, "other")
    cut = rounds(tests, "word")
    assert [len(one) for one in cut] == [FIRST_ROUND, 2 * FIRST_ROUND, len(tests) - 3 * FIRST_ROUND]
    for one in cut:
        assert [test for test in tests if test in set(one)] == one


def test_files_are_drawn_of_a_huge_suite_alone():
    counts = {"huge.py": 9000, **{f"t{n}.py": 50 for n in range(40)}}
    assert drawn_files(counts, 0, most=20_000) == tuple(counts)
    drawn = drawn_files(counts, 0, drawn=1000)
    assert len(drawn) == 20
    assert "huge.py" not in drawn
    assert list(drawn) == [path for path in counts if path in set(drawn)]
    assert drawn == drawn_files(counts, 0, drawn=1000) != drawn_files(counts, 1, drawn=1000)
    assert drawn_files({"huge.py": 9000}, 0) == ("huge.py",)


def test_what_passes_beside_a_bug_is_near_it_and_bounded():
    passing = [f"t{k}.py::test_{n}" for k in range(10) for n in range(60)]
    reaching = [test for test in passing if test.startswith(("t3", "t4"))]
    files = near_files(["t5.py::test_a"], reaching)
    assert files == ("t5.py", "t3.py", "t4.py")
    assert len(near_files(["t5.py::test_a"], passing)) == MOST_FILES
    inside = [test for test in passing if test.partition("::")[0] in files]
    kept = beside(inside, reaching, "word")
    assert set(reaching) <= set(kept) <= set(inside)
    assert kept == tuple(test for test in passing if test in set(kept))
    assert len(beside(passing, [], "word")) == 100


def test_a_long_suite_is_measured_by_a_share_and_its_rows_say_so(tmp_path: Path):
    source, probe = probe_of(tmp_path, {"tests/test_long.py": LONG_TESTS})
    baseline = asyncio.run(measure_baseline(probe, source, suite_s=1.0, seed=5))
    share = baseline.share
    assert share is not None
    assert (share.collected, share.files, share.chosen_files) == (252, 1, 1)
    assert share.chosen == len(baseline.passing) <= 251
    assert "tests/test_long.py::test_slow" not in baseline.passing
    assert Baseline.from_json(json.loads(json.dumps(baseline.to_json()))) == baseline
    order = candidates(source, baseline, seed=0)[:8]
    bugs = [bug for bug in asyncio.run(examine(probe, source, baseline, order)) if isinstance(bug, Bug)]
    assert bugs
    for bug in bugs:
        assert set(bug.pass_to_pass) <= set(baseline.passing)
        assert len(bug.pass_to_pass) <= 300
    row = asyncio.run(make_row(source, baseline, bugs[0], out=tmp_path / "rows.jsonl"))
    assert Share(**row["test_share"]) == share


def test_a_short_suite_is_whole(tmp_path: Path):
    whole = LONG_TESTS.replace("time.sleep(30)", "pass")
    source, probe = probe_of(tmp_path, {"tests/test_long.py": whole})
    baseline = asyncio.run(measure_baseline(probe, source, suite_s=1000.0))
    assert baseline.share is None
    assert len(baseline.passing) == 252


def test_a_file_that_is_not_imported_in_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waits = "import time\nwhile True:\n    try: time.sleep(60)\n    except ValueError: pass\n"
    source, probe = probe_of(tmp_path, {"tests/test_waits.py": waits, "tests/test_a.py": "def test_a(): pass\n"})
    job = Job(key="", collect=source.test_files, mode="warm", collect_s=3.0)
    (result,) = asyncio.run(probe.run([job]))
    assert result.not_collected == ("tests/test_waits.py",)
    assert result.collected == {"tests/test_a.py": 1}
    monkeypatch.setattr("verigym.envs.synthesis.baseline.COLLECT_S", 2.0)
    (tmp_path / "box/tests/test_a.py").write_text(waits)
    with pytest.raises(TaskError, match=r"2 of 2 files of tests cannot be imported \(.*takes too long"):
        asyncio.run(measure_baseline(probe, source))
