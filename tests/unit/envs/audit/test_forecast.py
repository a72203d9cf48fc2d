"""How long an audit takes: rows of known length on a clock of the test's, and one whose tests sleep."""

import asyncio
import heapq
import time

import pytest

from verigym.envs.audit.certificate import digest_of
from verigym.envs.audit.forecast import Forecast, row_seconds, told_range, told_seconds
from verigym.envs.audit.ledger import Ledger
from verigym.envs.audit.many import forecast_rows
from verigym.envs.audit.measure import Effort
from verigym.envs.audit.text.static import audit_text
from verigym.envs.datasets.swe import pack_repository
from verigym.envs.datasets.swe_examples import unified
from verigym.envs.sandbox.choose import make_backend
from verigym.errors import SandboxError

EFFORT = Effort()


def played(forecast, lengths):
    """(seconds of the whole, what was said to be left at each row's end) of rows of known length."""
    queue, ends, said = list(range(len(lengths))), [], []
    now = 0.0
    while queue or ends:
        while queue and len(ends) < forecast.workers:
            number = queue.pop(0)
            forecast.began(number, now)
            heapq.heappush(ends, (now + lengths[number], number))
        now, number = heapq.heappop(ends)
        forecast.ended(number, now)
        said.append((now, forecast.left_s(now)))
    return now, said


@pytest.mark.parametrize("suite_s", [0.5, 4.0, 30.0, 300.0])
def test_a_row_takes_as_many_seconds_as_its_suite_times_its_runs_within_its_own_limit(suite_s):
    assert row_seconds(suite_s, EFFORT) <= 900
    assert row_seconds(suite_s, EFFORT) >= min(900, 12 * suite_s)
    assert row_seconds(2 * suite_s, Effort(row_minutes=1e6)) > row_seconds(suite_s, Effort(row_minutes=1e6))
    assert row_seconds(suite_s, Effort(mutants=40, row_minutes=1e6)) > row_seconds(suite_s, Effort(row_minutes=1e6))


def test_what_is_told_before_is_what_rows_of_known_length_take():
    suites = [0.5, 8.0, 2.0, 1.0] * 6
    names = [f"repository of {seconds}" for seconds in suites]
    forecast = Forecast(names=names, effort=EFFORT, workers=2)
    assert forecast.sample(8) == [0, 1, 2, 3]  # one of each repository
    forecast.suites.update({number: suites[number] for number in forecast.sample(8)})
    assert forecast.sample(8) == []
    told = forecast.total_s()
    took, _ = played(forecast, [row_seconds(seconds, EFFORT) for seconds in suites])
    assert told == pytest.approx(took, rel=0.1)
    few = Forecast(names=names, effort=EFFORT, workers=2)
    assert told > 2 * few.total_s()  # nothing was timed: short suites are taken for granted


@pytest.mark.parametrize("slower", [0.4, 1.0, 3.0])
def test_what_is_left_follows_the_rows_that_are_done(slower):
    forecast = Forecast(names=["one"] * 30, effort=EFFORT, workers=3, suites={0: 1.0})
    took, said = played(forecast, [slower * row_seconds(1.0, EFFORT)] * 30)
    now, left = said[14]
    assert now + left == pytest.approx(took, rel=0.2)
    assert said[-1][1] == 0.0


def test_a_row_that_overruns_is_never_said_to_be_done():
    forecast = Forecast(names=["one"], effort=EFFORT, workers=4, suites={0: 1.0})
    forecast.began(0, 0.0)
    assert forecast.left_s(0.0) == forecast.total_s()
    assert forecast.left_s(800.0) > 0


def test_words():
    assert [told_seconds(seconds) for seconds in (50, 700, 12_600)] == ["50 seconds", "12 minutes", "3.5 hours"]
    assert (told_range([0.61, 0.59]), told_range([3.0, 0.6])) == ("0.6 s", "0.6 to 3.0 s")


def test_suites_are_timed_before_and_taken_from_certificates(tmp_path):
    """The first row's tests sleep; of the second a certificate says how long they took; the third's cannot run."""
    try:
        backend = make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no local sandbox: {error}")
    base, gold = "def one():\n    return 2\n", "def one():\n    return 1\n"
    test = "import time\nfrom ones import one\n\n\ndef test_one():\n    time.sleep(1.5)\n    assert one() == 1\n"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "ones.py").write_text(base)
    commit = pack_repository(tmp_path / "tree", tmp_path / "one.tar.gz")
    row = {
        "instance_id": "sleeps", "repo": "me/one", "base_commit": commit, "archive": "one.tar.gz",
        "problem_statement": "one should be 1", "patch": unified("ones.py", base, gold),
        "test_patch": unified("test_ones.py", "", test), "FAIL_TO_PASS": ["test_ones.py::test_one"],
    }  # fmt: skip
    rows = [row, {**row, "instance_id": "known", "repo": "a"}, {**row, "instance_id": "not there", "archive": "no"}]
    rows[2]["repo"] = "b"
    ledger = Ledger(tmp_path / "a.jsonl", resume=False, key=b"")
    known = audit_text(rows[1])
    ledger.add(known)
    text = (tmp_path / "a.jsonl").read_text().replace('"measured": {}', '"measured": {"seconds": {"suite": 40.0}}')
    (tmp_path / "a.jsonl").write_text(text.replace('"problem": ""', '"problem": "cut after 1 minutes"'))
    ledger = Ledger(tmp_path / "a.jsonl", resume=True, key=b"")
    assert ledger.suite_s(digest_of(rows[1])) == 40.0
    began = time.monotonic()
    forecast = asyncio.run(
        forecast_rows(
            rows, [audit_text(one) for one in rows], folder=tmp_path, backend=backend, effort=EFFORT, workers=2,
            ledger=ledger,
        )
    )  # fmt: skip
    assert set(forecast.suites) == {0, 1}
    assert 1.5 <= forecast.suites[0] <= time.monotonic() - began
    assert forecast.total_s() >= (row_seconds(1.5, EFFORT) + row_seconds(40.0, EFFORT)) / 2
