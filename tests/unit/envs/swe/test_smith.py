"""SWE-smith's rows: each repository's profile, and what its command's log says."""

import os
import re
import subprocess
import sys

import pytest

from verigym.envs.datasets.swe import parse_row
from verigym.errors import TaskError
from verigym.rewards.logs.judge import judge_log, read_log
from verigym.rewards.logs.parsers import (
    SMITH_PARSER,
    SMITH_SUMMARY_PARSER,
    SMITH_UNITTEST_PARSER,
    SMITH_WORKERS_PARSER,
)
from verigym.rewards.patches import patch_of_texts

BUG = patch_of_texts({"pkg/a.py": ("x = 1\n", "x = 2\n")})
WHOLE = "pytest --disable-warnings --color=no --tb=no --verbose"


def smith(repo, **fields):
    owner, _, name = repo.partition("__")
    return parse_row(
        {
            "instance_id": f"{repo}.0123abcd.func_basic__x1",
            "image_name": f"swebench/swesmith.x86_64.{owner}_1776_{name}.0123abcd".lower(),
            "patch": BUG,
            "FAIL_TO_PASS": ["tests/test a.py::TestK::test_a"],
            "PASS_TO_PASS": ["tests/test_b.py::test_b", "tests/test a.py::test_c"],
            **fields,
        }
    )


def command_of(row):
    return row.eval_script.partition("Start Test Output'\n")[2].partition("\nSWEBENCH_TEST_EXIT_CODE")[0]


@pytest.mark.parametrize(
    ("repo", "command", "parser"),
    [
        ("mewwts__addict", WHOLE, SMITH_PARSER),
        ("HIPS__autograd", WHOLE, SMITH_WORKERS_PARSER),
        ("tkrajina__gpxpy", "pytest test.py --verbose --color=no --tb=no --disable-warnings", SMITH_PARSER),
        ("mido__mido", f"{WHOLE} -rs -c /dev/null", SMITH_PARSER),
        ("paramiko__paramiko", "pytest -rA --color=no --disable-warnings", SMITH_SUMMARY_PARSER),
        ("un33k__python-slugify", "python test.py --verbose", SMITH_UNITTEST_PARSER),
        ("tornadoweb__tornado", "python -m tornado.test --verbose", SMITH_UNITTEST_PARSER),
        ("pydantic__pydantic", f"/root/.local/bin/uv run {WHOLE}", SMITH_PARSER),
        ("pandas-dev__pandas", f"{WHOLE} 'tests/test a.py' tests/test_b.py", SMITH_PARSER),
        ("Project-MONAI__MONAI", f"{WHOLE} 'tests/test a.py' tests/test_b.py", SMITH_PARSER),
    ],
)
def test_a_repositorys_profile_says_what_runs(repo, command, parser):
    assert (command_of(smith(repo)), smith(repo).parser) == (command, parser)
    by_image = smith(repo, instance_id="x")
    assert (command_of(by_image), by_image.parser) == (command, parser)


def test_the_failing_tests_files_are_hidden_and_the_bug_is_undone():
    row = smith("mewwts__addict")
    assert row.hidden_files == ("tests/test a.py",)
    assert row.patch == patch_of_texts({"pkg/a.py": ("x = 2\n", "x = 1\n")})
    unittest = smith("tornadoweb__tornado", FAIL_TO_PASS=["test_x (tornado.test.web_test.T)"])
    assert unittest.hidden_files == ("tornado/test/web_test.py",)
    assert smith("mido__mido", FAIL_TO_PASS=["../dev/tests/test_a.py::test_a"]).hidden_files == ("tests/test_a.py",)


def test_a_bug_without_lines_of_gits_own_is_undone_in_every_file():
    texts = {"a.py": ("-- a\n", "++ b\n"), "b.py": ("x\n", "y\n")}
    bug = "".join(line for line in patch_of_texts(texts).splitlines(keepends=True) if not line.startswith("diff "))
    undone = "".join(
        line
        for line in patch_of_texts({name: (after, before) for name, (before, after) in texts.items()}).splitlines(True)
        if not line.startswith("diff ")
    )
    assert smith("mewwts__addict", patch=bug).patch == undone
    with pytest.raises(TaskError, match=r"x1: the bug in 'patch' cannot be undone: a binary change"):
        smith("mewwts__addict", patch="diff --git a/x b/x\nGIT binary patch\nliteral 0\n")


