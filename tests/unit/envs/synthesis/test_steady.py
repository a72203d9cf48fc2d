"""Tests of a library that pass now and not always are no tests of its tasks, and stop nothing."""

import asyncio
import logging

import pytest

from verigym.envs.synthesis.baseline import measure_baseline
from verigym.envs.synthesis.steady import ELSEWHERE, steady_tests
from verigym.errors import TaskError

from .conftest import probe_of

UNSTEADY = """
import datetime, os, time
import pytest

SEEN = []


def test_steady():
    SEEN.append(1)


def test_two(): pass


def test_three(): pass


def test_four(): pass


def test_five(): pass


def test_hour():
    now = datetime.datetime.now()
    assert now.hour < 23 or now.minute < 50


def test_year():
    assert time.localtime().tm_mon != 2 or time.localtime().tm_mday != 29


def test_zone():
    assert time.strftime("%z") != "+1330"


def test_order():
    assert SEEN


@pytest.mark.parametrize("word", [str(hash("a"))])
def test_ids(word): pass
"""
STEADY = [f"tests/test_all.py::test_{name}" for name in ("steady", "two", "three", "four", "five")]


def test_what_goes_by_hour_year_zone_order_or_hash_seed_is_left_out_and_told(tmp_path, caplog):
    source, probe = probe_of(tmp_path, {"tests/test_all.py": UNSTEADY})
    baseline = asyncio.run(measure_baseline(probe, source))
    assert list(baseline.passing) == STEADY
    assert "5 of 10 tests are left out, as they do not always pass (" in caplog.text


def test_a_library_of_which_hardly_any_test_is_steady_is_refused_with_the_reason(tmp_path):
    body = "    now = datetime.datetime.now()\n    assert now.hour < 23 or now.minute < 50\n"
    text = f"import datetime\n\ndef test_a(): pass\n\ndef test_hour():\n{body}"
    source, probe = probe_of(tmp_path, {"tests/test_all.py": text})
    with pytest.raises(TaskError, match=r"1 of its 2 tests pass at any time"):
        asyncio.run(measure_baseline(probe, source))


def test_a_manner_in_which_most_fail_is_not_held_against_them(tmp_path, caplog):
    text = 'import time\nZONE = time.strftime("%z")\n\n' + "".join(
        f'def test_{n}():\n    assert ZONE != "+1330"\n\n' for n in range(4)
    )
    source, probe = probe_of(tmp_path, {"tests/test_all.py": text})
    passing = [f"tests/test_all.py::test_{n}" for n in range(4)]
    with caplog.at_level(logging.WARNING):
        found = asyncio.run(steady_tests(probe, passing, name=source.name, suite_s=0.1, bounds={}))
    assert found == passing
    assert "4 of 4 tests fail with another order, hash seed and time zone; that is not held against" in caplog.text
    assert ELSEWHERE["TZ"] == "VRG-13:30"