def test_rows_of_other_languages_have_no_script():
    row = smith("gin-gonic__gin", FAIL_TO_PASS=["TestContext"], PASS_TO_PASS=[])
    assert (row.eval_script, row.start_patch) == ("", BUG)


TESTS = """
import pytest

@pytest.mark.parametrize("x", ["a", "b c", "d::e", "FAILED"])
def test_x(x): pass
def test_bad(): print("test_x PASSED"); assert 0
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture
def broken(): raise ValueError
def test_setup(broken): pass
class TestK:
    def test_a(self): pass
"""


def log_of(folder, command):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=env,
    )
    start, end = "+ : '>>>>> Start Test Output'", "+ : '>>>>> End Test Output'"
    return f"{start}\n{done.stdout}\n+ SWEBENCH_TEST_EXIT_CODE={done.returncode}\n{end}\n"


def reference(log):
    """SWE-smith's own reading of a log."""
    found = {}
    for line in log.split("\n"):
        for status in ("FAILED", "PASSED", "SKIPPED", "ERROR", "XFAIL"):
            if match := re.match(rf"^(\S+)(\s+){status}", line):
                found[match[1]] = status.lower()
    return {**found, **{test: "xfailed" for test, status in found.items() if status == "xfail"}}


def test_what_pytest_prints_under_the_profiles_command_is_read_as_swe_smith_reads_it(tmp_path):
    for name in ("test_a.py", "tests/test_b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(TESTS)
    log = log_of(tmp_path, WHOLE)
    report = read_log(log, SMITH_PARSER)
    assert report.complete, report.detail
    assert report.statuses == reference(log)
    assert report.statuses["test_a.py::TestK::test_a"] == "passed"
    assert report.statuses["tests/test_b.py::test_bad"] == "failed"
    asked = {"parser": SMITH_PARSER, "fail_to_pass": ["test_a.py::TestK::test_a"]}
    assert judge_log(log, **asked, pass_to_pass=["tests/test_b.py::test_x[a]"]).score.passed
    assert not judge_log(log, **asked, pass_to_pass=["tests/test_b.py::test_setup"]).score.passed
    lines = log.split("\n")
    for n, line in enumerate(lines):
        without = "\n".join(lines[:n] + lines[n + 1 :])
        assert not judge_log(without, **asked, pass_to_pass=["test_a.py::test_bad"]).score.passed, line
    whole = read_log(log_of(tmp_path, "pytest -rA --color=no --disable-warnings"), SMITH_SUMMARY_PARSER)
    assert whole.complete, whole.detail
    assert whole.statuses["tests/test_b.py::test_x[a]"] == "passed"


@pytest.mark.parametrize(
    ("parser", "text", "statuses"),
    [
        (
            SMITH_WORKERS_PARSER,
            "[gw0] PASSED t.py::a\n[gw11] [ 50%] FAILED t.py::b\nFAILED t.py::b - x\n1 failed, 1 passed in 1.0s\n",
            {"t.py::a": "passed", "t.py::b": "failed"},
        ),
        (
            SMITH_UNITTEST_PARSER,
            "test_a (t.T) ... ok\ntest_b (t.T) ... FAIL\ntest_c (t.T) ... skipped 'no'\nFAIL: test_b (t.T)\n"
            "Ran 3 tests in 0.1s\n\nFAILED (failures=1, skipped=1)\n",
            {"test_a (t.T)": "passed", "test_b (t.T)": "failed", "test_c (t.T)": "skipped"},
        ),
    ],
)
def test_logs_of_other_profiles(parser, text, statuses):
    report = read_log(f">>>>> Start Test Output\n{text}>>>>> End Test Output\n", parser)
    assert (report.statuses, report.complete) == (statuses, True), report.detail
